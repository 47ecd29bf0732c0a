"""What no real broker does on demand, and this one does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Closed, Connection
from tests.fakes.broker import FakeCluster
from tests.fakes.broker.steering import changed, hang_up, hang_up_afterwards
from tests.fakes.subjects import LONG, batch, placed, waits


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(2) as made:
        made.create_topic("t", leaders=[1])[0].append(batch())
        yield made


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[Connection]:
    async with await Connection.to(cluster.nodes[1].address) as connection:
        yield connection


async def test_an_answer_is_held_until_it_is_let_go(cluster: FakeCluster, client: Connection) -> None:
    with cluster.held(ApiKey.LIST_OFFSETS) as steer:
        asked = asyncio.ensure_future(client.list_offsets(5, ("t", 0, -1)))
        while not steer.used:
            await asyncio.sleep(0)
        assert not asked.done()
        async with await Connection.to(cluster.nodes[1].address) as other:
            assert await other.fetch(12, Ask("t", 0, 10)), "other APIs go on"
    assert await asked == [(0, 10, -1, 0)]


async def test_a_connection_ends_instead_of_an_answer(cluster: FakeCluster, client: Connection) -> None:
    cluster.steer(ApiKey.DELETE_RECORDS, hang_up, times=1)
    cluster.steer(ApiKey.PRODUCE, hang_up_afterwards, times=1)
    with pytest.raises(Closed):
        await client.delete_records(2, ("t", 0, 5))
    async with await Connection.to(cluster.nodes[1].address) as other:
        assert (await other.list_offsets(5, ("t", 0, -2)))[0][1] == 0, "it was not done"
        with pytest.raises(Closed):
            await other.produce(9, "t", 0, batch())
    async with await Connection.to(cluster.nodes[1].address) as other:
        assert (await other.list_offsets(5, ("t", 0, -1)))[0][1] == 20, "it was done, and not said"
        assert await other.delete_records(2, ("t", 0, 5)) == [(0, 5)], "once only"


async def test_an_answer_is_changed(cluster: FakeCluster, client: Connection) -> None:
    cluster.steer(ApiKey.LIST_OFFSETS, changed(lambda payload: payload[:4] + b"\x00\x00\x00\x07" + payload[8:]))
    answer = await client.ask(ApiKey.LIST_OFFSETS, 2, replica_id=-1, isolation_level=0, topics=[])
    assert answer.throttle_time_ms == 7


async def test_answers_in_pieces(cluster: FakeCluster, client: Connection) -> None:
    cluster.piece_bytes = 3
    assert (await client.fetch(12, Ask("t", 0, 0)))[0].records == placed(batch(), 0)


async def test_a_throttled_fetch_has_no_topics_and_mutes_the_connection(
    cluster: FakeCluster, client: Connection
) -> None:
    cluster.nodes[1].throttle_next_ms = 300
    for version in (4, 12):
        cluster.nodes[1].throttle_next_ms = 300
        client.send_fetch(version, Ask("t", 0, 0), max_wait=LONG)
        client.send_fetch(version, Ask("t", 0, 0))
        assert await client.fetched(version) == []
        (found,) = await waits(client.fetched(version), 280)
        assert found.records


async def test_nodes_come_go_and_move(cluster: FakeCluster, client: Connection) -> None:
    before = cluster.nodes[2].address
    await cluster.nodes[2].move()
    await cluster.add_node(3)
    answer = await client.metadata(9)
    assert {(b.node_id, b.host, b.port) for b in answer.brokers} == {
        (node_id, *cluster.nodes[node_id].address) for node_id in (1, 2, 3)
    }
    assert cluster.nodes[2].address != before
    await cluster.nodes[1].stop()
    with pytest.raises(Closed):
        await client.metadata(9)
    with pytest.raises(ConnectionError):
        await Connection.to(cluster.nodes[1].address)
    async with await Connection.to(cluster.nodes[3].address) as other:
        (topic,) = (await other.metadata(9, "t")).topics
        assert [(p.leader_id, p.error_code) for p in topic.partitions] == [(-1, ErrorCode.LEADER_NOT_AVAILABLE)]
    await cluster.nodes[1].start()
    async with await Connection.to(cluster.nodes[1].address) as again:
        assert (await again.metadata(9, "t")).topics[0].partitions[0].leader_id == 1


async def test_an_unclean_election_forgets_records(cluster: FakeCluster, client: Connection) -> None:
    partition = cluster.topics["t"][0]
    partition.append(batch())
    cluster.elect(partition, 1, truncate_to=10)
    (found,) = await client.fetch(12, Ask("t", 0, 15), max_wait=LONG)
    assert found.error == ErrorCode.OFFSET_OUT_OF_RANGE
    partition.append(batch(value=b"new"))
    assert await client.epoch_ends(4, "t", 0, 1) == [(0, 0, 10), (0, 1, 20)]
    (found,) = await client.fetch(12, Ask("t", 0, 15, last_epoch=0), max_wait=LONG)
    assert (found.diverging, found.records) == ((0, 10), b"")


async def test_what_a_crash_and_the_retention_check_do_to_a_trimmed_log(
    cluster: FakeCluster, client: Connection
) -> None:
    partition = cluster.topics["t"][0]
    partition.log.roll()
    partition.append(batch(time=9_000))
    partition.log.trim(15)
    partition.log.crash()
    assert partition.log.start == 0
    partition.log.trim(15)
    assert (await client.list_offsets(5, ("t", 0, 1_000)))[0][1] == -1, "trap (a)"
    partition.log.clean()
    assert (await client.list_offsets(5, ("t", 0, 1_000)))[0][1] == 15
    partition.log.crash()
    assert partition.log.start == 10


async def test_every_request_is_seen(cluster: FakeCluster, client: Connection) -> None:
    await client.fetch(12, Ask("t", 0, 3))
    await client.metadata(9)
    (seen,) = cluster.asked(ApiKey.FETCH)
    assert (seen.node_id, seen.version, seen.message.topics[0].partitions[0].fetch_offset) == (1, 12, 3)
    assert [request.key for request in cluster.seen] == [ApiKey.FETCH, ApiKey.METADATA]
