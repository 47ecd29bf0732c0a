"""Brokers that go away, come back, join, leave, and move, while clients are connected."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Closed, Connection
from tests.fakes.broker import FakeCluster
from tests.fakes.broker.steering import Answer, GoOn, Request, changed, hang_up
from tests.fakes.subjects import LONG
from tests.gateway.stage import Gateway, fill, read_until

NONE = ErrorCode.NONE


async def told(client: Connection) -> dict[int, tuple[str, int]]:
    """Where a client is told that brokers are."""
    return {each.node_id: (each.host, each.port) for each in (await client.metadata(9)).brokers}


async def closed(client: Connection) -> bool:
    """Whether the connection is closed; it must not be answered."""
    try:
        await client.metadata(9)
    except Closed:
        return True
    return False


async def test_a_broker_goes_away_and_comes_back(brokers: FakeCluster, gateway: Gateway) -> None:
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 3)
    await gateway.archive(topic[0], upto=20)
    async with await gateway.connect(1) as client, await gateway.connect(2) as other:
        assert (await read_until(client, 17, Ask(topic.topic_id, 0, 0, 100))).records == batches[0]
        client.send_fetch(17, Ask(topic.topic_id, 0, 30), max_wait=LONG)
        while len(brokers.asked(ApiKey.FETCH)) < 2:
            await asyncio.sleep(0.01)
        await brokers.nodes[1].stop()
        with pytest.raises(Closed):
            await client.receive()
        assert set(await told(other)) == {2}
        async with await gateway.connect(1) as again:
            assert await closed(again), "its port stays open, and leads nowhere for now"
        assert set(await told(other)) == {2}, "other connections live on"
        await brokers.nodes[1].start()
    async with await gateway.connect(1) as client:
        assert (await read_until(client, 17, Ask(topic.topic_id, 0, 10, 100))).records == batches[1]
        assert (await read_until(client, 17, Ask(topic.topic_id, 0, 20, 100))).records == batches[2]


async def test_the_service_accounts_connections_may_break(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    """All of them are cut, also in the middle of a question: whoever reads cold hears of it at most by waiting."""
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 3)
    await gateway.archive(topic[0], upto=20)
    asked = brokers.steer(ApiKey.LIST_OFFSETS, hang_up, times=2)
    for offset in (0, 10):
        found = await read_until(client, 17, Ask(topic.topic_id, 0, offset, 100))
        while found.error == ErrorCode.KAFKA_STORAGE_ERROR:
            found = await read_until(client, 17, Ask(topic.topic_id, 0, offset, 100))
        assert (found.error, found.records) == (NONE, batches[offset // 10])
    assert asked.used == 2


async def test_a_new_broker_is_told_when_its_port_is_open(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    assert set(await told(client)) == {1, 2}
    await brokers.add_node(3)
    brokers.piece_bytes = 5
    addresses = await told(client)
    assert addresses == {node: gateway.address(node) for node in (1, 2, 3)}
    async with await Connection.to(addresses[3]) as at_the_new_one:
        assert set(await told(at_the_new_one)) == {1, 2, 3}
    topic = brokers.create_topic("cold.t", leaders=[3])
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    async with await Connection.to(addresses[3]) as at_the_new_one:
        assert (await read_until(at_the_new_one, 17, Ask(topic.topic_id, 0, 0))).records


async def test_a_broker_with_an_id_that_no_port_can_have(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    await brokers.add_node(60_000)
    addresses = await told(client)
    assert addresses[60_000] == ("127.0.0.1", 0), "never its own address"
    assert addresses[1] == gateway.address(1)


async def test_a_broker_that_leaves_is_told_no_more(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    await brokers.nodes[2].stop()
    del brokers.nodes[2]
    assert set(await told(client)) == {1}
    async with await gateway.connect(2) as nobody:
        assert await closed(nobody)
    for _ in range(4):
        async with await gateway.connect() as anybody:
            if not await closed(anybody):
                break
    else:
        raise AssertionError("the bootstrap port leads to a broker that has left, again and again")


async def test_a_broker_moves(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    topic = brokers.create_topic("plain", leaders=[2])
    fill(topic[0], 1)
    async with await gateway.connect(2) as before:
        assert (await before.fetch(17, Ask(topic.topic_id, 0, 0)))[0].records
        await brokers.nodes[2].move()
        assert await closed(before)
    assert (await told(client))[2] == gateway.address(2), "for clients it is where it was"
    async with await gateway.connect(2) as after:
        assert (await after.fetch(17, Ask(topic.topic_id, 0, 0)))[0].records


async def test_a_broker_that_has_moved_is_found_without_any_clients_help(
    brokers: FakeCluster, gateway: Gateway
) -> None:
    await brokers.nodes[2].move()
    for _ in range(200):
        async with await gateway.connect(2) as client:
            if not await closed(client):
                return
        await asyncio.sleep(0.1)
    raise AssertionError("nobody has noticed")


async def test_all_brokers_move(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    """One after the other, as in a rolling restart onto new machines: the bootstrap addresses lead nowhere then."""
    for node_id in (1, 2):
        await brokers.nodes[node_id].move()
        async with await gateway.connect(3 - node_id) as other:
            for _ in range(200):
                if not await closed(other):
                    break
                await asyncio.sleep(0.1)
    for node_id in (1, 2):
        async with await gateway.connect(node_id) as client:
            assert await told(client) == {node: gateway.address(node) for node in (1, 2)}


ASK: dict[ApiKey, Callable[[Connection], Awaitable[object]]] = {
    ApiKey.FETCH: lambda client: client.fetch(12, Ask("cold.t", 0, 0)),
    ApiKey.METADATA: lambda client: client.metadata(9),
    ApiKey.LIST_OFFSETS: lambda client: client.list_offsets(7, ("cold.t", 0, -2)),
}
ODD: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda payload: payload[:-3],
    "a byte too many": lambda payload: payload + b"\x00",
    "the answer to another question": lambda payload: b"\x7f" + payload[1:],
    "an absurd length": lambda payload: payload[:9] + b"\xff" * 8 + payload[17:],
    "empty": lambda payload: b"",
}


@pytest.mark.parametrize(
    ("key", "odd"),
    # Of Metadata only the brokers are read: what is wrong behind them passes, as it does without us.
    [
        pytest.param(key, odd, id=f"{key.name}, {odd}")
        for key in ASK
        for odd in ODD
        if key is not ApiKey.METADATA or odd not in ("cut short", "a byte too many")
    ],
)
async def test_an_answer_that_is_none_closes_that_connection_only(
    brokers: FakeCluster, gateway: Gateway, client: Connection, key: ApiKey, odd: str
) -> None:
    topic = brokers.create_topic("cold.t", leaders=[1])
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=10)
    await read_until(client, 12, Ask("cold.t", 0, 0))
    change = changed(ODD[odd])

    async def rule(request: Request, go_on: GoOn) -> Answer:
        return await (change(request, go_on) if request.header.client_id == b"test" else go_on())

    async with await gateway.connect(1) as unlucky:
        steer = brokers.steer(key, rule)
        with pytest.raises(Closed):
            await ASK[key](unlucky)
        steer.stop()
    assert (await read_until(client, 12, Ask("cold.t", 0, 0))).records
    assert (await client.list_offsets(7, ("cold.t", 0, -2)))[0][:2] == (NONE, 0)
