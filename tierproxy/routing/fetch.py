"""A Fetch across both tiers: which answers to hold, what a refusal means, how the answer is put together.

Everything is forwarded first. The broker's OFFSET_OUT_OF_RANGE is the permission slip: it comes only after the
broker's own authentication, ACL, topic-id and epoch checks (KafkaApis, ReplicaManager, UnifiedLog), on this very
connection. Then a partition is served from the archive only where the archive holds the offset *and* the offset is
below the leader's log start; "the archive holds it" alone is not enough, for after an unclean election the archive
may hold a history that the broker has disowned.

The error must never reach a client by mistake, because every client's answer to it is a silent jump. So it passes only
on a `fresh` verdict: one made with facts that were learned after the broker had refused.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition, FetchRequest
from protocol.fetch_response import FetchedPartition, FetchResponse
from tierproxy.archive.manifest import Manifest
from tierproxy.catalog import UNKNOWN, Catalog, Tier, TopicKey

READ_COMMITTED = 1


def topic_key(partition: FetchPartition | FetchedPartition) -> TopicKey:
    key = partition.topic_id if partition.topic is None else partition.topic
    assert key is not None
    return key


class Verdict(Enum):
    """What an answer "out of range" means for a partition that may be archived."""

    COLD = "the archive holds the offset and the broker no longer does"
    BEYOND = "out of range for the archive too: the client must hear it"
    HOLE = "between the tiers: gone from the broker before it was archived, or not seen in the archive yet"
    AGAIN = "the leader has the offset by now: a follower that lags refused it, or the leader's log grew back"
    UNKNOWN = "facts are missing, or may be older than the broker's answer"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a refusal is judged. `…_fresh`: learned after the refusal. Offsets are -1 while unknown."""

    log_start: int
    high_watermark: int
    manifest: Manifest | None
    manifest_known: bool
    broker_fresh: bool = False
    manifest_fresh: bool = False

    @classmethod
    def of(cls, tier: Tier, *, trust_manifest: bool = True) -> "Facts":
        """What the tier holds, of whatever age."""
        known = tier.manifest_known and trust_manifest
        return cls(tier.broker_start, tier.high_watermark, tier.manifest if known else None, known)


def judge(facts: Facts, offset: int, last_fetched_epoch: int = -1) -> Verdict:
    """Decide about one refused fetch.

    Only a fresh log start can say that an offset is above the log's end, only a fresh manifest that the archive
    lacks it. A positive answer needs no fresh facts: the archive only grows, and the broker has just said that it
    lacks the offset.
    A request with a last fetched epoch may be refused for that epoch, at offsets the log has (KIP-595).
    """
    if facts.log_start == UNKNOWN:
        return Verdict.UNKNOWN
    if offset >= facts.log_start:
        if not facts.broker_fresh:
            return Verdict.UNKNOWN
        has_it = offset <= facts.high_watermark and last_fetched_epoch < 0
        return Verdict.AGAIN if has_it else Verdict.BEYOND
    manifest = facts.manifest
    if manifest is not None and manifest.holds(offset) and offset <= manifest.last_archived:
        return Verdict.COLD
    if not facts.manifest_fresh:
        return Verdict.UNKNOWN
    if manifest is None or offset < manifest.start_offset:
        return Verdict.BEYOND
    return Verdict.HOLE


@dataclass(slots=True)
class Refused:
    """A partition of a held answer that the broker refused as out of range and that may be archived."""

    at: int  # its place in the answer
    topic: TopicKey
    partition: int
    tier: Tier | None  # None: the topic may be archived, but isn't known yet
    offset: int
    max_bytes: int
    last_fetched_epoch: int = -1


def expects_cold(request: FetchRequest, catalog: Catalog) -> bool:
    """Whether the answer must be held: some partition will be served from the archive, or is in doubt."""
    for partition in request.partitions:
        key = topic_key(partition)
        tier = catalog.find(key, partition.index)
        if tier is None:
            if key in catalog.doubtful:
                return True
        elif partition.fetch_offset in tier.doubts or tier.expects_cold(partition.fetch_offset):
            return True
    return False


def offsets_asked(request: FetchRequest) -> dict[tuple[TopicKey, int], FetchPartition]:
    """The request's partitions by name; of one named twice the last counts, as at a broker."""
    return {(topic_key(p), p.index): p for p in request.partitions}


def refused(response: FetchResponse, request: FetchRequest, catalog: Catalog) -> list[Refused]:
    """The answer's out-of-range partitions that are, or may be, archived."""
    found: list[Refused] = []
    asked: dict[tuple[TopicKey, int], FetchPartition] | None = None
    for at, partition in enumerate(response.partitions):
        if partition.error != ErrorCode.OFFSET_OUT_OF_RANGE:
            continue
        key = topic_key(partition)
        tier = catalog.find(key, partition.index)
        if tier is None and not catalog.might_be_archived(key):
            continue
        asked = asked or offsets_asked(request)
        question = asked.get((key, partition.index))
        if question is None:
            continue  # a broker that answers what was not asked: not ours to explain
        found.append(
            Refused(
                at, key, partition.index, tier, question.fetch_offset, question.max_bytes, question.last_fetched_epoch
            )
        )
    return found


def mask(partition: FetchedPartition) -> None:
    """Turn a refusal into "no error, no records": the client asks again (kafka-protocol.md 5.14)."""
    partition.error = ErrorCode.NONE
    partition.records = memoryview(b"")
    partition.more = ()


def show_log_starts(response: FetchResponse, catalog: Catalog) -> None:
    """In every partition that answers, show the log start clients should know: the archive's."""
    if response.version < 5:
        return
    for partition in response.partitions:
        if partition.error == ErrorCode.NONE:
            partition.log_start = catalog.shown_start(topic_key(partition), partition.index, partition.log_start)


@dataclass(slots=True)
class ColdRecords:
    """Archived records for one partition: whole batches, the first of which holds the offset or is the next one.

    `records` are runs of consecutive batches, in order; `aborted` are (producer id, first offset) of the aborted
    transactions that a reader of these records must know, as a broker would list them.
    """

    records: list[memoryview]
    last_offset: int
    aborted: list[tuple[int, int]]


class ColdSource(Protocol):
    """Records that are in memory now, for one fetch offset."""

    def take(self, limit: int, at_least_one: bool) -> ColdRecords | None:
        """As many whole batches as fit into `limit` bytes; the first one even if it doesn't, where asked for."""


class Portion(Protocol):
    """How many archived bytes an answer may carry, by the rates that are configured."""

    def left(self, question: Refused) -> int: ...

    def use(self, question: Refused, size: int) -> None: ...


ColdAnswer = ColdSource | ErrorCode | None
"""Records; or an error to show (NONE: no error, no records, come again); or None to let the broker's refusal stand."""


def fill(
    response: FetchResponse,
    request: FetchRequest,
    answers: list[tuple[Refused, ColdAnswer]],
    portion: Portion | None = None,
) -> None:
    """Put the archive's answers in the places of the refused partitions, within the request's max_bytes and `portion`.

    The limits are the request's over both tiers together: what the broker has used is used, and only the first
    partition with records may exceed them, by its first batch (KIP-74).
    """
    left = request.max_bytes - hot_bytes(response)
    first = next((at for at, p in enumerate(response.partitions) if p.records), len(response.partitions))
    for question, answer in answers:
        if answer is None:
            continue
        partition = response.partitions[question.at]
        mask(partition)
        if isinstance(answer, ErrorCode) and answer != ErrorCode.NONE:
            partition.error = answer
            continue
        partition.aborted = [] if request.isolation == READ_COMMITTED else None
        served = 0
        if not isinstance(answer, ErrorCode):
            limit = max(0, min(question.max_bytes, left, portion.left(question) if portion is not None else left))
            taken = answer.take(limit, question.at < first)
            if taken is None and limit:
                partition.aborted = None  # so do brokers, which read a part of the batch and throw it away
            if taken is not None:
                partition.records, *more = taken.records
                partition.more = tuple(more)
                if request.isolation == READ_COMMITTED:
                    partition.aborted = taken.aborted
                served = taken.last_offset + 1
                size = sum(len(run) for run in taken.records)
                left -= size
                if portion is not None:
                    portion.use(question, size)
                first = min(first, question.at)
        tier = question.tier
        if tier is not None and (served or tier.expects_cold(question.offset)):
            _show_bounds(partition, tier, max(served, question.offset + 1))


def hot_bytes(response: FetchResponse) -> int:
    """Bytes of records the broker has sent."""
    return sum(len(p.records) for p in response.partitions if p.records is not None)


def enough_hot(response: FetchResponse, request: FetchRequest) -> bool:
    """Whether the broker's records alone would be an answer. A min_bytes above max_bytes counts as max_bytes."""
    return hot_bytes(response) >= max(1, min(request.min_bytes, request.max_bytes))


def _show_bounds(partition: FetchedPartition, tier: Tier, at_least: int) -> None:
    """High watermark and LSO as the broker has them, and above what is served and asked.

    One that equals the fetch offset makes librdkafka report an end of partition and throw the records away. Where the
    offset isn't known to be archived (it may be far beyond the log's end) they stay unknown.
    """
    partition.high_watermark = max(tier.high_watermark, at_least)
    partition.last_stable_offset = max(tier.last_stable, at_least)
    if tier.manifest is not None:
        partition.log_start = tier.manifest.start_offset


def reserve_for_cold(request: FetchRequest, catalog: Catalog) -> int:
    """The max_bytes to ask the broker for, so that busy hot partitions leave cold ones their share of an answer."""
    asked = offsets_asked(request).values()
    cold = sum(
        1
        for p in asked
        if (tier := catalog.find(topic_key(p), p.index)) is not None and tier.expects_cold(p.fetch_offset)
    )
    if cold == 0 or cold == len(asked) or request.max_bytes <= 0:
        return request.max_bytes
    return max(1, request.max_bytes * (len(asked) - cold) // len(asked))
