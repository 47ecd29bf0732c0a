"""What the facts come to for one topic. Pure."""

from dataclasses import dataclass

from protocol.errors import error_name
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.cli.plan.facts import DAY_MS, Facts, Sample
from tierproxy.cli.plan.numbers import ARCHIVE, MEASURED, SAMPLE, Costs, Estimate, Numbers, PartitionPlan
from tierproxy.cli.plan.requests import FIRST, merging, segment_requests, upkeep_month
from tierproxy.cli.plan.shelve import (
    LogFacts,
    Shelved,
    backlog_segments,
    bytes_between,
    trim_to,
    trims,
    with_backlog,
)
from tierproxy.cluster_view import TopicPartition, TopicView
from tierproxy.config import Config, Keep, TopicPolicy
from tierproxy.costs import MONTH_MS, Requests, StoreRates, broker_disk_month, store_rates

LEAST_WINDOW_MS = 300_000
"""A log that is younger says nothing of how fast it grows."""
LOG_SEGMENT_BYTES = 2**30
"""Kafka's own default of segment.bytes, where a topic's settings can't be read."""


@dataclass
class TopicJudge:
    """One topic's partitions, each for itself."""

    config: Config
    facts: Facts
    policy: TopicPolicy
    topic: TopicView
    ratio: Estimate | None
    months: int
    window_ms: int = 0

    def partition(self, index: int) -> PartitionPlan:
        tp = TopicPartition(self.topic.name, index)
        log, shelf = self.facts.logs.get(tp), self.facts.shelves.get(tp, "it was not looked at")
        if log is None or not log.known:
            reason = error_name(log.error) if log is not None and log.error else "not asked"
            return self._unknown(index, f"the leader does not tell of its log: {reason}")
        if isinstance(shelf, str):
            return self._unknown(index, f"archive {self.policy.archive}: {shelf}", log)
        archived_to = shelf.end if shelf is not None else log.start
        dense = self._offset_bytes(tp, log, shelf)
        trim_now, trim_later, trim_bytes = self._trim(log, shelf, dense)
        expire_to = shelf.expire_to if shelf is not None and shelf.expire_segments else -1
        backlog = max(0, log.stable_end - max(archived_to, log.start))
        numbers = self._numbers(tp, log, shelf, dense, backlog, trim_later, trim_bytes)
        return PartitionPlan(
            index=index,
            numbers=numbers,
            log_start=log.start,
            stable_end=log.stable_end,
            archived_to=archived_to,
            trim_now=trim_now,
            trim_to=trim_later,
            exact=trim_later <= archived_to or trim_later in (trim_now, log.stable_end),
            expire_to=expire_to,
            sized=dense,
        )

    def _unknown(self, index: int, problem: str, log: LogFacts | None = None) -> PartitionPlan:
        start, end = (log.start, log.stable_end) if log is not None else (-1, -1)
        return PartitionPlan(index, Numbers(partitions=1, unknown=1), problem, start, end)

    def _offset_bytes(self, tp: TopicPartition, log: LogFacts, shelf: Shelved | None) -> Estimate | None:
        """Bytes of log for an offset that is not archived yet."""
        if shelf is not None and shelf.offset_bytes is not None:
            return Estimate(shelf.offset_bytes, ARCHIVE)
        size, offsets = self._disk(tp)[0], log.end - log.start
        if size is not None and offsets > 0:
            return Estimate(size / offsets, MEASURED)
        sample = self.facts.samples.get(tp.topic)
        if isinstance(sample, Sample):
            return Estimate(sample.plain_bytes / sample.offsets, SAMPLE)
        return Estimate(0.0, MEASURED) if offsets == 0 else None

    def _disk(self, tp: TopicPartition) -> tuple[int | None, int | None]:
        """Bytes of the log at its leader, and at all brokers together, as far as they tell them."""
        about = self.topic.partitions[tp.partition]

        def size(node: int) -> int | None:
            said = self.facts.sizes.get(node)
            return said.sizes.get(tp) if said is not None and not isinstance(said, str) else None

        copies = [size(node) for node in about.replicas]
        known = [each for each in copies if each is not None]
        return size(about.leader), sum(known) if known and len(known) == len(copies) else None

    def _trim(self, log: LogFacts, shelf: Shelved | None, dense: Estimate | None) -> tuple[int, int, float]:
        """Where the log would begin now, and later; bytes of log that would have gone by then."""
        if shelf is not None and shelf.offset_bytes is not None:
            return shelf.trim_now, shelf.trim_later, shelf.trim_later_bytes
        pid = PartitionId(self.topic.name, self.topic.topic_id, 0)
        begin = max(log.start, shelf.end if shelf is not None else 0)
        bare = Manifest.empty(self.config.cluster.name, "", pid, begin)
        if dense is None:
            return log.start, log.start, 0.0  # and it is said that bytes are missing
        later = with_backlog(bare, self.policy, log, dense.value, self.facts.at_ms)
        point = trim_to(later, self.policy, log, self.facts.at_ms, {}, self.topic.topic_id)
        assert isinstance(point, int), "there are no pages"
        return log.start, point, bytes_between(later, log.start, point, {})

    def _numbers(
        self,
        tp: TopicPartition,
        log: LogFacts,
        shelf: Shelved | None,
        dense: Estimate | None,
        backlog: int,
        trim_later: int,
        trim_bytes: float,
    ) -> Numbers:
        policy, ratio = self.policy, self.ratio.value if self.ratio is not None else None
        leader_bytes, all_bytes = self._disk(tp)
        replicas = len(self.topic.partitions[tp.partition].replicas) or 1
        an_offset = dense.value if dense is not None else 0.0
        log_bytes = leader_bytes if leader_bytes is not None else (log.end - log.start) * an_offset
        disk = all_bytes if all_bytes is not None else log_bytes * replicas
        freed = min(trim_bytes * replicas, disk)
        stay = min(self._setting(tp.topic, "segment.bytes", LOG_SEGMENT_BYTES), log_bytes) * replicas

        plain = backlog * an_offset
        objects = backlog_segments(plain, backlog, policy) if dense is not None else 0
        stored = plain / ratio if ratio else 0.0
        trimmed = trims(policy, self.topic.topic_id)
        once = segment_requests(stored / objects, trimmed).times(objects) if objects else Requests()
        if shelf is None and objects:
            once += FIRST
        rate = self._rate(log, shelf)
        month = rate * MONTH_MS * an_offset if rate is not None else 0.0
        month_objects = self._closings(rate, an_offset) if rate else 0.0
        monthly = self._monthly(month, month_objects, ratio or 1.0, trimmed)

        has = shelf or Shelved(policy.archive or "", 0, 0, 0, 0, 0, None, 0, 0, 0, 0, -1, None, 0)
        history = has.plain_bytes - has.expire_bytes + plain
        kept = has.stored_bytes - has.expire_stored + stored
        months = month * self.months
        span = self._span(log, shelf)
        later = self._left(policy.keep_in_archive, history, span, month)
        share = later / (history + months) if history + months else 0.0
        on_brokers = self._left(self._stays(tp.topic), log_bytes - trim_bytes, self._span(log, None), month)
        rates, config = self._rates(has), self.config

        def costs(brokers: float, in_store: float, whole: float) -> Costs:
            asked = rates.asked(monthly)
            alone = broker_disk_month(config, whole, replicas)
            return Costs(broker_disk_month(config, brokers, 1), rates.storage_month(in_store), asked, alone)

        return Numbers(
            partitions=1,
            unsized=int(dense is None),
            unpressed=int(ratio is None and (plain > 0 or month > 0)),
            unpaced=int(rate is None),
            log_bytes=log_bytes,
            disk_bytes=disk,
            backlog_offsets=backlog,
            backlog_bytes=plain,
            backlog_objects=objects,
            backlog_stored=stored,
            lost_offsets=max(0, log.start - has.end) if shelf is not None else 0,
            trim_offsets=max(0, trim_later - log.start),
            trim_bytes=trim_bytes,
            freed_bytes=freed,
            freed_now=min(has.trim_now_bytes * replicas, freed),
            freed_least=max(0.0, freed - stay),
            archived_objects=has.segments,
            archived_bytes=has.plain_bytes,
            archived_stored=has.stored_bytes,
            expire_objects=has.expire_segments,
            expire_bytes=has.expire_bytes,
            expire_stored=has.expire_stored,
            once=once,
            cost_once=rates.asked(once),
            month_bytes=month,
            month_stored=month / ratio if ratio else 0.0,
            month_objects=month_objects,
            monthly=monthly,
            now=costs(disk - freed, kept, history),
            later=costs(
                on_brokers * replicas, (kept + (months / ratio if ratio else 0.0)) * share, max(later, on_brokers)
            ),
        )

    def _rate(self, log: LogFacts, shelf: Shelved | None) -> float | None:
        """Offsets in a millisecond, over the last day or since the first record if that is younger."""
        first_ms, since = log.first_ms, log.day_from
        if shelf is not None and shelf.start < log.start:
            first_ms = shelf.first_ms if first_ms < 0 else min(first_ms, max(0, shelf.first_ms))
            if shelf.day_from is not None:
                since = shelf.day_from if since is None else min(since, shelf.day_from)
        if since is None:
            return None
        offsets = log.end - since
        if offsets <= 0:
            return 0.0
        window = min(DAY_MS, self.facts.at_ms - first_ms) if first_ms >= 0 else DAY_MS
        if window < LEAST_WINDOW_MS:
            return None
        self.window_ms = max(self.window_ms, window)
        return offsets / window

    def _closings(self, rate: float, an_offset: float) -> float:
        """Segments in a month: each is full, or closed when its first record has waited for so long."""
        offsets = rate * MONTH_MS
        by_age = MONTH_MS / (self.policy.segment.age_ms + 1 / rate)
        by_bytes = offsets * an_offset / self.policy.segment.bytes
        return min(offsets, max(by_age, by_bytes))

    def _monthly(self, month_bytes: float, objects: float, ratio: float, trimmed: bool) -> Requests:
        monthly = upkeep_month(self.config, garbage=objects > 0 and self.config.archiver.merge)
        if not objects:
            return monthly
        size, full = month_bytes / objects, self.policy.segment.bytes
        monthly += segment_requests(size / ratio, trimmed).times(objects)
        if self.config.archiver.merge:
            monthly += merging(objects, size, full, ratio)
        return monthly

    def _stays(self, topic: str) -> Keep:
        """What limits the brokers' log: the topic's own retention, and tierproxy if it trims."""
        time_ms, size = self._setting(topic, "retention.ms", -1), self._setting(topic, "retention.bytes", -1)
        keep = self.policy.keep_on_broker if trims(self.policy, self.topic.topic_id) else Keep()
        times = [each for each in (time_ms, keep.time_ms) if each is not None and each >= 0]
        sizes = [each for each in (size, keep.bytes) if each is not None and each >= 0]
        return Keep(time_ms=min(times, default=None), bytes=min(sizes, default=None))

    def _span(self, log: LogFacts, shelf: Shelved | None) -> int | None:
        """Over how many ms what there is was written; None: not known."""
        oldest = [each for each in (log.first_ms, shelf.first_ms if shelf is not None else -1) if each >= 0]
        return max(1, self.facts.at_ms - min(oldest)) if oldest else None

    def _left(self, keep: Keep, size: float, span_ms: int | None, month_bytes: float) -> float:
        """Bytes there will be later, of the `size` that came evenly in a span, and of what will come."""
        ahead, old, new = self.months * MONTH_MS, size, month_bytes * self.months
        if keep.time_ms is not None:
            left_ms = max(0, keep.time_ms - ahead)
            span_ms = min(span_ms, keep.time_ms) if span_ms is not None else None  # what is older goes at once
            old *= min(1.0, left_ms / span_ms) if span_ms else float(left_ms > 0)
            new = month_bytes * min(keep.time_ms, ahead) / MONTH_MS
        return min(old + new, keep.bytes) if keep.bytes is not None else old + new

    def _setting(self, topic: str, name: str, otherwise: int) -> int:
        text = self.facts.settings.get(topic, {}).get(name, "")
        return int(text) if text.lstrip("-").isdigit() else otherwise

    def _rates(self, shelf: Shelved) -> StoreRates:
        return store_rates(self.config, shelf.archive, self.policy.storage_class)
