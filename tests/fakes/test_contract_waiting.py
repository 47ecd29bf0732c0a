"""When a Fetch is answered, where a consumer is sent, and what it is told of transactions."""

import asyncio

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection
from tests.fakes.subjects import LONG, Subject, batch, placed, waits

OOOR = ErrorCode.OFFSET_OUT_OF_RANGE
UNKNOWN_ID = ErrorCode.UNKNOWN_TOPIC_ID


async def test_what_waits_and_what_does_not(subject: Subject, client: Connection, name: str) -> None:
    topic_id = await subject.create_topic(name, (1, 1))
    await subject.append(name, batch())
    end, failing = Ask(topic_id, 0, 10), Ask(topic_id, 1, 5)
    stranger = Ask(bytes(range(16)), 0, 0)
    await waits(client.fetch(17, end, max_wait=300), 300)
    await waits(client.fetch(17, end, stranger, max_wait=300), 300)
    found = await client.fetch(17, end, failing, max_wait=LONG)
    assert [each.error for each in found] == [0, OOOR], "a failed read ends the wait"
    assert (await client.fetch(17, stranger, max_wait=LONG))[0].error == UNKNOWN_ID, "nothing is left to wait for"
    assert await client.fetch(17, max_wait=LONG) == []
    await waits(client.fetch(17, Ask(topic_id, 0, 0), min_bytes=1 << 20, max_wait=300), 300)
    (found_one,) = await client.fetch(17, Ask(topic_id, 0, 0), min_bytes=1 << 20, max_bytes=20, max_wait=LONG)
    assert found_one.records, "min_bytes counts up to max_bytes only"


async def test_records_end_a_wait(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    client.send_fetch(12, Ask(name, 0, 0), max_wait=LONG)
    await subject.append(name, batch())
    (found,) = await client.fetched(12)
    assert found.records == placed(batch(), 0)


async def test_a_trim_ends_no_wait_and_is_seen_at_its_end(subject: Subject, name: str) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch(), batch())
    async with await subject.connect() as first, await subject.connect() as second, await subject.connect() as other:
        loop = asyncio.get_running_loop()
        began = loop.time()
        first.send_fetch(12, Ask(name, 0, 10), min_bytes=1 << 20, max_wait=1_000)
        second.send_fetch(12, Ask(name, 0, 20), min_bytes=1 << 20, max_wait=1_000)
        await other.fetch(12, Ask(name, 0, 0))  # by now both are waiting
        await asyncio.sleep(0.1)
        assert await other.delete_records(2, (name, 0, 20)) == [(0, 20)]
        (below,), (exact,) = await first.fetched(12), await second.fetched(12)
        assert loop.time() - began >= 0.95
        assert (below.error, below.log_start) == (OOOR, -1)
        assert (exact.error, exact.records, exact.log_start, exact.high_watermark) == (0, b"", 20, 20)


async def test_requests_of_one_connection_are_answered_in_order(
    subject: Subject, client: Connection, name: str
) -> None:
    await subject.create_topic(name)
    client.send_fetch(12, Ask(name, 0, 0), max_wait=300)
    client.send(ApiKey.METADATA, 9, topics=[], allow_auto_topic_creation=False)
    first, second = await waits(client.receive(), 300), await client.receive()
    assert isinstance(first, bytes)
    assert (first[:4], second[:4]) == (b"\0\0\0\1", b"\0\0\0\2")


async def test_a_preferred_replica(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch(), batch())
    await client.delete_records(2, (name, 0, 5))
    while (found := (await client.fetch(12, Ask(name, 0, 5), rack="west", max_wait=100))[0]).preferred == -1:
        pass  # the leader must first know how far the follower is
    assert (found.error, found.preferred, found.records, found.log_start) == (0, 2, b"", 5)
    assert found.high_watermark == 20
    (found,) = await client.fetch(12, Ask(name, 0, 4), rack="west", max_wait=LONG)
    assert (found.error, found.preferred) == (OOOR, -1)
    (found,) = await client.fetch(12, Ask(name, 0, 5), rack="east")
    assert (found.preferred, found.records) == (-1, placed(batch(), 0) + placed(batch(), 10))
    (found,) = await client.fetch(10, Ask(name, 0, 5))
    assert (found.preferred, bool(found.records)) == (-1, True)


async def test_aborted_transactions(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    await subject.abort(name, [b"a", b"b"])  # 0, 1, marker 2
    await subject.append(name, batch(2))  # 3, 4
    await subject.abort(name, [b"c", b"d", b"e"])  # 5-7, marker 8

    async def firsts(offset: int, **limits: int) -> list[int] | None:
        (found,) = await client.fetch(12, Ask(name, 0, offset), committed=True, **limits)
        assert found.error == 0
        return None if found.aborted is None else [first for _, first in found.aborted]

    assert await firsts(0) == [0, 5]
    assert await firsts(2) == [0, 5], "the marker itself is read"
    assert await firsts(3) == [5]
    assert await firsts(9) == []
    assert await firsts(0, max_bytes=1) == [0, 5], "beyond what is returned, too"
    (found,) = await client.fetch(12, Ask(name, 0, 0))
    assert found.aborted is None, "nobody asked for it"


async def test_an_open_transaction(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name)
    await subject.append(name, batch(time=100))
    await subject.begin(name, [b"a", b"b"])
    await subject.append(name, batch(time=5_000))
    (found,) = await client.fetch(12, Ask(name, 0, 0), committed=True)
    assert (found.records, found.high_watermark, found.last_stable) == (placed(batch(time=100), 0), 22, 10)
    (found,) = await client.fetch(12, Ask(name, 0, 12))
    assert found.records == placed(batch(time=5_000), 12)
    await waits(client.fetch(12, Ask(name, 0, 10), committed=True, max_wait=300), 300)
    asks = [(name, 0, time) for time in (-1, 5_000, -3)]
    assert [(await client.list_offsets(7, ask))[0][1] for ask in asks] == [22, 12, 21]
    assert [(await client.list_offsets(7, ask, committed=True))[0][1] for ask in asks] == [10, -1, -1]
    assert await client.delete_records(2, (name, 0, -1)) == [(0, 22)]
    (found,) = await client.fetch(12, Ask(name, 0, 22), committed=True)
    assert found.last_stable == 22, "the log start pushes it"
