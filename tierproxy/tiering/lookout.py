"""Looks at all partitions now and then: says how far archiving is behind, and raises the alarm before it is too late.

A partition of which the brokers will soon delete what is not archived is hurried: its copying goes first.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from protocol.errors import ErrorCode
from tierproxy import telemetry
from tierproxy.archive.manifest import Gap
from tierproxy.archive.names import PartitionId
from tierproxy.clock import Clock
from tierproxy.config.units import format_duration, format_size
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import OncePerChange
from tierproxy.telemetry.kinds import TopicLabels, remove
from tierproxy.tiering.around import partition_troubles
from tierproxy.tiering.headroom import Headroom, Limits, Outlook
from tierproxy.tiering.stalls import STALL_AFTER
from tierproxy.tiering.steps import State
from tierproxy.tiering.worker import PartitionWorker
from tierproxy.upstream import LATEST, Cluster, TopicPartition, UnsupportedBroker

log = logging.getLogger("tierproxy.archiver")

Settings = Mapping[str, Mapping[str, str]]
"""Of topics, by name."""
AT_ONCE = 20
NO_LIMITS = Limits(None, None)

_BY_TOPIC = {
    telemetry.ARCHIVE_LAG: 0.0,
    telemetry.ARCHIVE_LAG_OFFSETS: 0.0,
    telemetry.RETENTION_LEFT: 1.0,
    telemetry.TRANSACTION_STALL: 0.0,
    telemetry.TRIM_LAG: 0.0,
    telemetry.TRIM_LAG_OFFSETS: 0.0,
    telemetry.HOLES: 0.0,
    telemetry.HOLE_OFFSETS: 0.0,
}
"""And what each says of a topic of which there is nothing to say."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of a partition, for the metrics."""

    outlook: Outlook
    stalled: float
    untrimmed: int  # offsets
    untrimmed_for: float  # seconds
    gaps: tuple[Gap, ...]


class Lookout:
    """`run` it as a task, beside whatever goes wrong elsewhere; or `look` at the workers that there are."""

    def __init__(self, cluster: Cluster, clock: Clock, troubles: OncePerChange) -> None:
        self._cluster = cluster
        self._clock = clock
        self._troubles = troubles
        self._named: set[tuple[TopicPartition, int]] = set()  # stalls whose producers were told
        self._headrooms: dict[PartitionId, Headroom] = {}
        self._untrimmed: dict[PartitionId, float] = {}  # since when
        self._labels = TopicLabels()
        self._shown: set[str] = set()

    async def run(
        self, every: float, workers: Callable[[], list[PartitionWorker]], settings: Callable[[], Settings]
    ) -> None:
        """Look every so many seconds, for ever."""
        while True:
            try:
                await self._ask_log_ends(workers())
                await self._ask_who_stalls(workers())
            except TierproxyError as error:  # whoever needs the brokers for more than a look says it
                log.debug("brokers can't be asked how far their logs go: %s", error)
            await self.look(workers(), settings())
            await asyncio.sleep(every)

    async def _ask_log_ends(self, workers: list[PartitionWorker]) -> None:
        """Where no fetch has told it lately, for those are the ones that are in trouble. Who can't be asked is left."""
        silent = {worker.tp: worker for worker in workers if worker.silent}
        if not silent:
            return
        said = await self._cluster.list_offsets(dict.fromkeys(silent, LATEST))
        for tp, answer in said.items():
            if answer.error == ErrorCode.NONE:
                silent[tp].heard(answer.offset)

    async def _ask_who_stalls(self, workers: list[PartitionWorker]) -> None:
        """Name the producers whose open transactions hold archives back for long, once each, and how to end them."""
        stalled = {worker.tp: worker for worker in workers if worker.stalled_for >= STALL_AFTER}
        self._named = {at for at in self._named if at[0] in stalled and stalled[at[0]].next_offset == at[1]}
        unnamed = [tp for tp, worker in stalled.items() if (tp, worker.next_offset) not in self._named]
        if not unnamed:
            return
        try:
            said = await self._cluster.producers(unnamed)
        except UnsupportedBroker:  # before Kafka 2.8
            said = {}
        for tp in unnamed:
            self._named.add((tp, stalled[tp].next_offset))
            for each in said[tp].producers if tp in said else ():
                if 0 <= each.transaction_start <= stalled[tp].next_offset:
                    log.warning(
                        "%s: the transaction that holds the archive back is of producer id %d (epoch %d), began at "
                        "offset %d and wrote last %s ago. If nobody will end it: kafka-transactions abort --topic %s "
                        "--partition %d --start-offset %d",
                        tp,
                        each.producer_id,
                        each.producer_epoch,
                        each.transaction_start,
                        format_duration(_ms((self._clock.now_ms() - each.last_timestamp) / 1000)),
                        tp.topic,
                        tp.partition,
                        each.transaction_start,
                    )

    async def look(self, workers: Iterable[PartitionWorker], settings: Settings) -> None:
        """`settings`: those of each topic, where they could be read."""
        now_ms = self._clock.now_ms()
        headrooms: dict[PartitionId, Headroom] = {}
        seen: dict[str, list[_Seen]] = {}
        for n, worker in enumerate(workers):
            if n % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # there may be many thousands, and clients are served meanwhile
            pid = worker.pid
            headroom = headrooms[pid] = self._headrooms.get(pid) or Headroom()
            limits = Limits.of(settings[pid.topic]) if pid.topic in settings else NO_LIMITS
            outlook = headroom.see(worker.look(), limits, now_ms)
            seen.setdefault(pid.topic, []).append(self._seen(worker, outlook))
            worker.hurried = outlook.alarm
            self._say(worker, outlook, settings)
        for pid in self._headrooms.keys() - headrooms.keys():
            self._troubles.forget(partition_troubles(pid) + "retention")
        for pid in self._untrimmed.keys() - headrooms.keys():
            del self._untrimmed[pid]
        self._headrooms = headrooms
        self._measure(seen)

    def _seen(self, worker: PartitionWorker, outlook: Outlook) -> _Seen:
        now, untrimmed = self._clock.monotonic(), worker.untrimmed
        if untrimmed:
            lasting = now - self._untrimmed.setdefault(worker.pid, now)
        else:
            self._untrimmed.pop(worker.pid, None)
            lasting = 0.0
        return _Seen(outlook, worker.stalled_for, untrimmed, lasting, worker.gaps)

    def _say(self, worker: PartitionWorker, outlook: Outlook, settings: Settings) -> None:
        key = partition_troubles(worker.pid) + "retention"
        if not outlook.alarm:
            self._troubles.ended(key, f"{worker.tp}: the brokers won't soon delete what is not archived any more")
            return
        if not outlook.over_in:
            when = "may delete what is not archived at any moment"
        else:
            when = f"will delete what is not archived in about {format_duration(_ms(outlook.over_in))}, at this speed"
        doing = "it is stopped" if worker.state is State.STOPPED else "its copying goes first"
        self._troubles.began(
            key,
            f"{worker.tp}: the brokers {when} ({outlook.limit}={settings[worker.pid.topic][outlook.limit]}). "
            f"{outlook.offsets} offsets are not archived, about {format_size(round(outlook.bytes))}, the oldest has "
            f"waited {format_duration(_ms(outlook.seconds))}; {doing}. Raise {outlook.limit} until the archiver has "
            "caught up",
        )

    def _measure(self, by_topic: Mapping[str, list[_Seen]]) -> None:
        shown: dict[str, list[_Seen]] = defaultdict(list)
        for topic, label in self._labels.of(by_topic.keys()).items():
            shown[label] += by_topic[topic]
        for label, seen in shown.items():
            gaps = [gap for each in seen for gap in each.gaps]
            telemetry.ARCHIVE_LAG.labels(label).set(max(each.outlook.seconds for each in seen))
            telemetry.ARCHIVE_LAG_OFFSETS.labels(label).set(sum(each.outlook.offsets for each in seen))
            telemetry.RETENTION_LEFT.labels(label).set(max(0.0, min(each.outlook.left for each in seen)))
            telemetry.TRANSACTION_STALL.labels(label).set(max(each.stalled for each in seen))
            telemetry.TRIM_LAG.labels(label).set(max(each.untrimmed_for for each in seen))
            telemetry.TRIM_LAG_OFFSETS.labels(label).set(sum(each.untrimmed for each in seen))
            telemetry.HOLES.labels(label).set(sum(gap.accepted_ms < 0 for gap in gaps))
            telemetry.HOLE_OFFSETS.labels(label).set(sum(gap.end - gap.start for gap in gaps))
        for label in self._shown - shown.keys():
            for gauge, neutral in _BY_TOPIC.items():
                remove(gauge, label, neutral)
        self._shown = set(shown)
        telemetry.PARTITIONS_AT_RISK.set(sum(each.outlook.alarm for seen in shown.values() for each in seen))


def _ms(seconds: float) -> int:
    return max(1, round(seconds)) * 1000
