"""ListOffsets for many partitions, one request for each, as librdkafka asks."""

import asyncio

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Connection
from tests.fakes.broker import FakeCluster
from tests.gateway.stage import Gateway, fill

EARLIEST = -2


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
