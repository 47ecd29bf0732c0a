"""Leaders and followers: elections while somebody reads cold, epochs, replicas, and where brokers are said to be."""

import asyncio
from typing import Any

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection, fetch_fields, got, produce_fields
from tests.fakes.broker import FakeCluster
from tests.fakes.subjects import LONG, batch
from tests.gateway.stage import Gateway, fill, read_until

NONE = ErrorCode.NONE


def endpoints(answer: Any) -> list[tuple[int, str, int]]:
    return [(each.node_id, each.host, each.port) for each in answer.node_endpoints]


async def test_a_reader_of_the_archive_follows_the_leader(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    """It is told the new leader, by our addresses, by those brokers that tell; and goes on there where it was."""
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 3)
    await gateway.archive(topic[0], upto=20)
    first = await read_until(client, 17, Ask(topic.topic_id, 0, 0, 100, epoch=0))
    assert first.records == batches[0]
    brokers.elect(topic[0], 2)
    answer = await client.ask(
        ApiKey.FETCH, 17, **fetch_fields(17, [Ask(topic.topic_id, 0, 10, epoch=0)], max_wait=LONG)
    )
    (refused,) = got(17, answer)
    assert (refused.error, refused.records, refused.leader) == (ErrorCode.FENCED_LEADER_EPOCH, b"", (2, 1))
    assert endpoints(answer) == [(2, *gateway.address(2))]
    (refused,) = await client.fetch(10, Ask("cold.t", 0, 10), max_wait=LONG)
    assert (refused.error, refused.records) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")
    async with await gateway.connect(2) as at_the_leader:
        found = await read_until(at_the_leader, 17, Ask(topic.topic_id, 0, 10, epoch=1))
        assert (found.error, found.records) == (NONE, batches[1])
        found = await read_until(at_the_leader, 17, Ask(topic.topic_id, 0, 20, epoch=1))
        assert (found.error, found.records) == (NONE, batches[2])


async def test_an_election_in_the_middle_of_a_cold_read(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    with gateway.store.closed():
        client.send_fetch(17, Ask(topic.topic_id, 0, 0, epoch=0), max_wait=LONG)
        while not gateway.store.reads:
            await asyncio.sleep(0.01)
        brokers.elect(topic[0], 2)
    (found,) = await client.fetched(17)
    assert found.error == NONE
    assert found.records
    assert b"".join(batches).startswith(found.records), "what the old leader has allowed is the same at the new one"
    (found,) = await client.fetch(17, Ask(topic.topic_id, 0, 0, epoch=0), max_wait=LONG)
    assert found.error == ErrorCode.FENCED_LEADER_EPOCH


@pytest.mark.parametrize(
    ("epoch", "error"), [(0, ErrorCode.FENCED_LEADER_EPOCH), (9, ErrorCode.UNKNOWN_LEADER_EPOCH), (1, NONE), (-1, NONE)]
)
async def test_an_epoch_is_judged_by_the_broker_before_any_cold_record(
    brokers: FakeCluster, gateway: Gateway, client: Connection, epoch: int, error: ErrorCode
) -> None:
    topic = brokers.create_topic("cold.t", leaders=[2])
    fill(topic[0], 2)
    brokers.elect(topic[0], 1)
    await gateway.archive(topic[0], upto=20)
    for version in (9, 12, 17):
        key = topic.topic_id if version >= 13 else "cold.t"
        found = await read_until(client, version, Ask(key, 0, 0, epoch=epoch))
        assert (found.error, bool(found.records)) == (error, error == NONE)


async def test_a_rewritten_history_is_not_read_from_the_archive(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    """After an unclean election to a leader that ends at 10, the archive's 10 to 19 are a history that was disowned."""
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20, trim=False)
    await read_until(client, 17, Ask(topic.topic_id, 0, 0))
    brokers.elect(topic[0], 1, truncate_to=10)
    for _ in range(3):
        (found,) = await client.fetch(17, Ask(topic.topic_id, 0, 15), max_wait=300)
        if found.error:
            break
    assert (found.error, found.records) == (ErrorCode.OFFSET_OUT_OF_RANGE, b""), "as the broker says"
    topic[0].append(batch(value=b"new history"))
    found = await read_until(client, 17, Ask(topic.topic_id, 0, 10))
    assert found.records is not None
    assert b"new history" in found.records
    assert batches[1] not in found.records


async def test_a_follower_serves_both_tiers(brokers: FakeCluster, gateway: Gateway) -> None:
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 3)
    await gateway.archive(topic[0], upto=20)
    async with await gateway.connect(2) as client:
        for version in (11, 12, 17):
            key = topic.topic_id if version >= 13 else "cold.t"
            assert (await read_until(client, version, Ask(key, 0, 0, 100))).records == batches[0]
            assert (await read_until(client, version, Ask(key, 0, 20, 100))).records == batches[2]
        (found,) = await client.fetch(10, Ask("cold.t", 0, 0), max_wait=LONG)
        assert found.error == ErrorCode.NOT_LEADER_OR_FOLLOWER


async def test_a_preferred_replica_is_for_live_records_only(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    brokers.rack_aware = True
    brokers.nodes[2].rack = "west"
    topic = brokers.create_topic("cold.t", leaders=[1])
    batches = fill(topic[0], 3)
    await gateway.archive(topic[0], upto=20)
    for version in (11, 12, 17):
        key = topic.topic_id if version >= 13 else "cold.t"
        cold = await read_until(client, version, Ask(key, 0, 0, 100), rack="west")
        assert (cold.error, cold.preferred, cold.records) == (NONE, -1, batches[0]), "or librdkafka drops the records"
        (live,) = await client.fetch(version, Ask(key, 0, 20), rack="west", max_wait=LONG)
        assert (live.error, live.preferred, live.records) == (NONE, 2, b"")
        assert live.log_start in (0, -1)
        both = await client.fetch(version, Ask(key, 0, 20), rack="west", max_wait=LONG)
        assert [each.preferred for each in both] == [2]
    async with await gateway.connect(2) as at_the_replica:
        found = await read_until(at_the_replica, 17, Ask(topic.topic_id, 0, 20), rack="west")
        assert found.records == batches[2]


@pytest.mark.parametrize("version", [16, 17, 18])
async def test_the_new_leader_of_a_live_partition_is_told_by_our_address(
    brokers: FakeCluster, gateway: Gateway, client: Connection, version: int
) -> None:
    """KIP-951, in answers of any size: patched where they are small, blanked where they stream."""
    topic = brokers.create_topic("plain", 2, leaders=[1, 1])
    fill(topic[0], 3)
    brokers.elect(topic[1], 2)
    moved = Ask(topic.topic_id, 1, 0, epoch=0)
    answer = await client.ask(ApiKey.FETCH, version, **fetch_fields(version, [moved], max_wait=LONG))
    assert (got(version, answer)[0].error, endpoints(answer)) == (
        ErrorCode.FENCED_LEADER_EPOCH,
        [(2, *gateway.address(2))],
    )
    topic[0].append(batch(100, value=b"x" * 100))
    asks = [moved, Ask(topic.topic_id, 0, 0)]
    client.send(ApiKey.FETCH, version, **fetch_fields(version, asks, max_wait=LONG))
    payload = await client.receive()
    assert len(payload) > 4096
    assert not real_addresses(brokers, payload), "blanked"
    brokers.piece_bytes = 7
    client.send(ApiKey.FETCH, version, **fetch_fields(version, asks, max_wait=LONG))
    assert (await client.receive())[4:] == payload[4:], "in pieces, too"


async def test_the_new_leader_is_told_to_producers(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    topic = brokers.create_topic("plain", leaders=[2])
    for version in (9, 10, 12, 13):
        key = topic.topic_id if version >= 13 else "plain"
        client.send(ApiKey.PRODUCE, version, **produce_fields(version, key, 0, batch()))
        payload = await client.receive()
        assert not real_addresses(brokers, payload)
        answer = await client.ask(ApiKey.PRODUCE, version, **produce_fields(version, key, 0, batch()))
        assert answer.responses[0].partition_responses[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert version < 10 or endpoints(answer) == [(2, *gateway.address(2))]


async def test_acks_0_keeps_the_order_of_answers(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    topic = brokers.create_topic("cold.t", leaders=[1])
    for _ in range(3):
        client.send(ApiKey.PRODUCE, 9, **produce_fields(9, "cold.t", 0, batch(), acks=0))
        client.send(ApiKey.LIST_OFFSETS, 5, replica_id=-1, isolation_level=0, topics=[])
        client.send_fetch(17, Ask(topic.topic_id, 0, 0), max_wait=LONG)
    ids = [int.from_bytes((await client.receive())[:4], "big") for _ in range(6)]
    assert ids == [2, 3, 5, 6, 8, 9]


def real_addresses(brokers: FakeCluster, payload: bytes) -> list[int]:
    """The nodes whose own host and port are in these bytes, next to each other."""
    return [
        node.node_id for node in brokers.nodes.values() if node.host.encode() + node.port.to_bytes(4, "big") in payload
    ]
