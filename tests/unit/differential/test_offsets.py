"""The comparison of answers about offsets fails on planted differences, and on nothing that is allowed."""

from typing import Any

import pytest
from kafka.protocol import consumer

from tests.differential import messages
from tests.differential.asks import EpochPlace, EpochsAsk, OffsetsAsk, TimePlace
from tests.differential.findings import Allowed, Findings
from tests.differential.golden import Golden
from tests.differential.offsets import compare_epochs, compare_offsets
from tests.differential.wire import Reply
from tests.differential.world import ARC, REF, AtRecord
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.differential.small_world import SEAM, as_batch, world

Listed = tuple[int, int, int, int]
"""Error, timestamp, offset, leader epoch."""


def _listed(side: str, *answers: Listed, topic: str = "a") -> Reply:
    kind: Any = consumer.ListOffsetsResponse
    topics = [
        kind.ListOffsetsTopicResponse(
            version=7,
            name=f"{side}-{topic}",
            partitions=[
                kind.ListOffsetsTopicResponse.ListOffsetsPartitionResponse(
                    version=7, partition_index=0, error_code=error, timestamp=time, offset=offset, leader_epoch=epoch
                )
                for error, time, offset, epoch in answers
            ],
        )
    ]
    return Reply(messages.encode(kind(version=7, throttle_time_ms=0, topics=topics)), 0)


def _compared(time: int | AtRecord, ref: Listed, arc: Listed) -> Findings:
    asked = OffsetsAsk(7, 0, (TimePlace("a", 0, time),))
    return compare_offsets(asked, _listed(REF, ref), _listed(ARC, arc), world())


def test_equal_answers_are_equal() -> None:
    assert _compared(-2, (0, -1, 0, 0), (0, -1, 0, 0)) == Findings()


@pytest.mark.parametrize("arc", [(1, -1, 0, 0), (0, -1, SEAM, 0), (0, -1, 0, 1), (0, 5, 0, 0)])
def test_planted_differences_are_found(arc: Listed) -> None:
    assert len(_compared(-2, (0, -1, 0, 0), arc).differences) == 1


def test_each_sides_time_is_its_own() -> None:
    """Times that brokers write differ from log to log: that of the record at the offset is the right one."""
    both = world()
    both.arc.logs["a", 0] = Golden([as_batch(make_batch(0, plain_records(5, time=1_003)))], 0, 5, 5)
    asked = OffsetsAsk(7, 0, (TimePlace("a", 0, AtRecord(2, 0)),))
    ref = _listed(REF, (0, 1_002, 2, 0))
    assert compare_offsets(asked, ref, _listed(ARC, (0, 1_005, 2, 0)), both) == Findings()
    assert len(compare_offsets(asked, ref, _listed(ARC, (0, 1_002, 2, 0)), both).differences) == 1


def test_earliest_local_is_the_brokers_own() -> None:
    found = _compared(-4, (0, -1, 0, 0), (0, -1, SEAM, 1))
    assert (found.differences, found.allowed[Allowed.EARLIEST_LOCAL]) == ([], 1)
    assert _compared(-4, (0, -1, 0, 0), (0, -1, SEAM - 1, 1)).differences


def test_a_compacted_log_may_be_searched_better_than_by_the_broker() -> None:
    both = world()
    both.compacted = {"a"}
    asked = OffsetsAsk(7, 0, (TimePlace("a", 0, 2_001),))
    nothing = _listed(REF, (0, -1, -1, -1))
    found = compare_offsets(asked, nothing, _listed(ARC, (0, 2_001, 6, 0)), both)
    assert (found.differences, found.allowed[Allowed.LOST_TIME]) == ([], 1)
    assert compare_offsets(asked, nothing, _listed(ARC, (0, 2_002, 7, 0)), both).differences
    assert _compared(2_001, (0, -1, -1, -1), (0, 2_001, 6, 0)).differences  # not where nothing was compacted


def test_a_partition_twice_or_missing_is_found() -> None:
    asked = OffsetsAsk(7, 0, (TimePlace("a", 0, -2),))
    one = (0, -1, 0, 0)
    assert compare_offsets(asked, _listed(REF, one), _listed(ARC, one, one), world()).differences
    assert compare_offsets(asked, _listed(REF, one), _listed(ARC), world()).differences
    assert compare_offsets(asked, _listed(REF, one), _listed(ARC, one, topic="b"), world()).differences


def _ended(side: str, error: int, epoch: int, end: int) -> Reply:
    kind: Any = consumer.OffsetForLeaderEpochResponse
    part = kind.OffsetForLeaderTopicResult.EpochEndOffset(
        version=4, error_code=error, partition=0, leader_epoch=epoch, end_offset=end
    )
    topics = [kind.OffsetForLeaderTopicResult(version=4, topic=f"{side}-a", partitions=[part])]
    return Reply(messages.encode(kind(version=4, throttle_time_ms=0, topics=topics)), 0)


def _ends_compared(ref: tuple[int, int, int], arc: tuple[int, int, int]) -> Findings:
    asked = EpochsAsk(4, (EpochPlace("a", 0, 0),))
    return compare_epochs(asked, _ended(REF, *ref), _ended(ARC, *arc), world())


def test_equal_epoch_ends_are_equal() -> None:
    assert _ends_compared((0, 0, 20), (0, 0, 20)) == Findings()


def test_an_epoch_may_end_later_where_the_broker_has_forgotten() -> None:
    found = _ends_compared((0, 0, 10), (0, 0, SEAM))
    assert (found.differences, found.allowed[Allowed.EPOCH_ENDS]) == ([], 1)


@pytest.mark.parametrize(
    ("ref", "arc"),
    [
        ((0, 0, 10), (0, 0, 9)),  # earlier: a truncation that never was
        ((0, 1, 10), (0, 0, 10)),  # an older epoch
        ((0, 0, 10), (0, -1, -1)),  # forgotten
        ((0, 0, 20), (0, 0, 25)),  # above the broker's log start nothing is forgotten
        ((0, 0, 10), (75, -1, -1)),
    ],
)
def test_planted_epoch_ends_are_found(ref: tuple[int, int, int], arc: tuple[int, int, int]) -> None:
    assert len(_ends_compared(ref, arc).differences) == 1
