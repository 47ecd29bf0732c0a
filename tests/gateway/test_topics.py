"""Which topic is meant: unknown ids, namesakes, topics that were created a moment ago; who may read; sessions."""

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection, fetch_fields
from tests.fakes.broker import FakeCluster
from tests.fakes.subjects import LONG, batch
from tests.gateway.stage import Gateway, fill, read_until

NONE = ErrorCode.NONE
OUT_OF_RANGE = ErrorCode.OFFSET_OUT_OF_RANGE


async def test_refusals_keep_their_places_around_cold_records(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    """The order is the broker's: failed reads in place, what was refused before reading last."""
    topic = brokers.create_topic("cold.t", 4, leaders=[1, 1, 2, 1])
    other = brokers.create_topic("plain")
    for index in (0, 1, 3):
        fill(topic[index], 3)
    other[0].log.trim(0)
    await gateway.archive(topic[0], upto=20)
    await gateway.archive(topic[3], upto=20)
    for ask in (Ask("cold.t", 0, 10), Ask("cold.t", 3, 19)):
        await read_until(client, 10, ask)  # in memory from now on
    last = list(topic[0].log.batches())[1][1]
    records: bytes | None = b""
    while not records:  # the hot ones in the answer wait only a moment for the check of cold.t's name
        found = await client.fetch(
            10,
            Ask("nowhere", 0, 0),
            Ask("cold.t", 0, 0),
            Ask("cold.t", 9, 0),
            Ask("plain", 0, 77),
            Ask("cold.t", 2, 0),
            Ask("cold.t", 1, 5),
            Ask("cold.t", 3, 19),
            Ask("cold.t", 0, 10),
            max_wait=LONG,
        )
        assert [(each.topic, each.partition, each.error) for each in found] == [
            ("cold.t", 0, NONE),
            ("plain", 0, OUT_OF_RANGE),
            ("cold.t", 2, ErrorCode.NOT_LEADER_OR_FOLLOWER),
            ("cold.t", 1, NONE),
            ("cold.t", 3, NONE),
            ("nowhere", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            ("cold.t", 9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ]
        records = found[0].records
    assert records == last, "named twice: as asked last"


async def test_a_leader_is_asked_once_which_topic_a_name_stands_for(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t", 4, leaders=[1, 1, 1, 1])
    asks = [Ask("cold.t", index, 0) for index in range(4)]
    for index in range(4):
        fill(topic[index], 3)
        await gateway.archive(topic[index], upto=20)
    for ask in asks:
        await read_until(client, 10, ask)  # in memory from now on
    before = len(brokers.seen)
    found = await client.fetch(10, *asks, max_wait=LONG)
    assert [each.records is not None and len(each.records) > 0 for each in found] == [True] * 4
    named = [request for request in brokers.seen[before:] if request.key == ApiKey.METADATA]
    assert len(named) == 1


async def test_unknown_ids_get_nothing_and_disturb_nothing(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    await read_until(client, 17, Ask(topic.topic_id, 0, 0))
    stranger = bytes(range(16))
    found = await client.fetch(
        17, Ask(stranger, 0, 0), Ask(topic.topic_id, 0, 10), Ask(bytes(16), 0, 0), max_wait=LONG, committed=True
    )
    assert [(each.topic, each.error, each.records) for each in found] == [
        (topic.topic_id, NONE, batches[1]),
        (stranger, ErrorCode.UNKNOWN_TOPIC_ID, b""),
        (bytes(16), ErrorCode.UNKNOWN_TOPIC_ID, b""),
    ]


async def test_a_namesake_has_nothing_of_its_predecessor(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    old = brokers.create_topic("cold.t")
    batches = fill(old[0], 2)
    await gateway.archive(old[0], upto=20)
    assert (await read_until(client, 12, Ask("cold.t", 0, 0))).records
    brokers.delete_topic("cold.t")
    (found,) = await client.fetch(17, Ask(old.topic_id, 0, 0), max_wait=LONG)
    assert (found.error, found.records) == (ErrorCode.UNKNOWN_TOPIC_ID, b"")
    (found,) = await client.fetch(12, Ask("cold.t", 0, 0), max_wait=LONG)
    assert (found.error, found.records) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, b"")
    new = brokers.create_topic("cold.t")
    new[0].append(batch(2, value=b"new"))
    found = await read_until(client, 12, Ask("cold.t", 0, 0))
    assert (found.error, found.high_watermark) == (NONE, 2)
    assert found.records is not None
    assert batches[0] not in found.records
    found = await read_until(client, 12, Ask("cold.t", 0, 13))
    assert (found.error, found.records) == (OUT_OF_RANGE, b""), "above the new topic's end"
    (found,) = await client.fetch(17, Ask(old.topic_id, 0, 0), max_wait=LONG)
    assert found.error == ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", [4, 12, 17])
async def test_a_topic_this_gateway_has_not_heard_of_yet(
    brokers: FakeCluster, gateway: Gateway, client: Connection, version: int
) -> None:
    """Created, archived and trimmed by others since the last metadata: no client hears "out of range"."""
    topic = brokers.create_topic("cold.new")
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    key = topic.topic_id if version >= 13 else "cold.new"
    found = await read_until(client, version, Ask(key, 0, 0, 100))
    assert (found.error, found.records) == (NONE, batches[0])
    assert (found.high_watermark, found.log_start) == (20, -1 if version < 5 else 0)
    for partition in (1, 2):
        brokers.grow(topic, partition + 1, leaders=[1] * 3)
        fill(topic[partition], 2)
        await gateway.archive(topic[partition], upto=20)
        found = await read_until(client, version, Ask(key, partition, 10))
        assert (found.error, found.records) == (NONE, list(topic[partition].log.batches())[1][1])


async def test_a_topic_that_does_not_exist_yet(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    (found,) = await client.fetch(12, Ask("cold.later", 0, 0))
    assert found.error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    topic = brokers.create_topic("cold.later")
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    assert (await read_until(client, 12, Ask("cold.later", 0, 0))).records


@pytest.mark.parametrize("offset", [-1, 21, 1 << 62])
async def test_what_is_out_of_range_everywhere_is_said(
    brokers: FakeCluster, gateway: Gateway, client: Connection, offset: int
) -> None:
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=10)
    for version in (4, 12, 17):
        key = topic.topic_id if version >= 13 else "cold.t"
        found = await read_until(client, version, Ask(key, 0, offset))
        assert (found.error, found.high_watermark, found.log_start, found.records) == (OUT_OF_RANGE, -1, -1, b"")


async def test_who_may_not_read_gets_nothing_of_the_archive(
    brokers: FakeCluster, gateway: Gateway, client: Connection
) -> None:
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    assert (await read_until(client, 17, Ask(topic.topic_id, 0, 0))).records
    topic.denied.add("READ")
    for version in (4, 12, 17):
        key = topic.topic_id if version >= 13 else "cold.t"
        (found,) = await client.fetch(version, Ask(key, 0, 0), max_wait=LONG)
        assert (found.error, found.records, found.log_start) == (ErrorCode.TOPIC_AUTHORIZATION_FAILED, b"", -1)
    topic.denied.add("DESCRIBE")
    for timestamp in (-2, -3, 0):
        assert await client.list_offsets(7, ("cold.t", 0, timestamp)) == [
            (ErrorCode.TOPIC_AUTHORIZATION_FAILED, -1, -1, -1)
        ]


async def test_sessions(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    """There are none upstream, so that every request names every offset; clients go on with full fetches."""
    topic = brokers.create_topic("cold.t")
    batches = fill(topic[0], 2)
    await gateway.archive(topic[0], upto=20)
    await read_until(client, 17, Ask(topic.topic_id, 0, 0))
    for version in (7, 12, 17, 18):
        key = topic.topic_id if version >= 13 else "cold.t"
        fields = fetch_fields(version, [Ask(key, 0, 0, 100)], session=(0, 0), max_wait=LONG)
        answer = await client.ask(ApiKey.FETCH, version, **fields)
        assert (answer.error_code, answer.session_id) == (NONE, 0)
        assert bytes(answer.responses[0].partitions[0].records) == batches[0]
        before = len(brokers.asked(ApiKey.FETCH))
        answer = await client.ask(ApiKey.FETCH, version, **fetch_fields(version, [], session=(4711, 1)))
        assert (answer.error_code, answer.session_id, answer.responses) == (70, 0, [])
        assert len(brokers.asked(ApiKey.FETCH)) == before, "answered here"
        answer = await client.ask(ApiKey.FETCH, version, **fetch_fields(version, [], session=(0, -1), max_wait=LONG))
        assert (answer.error_code, answer.responses) == (NONE, [])
    assert {(each.message.session_id, each.message.session_epoch) for each in brokers.asked(ApiKey.FETCH)} == {(0, -1)}


@pytest.mark.parametrize("version", [10, 13], ids=["by name", "by id"])
async def test_a_topic_that_a_new_policy_archives_is_never_out_of_range(
    brokers: FakeCluster, gateway: Gateway, client: Connection, version: int
) -> None:
    """Its client knows it as one that just passes, and it is trimmed the moment after."""
    topic = brokers.create_topic("plain.t")
    batches = fill(topic[0], 3)
    ask = Ask("plain.t", 0, 0) if version < 13 else Ask(topic.topic_id, 0, 0)
    assert (await read_until(client, version, ask)).records
    await gateway.scout.topics_now()
    assert not gateway.catalog.might_be_archived(topic.topic_id)
    gateway.archive_also("plain.")
    await gateway.archive(topic[0], upto=20)
    found = await read_until(client, version, ask)
    assert (found.error, found.records[: len(batches[0])] if found.records else b"") == (NONE, batches[0])


async def test_a_topic_that_no_policy_archives_any_more_just_passes(
    brokers: FakeCluster, gateway: Gateway, client: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restart with such a configuration; it is said."""
    topic = brokers.create_topic("cold.t")
    fill(topic[0], 3)
    await gateway.archive(topic[0], upto=20)
    assert (await read_until(client, 10, Ask("cold.t", 0, 0))).records
    gateway.archive_nothing()
    while "just proxied from now on: cold.t;" not in caplog.text:
        await client.fetch(10, Ask("cold.t", 0, 0), max_wait=10)
    assert (await read_until(client, 10, Ask("cold.t", 0, 0))).error == OUT_OF_RANGE
