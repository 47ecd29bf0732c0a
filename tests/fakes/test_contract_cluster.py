"""Produce, what a broker says of the cluster, of versions, and to bytes that are no requests."""

import asyncio
import struct
from uuid import UUID

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.asking import Closed, Connection, produce_fields
from tests.fakes.broker.api_18_api_versions import OFFERED
from tests.fakes.broker.messages import encode_request, raw_id, request_part
from tests.fakes.subjects import Subject, batch

CORRUPT = ErrorCode.CORRUPT_MESSAGE
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
NOT_LEADER = ErrorCode.NOT_LEADER_OR_FOLLOWER
UNSUPPORTED = ErrorCode.UNSUPPORTED_VERSION
INVALID = ErrorCode.INVALID_REQUEST
UNKNOWN_ID = ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", [3, 9, 10, 12, 13])
async def test_producing(subject: Subject, client: Connection, name: str, version: int) -> None:
    topic_id = await subject.create_topic(name, (1, 2))
    by_id = version >= 13
    key: str | bytes = topic_id if by_id else name
    assert await client.produce(version, key, 0, batch()) == (0, 0)
    assert await client.produce(version, key, 0, batch()) == (0, 10)
    unknown: str | bytes = bytes(range(16)) if by_id else "nowhere"
    assert await client.produce(version, unknown, 0, batch()) == (UNKNOWN_ID if by_id else UNKNOWN, -1)
    assert await client.produce(version, key, 9, batch()) == (UNKNOWN, -1)
    damaged = bytearray(batch())
    damaged[-1] ^= 1
    assert await client.produce(version, key, 0, bytes(damaged)) == (CORRUPT, -1)
    answer = await client.ask(ApiKey.PRODUCE, version, **produce_fields(version, key, 1, batch()))
    found = answer.responses[0].partition_responses[0]
    assert (found.error_code, found.base_offset) == (NOT_LEADER, -1)
    if version >= 10:
        assert (found.current_leader.leader_id, found.current_leader.leader_epoch) == (2, 0)
        assert [(each.node_id, each.host, each.port) for each in answer.node_endpoints] == [(2, *subject.address(2))]


async def test_acks_0_is_not_answered_and_its_errors_close(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name, (1, 2))
    client.send(ApiKey.PRODUCE, 9, **produce_fields(9, name, 0, batch(), acks=0))
    while (found := await client.list_offsets(5, (name, 0, -1))) != [(0, 10, -1, 0)]:
        assert found == [(0, 0, -1, 0)], "not copied to the follower yet; and the answer to this very question"
    client.send(ApiKey.PRODUCE, 9, **produce_fields(9, name, 1, batch(), acks=0))
    with pytest.raises(Closed):
        await client.receive()


@pytest.mark.parametrize("version", range(14))
async def test_metadata(subject: Subject, client: Connection, name: str, version: int) -> None:
    topic_id = await subject.create_topic(name, (2, 1))
    answer = await client.metadata(version, name, "nowhere")
    assert {(b.node_id, b.host, b.port) for b in answer.brokers} == {(n, *subject.address(n)) for n in (1, 2)}
    found, missing = answer.topics
    assert [(each.partition_index, each.leader_id, each.error_code) for each in found.partitions] == [
        (0, 2, 0),
        (1, 1, 0),
    ]
    assert [sorted(each.replica_nodes) for each in found.partitions] == [[1, 2], [1, 2]]
    assert (missing.error_code, missing.name, missing.partitions) == (UNKNOWN, "nowhere", [])
    if version >= 10:
        assert (raw_id(found.topic_id), raw_id(missing.topic_id)) == (topic_id, bytes(16))
    everything = await client.ask(
        ApiKey.METADATA, version, topics=None if version else [], allow_auto_topic_creation=False
    )
    assert name in [each.name for each in everything.topics]


@pytest.mark.parametrize("version", [12, 13])
async def test_metadata_by_id(subject: Subject, client: Connection, name: str, version: int) -> None:
    topic_id = await subject.create_topic(name)
    stranger = bytes(range(16))
    kind = (ApiKey.METADATA, version, "MetadataRequestTopic")
    asked = [request_part(*kind, topic_id=UUID(bytes=each), name=None) for each in (topic_id, stranger)]
    answer = await client.ask(ApiKey.METADATA, version, topics=asked, allow_auto_topic_creation=False)
    found = {raw_id(each.topic_id): (each.error_code, each.name) for each in answer.topics}
    assert found == {topic_id: (0, name), stranger: (UNKNOWN_ID, None)}


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_describe_cluster(subject: Subject, client: Connection, version: int) -> None:
    answer = await client.ask(ApiKey.DESCRIBE_CLUSTER, version, endpoint_type=1)
    assert {(b.broker_id, b.host, b.port) for b in answer.brokers} == {(n, *subject.address(n)) for n in (1, 2)}
    assert answer.controller_id in (1, 2)
    if version >= 1:
        answer = await client.ask(ApiKey.DESCRIBE_CLUSTER, version, endpoint_type=2)
        assert (answer.error_code, answer.brokers, answer.controller_id) == (114, [], -1)
        assert "BROKER" in answer.error_message


@pytest.mark.parametrize("version", range(7))
async def test_a_coordinator_is_a_broker(subject: Subject, client: Connection, version: int) -> None:
    addresses = {(node, *subject.address(node)) for node in (1, 2)}
    while True:
        answer = await client.ask(ApiKey.FIND_COORDINATOR, version, key="group", key_type=0, coordinator_keys=["group"])
        found = answer.coordinators[0] if version >= 4 else answer
        if found.error_code == 0:
            break
        assert (found.error_code, found.node_id, found.host, found.port) == (15, -1, "", -1)
        await asyncio.sleep(0.05)  # the internal topic is made when somebody asks first
    assert (found.node_id, found.host, found.port) in addresses
    assert version < 4 or found.key == "group"


async def test_topic_settings(subject: Subject, client: Connection, name: str) -> None:
    await subject.create_topic(name, retention_ms="86400000")
    kind = (ApiKey.DESCRIBE_CONFIGS, 4, "DescribeConfigsResource")
    asked = [
        request_part(*kind, resource_type=2, resource_name=each, configuration_keys=["retention.ms"])
        for each in (name, "nowhere")
    ]
    answer = await client.ask(ApiKey.DESCRIBE_CONFIGS, 4, resources=asked)
    found = {each.resource_name: each for each in answer.results}
    assert found["nowhere"].error_code == UNKNOWN
    assert [(each.name, each.value) for each in found[name].configs] == [("retention.ms", "86400000")]


@pytest.mark.parametrize("version", range(5))
async def test_versions_offered(client: Connection, version: int) -> None:
    fields = {"client_software_name": "contract", "client_software_version": "1.0"}
    answer = await client.ask(ApiKey.API_VERSIONS, version, **fields)
    assert answer.error_code == 0
    offered = {each.api_key: (each.min_version, each.max_version) for each in answer.api_keys}
    assert {key: offered[key] for key in OFFERED} == OFFERED


async def test_a_version_of_api_versions_that_nobody_knows(client: Connection) -> None:
    for version in (5, 99):
        client.send_payload(struct.pack(">hhih", ApiKey.API_VERSIONS, version, 77, -1) + b"\x00")
        assert await client.receive() == struct.pack(">ihihhh", 77, UNSUPPORTED, 1, ApiKey.API_VERSIONS, 0, 4)
    assert (await client.metadata(9)).brokers, "the connection lives on"


async def test_a_client_name_that_no_metric_can_have(client: Connection) -> None:
    payload = encode_request(ApiKey.API_VERSIONS, 3, 9, client_software_name="-", client_software_version="1")
    client.send_payload(payload)
    assert (await client.receive())[:7] == struct.pack(">ihB", 9, INVALID, 1)
    assert (await client.metadata(9)).brokers, "the connection lives on"


def request(key: int, version: int, body: bytes = b"") -> bytes:
    payload = struct.pack(">hhih", key, version, 7, -1) + body
    return struct.pack(">i", len(payload)) + payload


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(struct.pack(">i", -1), id="negative size"),
        pytest.param(struct.pack(">i", (100 << 20) + 1), id="above 100 MiB"),
        pytest.param(struct.pack(">i", 2) + b"\x00\x03", id="shorter than a header"),
        pytest.param(request(9999, 0), id="unknown API"),
        pytest.param(request(ApiKey.FETCH, 19, b"\x00" * 40), id="unknown version"),
        pytest.param(request(ApiKey.FETCH, 3, b"\x00" * 40), id="version no longer known"),
        pytest.param(request(ApiKey.FETCH, 4, b"\xff\xff\xff\xff\x00\x00"), id="body cut short"),
        pytest.param(request(ApiKey.PRODUCE, 2, b"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00"), id="Produce 2"),
        pytest.param(
            request(ApiKey.LIST_OFFSETS, 1, struct.pack(">ii", -1, 2**31 - 1)), id="two thousand million topics"
        ),
    ],
)
async def test_what_closes_a_connection(client: Connection, sent: bytes) -> None:
    client.writer.write(sent)
    with pytest.raises(Closed):
        await client.receive()
