"""Who works on what: finds topics and partitions, starts and ends their workers, gives each broker a copier.

Of what there is this process does its group's share (`group`). Two that work on one partition nevertheless, as while
the group is changing, do no harm: one of them loses each race for the manifest, says so, and goes on from there.

Everything is learned again at every `metadata_interval`, and sooner when an answer shows that leaders or topics have
changed. A partition is a topic id and a number: a topic that was deleted and created again is another one, whose
archive begins anew beside the old one.

One partition's trouble never stops another: workers turn what can go wrong into states of their own, and one that
crashes nevertheless (a defect) is logged and started again by a later look at the topics.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from protocol.messages import NO_TOPIC_ID
from tierproxy import telemetry
from tierproxy.archive.library import Library
from tierproxy.archive.names import PartitionId
from tierproxy.clock import Clock
from tierproxy.config import Config, TopicPolicy
from tierproxy.config.settings import Settings
from tierproxy.coordinator import Coordinator
from tierproxy.errors import TierproxyError
from tierproxy.rates import TokenBucket
from tierproxy.tasks import Tasks
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.around import ArchiveObserver, Surroundings, leader_trouble
from tierproxy.tiering.copier import PARTITION_LEAST_BYTES, Copier
from tierproxy.tiering.group import REBALANCE_TIMEOUT, ArchiverGroup, assignor
from tierproxy.tiering.housekeeper import Charge, Housekeeper
from tierproxy.tiering.lookout import Lookout
from tierproxy.tiering.memory import SegmentMemory
from tierproxy.tiering.policies import Replaced, rules, trims, unfit
from tierproxy.tiering.spool import SpoolSettings
from tierproxy.tiering.steps import Rules, State
from tierproxy.tiering.trims import Trims
from tierproxy.tiering.worker import PartitionWorker
from tierproxy.upstream import Cluster, ClusterView, TopicPartition, TopicView

log = logging.getLogger("tierproxy.archiver")

LOOKS_APART = 0.5
"""Least seconds between two looks at the topics, however stale the metadata seems."""
CONFIGS_AGE = 60.0
"""Seconds after which the settings of known topics are read again."""
ANSWERS_IN_MEMORY = 4
"""Fetch answers of `archiver.fetch_bytes` that all copiers together may hold."""
SEGMENTS_IN_MEMORY = 128 * 1024 * 1024
"""Bytes of all open segments together that are not in files yet; see `memory`."""
TAKERS = 4
"""Threads, and no more than cores, that take answers into segments, and as many that compress for them: others are for
what clients wait for."""


class Archiver:
    """Archives every partition that a policy names, until it is cancelled."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        libraries: Mapping[str, Library],
        clock: Clock,
        tasks: Tasks,
        observer: ArchiveObserver,
    ) -> None:
        self._in_force = settings
        config = settings.now
        self._cluster = cluster
        self._libraries = libraries
        self._clock = clock
        self._tasks = tasks
        self._observer = observer
        self._troubles = OncePerChange(log)
        self._uploads = asyncio.Semaphore(config.archiver.uploads)
        self._takers = asyncio.Semaphore(min(TAKERS, os.cpu_count() or 1))
        self._press = ThreadPoolExecutor(min(TAKERS, os.cpu_count() or 1), thread_name_prefix="compress")
        self._memory = SegmentMemory(SEGMENTS_IN_MEMORY)
        self._reading = TokenBucket(config.archiver.read_rate, clock.monotonic())
        self._trims = Trims(cluster)
        self._lookout = Lookout(cluster, clock, self._troubles)
        self._around: dict[str, Surroundings] = {}
        self._refused: set[str] = set()  # archives that could not be used at this look: not asked for each partition
        self._workers: dict[PartitionId, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._policies: dict[PartitionId, TopicPolicy] = {}  # by which the workers go
        self._trims_from = clock.monotonic() + config.archiver.trim_delay_ms / 1000
        self._replaced = Replaced()
        self._copiers: dict[int, tuple[Copier, asyncio.Task[None]]] = {}
        self._settings: dict[str, tuple[bytes, Mapping[str, str]]] = {}  # by topic: its id, its settings
        self._settings_at = 0.0
        self._matched: set[str] = set()  # topics that a policy names
        self._look = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None
        self._group = self._make_group(config.archiver_group)
        self._membership: asyncio.Task[None] | None = None

    def _make_group(self, name: str | None) -> ArchiverGroup | None:
        if name is None:
            return None
        session_ms = self._in_force.now.archiver.session_timeout_ms
        protocol = assignor(self._in_force.now.archives)
        coordinator = Coordinator(self._cluster, name, protocol, session_ms, round(REBALANCE_TIMEOUT * 1000))
        return ArchiverGroup(coordinator, session_ms / 1000, self._clock, self._troubles, self._look.set)

    @property
    def states(self) -> dict[str, str]:
        """What each partition's worker is at, by `topic-partition`: for people."""
        return {str(worker.tp): worker.state.value for worker, _ in self._workers.values()}

    def change(self, before: Config) -> None:
        """The settings are others than `before` now."""
        now = self._clock.monotonic()
        self._reading.change(self._in_force.now.archiver.read_rate, now)
        self._replaced.add(before, now)
        self._look.set()

    async def run(self) -> None:
        """Look at the topics again and again. Ends only by cancellation, which ends all work."""
        every = self._in_force.now.archiver.metadata_interval_ms / 1000
        lookout = self._tasks.spawn(
            self._lookout.run(
                every,
                lambda: [worker for worker, _ in self._workers.values()],
                lambda: {topic: known for topic, (_, known) in self._settings.items()},
            ),
            "lookout of the archiver",
        )
        try:
            while True:
                self._look.clear()
                try:
                    await self._look_around()
                except TierproxyError as error:
                    self._troubles.began("cluster", f"can't see what there is to archive: {error}; trying again")
                else:
                    self._troubles.ended("cluster", "topics can be seen again")
                await asyncio.sleep(LOOKS_APART)
                try:
                    async with asyncio.timeout(every):
                        await self._look.wait()
                except TimeoutError:
                    pass
        finally:
            lookout.cancel()
            for _, task in [*self._workers.values(), *self._copiers.values()]:
                task.cancel()
            for each in (self._membership, self._upkeep):
                if each is not None:
                    each.cancel()
            self._press.shutdown(wait=False, cancel_futures=True)

    # ---- what there is -------------------------------------------------------------------------------------

    async def _look_around(self) -> None:
        view = await self._cluster.refresh()
        wanted = await self._wanted(view)
        mine = self._share(wanted, view)
        self._refused.clear()
        for pid in [pid for pid in self._workers if pid not in mine]:
            if pid not in wanted:
                log.info("%s: no longer archived", pid)
            self._end_worker(pid)
        for pid, policy in mine.items():
            if pid in self._workers:
                worker, task = self._workers[pid]
                before = self._policies[pid]
                if before.archive == policy.archive and (not task.done() or worker.state is State.STOPPED):
                    if before != policy:
                        self._policies[pid] = policy
                        worker.change(
                            self._rules(pid, policy), policy.compression, policy.recompress, policy.storage_class
                        )
                    continue
                self._end_worker(pid)  # it crashed (which is logged) or missed its topic: once more from the start
            await self._begin_worker(pid, policy, view)
        self._share_out(view)
        stopped = sum(worker.state is State.STOPPED for worker, _ in self._workers.values())
        telemetry.PARTITIONS_STOPPED.set(stopped)
        telemetry.PARTITIONS_ARCHIVED.set(len(self._workers) - stopped)
        if self._upkeep is None or self._upkeep.done():
            housekeeper = Housekeeper(self._charges, self._in_force, self._clock, self._observer, self._troubles)
            self._upkeep = self._tasks.spawn(housekeeper.run(), "upkeep of the archive")

    def _share(self, wanted: Mapping[PartitionId, TopicPolicy], view: ClusterView) -> Mapping[PartitionId, TopicPolicy]:
        """What of it is to be done here."""
        group = self._group
        if group is None or not (wanted or self._membership):  # who has nothing to do need not be in it yet
            return wanted
        group.want({pid.topic for pid in wanted}, {topic.name: topic.partitions for topic in view.topics.values()})
        if self._membership is None or self._membership.done():  # it crashed: which is logged
            self._membership = self._tasks.spawn(group.run(), "the archivers' group")
        return {pid: policy for pid, policy in wanted.items() if group.mine(TopicPartition(pid.topic, pid.partition))}

    async def _wanted(self, view: ClusterView) -> dict[PartitionId, TopicPolicy]:
        """Every partition that a policy wants in an archive and that can be there."""
        matched: list[tuple[TopicView, TopicPolicy]] = []
        for topic in view.topics.values():
            policy = self._in_force.now.policy_for(topic.name, topic.internal)
            if policy is not None and policy.archive is not None:
                matched.append((topic, policy))
        await self._learn_settings([topic for topic, _ in matched])
        names = {topic.name for topic, _ in matched}
        for gone in self._matched - names:
            self._troubles.forget(f"topic {gone} ")
        self._matched = names
        wanted: dict[PartitionId, TopicPolicy] = {}
        for topic, policy in sorted(matched, key=lambda each: each[0].name):
            known = self._settings.get(topic.name)
            reason = unfit(known[1]) if known is not None else None
            if reason is not None:
                archived = any(pid.topic_id == topic.topic_id and pid.topic == topic.name for pid in self._workers)
                not_archived = "is not archived"
                if archived:
                    not_archived = "is neither archived further nor trimmed, what is archived is still served"
                self._troubles.began(f"topic {topic.name} unfit", f"topic {topic.name} {not_archived}: {reason}")
                continue
            self._troubles.ended(f"topic {topic.name} unfit", f"topic {topic.name} can be archived now")
            if trims(policy) and topic.topic_id == NO_TOPIC_ID:
                self._troubles.began(
                    f"topic {topic.name} has no id",
                    f"topic {topic.name} is archived but not trimmed: the brokers give no topic ids (Kafka has them "
                    "from 2.8 on), so a recreated topic can't be told from the old one",
                )
            for partition in topic.partitions:
                wanted[PartitionId(topic.name, topic.topic_id, partition)] = policy
        return wanted

    async def _learn_settings(self, topics: list[TopicView]) -> None:
        """Read the settings of topics that are new or created again, and of all of them now and then."""
        now = self._clock.monotonic()
        if now - self._settings_at >= CONFIGS_AGE:
            self._settings_at = now
            unknown = topics
        else:
            unknown = [each for each in topics if self._settings.get(each.name, (None,))[0] != each.topic_id]
        if not unknown:
            return
        found = await self._cluster.topic_configs([topic.name for topic in unknown])
        for topic in unknown:
            if topic.name in found:
                self._settings[topic.name] = (topic.topic_id, found[topic.name])
        silent = sorted({topic.name for topic in unknown} - set(found))
        if silent:
            self._troubles.began(
                "settings",
                f"the settings of {len(silent)} topics can't be read ({', '.join(silent[:3])}): they are taken for "
                "ordinary ones; the service account needs DESCRIBE_CONFIGS",
            )
        else:
            self._troubles.ended("settings", "the settings of all topics can be read")
        for name in self._settings.keys() - {topic.name for topic in topics}:
            del self._settings[name]

    # ---- who does it ---------------------------------------------------------------------------------------

    async def _begin_worker(self, pid: PartitionId, policy: TopicPolicy, view: ClusterView) -> None:
        assert policy.archive is not None
        around = await self._surroundings(policy.archive, view)
        if around is None:
            return
        spool = SpoolSettings(
            self._in_force.now.archiver.spool, policy.compression, self._memory, self._press, policy.recompress
        )
        worker = PartitionWorker(pid, self._rules(pid, policy), spool, around, policy.storage_class)
        self._workers[pid] = worker, self._tasks.spawn(worker.run(), f"archive {pid}")
        self._policies[pid] = policy

    def _rules(self, pid: PartitionId, policy: TopicPolicy) -> Rules:
        topic = self._cluster.view.topics.get(pid.topic)
        replaced = self._replaced.trim_from(pid.topic, topic is not None and topic.internal)
        return rules(policy, max(self._trims_from, replaced))

    async def _surroundings(self, archive: str, view: ClusterView) -> Surroundings | None:
        """What the workers of an archive share; None while the archive can't be used for this cluster."""
        known = self._around.get(archive)
        if known is not None or archive in self._refused:
            return known
        if view.cluster_id is None:
            raise TierproxyError("the brokers don't tell their cluster's id")
        library = self._libraries[archive]
        try:
            await library.claim(view.cluster_id)
        except TierproxyError as error:
            self._troubles.began(f"claim {archive}", f"archive {archive} can't be used: {error}", logging.ERROR)
            self._refused.add(archive)
            return None
        self._troubles.ended(f"claim {archive}", f"archive {archive} can be used")
        around = self._around[archive] = Surroundings(
            cluster=self._cluster,
            cluster_id=view.cluster_id,
            library=library,
            archive=archive,
            clock=self._clock,
            observer=self._observer,
            uploads=self._uploads,
            takers=self._takers,
            trims=self._trims,
            troubles=self._troubles,
            stale=self._look.set,
            ready=self._ready,
        )
        return around

    def _end_worker(self, pid: PartitionId) -> None:
        _, task = self._workers.pop(pid)
        del self._policies[pid]
        task.cancel()

    def _share_out(self, view: ClusterView) -> None:
        """Give every broker that leads something a copier, and every copier its partitions."""
        led: dict[int, list[PartitionWorker]] = {}
        for worker, _ in self._workers.values():
            leader = view.leader(worker.tp)
            if leader in view.brokers:
                led.setdefault(leader, []).append(worker)
        for node_id in [node_id for node_id in self._copiers if node_id not in led]:
            self._copiers.pop(node_id)[1].cancel()
            for trouble in (leader_trouble(node_id), f"broker {node_id}"):
                self._troubles.ended(trouble, f"broker {node_id} leads nothing that is archived any more")
        fetch_bytes = self._in_force.now.archiver.fetch_bytes
        for node_id, workers in led.items():
            if node_id not in self._copiers or self._copiers[node_id][1].done():
                wait_ms = self._in_force.now.archiver.fetch_wait_ms
                copier = Copier(
                    node_id, self._cluster, self._clock, self._troubles, wait_ms, self._look.set, self._reading
                )
                self._copiers[node_id] = copier, self._tasks.spawn(copier.run(), f"copy from broker {node_id}")
            copier = self._copiers[node_id][0]
            copier.max_bytes = min(fetch_bytes, max(PARTITION_LEAST_BYTES, ANSWERS_IN_MEMORY * fetch_bytes // len(led)))
            copier.lead(workers)

    def _charges(self) -> list[Charge]:
        """The partitions that we work on, to be looked after. Those that a person must look at are left alone."""
        charges: list[Charge] = []
        for pid, (worker, task) in self._workers.items():
            topic = self._cluster.view.topics.get(pid.topic)
            policy = self._in_force.now.policy_for(pid.topic, topic.internal) if topic is not None else None
            if policy is not None and policy.archive is not None and not task.done():
                library = self._libraries[policy.archive]
                charges.append(Charge(pid, policy, policy.archive, library, worker.log_start))
        return charges

    def _ready(self, tp: TopicPartition) -> None:
        found = self._copiers.get(self._cluster.view.leader(tp))
        if found is not None:
            found[0].wake()
