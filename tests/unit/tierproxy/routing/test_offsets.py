import pytest

from protocol.messages import ListOffsetsRequest, ListOffsetsResponse, OffsetAnswer
from tests.unit.tierproxy.talk import archived, catalog
from tierproxy.routing.offsets import FoundRecord, merge_earliest, merge_max, merge_time, questions


def told(offset: int, timestamp: int = -1, epoch: int = 3) -> OffsetAnswer:
    return OffsetAnswer("flights", 0, 0, timestamp, offset, epoch)


def shown(answer: OffsetAnswer) -> tuple[int, int, int]:
    return answer.offset, answer.timestamp, answer.leader_epoch


@pytest.mark.parametrize(
    ("broker", "start", "expected"),
    [
        (told(400), FoundRecord(100, -1, 1), (100, -1, 1)),
        (told(50), FoundRecord(100, -1, 1), (50, -1, 3)),  # the broker still has more than the archive
        (told(100), FoundRecord(100, -1, 1), (100, -1, 3)),
    ],
)
def test_earliest(broker: OffsetAnswer, start: FoundRecord, expected: tuple[int, int, int]) -> None:
    merge_earliest(broker, start)
    assert shown(broker) == expected


@pytest.mark.parametrize(
    ("broker", "found", "expected"),
    [
        (told(400, 70), FoundRecord(150, 60, 1), (150, 60, 1)),
        (told(400, 70), None, (400, 70, 3)),
        (told(-1, -1, -1), FoundRecord(450, 60, 1), (450, 60, 1)),  # right after a trim brokers find nothing
        (told(-1, -1, -1), None, (-1, -1, -1)),
        (told(400, 70), FoundRecord(420, 60, 1), (400, 70, 3)),
    ],
)
def test_by_time_the_first_record_in_offset_order_wins(
    broker: OffsetAnswer, found: FoundRecord | None, expected: tuple[int, int, int]
) -> None:
    merge_time(broker, found)
    assert shown(broker) == expected


@pytest.mark.parametrize(
    ("broker", "found", "expected"),
    [
        (told(400, 70), FoundRecord(150, 90, 1), (150, 90, 1)),
        (told(400, 70), FoundRecord(150, 60, 1), (400, 70, 3)),
        (told(400, 70), FoundRecord(150, 70, 1), (150, 70, 1)),  # a tie: the smaller offset
        (told(-1, -1, -1), FoundRecord(150, 60, 1), (150, 60, 1)),
        (told(400, 70), None, (400, 70, 3)),
        (told(99, 70), None, (-1, -1, -1)),  # below the archive's start: deleted
        (told(99, 70), FoundRecord(150, 60, 1), (150, 60, 1)),
    ],
)
def test_the_highest_timestamp_of_both(
    broker: OffsetAnswer, found: FoundRecord | None, expected: tuple[int, int, int]
) -> None:
    merge_max(broker, found, start=100)
    assert shown(broker) == expected


@pytest.mark.parametrize(
    ("topic", "timestamp", "error", "asked"),
    [
        ("flights", -2, 0, True),
        ("flights", -3, 0, True),
        ("flights", 0, 0, True),
        ("flights", 1_700_000_000_000, 0, True),
        ("flights", -1, 0, False),
        ("flights", -4, 0, False),
        ("flights", -5, 0, False),
        ("flights", -2, 29, False),  # what the broker refuses stays refused
        ("plain", -2, 0, False),
    ],
)
def test_which_answers_the_archive_is_asked_about(topic: str, timestamp: int, error: int, asked: bool) -> None:
    known = catalog(manifest=archived(100, 500), broker_start=400)
    response = ListOffsetsResponse(0, [OffsetAnswer(topic, 0, error, -1, 400, 3)])
    found = questions(response, ListOffsetsRequest(0, [(topic, 0, timestamp)]), known)
    assert bool(found) is asked


def test_what_an_answer_needs_is_not_learned_for_somebody_else_at_the_same_time() -> None:
    """The manifest has to be younger than the broker's answer: a read that has begun already would be waited for."""
    known = catalog()
    assert known.wanted
    response = ListOffsetsResponse(0, [OffsetAnswer("flights", 0, 0, -1, 400, 3)])
    (question,) = questions(response, ListOffsetsRequest(0, [("flights", 0, -2)]), known)
    assert question.tier is not None
    assert known.wanted == {}
    assert question.tier.broker_start == 400, "whether a manifest is lost is told by it"


def test_what_else_is_wanted_is_learned_for_who_asks_by_time() -> None:
    known = catalog()
    response = ListOffsetsResponse(0, [OffsetAnswer("flights", 0, 0, -1, 400, 3)])
    assert questions(response, ListOffsetsRequest(0, [("flights", 0, 1_700_000_000_000)]), known)
    assert known.wanted


@pytest.mark.parametrize(("timestamp", "asked"), [(-2, False), (1_700_000_000_000, False), (-3, True)])
def test_of_first_offsets_none_is_before_0(timestamp: int, asked: bool) -> None:
    response = ListOffsetsResponse(0, [OffsetAnswer("flights", 0, 0, -1, 0, 3)])
    assert bool(questions(response, ListOffsetsRequest(0, [("flights", 0, timestamp)]), catalog())) is asked


def test_no_other_record_is_named_in_place_of_one_that_is_not_decided() -> None:
    answer = told(-1, -1, -1)
    merge_max(answer, FoundRecord(150, 60, 1), 100, undecided_time=61)
    assert shown(answer) == (-1, -1, -1)
    merge_max(answer, FoundRecord(150, 60, 1), 100, undecided_time=60)
    assert shown(answer) == (150, 60, 1)
