"""Asks the cluster and the archives how everything stands, with the service account, on connections of its own.

One survey asks brokers for all offsets first and reads manifests after that: whatever was trimmed by the first answer
is in the manifest by then, so nothing looks lost that isn't. Manifests are the dear part, a request to the store each.
So what stands still is not read again for a while, and of the others so many at a time, those that were read the
longest ago first. What is read for the first time may take some surveys.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from protocol.consumer_protocol import decode_assignment
from protocol.errors import ErrorCode, MalformedError, error_name
from tierproxy.access import service_access
from tierproxy.archive.errors import ArchiveError
from tierproxy.archive.library import Library
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store import StoreError
from tierproxy.archive.stores import open_store
from tierproxy.clock import Clock
from tierproxy.config import TopicPolicy
from tierproxy.config.settings import Settings
from tierproxy.coordinator import Coordinator
from tierproxy.errors import TierproxyError
from tierproxy.insight.facts import Archived, Facts, GroupFacts, Member, PartitionFacts, TopicFacts
from tierproxy.upstream import (
    EARLIEST,
    LATEST,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    Cluster,
    ListedOffset,
    TopicPartition,
    TopicView,
    UnsupportedBroker,
)

CLIENT_ID = "tierproxy-insight"
AT_ONCE = 200
"""Partitions in one question for offsets, and that are gone through before clients have their turn: there may be many
thousands, and their answers are decoded while clients are served."""
MANIFESTS_AT_ONCE = 8
MANIFESTS_A_LOOK = 200
"""Read again; those that were never read count by time alone."""
MANIFESTS_SECONDS = 8.0
STILL_MS = 300_000
"""How long a manifest is believed whose partition stands still."""
CONFIGS_MS = 60_000
ANSWER_WITHIN = 20.0
GIVE_UP_AFTER = 8
"""Failures of one store in one survey, with no success, after which the others are not tried."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    view: TopicView
    policy: TopicPolicy
    policy_at: int


class Survey:
    """Made where it is needed; `close` it. One `look` at a time."""

    def __init__(self, in_force: Settings, clock: Clock) -> None:
        self._in_force = in_force
        config = in_force.now
        self._clock = clock
        self._access = service_access(config.cluster.security)
        self._cluster = Cluster(config.cluster.bootstrap, self._access, CLIENT_ID, clock)
        self.libraries: Mapping[str, Library] = {
            name: Library(open_store(about), config.cluster.name) for name, about in config.archives.items()
        }
        for name, library in self.libraries.items():
            library.stand_beside(name, self.libraries)
        self._settings: Mapping[str, Mapping[str, str]] = {}
        self._settings_ms = 0

    async def close(self) -> None:
        await self._cluster.close()
        for library in self.libraries.values():
            await library.store.close()

    async def look(
        self, before: Facts | None, about: Callable[[str], bool] = lambda topic: True, whole: bool = False
    ) -> Facts:
        """Facts of now, of the topics that it is to be `about`. What is dear may be taken from `before`.

        With `whole` every manifest is read. What can't be asked is in `problems`, or in the partitions' own.
        """
        try:
            return await self._look(before, about, whole)
        except TierproxyError as error:
            known = before or Facts(self._clock.now_ms(), None, {})
            return replace(known, problems=(f"the brokers can't be asked: {error}",))

    async def _look(self, before: Facts | None, about: Callable[[str], bool], whole: bool) -> Facts:
        now_ms = self._clock.now_ms()
        if self._access.tls is not None:
            self._access.tls.followed.check()  # certificates may have been replaced
        view = await self._cluster.refresh()
        wanted = [each for each in self._wanted(view.topics.values()) if about(each.view.name)]
        problems: list[str] = []
        settings, offsets, group = await asyncio.gather(
            self._learn_settings(wanted, now_ms, problems), self._offsets(wanted), self._group()
        )
        turns = _Turns()
        known: dict[PartitionId, PartitionFacts] = {}
        parts: dict[PartitionId, PartitionFacts] = {}
        for each in wanted:
            earlier = _known(before, each.view)
            for index, partition in each.view.partitions.items():
                pid = PartitionId(each.view.name, each.view.topic_id, index)
                known[pid] = earlier.get(index, PartitionFacts(index, partition.leader))
                parts[pid] = _stood(known[pid], partition.leader, offsets[TopicPartition(each.view.name, index)])
                await turns.next()
        pending = await self._read_manifests({each.view.name: each for each in wanted}, parts, whole, problems)
        found: dict[str, TopicFacts] = {}
        for each in sorted(wanted, key=lambda each: each.view.name):
            name, topic_id = each.view.name, each.view.topic_id
            pids = [PartitionId(name, topic_id, index) for index in each.view.partitions]
            standing = tuple(_waiting(parts[pid], known[pid], now_ms) for pid in pids)
            kafkas = settings.get(name, {})
            found[name] = TopicFacts(name, topic_id, each.policy, each.policy_at, kafkas, standing, _copies(each.view))
            await turns.next(len(pids))
        proxied = sum(not topic.internal for topic in view.topics.values()) - len(found)
        return Facts(now_ms, view.cluster_id, found, max(0, proxied), group, tuple(problems), pending)

    def _wanted(self, topics: Iterable[TopicView]) -> Iterable[_Wanted]:
        config = self._in_force.now
        for topic in topics:
            policy = config.policy_for(topic.name, topic.internal)
            if policy is not None and policy.archive is not None:
                yield _Wanted(topic, policy, config.topics.index(policy))

    async def _learn_settings(
        self, wanted: Sequence[_Wanted], now_ms: int, problems: list[str]
    ) -> Mapping[str, Mapping[str, str]]:
        names = [each.view.name for each in wanted]
        if now_ms - self._settings_ms >= CONFIGS_MS or not self._settings.keys() >= set(names):
            try:
                self._settings = await self._cluster.topic_configs(names)
                self._settings_ms = now_ms
            except UnsupportedBroker:  # that of `serve --from-archive` has none
                self._settings, self._settings_ms = {}, now_ms
            except TierproxyError as error:
                problems.append(f"the topics' settings can't be read: {error}")
        return self._settings

    async def _offsets(
        self, wanted: Sequence[_Wanted]
    ) -> dict[TopicPartition, tuple[ListedOffset, ListedOffset, ListedOffset]]:
        """Log start, high watermark and last stable offset of each."""
        asked = [TopicPartition(each.view.name, index) for each in wanted for index in each.view.partitions]
        found: dict[TopicPartition, tuple[ListedOffset, ListedOffset, ListedOffset]] = {}
        for at in range(0, len(asked), AT_ONCE):
            some = asked[at : at + AT_ONCE]
            earliest, latest, stable = await asyncio.gather(
                self._cluster.list_offsets(dict.fromkeys(some, EARLIEST), READ_UNCOMMITTED),
                self._cluster.list_offsets(dict.fromkeys(some, LATEST), READ_UNCOMMITTED),
                self._cluster.list_offsets(dict.fromkeys(some, LATEST), READ_COMMITTED),
            )
            found |= {tp: (earliest[tp], latest[tp], stable[tp]) for tp in some}
        return found

    # ---- manifests -----------------------------------------------------------------------------------------

    async def _read_manifests(
        self,
        wanted: Mapping[str, _Wanted],
        parts: dict[PartitionId, PartitionFacts],
        whole: bool,
        problems: list[str],
    ) -> int:
        """Put into `parts` what manifests say now; how many of them were never read, and wait for the next survey."""
        now_ms = self._clock.now_ms()
        due = [pid for pid, part in parts.items() if whole or _is_due(part, now_ms)]
        due.sort(key=lambda pid: _read_ms(parts[pid]))
        doubtful = [pid for pid in due if _is_behind(parts[pid])]
        unread = sum(parts[pid].archived is None for pid in due)
        queue = iter(due if whole else dict.fromkeys([*doubtful, *due[: unread + MANIFESTS_A_LOOK]]))
        until = self._clock.monotonic() + MANIFESTS_SECONDS
        failed: Counter[str] = Counter()
        given_up: dict[str, str] = {}

        async def read() -> None:
            for pid in queue:
                if not whole and self._clock.monotonic() >= until:
                    return
                archive = wanted[pid.topic].policy.archive
                assert archive is not None
                if archive not in given_up:
                    parts[pid], trouble = await self._read(archive, pid, parts[pid])
                    failed[archive] = failed[archive] + 1 if trouble else -len(due)
                    if failed[archive] >= GIVE_UP_AFTER:
                        given_up[archive] = trouble
                if archive in given_up:
                    parts[pid] = replace(parts[pid], archive_problem=given_up[archive], damaged=False)

        await asyncio.gather(*(read() for _ in range(MANIFESTS_AT_ONCE)))
        problems += [f"archive {archive} can't be read: {why}" for archive, why in given_up.items()]
        return sum(part.archived is None and not part.archive_problem for part in parts.values()) if not whole else 0

    async def _read(self, archive: str, pid: PartitionId, part: PartitionFacts) -> tuple[PartitionFacts, str]:
        """The partition with its manifest, and what is wrong with the store, if something is."""
        library = self.libraries.get(archive)
        if library is None:
            return replace(part, archive_problem=f"archive {archive} is new: it is used after a restart"), ""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                found = await library.load(pid)
        except (StoreError, TimeoutError) as error:
            told = str(error) or f"no answer within {ANSWER_WITHIN:g} s"
            return replace(part, archive_problem=f"its manifest can't be read: {told}", damaged=False), told
        except ArchiveError as error:
            told = f"{error}. If that is so for ever, tierproxy archive repair makes it anew"
            return replace(part, archived=None, archive_problem=told, damaged=True), ""
        now_ms = self._clock.now_ms()
        home = library.home(pid).name
        if found is None or found.manifest.is_bare:
            start = max(part.log_start, 0)
            nothing = Archived.nothing(home, now_ms, found.manifest.end_offset if found is not None else start)
            return replace(part, archived=nothing, archive_problem="", damaged=False), ""
        archived = Archived.of(home, found.manifest, part.log_start, now_ms)
        return replace(part, archived=archived, archive_problem="", damaged=False), ""

    # ---- the archivers' group ------------------------------------------------------------------------------

    async def _group(self) -> GroupFacts | None:
        name = self._in_force.now.archiver_group
        if name is None:
            return None
        coordinator = Coordinator(self._cluster, name)
        try:
            found = await coordinator.find()
            if found.error:
                return GroupFacts(name, problem=f"its coordinator can't be found: {error_name(found.error)}")
            told = await coordinator.describe(found.node_id)
        except TierproxyError as error:
            return GroupFacts(name, problem=str(error))
        if told.error:
            return GroupFacts(name, problem=f"it can't be described: {error_name(told.error)}")
        members = []
        for each in told.members:
            try:
                share = decode_assignment(each.assignment)
            except MalformedError:
                share = {}
            members.append(Member(each.client_id, each.member_id, each.host.lstrip("/"), share))
        return GroupFacts(name, told.state, tuple(sorted(members, key=lambda member: (member.host, member.member_id))))


def _copies(topic: TopicView) -> float:
    """How many replicas its partitions have, on average; 1 where nobody tells."""
    told = [len(part.replicas) for part in topic.partitions.values() if part.replicas]
    return sum(told) / len(told) if told else 1.0


def _known(before: Facts | None, topic: TopicView) -> dict[int, PartitionFacts]:
    """What was known of the topic's partitions; nothing, if it was created anew."""
    known = before.topics.get(topic.name) if before is not None else None
    if known is None or known.topic_id != topic.topic_id:
        return {}
    return {part.partition: part for part in known.partitions}


def _stood(
    before: PartitionFacts, leader: int, answers: tuple[ListedOffset, ListedOffset, ListedOffset]
) -> PartitionFacts:
    """The partition with the offsets of now, and the manifest as it was read before."""
    error = next((each.error for each in answers if each.error), ErrorCode.NONE)
    if error:
        problem = f"its leader doesn't tell its offsets: {error_name(error)}"
        return replace(before, leader=leader, broker_problem=problem)
    start, end, stable = (each.offset for each in answers)
    archived = before.archived
    if archived is not None and (start, end) != (before.log_start, before.high_watermark):
        archived = replace(archived, still=False)
    return replace(
        before,
        leader=leader,
        log_start=start,
        high_watermark=end,
        last_stable=stable,
        broker_problem="",
        archived=archived,
    )


def _is_due(part: PartitionFacts, now_ms: int) -> bool:
    archived = part.archived
    if archived is None or part.archive_problem:
        return True
    stands = archived.still and archived.end >= part.last_stable
    return not stands or now_ms - archived.read_ms >= STILL_MS


def _is_behind(part: PartitionFacts) -> bool:
    """Whether a manifest that was read earlier makes look lost what has been archived and trimmed since."""
    return part.archived is not None and part.log_start > part.archived.end


def _read_ms(part: PartitionFacts) -> int:
    return part.archived.read_ms if part.archived is not None else 0


def _waiting(part: PartitionFacts, before: PartitionFacts, now_ms: int) -> PartitionFacts:
    """With the time since when something waits to be archived while nothing is."""
    if part.archived is None or part.last_stable <= part.archived.end:
        return replace(part, waiting_since_ms=None)
    moved = before.archived is None or before.archived.end != part.archived.end
    since = before.waiting_since_ms
    return replace(part, waiting_since_ms=now_ms if since is None or moved else since)


class _Turns:
    """Lets clients have theirs now and then."""

    def __init__(self) -> None:
        self._done = 0

    async def next(self, done: int = 1) -> None:
        self._done += done
        if self._done >= AT_ONCE:
            self._done = 0
            await asyncio.sleep(0)
