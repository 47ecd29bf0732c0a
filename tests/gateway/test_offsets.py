"""ListOffsets for many partitions, one request for each, as librdkafka asks."""

import asyncio
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Connection
from tests.fakes.broker import FakeCluster
from tests.gateway.stage import Gateway, fill

EARLIEST, MAX_TIMESTAMP = -2, -3


async def test_however_many_ask_the_archive_is_waited_for_once(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t", 24)
    led = [partition.index for partition in topic.partitions if partition.leader == 1]
    assert len(led) > 10
    for at in led:
        fill(topic[at], 2)
        await gateway.archive(topic[at], upto=10)
        assert await client.list_offsets(7, ("cold.t", at, EARLIEST)) == [(ErrorCode.NONE, 0, -1, 0)]
    gateway.store.whole.clear()
    gateway.store.manifests.clear()
    named = len(brokers.asked(ApiKey.METADATA))
    for at in led:
        client.send_list_offsets(7, ("cold.t", at, EARLIEST))
    while len({*gateway.store.whole}) < len(led):  # all of them before any has an answer
        await asyncio.sleep(0.01)
    assert len(brokers.asked(ApiKey.METADATA)) - named < len(led), "the topic's name was checked for all at once"
    gateway.store.manifests.set()
    for _ in led:
        assert await client.listed_offsets(7) == [(ErrorCode.NONE, 0, -1, 0)]


@pytest.mark.parametrize("timestamp", [EARLIEST, MAX_TIMESTAMP, 1_000])
@pytest.mark.parametrize("known", [False, True])
async def test_a_lost_manifest_is_an_error_for_the_first_who_asks_and_no_start(
    brokers: FakeCluster, gateway: Gateway, client: Connection, tmp_path: Path, timestamp: int, known: bool
) -> None:
    topic = brokers.create_topic("cold.t", 1, leaders=[1])
    fill(topic[0], 2)
    await gateway.library.claim(brokers.cluster_id)
    await gateway.archive(topic[0], upto=10)
    (file,) = tmp_path.rglob("manifest.json")
    manifest = file.read_bytes()
    file.unlink()
    if known:
        await gateway.scout.topics_now()
    for _ in range(3):
        ((error, *_),) = await client.list_offsets(7, ("cold.t", 0, timestamp))
        assert error == ErrorCode.KAFKA_STORAGE_ERROR
    file.write_bytes(manifest)
    assert await client.list_offsets(7, ("cold.t", 0, EARLIEST)) == [(ErrorCode.NONE, 0, -1, 0)]
