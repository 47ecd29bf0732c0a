"""Learns the facts that routing decides by: brokers, topics, manifests, log starts.

It asks with the service account, on connections of its own, and writes what it hears into the `Catalog` and the
`Addresses`. Facts in use are kept young; facts that somebody must have *now* are learned by a flight that starts after
the question (`broker_now`, `manifest_now`), because only such a fact may let an out-of-range error pass.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from protocol.endpoints import Endpoint
from protocol.errors import ErrorCode, error_name
from tierproxy.addresses import Addresses
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.catalog import ArchivedTopic, Catalog, Tier
from tierproxy.clock import Clock
from tierproxy.config import TopicPolicy
from tierproxy.errors import TierproxyError
from tierproxy.flights import Flights
from tierproxy.tasks import Tasks
from tierproxy.telemetry import OncePerChange
from tierproxy.upstream import (
    EARLIEST,
    LATEST,
    MAX_TIMESTAMP,
    NOBODY,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    Cluster,
    ClusterView,
    ListedOffset,
    TopicPartition,
)

log = logging.getLogger("tierproxy.scout")

TOPICS_EVERY = 5.0
TOPICS_AT_MOST_EVERY = 1.0
BROKER_FACTS_EVERY = 1.0
MANIFESTS_EVERY_MS = 10_000
MANIFEST_TRUST_MS = 60_000
RETRY_AFTER = 1.0


class Scout:
    """Keeps `catalog` and `addresses` true.

    `open_ports` is given node ids that have none yet, `report` whether the cluster answers, and if not, why.
    """

    def __init__(
        self,
        cluster: Cluster,
        libraries: Mapping[str, Library],
        policy_for: Callable[[str, bool], TopicPolicy | None],
        catalog: Catalog,
        addresses: Addresses,
        open_ports: Callable[[list[int]], Awaitable[None]],
        clock: Clock,
        tasks: Tasks,
        report: Callable[[bool, str], None] = lambda ok, why: None,
    ) -> None:
        self._cluster = cluster
        self._libraries = libraries
        self._policy_for = policy_for
        self._catalog = catalog
        self._addresses = addresses
        self._open_ports = open_ports
        self._report = report
        self._clock = clock
        self._tasks = tasks
        self._brokers: Flights[PartitionId, tuple[int, int]] = Flights(tasks, "broker facts of")
        self._manifests: Flights[PartitionId, Manifest | None] = Flights(tasks, "manifest of")
        self._identities: Flights[tuple[bytes, int | PartitionId], tuple[bool, int, PartitionId]] = Flights(
            tasks, "identity of"
        )
        self._topics: Flights[str, None] = Flights(tasks, "metadata of")
        self._topics_at = -TOPICS_EVERY
        self._claimed: set[str] = set()  # archives that are recorded as this cluster's
        self._unarchived: set[PartitionId] = set()  # those without a manifest that have not lost it either
        self._failed: set[PartitionId] = set()  # those that are tried again in a moment
        self._wake = asyncio.Event()
        self._in_use: dict[PartitionId, Tier] = {}
        self._archived: set[str] = set()  # topics that a policy archived when last looked at
        self._trouble = OncePerChange(log)

    async def start(self) -> None:
        """Learn brokers and topics once. Raises Unreachable when no broker answers."""
        await self._refresh_topics()

    async def run(self) -> None:
        """Keep facts young, for ever. An error nobody foresaw ends all of it, and is the caller's."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_topics(), name="scout: topics")
            group.create_task(self._keep_facts_in_use(), name="scout: facts in use")
            group.create_task(self._learn_what_is_wanted(), name="scout: what is wanted")

    async def _learn_what_is_wanted(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._catalog.wanted = self._catalog.wanted, {}
            for tier in wanted.values():
                if tier.pid not in self._manifests and tier.pid not in self._failed:
                    self._tasks.spawn(self._learn_quietly(tier), f"scout: {tier.pid}")

    def wake(self) -> None:
        """There is something in the catalog's `wanted`, or its topics are stale."""
        self._wake.set()

    def used(self, tier: Tier) -> None:
        """`tier` is being read cold: keep its high watermark and log start young."""
        self._in_use[tier.pid] = tier

    # -- facts that must be younger than the question ---------------------------------------------------------------

    async def broker_now(self, tier: Tier) -> tuple[int, int]:
        """Log start and high watermark, asked of the leader now. Raises TierproxyError where it can't.

        They are returned, not only written into the tier: older answers of other connections may write there too.
        """
        return await self._brokers.fresh(tier.pid, lambda: self._ask_broker(tier))

    async def manifest_now(self, tier: Tier) -> Manifest | None:
        """The manifest as it is stored now; None if nothing is archived. Raises TierproxyError if it can't be read."""
        return await self._manifests.fresh(tier.pid, lambda: self._learn_manifest(tier))

    async def manifest_coming(self, tier: Tier) -> Manifest | None:
        """What a read finds that is under way, perhaps since before the question; None if none is, or it fails."""
        if tier.pid not in self._manifests:
            return None
        try:
            return await self._manifests.join(tier.pid, lambda: self._learn_manifest(tier))
        except TierproxyError:
            return None

    def trusts(self, tier: Tier) -> bool:
        """Whether the manifest known is young enough to serve from: a user may have deleted records elsewhere."""
        return self._clock.now_ms() - tier.manifest_at_ms <= MANIFEST_TRUST_MS

    async def owner(self, tier: Tier) -> str:
        """The Kafka cluster's id, which the archive must be recorded for. Raises TierproxyError if it isn't.

        An archive without a record has never been written to, or is a directory that isn't mounted: "nothing
        archived" must not be concluded from that.
        """
        cluster_id = self._cluster.view.cluster_id or ""
        if tier.archive not in self._claimed:
            owner = await self._libraries[tier.archive].owner()
            if owner is None:
                raise TierproxyError(
                    f"archive {tier.archive} has no record of a cluster: is it mounted? An archiver makes the record "
                    "when it first starts"
                )
            if owner != cluster_id:
                raise TierproxyError(
                    f"archive {tier.archive} is of Kafka cluster {owner}, the brokers are of {cluster_id}"
                )
            self._claimed.add(tier.archive)
        return cluster_id

    async def same_topic_now(self, tier: Tier) -> bool:
        """Whether the tier's topic still is what its name stands for. If not, the catalog knows better afterwards.

        The partition's leader says so, for all of the topic that it leads.
        """
        pid, name = tier.pid, TopicPartition(tier.pid.topic, tier.pid.partition)
        leader = self._cluster.view.leader(name)
        whose = (pid.topic_id, pid if leader == NOBODY else leader)
        same, leader, asked = await self._identities.fresh(whose, partial(self._ask_identity, tier))
        if asked != pid and (not same or leader != self._cluster.view.leader(name)):
            # It was asked for another partition, which may have failed, or moved, alone.
            same, _, _ = await self._ask_identity(tier)
        return same

    async def highest_time(self, tier: Tier) -> int:
        """The highest timestamp in the leader's log, decided or not; -1 if there is none. Raises TierproxyError."""
        name = TopicPartition(tier.pid.topic, tier.pid.partition)
        said = (await self._cluster.list_offsets({name: MAX_TIMESTAMP}, READ_UNCOMMITTED))[name]
        if said.error != ErrorCode.NONE:
            raise TierproxyError(
                f"{name.topic}-{name.partition}: the leader doesn't say its highest time: {error_name(said.error)}"
            )
        return said.timestamp

    async def topics_now(self) -> None:
        await self._topics.fresh("all topics", self._refresh_topics)

    # -- learning ---------------------------------------------------------------------------------------------------

    async def _learn_quietly(self, tier: Tier) -> None:
        try:
            await self._brokers.join(tier.pid, lambda: self._ask_broker(tier))
            await self._manifests.join(tier.pid, lambda: self._learn_manifest(tier))
            self._trouble.ended(f"{tier.archive} facts", f"facts of {tier.pid.topic} can be learned again")
        except TierproxyError as error:
            self._trouble.began(f"{tier.archive} facts", f"can't learn what is archived: {error}; trying again")
            self._failed.add(tier.pid)  # or each hot fetch would have it tried again, for as long as a store is away
            await asyncio.sleep(RETRY_AFTER)
            self._failed.discard(tier.pid)
            self._catalog.want(tier)
            self.wake()

    async def _ask_broker(self, tier: Tier) -> tuple[int, int]:
        return (await self._learn_broker([tier]))[tier.pid]

    async def _learn_manifest(self, tier: Tier) -> Manifest | None:
        asked_at = self._clock.now_ms()
        log_start = tier.broker_start  # what is below was committed by now, if anybody has trimmed it
        found = await self._libraries[tier.archive].load(tier.pid)
        if found is None:
            await self.owner(tier)
            await self._check_for_a_lost_one(tier, log_start)
        manifest = found.manifest if found is not None and not found.manifest.is_bare else None
        known = tier.manifest
        if known is None or (manifest is not None and manifest.generation >= known.generation):
            tier.manifest = manifest  # not older than one the archiver of this process has told us of meanwhile
        tier.manifest_known = True
        tier.manifest_at_ms = asked_at
        return tier.manifest

    async def _check_for_a_lost_one(self, tier: Tier, log_start: int) -> None:
        """TierproxyError if there are segments of what the broker, whose log began at `log_start`, no longer had.

        "Nothing archived" must not be concluded there. Looked for once for each partition without a manifest: no reader
        waits for a listing a second time.
        """
        if log_start <= 0 or tier.pid in self._unarchived:
            return
        name = await self._libraries[tier.archive].left_behind(tier.pid, log_start)
        if name is not None:
            raise TierproxyError(
                f"archive {tier.archive} has no manifest of {tier.pid}, but segments of what the broker no longer has, "
                f"such as {name}: the manifest is lost. `tierproxy archive repair` makes it anew"
            )
        self._unarchived.add(tier.pid)

    async def _learn_broker(self, tiers: list[Tier]) -> dict[PartitionId, tuple[int, int]]:
        by_name = {TopicPartition(t.pid.topic, t.pid.partition): t for t in tiers}
        earliest, latest, stable = await asyncio.gather(
            self._cluster.list_offsets(dict.fromkeys(by_name, EARLIEST), READ_UNCOMMITTED),
            self._cluster.list_offsets(dict.fromkeys(by_name, LATEST), READ_UNCOMMITTED),
            self._cluster.list_offsets(dict.fromkeys(by_name, LATEST), READ_COMMITTED),
        )
        failed: list[str] = []
        learned: dict[PartitionId, tuple[int, int]] = {}
        for name, tier in by_name.items():
            answers = [
                each.get(name, ListedOffset(ErrorCode.UNKNOWN_SERVER_ERROR, -1, -1, -1))
                for each in (earliest, latest, stable)
            ]
            error = next((each.error for each in answers if each.error != ErrorCode.NONE), None)
            if error is not None:
                failed.append(f"{name.topic}-{name.partition}: {error_name(error)}")
                continue
            tier.broker_start, tier.high_watermark, tier.last_stable = (each.offset for each in answers)
            learned[tier.pid] = tier.broker_start, tier.high_watermark
        if failed:
            raise TierproxyError(f"the leaders don't say where logs begin and end ({', '.join(failed[:5])})")
        return learned

    async def _ask_identity(self, tier: Tier) -> tuple[bool, int, PartitionId]:
        """And which leader was asked, for which partition."""
        name = TopicPartition(tier.pid.topic, tier.pid.partition)
        said = (await self._cluster.topic_ids([name]))[name]
        leader = self._cluster.view.leader(name)
        if said.error == ErrorCode.NONE and said.topic_id == tier.pid.topic_id:
            return True, leader, tier.pid
        await self.topics_now()
        return False, leader, tier.pid

    async def _refresh_topics(self) -> None:
        self._topics_at = self._clock.monotonic()
        view = await self._cluster.refresh()
        self._take_topics(view)
        self._addresses.keep_only(view.brokers)
        fresh = self._addresses.note([Endpoint(node, host, port) for node, (host, port) in view.brokers.items()])
        if fresh:
            await self._open_ports(fresh)

    def _take_topics(self, view: ClusterView) -> None:
        archived: list[ArchivedTopic] = []
        passing: list[tuple[str, bytes]] = []
        for topic in view.topics.values():
            policy = self._policy_for(topic.name, topic.internal)
            if policy is None or policy.archive is None:
                passing.append((topic.name, topic.topic_id))
                continue
            leaders = {index: (each.leader, each.leader_epoch) for index, each in topic.partitions.items()}
            archived.append(
                ArchivedTopic(topic.name, topic.topic_id, len(leaders), policy.archive, policy.on_gap, leaders)
            )
        self._catalog.set_topics(archived, passing)
        lost = sorted(name for name, _ in passing if name in self._archived)
        if lost:
            log.warning(
                "just proxied from now on: %s; what is archived of that is not served any more",
                ", ".join(lost[:3]) + (f" and {len(lost) - 3} more topics" if len(lost) > 3 else ""),
            )
        self._archived = {topic.name for topic in archived}
        if self._catalog.wanted:
            self.wake()

    # -- keeping facts young ----------------------------------------------------------------------------------------

    async def _keep_topics(self) -> None:
        while True:
            await asyncio.sleep(TOPICS_AT_MOST_EVERY)
            due = self._clock.monotonic() - self._topics_at >= TOPICS_EVERY
            if not (due or self._catalog.topics_stale):
                continue
            try:
                await self._topics.join("all topics", self._refresh_topics)
                self._trouble.ended("metadata", "the cluster's metadata can be read again")
                self._report(True, "")
            except TierproxyError as error:
                self._trouble.began("metadata", f"can't read the cluster's metadata: {error}; trying again")
                self._report(False, str(error))

    async def _keep_facts_in_use(self) -> None:
        while True:
            await asyncio.sleep(BROKER_FACTS_EVERY)
            in_use, self._in_use = self._in_use, {}
            if not in_use:
                continue
            self._refresh_manifests_of([*in_use.values()])
            try:
                await self._learn_broker([*in_use.values()])
                self._trouble.ended("in use", "facts of partitions in use can be refreshed again")
            except TierproxyError as error:
                self._trouble.began("in use", f"can't refresh facts of partitions in use: {error}; trying again")

    def _refresh_manifests_of(self, in_use: list[Tier]) -> None:
        """Have old ones read again. Nobody waits for it here: an archive that hangs must not let other facts age."""
        oldest = self._clock.now_ms() - MANIFESTS_EVERY_MS
        for tier in in_use:
            if tier.manifest_at_ms < oldest and tier.pid not in self._manifests:
                self._tasks.spawn(self._refresh_manifest(tier), f"scout: manifest of {tier.pid}")

    async def _refresh_manifest(self, tier: Tier) -> None:
        key = f"{tier.archive} in use"
        try:
            await self._manifests.join(tier.pid, partial(self._learn_manifest, tier))
            self._trouble.ended(key, f"manifests of archive {tier.archive} can be refreshed again")
        except TierproxyError as error:
            self._trouble.began(key, f"can't refresh manifests of archive {tier.archive}: {error}; trying again")
