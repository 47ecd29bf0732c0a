"""What a Fetch returns, and what is refused how."""

import asyncio

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection, fetch_fields
from tests.fakes.subjects import LONG, Subject, batch, placed

OOOR = ErrorCode.OFFSET_OUT_OF_RANGE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
NOT_LEADER = ErrorCode.NOT_LEADER_OR_FOLLOWER
DENIED = ErrorCode.TOPIC_AUTHORIZATION_FAILED
SESSION = ErrorCode.FETCH_SESSION_ID_NOT_FOUND
FENCED = ErrorCode.FENCED_LEADER_EPOCH
AHEAD = ErrorCode.UNKNOWN_LEADER_EPOCH
UNKNOWN_ID = ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", range(4, 19))
async def test_a_fetch_returns_the_batches_as_produced(
    subject: Subject, client: Connection, name: str, version: int
) -> None:
    topic_id = await subject.create_topic(name)
    await subject.append(name, batch(), batch(value=b"more"))
    key = name if version < 13 else topic_id
    for committed in (False, True):
        (found,) = await client.fetch(version, Ask(key, 0, 3), committed=committed)
        assert (found.topic, found.partition, found.error, found.preferred) == (key, 0, 0, -1)
        assert found.records == placed(batch(), 0) + placed(batch(value=b"more"), 10)
        assert (found.high_watermark, found.last_stable) == (20, 20)
        assert found.log_start == (-1 if version < 5 else 0)
        assert found.aborted == ([] if committed else None)
        assert (found.diverging, found.leader) == (None, None)


async def test_limits_cut_the_last_batch_but_never_the_first(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name, (1, 1))
    one = batch()
    for partition in (0, 1):
        await subject.append(name, one, one, one, partition=partition)

    async def sizes(max_bytes: int, first: int, second: int) -> list[int]:
        asks = Ask(name, 0, 0, first), Ask(name, 1, 0, second)
        return [len(each.records or b"") for each in await client.fetch(12, *asks, max_bytes=max_bytes)]

    size, big = len(one), 1 << 20
    assert await sizes(big, big, big) == [3 * size, 3 * size]
    assert await sizes(big, size + 7, big) == [size + 7, 3 * size]
    assert await sizes(big, 5, big) == [size, 3 * size]
    assert await sizes(0, big, big) == [size, 0]
    assert await sizes(3 * size + 5, big, big) == [3 * size, 0]
    assert await sizes(4 * size + 5, big, big) == [3 * size, size + 5]
    assert await sizes(big, big, 5) == [3 * size, 0], "only the first with data may exceed its limit"


async def test_a_read_begins_with_the_batch_that_holds_the_offset(
    subject: Subject, client: Connection, name: str
) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch(), batch())
    (found,) = await client.fetch(12, Ask(name, 0, 19))
    assert found.records == placed(batch(), 10)
    (found,) = await client.fetch(12, Ask(name, 0, 20))
    assert found.records == b""


async def test_a_read_never_leaves_its_segment_and_old_ones_wait_for_nothing(
    subject: Subject, client: Connection, name: str
) -> None:
    await subject.create_topic(name, internal_segment_bytes="1024")
    await subject.append(name, *[batch(value=b"x" * 60) for _ in range(3)])
    (found,) = await client.fetch(12, Ask(name, 0, 0), min_bytes=1 << 20, max_wait=LONG)
    assert found.records == placed(batch(value=b"x" * 60), 0)


@pytest.mark.parametrize("version", range(4, 19))
async def test_out_of_range_tells_nothing_but_that(
    subject: Subject, client: Connection, name: str, version: int
) -> None:
    topic_id = await subject.create_topic(name)
    await subject.append(name, batch(), batch())
    await client.delete_records(2, (name, 0, 15))
    key = name if version < 13 else topic_id
    for committed in (False, True):
        for offset in (0, 14, 21, -1):
            (found,) = await client.fetch(version, Ask(key, 0, offset), committed=committed, max_wait=LONG)
            assert (found.error, found.records, found.aborted) == (OOOR, b"", None)
            assert (found.high_watermark, found.last_stable, found.log_start) == (-1, -1, -1)
        (found,) = await client.fetch(version, Ask(key, 0, 15), committed=committed)
        assert found.records == placed(batch(), 10), "the whole batch that holds the log start"
        assert found.log_start == (-1 if version < 5 else 15)


async def test_the_order_of_an_answer(subject: Subject, client: Connection, name: str) -> None:
    """As asked; refused before reading last; neighbours of a topic together; named twice counts once, as asked last."""
    other = name + "-other"
    await subject.create_topic(name, (1, 2, 1))
    await subject.create_topic(other)
    for partition in (0, 2):
        await subject.append(name, batch(), partition=partition)
    found = await client.fetch(
        10,
        Ask(name, 0, 99),
        Ask(name, 7, 0),
        Ask(other, 0, 0),
        Ask("nowhere", 0, 0),
        Ask(name, 1, 0),
        Ask(name, 2, 4),
        Ask(name, 0, 5),
        max_wait=LONG,
    )
    assert [(each.topic, each.partition, each.error) for each in found] == [
        (name, 0, 0),
        (other, 0, 0),
        (name, 1, NOT_LEADER),
        (name, 2, 0),
        (name, 7, UNKNOWN),
        ("nowhere", 0, UNKNOWN),
    ]
    assert [each.aborted for each in found] == [None, None, None, None, [], []]
    answer = await client.ask(
        ApiKey.FETCH, 10, **fetch_fields(10, [Ask(name, 0, 0), Ask(name, 2, 0), Ask(other, 0, 0), Ask(name, 1, 0)])
    )
    assert [(topic.topic, len(topic.partitions)) for topic in answer.responses] == [(name, 2), (other, 1), (name, 1)]


async def test_topic_ids(subject: Subject, client: Connection, name: str) -> None:
    topic_id = await subject.create_topic(name)
    await subject.append(name, batch())
    stranger = bytes(range(16))
    found = await client.fetch(17, Ask(stranger, 0, 0), Ask(bytes(16), 0, 0), Ask(topic_id, 0, 0), committed=True)
    assert [(each.topic, each.error) for each in found] == [(topic_id, 0), (stranger, UNKNOWN_ID), (bytes(16), 100)]
    assert (found[1].high_watermark, found[1].log_start, found[1].aborted, found[1].records) == (-1, -1, [], b"")


async def test_denied(subject: Subject, client: Connection, name: str) -> None:
    topic_id = await subject.create_topic(name)
    await subject.append(name, batch())
    await subject.deny(name, "READ")

    async def errors() -> tuple[list[int], list[int]]:
        by_name = [each.error for each in await client.fetch(12, Ask(name, 0, 0), Ask(name, 9, 0))]
        return by_name, [each.error for each in await client.fetch(17, Ask(topic_id, 0, 99))]

    while (found := await errors())[0][0] == 0:
        await asyncio.sleep(0.05)  # an ACL takes a moment to reach a broker
    assert found == ([DENIED, DENIED], [DENIED])
    await subject.deny(name, "DESCRIBE")
    while (await client.metadata(12, name)).topics[0].error_code == 0:
        await asyncio.sleep(0.05)
    (found_topic,) = (await client.metadata(12, name)).topics
    assert (found_topic.error_code, found_topic.name, found_topic.topic_id) == (DENIED, name, None)
    assert (await client.list_offsets(7, (name, 0, -2)))[0][0] == DENIED
    await subject.deny(name, "DELETE")
    while (answer := (await client.delete_records(2, (name, 0, 0)))[0])[0] == 0:
        await asyncio.sleep(0.05)
    assert answer == (DENIED, -1)


@pytest.mark.parametrize("version", [4, 10, 11, 12, 15, 16, 18])
async def test_a_node_that_does_not_lead(subject: Subject, client: Connection, name: str, version: int) -> None:
    topic_id = await subject.create_topic(name, (2,))
    await subject.append(name, batch(), leader=2)
    key = name if version < 13 else topic_id
    if version >= 11:  # a follower answers
        while not (found := (await client.fetch(version, Ask(key, 0, 0), max_wait=100))[0]).records:
            assert found.error == 0
        assert (found.records, found.leader) == (placed(batch(), 0), None)
        return
    (found,) = await client.fetch(version, Ask(key, 0, 0), max_wait=LONG)
    assert (found.error, found.high_watermark, found.records) == (NOT_LEADER, -1, b"")


@pytest.mark.parametrize("version", [9, 12, 15, 16, 17, 18])
async def test_leader_epochs(subject: Subject, client: Connection, name: str, version: int) -> None:
    topic_id = await subject.create_topic(name)
    await subject.append(name, batch())
    await subject.elect(name, 0, 2)
    now = await subject.elect(name, 0, 1)
    key = name if version < 13 else topic_id
    for epoch, error in ((now, 0), (-1, 0), (now - 1, FENCED), (now + 1, AHEAD)):
        request = fetch_fields(version, [Ask(key, 0, 99 if error else 0, epoch=epoch)], max_wait=LONG)
        answer = await client.ask(ApiKey.FETCH, version, **request)
        found = answer.responses[0].partitions[0]
        assert found.error_code == error, "the epoch is looked at before the offset"
        named = error == FENCED and version >= 16
        endpoints = [(each.node_id, each.host, each.port) for each in answer.node_endpoints] if version >= 16 else []
        assert endpoints == ([(1, *subject.address(1))] if named else [])
        if version >= 12:
            leader = found.current_leader
            assert (leader and (leader.leader_id, leader.leader_epoch)) == ((1, now) if named else None)
    assert (await client.list_offsets(5, (name, 0, -1), epoch=now - 1))[0][0] == FENCED
    assert (await client.list_offsets(5, (name, 0, -1), epoch=now + 1))[0][0] == AHEAD
    assert (await client.epoch_ends(4, name, 0, current=now + 1))[0][0] == AHEAD


async def test_a_stranger_that_claims_to_be_a_replica(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    (found,) = await client.fetch(12, Ask(name, 0, 0), replica_id=77, max_wait=LONG)
    assert found.error == NOT_LEADER


async def test_an_incremental_fetch_of_a_session_that_does_not_exist(
    subject: Subject, client: Connection, name: str
) -> None:
    await subject.create_topic(name)
    for version in (7, 12):
        answer = await client.ask(
            ApiKey.FETCH, version, **fetch_fields(version, [Ask(name, 0, 0)], session=(4711, 3), max_wait=LONG)
        )
        assert (answer.error_code, answer.session_id, answer.responses) == (SESSION, 0, [])
