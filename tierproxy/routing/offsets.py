"""ListOffsets over both tiers: which answers need the archive's, and how the two are merged.

The broker is always asked first, so permission, leader and epoch have been checked by it; a partition it answers with
an error keeps that error. What each timestamp means to a broker: kafka-protocol.md 6.
"""

from dataclasses import dataclass

from protocol.errors import ErrorCode
from protocol.messages import ListOffsetsRequest, ListOffsetsResponse, OffsetAnswer
from tierproxy.catalog import Catalog, Tier

EARLIEST = -2
MAX_TIMESTAMP = -3

READ_COMMITTED = 1
NOTHING = -1  # offset and timestamp of "no such record"


@dataclass(slots=True)
class Question:
    """One answer of the broker that the archive may know better."""

    answer: OffsetAnswer
    timestamp: int
    tier: Tier | None  # None: the topic may be archived, but isn't known yet
    committed: bool = False  # asked with READ_COMMITTED: records above the last stable offset don't count


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record the archive found for a timestamp; `leader_epoch` is its batch's, or -1."""

    offset: int
    timestamp: int
    leader_epoch: int


def questions(response: ListOffsetsResponse, request: ListOffsetsRequest, catalog: Catalog) -> list[Question]:
    """The answers to look up in the archive too. -1 (latest), -4 (earliest local) and others are the broker's alone.

    So is offset 0, where the first offset is asked for: there is none before it, whatever is archived.
    """
    asked = {(topic, partition): timestamp for topic, partition, timestamp in request.partitions}
    found: list[Question] = []
    for answer in response.partitions:
        timestamp = asked.get((answer.topic, answer.partition))
        if answer.error != ErrorCode.NONE or timestamp is None:
            continue
        if timestamp < 0 and timestamp not in (EARLIEST, MAX_TIMESTAMP):
            continue
        if answer.offset == 0 and timestamp != MAX_TIMESTAMP:
            continue
        tier = catalog.find(answer.topic, answer.partition)
        if tier is not None and timestamp == EARLIEST and answer.offset >= 0:
            catalog.asked_for_start(tier, answer.offset)
        if tier is not None or catalog.might_be_archived(answer.topic):
            found.append(Question(answer, timestamp, tier, request.isolation == READ_COMMITTED))
    return found


def merge_earliest(answer: OffsetAnswer, start: FoundRecord) -> None:
    """The archive's start is the earliest offset, unless the broker still has an earlier one."""
    if start.offset < answer.offset or answer.offset == NOTHING:
        answer.offset, answer.leader_epoch = start.offset, start.leader_epoch


def merge_time(answer: OffsetAnswer, found: FoundRecord | None) -> None:
    """The first record in offset order wins.

    The broker's "none" is not to be believed where the archive has found one: right after trimming it looks into the
    trimmed segment only (kafka-protocol.md 6, trap a).
    """
    if found is not None and (answer.offset == NOTHING or found.offset < answer.offset):
        _take(answer, found)


def may_be_undecided(question: Question) -> bool:
    """Whether the broker's "none" may stand for a record above the last stable offset, which nobody is told of."""
    return question.timestamp == MAX_TIMESTAMP and question.committed and question.answer.offset == NOTHING


def merge_max(answer: OffsetAnswer, found: FoundRecord | None, start: int, undecided_time: int = NOTHING) -> None:
    """The highest timestamp of both tiers, the smaller offset on a tie.

    The broker may name a record below its log start (kafka-protocol.md 6, trap b): one below the archive's, too, is
    gone, and "none" is said for it. `undecided_time` is the highest time of all on the broker, where that is known
    to be of a record that can't be told yet: no other record is named in its place.
    """
    if answer.offset < start:
        answer.offset = answer.timestamp = answer.leader_epoch = NOTHING
    if found is None or undecided_time > found.timestamp:
        return
    if answer.offset == NOTHING or (-found.timestamp, found.offset) < (-answer.timestamp, answer.offset):
        _take(answer, found)


def refuse(answer: OffsetAnswer, error: ErrorCode) -> None:
    """The archive can't be asked right now: a retriable error, never the broker's half of the truth."""
    answer.error = error
    answer.offset = answer.timestamp = answer.leader_epoch = NOTHING


def _take(answer: OffsetAnswer, found: FoundRecord) -> None:
    answer.offset, answer.timestamp, answer.leader_epoch = found.offset, found.timestamp, found.leader_epoch
