"""Fetches that wait: what a trim, a slow archive, or hot records do to them."""

import asyncio
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from protocol.batches import walk
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection
from tests.fakes.broker import FakeCluster
from tests.fakes.subjects import LONG, batch, waits
from tests.gateway.stage import Gateway, fill, read_until
from tierproxy.scout import MANIFESTS_EVERY_MS, RETRY_AFTER

NONE = ErrorCode.NONE


@pytest.mark.parametrize("version", [4, 6, 11, 12, 13, 17, 18])
async def test_a_reader_crosses_from_the_archive_to_the_broker(
    brokers: FakeCluster, gateway: Gateway, client: Connection, version: int
) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 6)
    await gateway.archive(topic[0], upto=40, segments=(20,))
    key = "cold.t" if version < 13 else topic.topic_id
    read = b""
    offset = 0
    while offset < 60:
        found = await read_until(client, version, Ask(key, 0, offset, 700))
        assert found.error == NONE
        assert found.records
        assert found.log_start in ((-1,) if version < 5 else (0, -1))
        assert found.high_watermark > offset
        for header, data in walk(memoryview(found.records)):  # a broker's answer may end in part of a batch
            read += data
            offset = header.next_offset
    assert read == b"".join(batches)


@pytest.mark.parametrize("known", [True, False], ids=["archive known", "archive new to this gateway"])
@pytest.mark.parametrize("version", [4, 12, 17])
async def test_a_trim_that_overtakes_a_long_poll_is_no_error(
    brokers: FakeCluster, gateway: Gateway, client: Connection, version: int, known: bool
) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    key = "cold.t" if version < 13 else topic.topic_id
    if known:
        await gateway.archive(topic[0], upto=10, trim=False)
        while not (tier := gateway.catalog.find("cold.t", 0)) or not tier.manifest_known:
            await client.fetch(version, Ask(key, 0, 0))
    async with await gateway.connect(1) as at_the_end:
        client.send_fetch(version, Ask(key, 0, 10), min_bytes=1 << 20, max_wait=400)
        at_the_end.send_fetch(version, Ask(key, 0, 20), min_bytes=1 << 20, max_wait=400)
        while len(brokers.asked(ApiKey.FETCH)) < 2:
            await asyncio.sleep(0.01)
        await gateway.archive(topic[0], upto=20)
        (below,), (end,) = await client.fetched(version), await at_the_end.fetched(version)
    assert (below.error, end.error) == (NONE, NONE), "the broker said out of range"
    assert below.records in (b"", batches[1])
    assert end.records == b""
    assert below.log_start in (0, -1), "never the broker's 20"
    assert end.log_start in (0, -1)
    found = await read_until(client, version, Ask(key, 0, 10))
    assert (found.error, found.records) == (NONE, batches[1])


async def test_a_lost_manifest_is_never_out_of_range(
    brokers: FakeCluster, gateway: Gateway, client: Connection, tmp_path: Path
) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    await gateway.library.claim(brokers.cluster_id)
    await gateway.archive(topic[0], upto=10)
    (file,) = tmp_path.rglob("manifest.json")
    manifest = file.read_bytes()
    file.unlink()
    for _ in range(5):
        found = await read_until(client, 17, Ask(topic.topic_id, 0, 0))
        assert (found.error, found.records) == (ErrorCode.KAFKA_STORAGE_ERROR, b"")
    file.write_bytes(manifest)
    while (found := await read_until(client, 17, Ask(topic.topic_id, 0, 0))).error == ErrorCode.KAFKA_STORAGE_ERROR:
        pass
    assert (found.error, found.records) == (NONE, batches[0])


async def test_hot_records_wait_for_no_archive(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    topic = brokers.create_topic("cold.t", 3)
    for partition in (0, 1):
        fill(topic[partition], 2)
    await gateway.archive(topic[0], upto=20)
    hot, cold = Ask(topic.topic_id, 1, 0), Ask(topic.topic_id, 0, 0)
    topic[1].leader = 1
    with gateway.store.closed():
        for asks in ((hot, cold), (cold, hot)):
            found = {each.partition: each for each in await client.fetch(17, *asks, max_wait=LONG)}
            assert (found[1].error, bool(found[1].records)) == (NONE, True)
            assert (found[0].error, found[0].records) == (NONE, b"")
    await read_until(client, 17, cold)
    found = {each.partition: each for each in await client.fetch(17, cold, hot, max_wait=LONG)}
    assert found[0].records
    assert found[1].records


async def test_one_slow_cold_partition_holds_up_no_other(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t", 2, leaders=[1, 1])
    for partition in topic.partitions:
        fill(partition, 2)
        await gateway.archive(partition, upto=20)
    first, second = (Ask(topic.topic_id, index, 0) for index in (0, 1))
    ready = await read_until(client, 17, first)
    with gateway.store.closed():
        found = await client.fetch(17, second, first, max_wait=LONG)
        assert [(each.partition, each.error) for each in found] == [(1, NONE), (0, NONE)], "as asked"
        assert found[0].records == b""
        assert ready.records
        assert (found[1].records or b"").startswith(ready.records)
    assert (await read_until(client, 17, second)).records


async def test_a_manifest_that_hangs_keeps_no_other_fact_from_getting_young(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    """The high watermark of what is read from memory goes on following the broker's."""
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    ask = Ask(topic.topic_id, 0, 0)
    async with asyncio.timeout(60):
        topic[0].append(batch(10))
        while (await read_until(client, 17, ask)).high_watermark < 30:
            await asyncio.sleep(0.02)
        tier = gateway.catalog.find("cold.t", 0)
        assert tier is not None
        gateway.store.manifests.clear()
        tier.manifest_at_ms -= MANIFESTS_EVERY_MS + 1
        for end in (40, 50):  # the second time, it has hung for long
            topic[0].append(batch(10))
            while (await read_until(client, 17, ask)).high_watermark < end:
                await asyncio.sleep(0.02)


async def test_a_slow_archive_is_waited_for_as_long_as_the_client_says(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    ask = Ask(topic.topic_id, 0, 0)
    with gateway.store.closed():
        (found,) = await waits(client.fetch(17, ask, max_wait=300), 300)
        assert (found.error, found.records, found.log_start in (0, -1)) == (NONE, b"", True)
        client.send_fetch(17, ask, max_wait=LONG)
        await asyncio.sleep(0.1)
    (found,) = await client.fetched(17)
    assert found.records
    assert b"".join(batches).startswith(found.records)


async def test_a_broken_archive_is_an_error_to_try_again_after_max_wait(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    gateway.store.broken = True
    (found,) = await waits(client.fetch(17, Ask(topic.topic_id, 0, 0), max_wait=300), 300)
    assert (found.error, found.records) == (ErrorCode.KAFKA_STORAGE_ERROR, b"")
    gateway.store.broken = False
    assert (await read_until(client, 17, Ask(topic.topic_id, 0, 0))).error == NONE


async def test_a_client_that_leaves_while_the_archive_is_read_disturbs_nobody(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    with gateway.store.closed():
        async with await gateway.connect(1) as leaving:
            leaving.send_fetch(17, Ask(topic.topic_id, 0, 0), max_wait=LONG)
            client.send_fetch(17, Ask(topic.topic_id, 0, 0), max_wait=LONG)
            while not gateway.store.reads:
                await asyncio.sleep(0.01)
    (found,) = await client.fetched(17)
    assert found.records
    assert b"".join(batches).startswith(found.records)


async def test_a_throttled_answer_passes_at_once(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    await read_until(client, 17, Ask(topic.topic_id, 0, 0))
    for version in (4, 12, 17):
        key = topic.topic_id if version >= 13 else "cold.t"
        brokers.nodes[1].throttle_next_ms = 200
        client.send_fetch(version, Ask(key, 0, 0), max_wait=LONG)
        client.send_fetch(version, Ask(key, 0, 0), max_wait=LONG)
        assert await client.fetched(version) == []
        (found,) = await waits(client.fetched(version), 180)
        assert found.records
        assert b"".join(batches).startswith(found.records)


async def test_what_is_written_in_the_meantime_is_there_next(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 1)
    await gateway.archive(topic[0], upto=10)
    client.send_fetch(17, Ask(topic.topic_id, 0, 10), max_wait=LONG)
    while not brokers.asked(ApiKey.FETCH):
        await asyncio.sleep(0.01)
    topic[0].append(batch(value=b"new"))
    (found,) = await client.fetched(17)
    assert (found.error, found.high_watermark, bool(found.records)) == (NONE, 20, True)


async def test_memory_for_archived_records_is_lent_until_the_client_takes_them(
    brokers: FakeCluster, gateway: Gateway
) -> None:
    topic = brokers.create_topic("cold.t")
    topic[0].append(batch(1, value=bytes(24 << 20)))  # more than sockets hold
    await gateway.archive(topic[0], upto=1)
    ask = Ask(topic.topic_id, 0, 0)
    async with await gateway.connect(1) as reads, await gateway.connect(1) as does_not:
        assert (await read_until(reads, 17, ask, max_bytes=32 << 20)).records
        while gateway.memory.held:
            await asyncio.sleep(0.01)
        does_not.send_fetch(17, ask, max_bytes=32 << 20, max_wait=LONG)
        while gateway.memory.held < 24 << 20:
            await asyncio.sleep(0.01)
    while gateway.memory.held:
        await asyncio.sleep(0.01)


async def test_an_archive_that_is_away_is_not_asked_with_each_hot_fetch(
    brokers: FakeCluster, gateway: Gateway, client: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 1)
    while "can't learn what is archived" not in caplog.text:  # nobody has ever written to it: it may not be mounted
        await client.fetch(17, Ask(topic.topic_id, 0, 0))
    before, began = len(brokers.asked(ApiKey.LIST_OFFSETS)), asyncio.get_running_loop().time()
    for _ in range(500):
        await client.fetch(17, Ask(topic.topic_id, 0, 0))
    tries = 2 + (asyncio.get_running_loop().time() - began) / RETRY_AFTER
    assert len(brokers.asked(ApiKey.LIST_OFFSETS)) - before <= 3 * tries
