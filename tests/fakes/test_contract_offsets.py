"""ListOffsets, OffsetForLeaderEpoch and DeleteRecords."""

import pytest

from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection
from tests.fakes.subjects import LONG, Subject, batch, waits

OOOR = ErrorCode.OFFSET_OUT_OF_RANGE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
NOT_LEADER = ErrorCode.NOT_LEADER_OR_FOLLOWER
UNSUPPORTED = ErrorCode.UNSUPPORTED_VERSION
INVALID = ErrorCode.INVALID_REQUEST
TIMED_OUT = ErrorCode.REQUEST_TIMED_OUT
POLICY = ErrorCode.POLICY_VIOLATION


@pytest.mark.parametrize("version", range(1, 12))
async def test_offsets_by_timestamp(subject: Subject, client: Connection, name: str, version: int) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch(time=1_000), batch(time=2_000))
    epoch = 0 if version >= 4 else -1
    expected = {
        -1: (0, 20, -1, epoch),
        -2: (0, 0, -1, epoch),
        0: (0, 0, 1_000, epoch),
        1_004: (0, 4, 1_004, epoch),
        1_010: (0, 10, 2_000, epoch),
        2_010: (0, -1, -1, -1),
        -3: (0, 19, 2_009, epoch) if version >= 7 else (UNSUPPORTED, -1, -1, -1),
        -4: (0, 0, -1, epoch) if version >= 8 else (UNSUPPORTED, -1, -1, -1),
        -5: (0, -1, -1, -1) if version >= 9 else (UNSUPPORTED, -1, -1, -1),
        -6: (0, -1, -1, -1) if version >= 11 else (UNSUPPORTED, -1, -1, -1),
        -7: (UNSUPPORTED, -1, -1, -1),
    }
    found = {time: (await client.list_offsets(version, (name, 0, time)))[0] for time in expected}
    assert found == expected


async def test_offsets_of_an_empty_log_and_refusals(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name, (1, 2))
    asks = [(name, 0, time) for time in (-1, -2, -3, 0)]
    assert [(await client.list_offsets(7, ask))[0][:3] for ask in asks] == [
        (0, 0, -1),
        (0, 0, -1),
        (0, -1, -1),
        (0, -1, -1),
    ]
    found = await client.list_offsets(7, (name, 0, -1), (name, 1, -1), (name, 9, -1), ("no", 0, -1))
    assert sorted(each[0] for each in found) == [0, UNKNOWN, UNKNOWN, NOT_LEADER], "in whatever order"
    found = await client.list_offsets(7, (name, 0, -1), (name, 0, -2))
    assert {each[0] for each in found} == {INVALID}


async def test_right_after_trimming_lookups_by_time_find_nothing(
    subject: Subject, client: Connection, name: str
) -> None:
    """Trap (a), until the trimmed segment is deleted; and (b): the maximum may lie below the log start."""
    await subject.create_topic(name, internal_segment_bytes="1024")
    old = batch(time=5_000, value=b"x" * 60)
    new = batch(time=6_000, value=b"x" * 60)
    await subject.append(name, old, new)
    await client.delete_records(2, (name, 0, 10))
    assert (await client.list_offsets(7, (name, 0, 5_000)))[0] == (0, -1, -1, -1), "(a)"
    assert (await client.list_offsets(7, (name, 0, 5_500)))[0] == (0, 10, 6_000, 0)
    await client.delete_records(2, (name, 0, 15))
    await subject.append(name, batch(time=1_000))
    assert (await client.list_offsets(7, (name, 0, -3)))[0] == (0, 19, 6_009, 0)
    await client.delete_records(2, (name, 0, 20))
    assert (await client.list_offsets(7, (name, 0, -3)))[0] == (0, 19, 6_009, 0), "(b)"
    assert (await client.list_offsets(7, (name, 0, -2)))[0] == (0, 20, -1, 0)


async def test_ends_of_epochs_before_and_after_a_trim(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch())
    first = await subject.epoch(name)
    await subject.elect(name, 0, 2)  # writes nothing in its epoch
    third = await subject.elect(name, 0, 1)
    await subject.append(name, batch())
    asked = (first, first + 1, third, third + 1)
    assert await client.epoch_ends(4, name, *asked) == [(0, first, 10), (0, first, 10), (0, third, 20), (0, -1, -1)]
    await client.delete_records(2, (name, 0, 15))
    assert await client.epoch_ends(3, name, *asked) == [
        (0, first, 15),
        (0, first + 1, 15),
        (0, third, 20),
        (0, -1, -1),
    ]
    await client.delete_records(2, (name, 0, -1))
    assert await client.epoch_ends(2, name, *asked) == [
        (0, first, 20),
        (0, first + 1, 20),
        (0, third, 20),
        (0, -1, -1),
    ]
    (found,) = await client.fetch(12, Ask(name, 0, 20, last_epoch=third))
    assert (found.error, found.diverging) == (0, None)
    (found,) = await client.fetch(12, Ask(name, 0, 20, last_epoch=third + 5), max_wait=LONG)
    assert found.error == OOOR
    assert (await client.list_offsets(7, (name, 0, -2)))[0] == (0, 20, -1, third)


async def test_a_position_that_the_leader_never_had_diverges(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch())
    first = await subject.epoch(name)
    await subject.elect(name, 0, 2)
    await subject.elect(name, 0, 1)
    await subject.append(name, batch())
    (found,) = await client.fetch(12, Ask(name, 0, 15, last_epoch=first), max_wait=LONG)
    assert (found.error, found.records, found.diverging) == (0, b"", (first, 10))


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_deleting_records(subject: Subject, client: Connection, name: str, version: int) -> None:
    await subject.create_topic(name, (1, 2))
    await subject.append(name, batch(), batch())

    async def delete(offset: int, partition: int = 0, topic: str = name) -> tuple[int, int]:
        return (await client.delete_records(version, (topic, partition, offset)))[0]

    assert await delete(5) == (0, 5)
    assert await delete(3) == (0, 5), "below the log start: nothing happens, and it is told"
    assert await delete(21) == (OOOR, -1)
    assert await delete(-2) == (OOOR, -1)
    assert await delete(1, partition=1) == (NOT_LEADER, -1)
    assert await delete(1, partition=9) == (UNKNOWN, -1)
    assert await delete(1, topic="nowhere") == (UNKNOWN, -1)
    assert await client.delete_records(version, (name, 0, 6), (name, 0, 8)) == [(0, 8)], "asked last counts"
    assert await delete(-1) == (0, 20)
    (found,) = await client.fetch(12, Ask(name, 0, 20))
    assert (found.error, found.log_start, found.high_watermark) == (0, 20, 20)


async def test_a_compacted_topic_is_not_deleted_from(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name, cleanup_policy="compact")
    await subject.append(name, batch())
    assert await client.delete_records(2, (name, 0, 5)) == [(POLICY, -1)]


async def test_a_frozen_follower_makes_it_unknown_what_was_deleted(
    subject: Subject, client: Connection, name: str
) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch(), batch())
    async with subject.frozen_follower(name):
        answer = await waits(client.delete_records(2, (name, 0, 15), timeout_ms=300), 300)
        assert answer == [(TIMED_OUT, 0)], "and the old low watermark"
        assert (await client.fetch(12, Ask(name, 0, 10)))[0].error == OOOR, "yet it was deleted"
    while (answer := await client.delete_records(2, (name, 0, 15))) != [(0, 15)]:
        assert answer[0][0] == TIMED_OUT
