"""The broker that has no record: asked and understood in kafka-python's words, in every version that it offers."""

from typing import Any
from uuid import UUID

import pytest
from kafka.protocol import consumer, metadata, producer

from protocol.apis import ApiKey
from protocol.errors import ErrorCode, MalformedError
from protocol.headers import read_request_header
from tierproxy.alone.empty_broker import OFFERED, EmptyBroker, end_of_epoch
from tierproxy.alone.stock import HeldTopic, Stock
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.names import PartitionId

ID = bytes(range(16))
END = 40

CLASSES: dict[int, tuple[Any, Any]] = {
    ApiKey.PRODUCE: (producer.ProduceRequest, producer.ProduceResponse),
    ApiKey.FETCH: (consumer.FetchRequest, consumer.FetchResponse),
    ApiKey.LIST_OFFSETS: (consumer.ListOffsetsRequest, consumer.ListOffsetsResponse),
    ApiKey.METADATA: (metadata.MetadataRequest, metadata.MetadataResponse),
    ApiKey.OFFSET_COMMIT: (consumer.OffsetCommitRequest, consumer.OffsetCommitResponse),
    ApiKey.OFFSET_FETCH: (consumer.OffsetFetchRequest, consumer.OffsetFetchResponse),
    ApiKey.FIND_COORDINATOR: (metadata.FindCoordinatorRequest, metadata.FindCoordinatorResponse),
    ApiKey.JOIN_GROUP: (consumer.JoinGroupRequest, consumer.JoinGroupResponse),
    ApiKey.HEARTBEAT: (consumer.HeartbeatRequest, consumer.HeartbeatResponse),
    ApiKey.LEAVE_GROUP: (consumer.LeaveGroupRequest, consumer.LeaveGroupResponse),
    ApiKey.SYNC_GROUP: (consumer.SyncGroupRequest, consumer.SyncGroupResponse),
    ApiKey.API_VERSIONS: (metadata.ApiVersionsRequest, metadata.ApiVersionsResponse),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (consumer.OffsetForLeaderEpochRequest, consumer.OffsetForLeaderEpochResponse),
}


def versions(key: ApiKey) -> pytest.MarkDecorator:
    first, last = OFFERED[key]
    return pytest.mark.parametrize("version", range(first, last + 1))


@pytest.fixture
def broker() -> EmptyBroker:
    lost = Gap(0, END, 1, "test")
    manifest = Manifest("prod", "cluster-id", "flights", ID, 2, 0, END, epochs=((3, 0), (5, 20)), gaps=(lost,))
    return EmptyBroker(Stock("cluster-id", {"flights": HeldTopic("flights", ID, {2: manifest})}))


async def ask(broker: EmptyBroker, key: int, version: int, /, **fields: Any) -> Any:
    asked, answered = CLASSES[key]
    message = asked(version=version, **fields)
    message.with_header(correlation_id=7, client_id="test")
    payload = bytes(message.encode(header=True))
    answer = await broker.answer(read_request_header(payload), payload)
    if answer is None:
        return None
    assert answer[:4] == b"\x00\x00\x00\x07"
    return answered.decode(answer, version=version, header=True)


def topic_of(kind: Any, version: int, by_id: bool, **fields: Any) -> Any:
    return kind(version=version, **({"topic_id": UUID(bytes=ID)} if by_id else {"name": "flights"}), **fields)


def test_an_api_that_is_offered_is_one_that_is_tried_here() -> None:
    assert set(CLASSES) == set(OFFERED)


@pytest.mark.parametrize("version", range(5))
async def test_api_versions(broker: EmptyBroker, version: int) -> None:
    fields = {"client_software_name": "t", "client_software_version": "1"} if version >= 3 else {}
    answer = await ask(broker, ApiKey.API_VERSIONS, version, **fields)
    assert {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys} == dict(OFFERED)


async def test_what_is_not_offered_ends_the_connection(broker: EmptyBroker) -> None:
    async def send(payload: bytes) -> bytes | None:
        return await broker.answer(read_request_header(payload), payload)

    head = b"\x00\x00\x00\x07\xff\xff"
    with pytest.raises(MalformedError, match="not offered"):
        (await send(b"\x00\x14\x00\x00" + head))  # DeleteTopics
    with pytest.raises(MalformedError, match="not offered"):
        (await send(b"\x00\x01\x00\x03" + head))  # Fetch v3
    unknown = await send(b"\x00\x12\x00\x09" + head + b"\x00")  # ApiVersions v9
    assert unknown is not None
    assert unknown[4:6] == b"\x00\x23"


@versions(ApiKey.METADATA)
async def test_metadata(broker: EmptyBroker, version: int) -> None:
    kafka_topic = metadata.MetadataRequest.MetadataRequestTopic
    answer = await ask(broker, ApiKey.METADATA, version, topics=None if version else [])
    assert [(b.node_id, b.host, b.port) for b in answer.brokers] == [(0, "", 0)]
    (topic,) = answer.topics
    assert (topic.error_code, topic.name) == (0, "flights")
    (part,) = topic.partitions
    assert (part.error_code, part.partition_index, part.leader_id) == (0, 2, 0)
    if version >= 10:
        assert topic.topic_id.bytes == ID
        assert part.leader_epoch == 5
    if version >= 2:
        assert answer.cluster_id == "cluster-id"
    answer = await ask(broker, ApiKey.METADATA, version, topics=[kafka_topic(version=version, name="nobody")])
    assert [(t.error_code, t.name, t.partitions) for t in answer.topics] == [(3, "nobody", [])]
    if version >= 12:
        asked = [kafka_topic(version=version, name=None, topic_id=UUID(bytes=each)) for each in (ID, b"x" * 16)]
        answer = await ask(broker, ApiKey.METADATA, version, topics=asked)
        assert [(t.error_code, t.name) for t in answer.topics] == [(0, "flights"), (100, None)]


@versions(ApiKey.LIST_OFFSETS)
async def test_list_offsets(broker: EmptyBroker, version: int) -> None:
    kafka_topic = consumer.ListOffsetsRequest.ListOffsetsTopic
    kafka_partition = kafka_topic.ListOffsetsPartition

    async def listed(index: int, timestamp: int) -> tuple[int, int, int]:
        part = kafka_partition(version=version, partition_index=index, current_leader_epoch=-1, timestamp=timestamp)
        topic = kafka_topic(version=version, name="flights", partitions=[part])
        answer = await ask(
            broker, ApiKey.LIST_OFFSETS, version, replica_id=-1, isolation_level=0, topics=[topic], timeout_ms=0
        )
        found = answer.topics[0].partitions[0]
        return found.error_code, found.offset, found.timestamp

    assert await listed(2, -1) == await listed(2, -2) == await listed(2, -4) == (0, END, -1)
    assert await listed(2, 1_700_000_000_000) == await listed(2, -3) == (0, -1, -1)
    assert await listed(0, -1) == (3, -1, -1)


@versions(ApiKey.FETCH)
async def test_fetch(broker: EmptyBroker, version: int) -> None:
    kafka_topic = consumer.FetchRequest.FetchTopic

    async def fetched(index: int, offset: int, topic_id: bytes = ID, name: str = "flights") -> tuple[int, int]:
        part = kafka_topic.FetchPartition(
            version=version, partition=index, fetch_offset=offset, partition_max_bytes=1 << 20
        )
        key = {"topic_id": UUID(bytes=topic_id)} if version >= 13 else {"topic": name}
        answer = await ask(
            broker,
            ApiKey.FETCH,
            version,
            max_wait_ms=1,
            min_bytes=1,
            max_bytes=1 << 20,
            isolation_level=1,
            session_id=0,
            session_epoch=-1,
            topics=[kafka_topic(version=version, **key, partitions=[part])],
            forgotten_topics_data=[],
            rack_id="",
        )
        found = answer.responses[0].partitions[0]
        assert not found.records
        return found.error_code, found.high_watermark

    assert await fetched(2, 0) == await fetched(2, END + 1) == (ErrorCode.OFFSET_OUT_OF_RANGE, -1)
    assert await fetched(2, END) == (ErrorCode.NONE, END)
    assert await fetched(0, 0) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)
    unknown = ErrorCode.UNKNOWN_TOPIC_ID if version >= 13 else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert await fetched(2, 0, b"x" * 16, "nobody") == (unknown, -1)


@versions(ApiKey.OFFSET_FOR_LEADER_EPOCH)
async def test_ends_of_epochs(broker: EmptyBroker, version: int) -> None:
    kafka_topic = consumer.OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    parts = [
        kafka_topic.OffsetForLeaderPartition(
            version=version, partition=index, current_leader_epoch=-1, leader_epoch=epoch
        )
        for index, epoch in ((2, 3), (0, 3))
    ]
    topics = [kafka_topic(version=version, topic="flights", partitions=parts)]
    answer = await ask(broker, ApiKey.OFFSET_FOR_LEADER_EPOCH, version, replica_id=-1, topics=topics)
    found = [(p.error_code, p.leader_epoch, p.end_offset) for p in answer.topics[0].partitions]
    assert found == [(0, 3, 20), (3, -1, -1)]


@pytest.mark.parametrize(
    ("epoch", "end"), [(-1, (-1, -1)), (2, (2, 0)), (3, (3, 20)), (4, (3, 20)), (5, (5, END)), (6, (-1, -1))]
)
def test_where_an_epoch_ends(epoch: int, end: tuple[int, int]) -> None:
    pid = PartitionId("flights", ID, 2)
    lost = Gap(0, END, 1, "test")
    manifest = Manifest("prod", "c", pid.topic, ID, 2, 0, END, epochs=((3, 0), (5, 20)), gaps=(lost,))
    assert end_of_epoch(manifest, epoch) == end


@versions(ApiKey.PRODUCE)
async def test_producers_are_refused(broker: EmptyBroker, version: int) -> None:
    kafka_topic = producer.ProduceRequest.TopicProduceData
    part = kafka_topic.PartitionProduceData(version=version, index=2, records=b"a batch")
    topics = [topic_of(kafka_topic, version, version >= 13, partition_data=[part])]
    fields = {"transactional_id": None, "timeout_ms": 1000, "topic_data": topics}
    answer = await ask(broker, ApiKey.PRODUCE, version, acks=-1, **fields)
    found = answer.responses[0].partition_responses[0]
    assert (found.index, found.error_code, found.base_offset) == (2, ErrorCode.POLICY_VIOLATION, -1)
    if version >= 8:
        assert "can't be written to" in found.error_message
    assert await ask(broker, ApiKey.PRODUCE, version, acks=0, **fields) is None


# ---- groups --------------------------------------------------------------------------------------------------


@versions(ApiKey.FIND_COORDINATOR)
async def test_it_coordinates_every_group(broker: EmptyBroker, version: int) -> None:
    if version < 4:
        answer = await ask(broker, ApiKey.FIND_COORDINATOR, version, key="g", key_type=0)
        assert (answer.error_code, answer.node_id) == (0, 0)
    else:
        answer = await ask(broker, ApiKey.FIND_COORDINATOR, version, coordinator_keys=["g", "h"], key_type=0)
        assert [(each.key, each.error_code, each.node_id) for each in answer.coordinators] == [("g", 0, 0), ("h", 0, 0)]


async def join(broker: EmptyBroker, version: int) -> Any:
    kafka_protocol = consumer.JoinGroupRequest.JoinGroupRequestProtocol
    return await ask(
        broker,
        ApiKey.JOIN_GROUP,
        version,
        group_id="g",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        member_id="",
        protocol_type="consumer",
        protocols=[kafka_protocol(version=version, name="range", metadata=b"topics")],
    )


@versions(ApiKey.JOIN_GROUP)
async def test_who_joins_alone_leads(broker: EmptyBroker, version: int) -> None:
    answer = await join(broker, version)
    assert (answer.error_code, answer.generation_id, answer.protocol_name) == (0, 1, "range")
    assert answer.leader == answer.member_id
    assert answer.member_id.startswith("test-")
    assert [(each.member_id, bytes(each.metadata)) for each in answer.members] == [(answer.member_id, b"topics")]


@versions(ApiKey.SYNC_GROUP)
async def test_who_leads_assigns(broker: EmptyBroker, version: int) -> None:
    member = (await join(broker, 5)).member_id
    share = consumer.SyncGroupRequest.SyncGroupRequestAssignment(version=version, member_id=member, assignment=b"all")
    answer = await ask(
        broker, ApiKey.SYNC_GROUP, version, group_id="g", generation_id=1, member_id=member, assignments=[share]
    )
    assert (answer.error_code, bytes(answer.assignment)) == (0, b"all")


@versions(ApiKey.HEARTBEAT)
async def test_heartbeats(broker: EmptyBroker, version: int) -> None:
    member = (await join(broker, 5)).member_id

    async def beat(member_id: str, generation: int) -> int:
        fields = {"group_id": "g", "generation_id": generation, "member_id": member_id}
        return int((await ask(broker, ApiKey.HEARTBEAT, version, **fields)).error_code)

    assert await beat(member, 1) == ErrorCode.NONE
    assert await beat(member, 2) == ErrorCode.ILLEGAL_GENERATION
    assert await beat("nobody", 1) == ErrorCode.UNKNOWN_MEMBER_ID


@versions(ApiKey.LEAVE_GROUP)
async def test_leaving(broker: EmptyBroker, version: int) -> None:
    member = (await join(broker, 5)).member_id

    async def leave() -> int:
        if version < 3:
            return int((await ask(broker, ApiKey.LEAVE_GROUP, version, group_id="g", member_id=member)).error_code)
        who = consumer.LeaveGroupRequest.MemberIdentity(version=version, member_id=member, group_instance_id=None)
        answer = await ask(broker, ApiKey.LEAVE_GROUP, version, group_id="g", members=[who])
        assert (answer.error_code, answer.members[0].member_id) == (0, member)
        return int(answer.members[0].error_code)

    assert await leave() == ErrorCode.NONE
    assert await leave() == ErrorCode.UNKNOWN_MEMBER_ID


@versions(ApiKey.OFFSET_COMMIT)
async def test_commits_without_a_group(broker: EmptyBroker, version: int) -> None:
    kafka_topic = consumer.OffsetCommitRequest.OffsetCommitRequestTopic
    part = kafka_topic.OffsetCommitRequestPartition(
        version=version, partition_index=2, committed_offset=30, committed_leader_epoch=5, committed_metadata="note"
    )
    topics = [kafka_topic(version=version, name="flights", partitions=[part])]
    fields = {"group_id": "g", "generation_id_or_member_epoch": -1, "member_id": "", "retention_time_ms": -1}
    answer = await ask(broker, ApiKey.OFFSET_COMMIT, version, topics=topics, **fields)
    found = answer.topics[0].partitions[0]
    assert (answer.topics[0].name, found.partition_index, found.error_code) == ("flights", 2, 0)
    assert await fetched_offsets(broker, 5, [2, 3]) == [(2, 30, "note"), (3, -1, "")]
    assert await fetched_offsets(broker, 5, None) == [(2, 30, "note")]


@versions(ApiKey.OFFSET_FETCH)
async def test_nothing_is_committed_at_first(broker: EmptyBroker, version: int) -> None:
    assert await fetched_offsets(broker, version, [2]) == [(2, -1, "")]
    if version >= 2:
        assert await fetched_offsets(broker, version, None) == []


async def fetched_offsets(broker: EmptyBroker, version: int, indexes: list[int] | None) -> list[tuple[int, int, str]]:
    asked = consumer.OffsetFetchRequest
    if version < 8:
        kafka_topic = asked.OffsetFetchRequestTopic
        topics = indexes and [kafka_topic(version=version, name="flights", partition_indexes=indexes)]
        answer = await ask(broker, ApiKey.OFFSET_FETCH, version, group_id="g", topics=topics)
        found = answer.topics
    else:
        kafka_group = asked.OffsetFetchRequestGroup
        kafka_topic = kafka_group.OffsetFetchRequestTopics
        topics = indexes and [kafka_topic(version=version, name="flights", partition_indexes=indexes)]
        groups = [kafka_group(version=version, group_id="g", member_id=None, topics=topics)]
        answer = await ask(broker, ApiKey.OFFSET_FETCH, version, groups=groups)
        found = answer.groups[0].topics
    return [(p.partition_index, p.committed_offset, p.metadata) for topic in found for p in topic.partitions]
