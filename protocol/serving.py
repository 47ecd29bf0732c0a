"""The other side of the small messages: requests read and answers written, for a broker of our own (tierproxy.alone).

By kafka-python's classes, as in `codec`, which says what must be minded with them. A request is handed in as its body;
an answer is a payload, header included. Versions that are not in `SERVED` are not for here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from kafka.protocol import consumer, metadata, producer

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from protocol.headers import response_header
from protocol.kafka_messages import decode as decode_message
from protocol.kafka_messages import encode as encode_message
from protocol.messages import NO_TOPIC_ID, EpochEnd, MetadataTopic
from protocol.wire import Buffer

SERVED: Mapping[int, tuple[int, int]] = {
    ApiKey.PRODUCE: (3, 13),
    ApiKey.METADATA: (0, 13),
    ApiKey.OFFSET_COMMIT: (1, 9),
    ApiKey.OFFSET_FETCH: (1, 9),
    ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.JOIN_GROUP: (0, 9),
    ApiKey.HEARTBEAT: (0, 4),
    ApiKey.LEAVE_GROUP: (0, 5),
    ApiKey.SYNC_GROUP: (0, 5),
    ApiKey.API_VERSIONS: (0, 4),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
}
"""First and last version of what is read and written here. OffsetCommit and OffsetFetch from v10 on go by topic id."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker as clients are told of it."""

    node_id: int
    host: str
    port: int


def _answer(key: int, version: int, correlation_id: int, message: Any) -> bytes:
    return response_header(key, version, correlation_id) + encode_message(message, version)


# ---- ApiVersions, Metadata ---------------------------------------------------------------------------------


def api_versions_answer(version: int, correlation_id: int, offered: Mapping[int, tuple[int, int]]) -> bytes:
    kafka_api = metadata.ApiVersionsResponse.ApiVersion
    apis = [
        kafka_api(version=version, api_key=key, min_version=first, max_version=last)
        for key, (first, last) in sorted(offered.items())
    ]
    message = metadata.ApiVersionsResponse(version=version, error_code=0, api_keys=apis, throttle_time_ms=0)
    return _answer(ApiKey.API_VERSIONS, version, correlation_id, message)


def metadata_question(body: Buffer, version: int) -> list[str | bytes] | None:
    """Names and (v10+) topic ids, in their order; None for all topics.

    librdkafka 2.16 asks for all topics with three bytes too many, which brokers pass over.
    """
    message = decode_message(metadata.MetadataRequest, body, 0, version, more=True)
    if message.topics is None or (version == 0 and not message.topics):
        return None
    return [
        topic.name if topic.name is not None else (topic.topic_id.bytes if topic.topic_id else NO_TOPIC_ID)
        for topic in message.topics
    ]


def metadata_answer(
    version: int,
    correlation_id: int,
    cluster_id: str | None,
    broker: Endpoint,
    topics: Sequence[MetadataTopic | tuple[str | bytes, int]],
) -> bytes:
    """One broker leads everything; a topic that can't be described is given as (name or id, error)."""
    kafka_broker = metadata.MetadataResponse.MetadataResponseBroker
    brokers = [kafka_broker(version=version, node_id=broker.node_id, host=broker.host, port=broker.port)]
    message = metadata.MetadataResponse(
        version=version,
        throttle_time_ms=0,
        brokers=brokers,
        cluster_id=cluster_id,
        controller_id=broker.node_id,
        topics=[_metadata_topic(version, broker.node_id, topic) for topic in topics],
    )
    return _answer(ApiKey.METADATA, version, correlation_id, message)


def _metadata_topic(version: int, node_id: int, topic: MetadataTopic | tuple[str | bytes, int]) -> Any:
    kafka_topic = metadata.MetadataResponse.MetadataResponseTopic
    if isinstance(topic, tuple):
        asked, error = topic
        by_id = isinstance(asked, bytes)
        return kafka_topic(
            version=version,
            error_code=error,
            name=None if by_id else asked,
            topic_id=_uuid(asked) if isinstance(asked, bytes) else None,
            partitions=[],
        )
    partitions = [
        kafka_topic.MetadataResponsePartition(
            version=version,
            error_code=part.error,
            partition_index=part.index,
            leader_id=part.leader,
            leader_epoch=part.leader_epoch,
            replica_nodes=[node_id],
            isr_nodes=[node_id],
            offline_replicas=[],
        )
        for part in topic.partitions
    ]
    return kafka_topic(
        version=version,
        error_code=topic.error,
        name=topic.name,
        topic_id=_uuid(topic.topic_id),
        is_internal=topic.internal,
        partitions=partitions,
    )


def _uuid(topic_id: bytes) -> UUID | None:
    return None if topic_id == NO_TOPIC_ID else UUID(bytes=topic_id)


# ---- OffsetForLeaderEpoch ----------------------------------------------------------------------------------


def epoch_ends_question(body: Buffer, version: int) -> list[tuple[str, int, int]]:
    """(topic, partition, the epoch whose end is asked for)"""
    message = decode_message(consumer.OffsetForLeaderEpochRequest, body, 0, version)
    return [(topic.topic, part.partition, part.leader_epoch) for topic in message.topics for part in topic.partitions]


def epoch_ends_answer(version: int, correlation_id: int, ends: Iterable[EpochEnd]) -> bytes:
    kafka_topic = consumer.OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult
    topics = [
        kafka_topic(
            version=version,
            topic=name,
            partitions=[
                kafka_topic.EpochEndOffset(
                    version=version,
                    error_code=end.error,
                    partition=end.partition,
                    leader_epoch=end.leader_epoch,
                    end_offset=end.end_offset,
                )
                for end in group
            ],
        )
        for name, group in groupby(ends, key=lambda end: end.topic)
    ]
    message = consumer.OffsetForLeaderEpochResponse(version=version, throttle_time_ms=0, topics=topics)
    return _answer(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, correlation_id, message)


# ---- groups ------------------------------------------------------------------------------------------------


def coordinator_answer(body: Buffer, version: int, correlation_id: int, broker: Endpoint) -> bytes:
    """This broker coordinates every group."""
    asked = decode_message(metadata.FindCoordinatorRequest, body, 0, version)
    where = {"node_id": broker.node_id, "host": broker.host, "port": broker.port, "error_code": 0}
    if version < 4:
        message = metadata.FindCoordinatorResponse(version=version, throttle_time_ms=0, error_message=None, **where)
    else:
        found = [
            metadata.FindCoordinatorResponse.Coordinator(version=version, key=key, error_message=None, **where)
            for key in asked.coordinator_keys
        ]
        message = metadata.FindCoordinatorResponse(version=version, throttle_time_ms=0, coordinators=found)
    return _answer(ApiKey.FIND_COORDINATOR, version, correlation_id, message)


@dataclass(frozen=True, slots=True)
class JoinAsked:
    """JoinGroup: who asks, and the protocols that it supports, the preferred first, each with what it has to say."""

    member_id: str
    client_id: str
    instance_id: str | None
    protocol_type: str
    protocols: Sequence[tuple[str, bytes]]
    session_timeout_ms: int
    rebalance_timeout_ms: int


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """`members` are (member id, instance id, what it had to say): for the leader."""

    error: int
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    member_id: str = ""
    members: Sequence[tuple[str, str | None, bytes]] = ()


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    error: int
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True)
class Committed:
    """An offset that a group has committed; leader_epoch -1: not known."""

    offset: int
    leader_epoch: int
    metadata: str | None


def join_question(body: Buffer, version: int, client_id: str) -> tuple[str, JoinAsked]:
    """The group, and who wants to be in it."""
    asked = decode_message(consumer.JoinGroupRequest, body, 0, version)
    return asked.group_id, JoinAsked(
        member_id=asked.member_id,
        client_id=client_id,
        instance_id=asked.group_instance_id if version >= 5 else None,
        protocol_type=asked.protocol_type,
        protocols=[(protocol.name, bytes(protocol.metadata)) for protocol in asked.protocols],
        session_timeout_ms=asked.session_timeout_ms,
        rebalance_timeout_ms=asked.rebalance_timeout_ms if version >= 1 else asked.session_timeout_ms,
    )


def join_answer(version: int, correlation_id: int, answer: JoinAnswer) -> bytes:
    kafka_member = consumer.JoinGroupResponse.JoinGroupResponseMember
    message = consumer.JoinGroupResponse(
        version=version,
        throttle_time_ms=0,
        error_code=answer.error,
        generation_id=answer.generation,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol if version >= 7 else answer.protocol or "",
        leader=answer.leader,
        skip_assignment=False,
        member_id=answer.member_id,
        members=[
            kafka_member(version=version, member_id=member_id, group_instance_id=instance_id, metadata=said)
            for member_id, instance_id, said in answer.members
        ],
    )
    return _answer(ApiKey.JOIN_GROUP, version, correlation_id, message)


def sync_question(body: Buffer, version: int) -> tuple[str, str, int, list[tuple[str, bytes]]]:
    """(group, member, generation, the leader's [(member, its assignment)])"""
    asked = decode_message(consumer.SyncGroupRequest, body, 0, version)
    shares = [(each.member_id, bytes(each.assignment)) for each in asked.assignments]
    return asked.group_id, asked.member_id, asked.generation_id, shares


def sync_answer(version: int, correlation_id: int, answer: SyncAnswer) -> bytes:
    message = consumer.SyncGroupResponse(
        version=version,
        throttle_time_ms=0,
        error_code=answer.error,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol,
        assignment=answer.assignment,
    )
    return _answer(ApiKey.SYNC_GROUP, version, correlation_id, message)


def heartbeat_question(body: Buffer, version: int) -> tuple[str, str, int]:
    """(group, member, generation)"""
    asked = decode_message(consumer.HeartbeatRequest, body, 0, version)
    return asked.group_id, asked.member_id, asked.generation_id


def heartbeat_answer(version: int, correlation_id: int, error: int) -> bytes:
    message = consumer.HeartbeatResponse(version=version, throttle_time_ms=0, error_code=error)
    return _answer(ApiKey.HEARTBEAT, version, correlation_id, message)


def leave_question(body: Buffer, version: int) -> tuple[str, list[tuple[str, str | None]]]:
    """The group, and (member, instance) of who leaves."""
    asked = decode_message(consumer.LeaveGroupRequest, body, 0, version)
    if version < 3:
        return asked.group_id, [(asked.member_id, None)]
    return asked.group_id, [(member.member_id, member.group_instance_id) for member in asked.members]


def leave_answer(
    version: int, correlation_id: int, members: Sequence[tuple[str, str | None]], errors: Sequence[int]
) -> bytes:
    if version < 3:
        message = consumer.LeaveGroupResponse(version=version, throttle_time_ms=0, error_code=errors[0])
    else:
        kafka_member = consumer.LeaveGroupResponse.MemberResponse
        left = [
            kafka_member(version=version, member_id=member_id, group_instance_id=instance_id, error_code=error)
            for (member_id, instance_id), error in zip(members, errors, strict=True)
        ]
        message = consumer.LeaveGroupResponse(version=version, throttle_time_ms=0, error_code=0, members=left)
    return _answer(ApiKey.LEAVE_GROUP, version, correlation_id, message)


def commit_question(body: Buffer, version: int) -> tuple[str, str, int, list[tuple[str, int, Committed]]]:
    """(group, member, generation, [(topic, partition, what is committed)])"""
    asked = decode_message(consumer.OffsetCommitRequest, body, 0, version)
    offsets = [
        (
            topic.name,
            part.partition_index,
            Committed(
                part.committed_offset, part.committed_leader_epoch if version >= 6 else -1, part.committed_metadata
            ),
        )
        for topic in asked.topics
        for part in topic.partitions
    ]
    return asked.group_id, asked.member_id, asked.generation_id_or_member_epoch, offsets


def commit_answer(
    version: int, correlation_id: int, offsets: Sequence[tuple[str, int, Committed]], errors: Sequence[int]
) -> bytes:
    kafka_topic = consumer.OffsetCommitResponse.OffsetCommitResponseTopic
    both = zip(offsets, errors, strict=True)
    topics = [
        kafka_topic(
            version=version,
            name=name,
            partitions=[
                kafka_topic.OffsetCommitResponsePartition(version=version, partition_index=index, error_code=error)
                for (_, index, _), error in group
            ],
        )
        for name, group in groupby(both, key=lambda pair: pair[0][0])
    ]
    message = consumer.OffsetCommitResponse(version=version, throttle_time_ms=0, topics=topics)
    return _answer(ApiKey.OFFSET_COMMIT, version, correlation_id, message)


def committed_answer(
    body: Buffer, version: int, correlation_id: int, committed: Callable[[str], Mapping[tuple[str, int], Committed]]
) -> bytes:
    """OffsetFetch, of one group or (v8+) several; `committed` gives a group's by (topic, partition)."""
    asked = decode_message(consumer.OffsetFetchRequest, body, 0, version)
    if version < 8:
        kafka_topic = consumer.OffsetFetchResponse.OffsetFetchResponseTopic
        topics = _committed(kafka_topic, version, asked.topics, committed(asked.group_id))
        message = consumer.OffsetFetchResponse(version=version, throttle_time_ms=0, topics=topics, error_code=0)
    else:
        kafka_group = consumer.OffsetFetchResponse.OffsetFetchResponseGroup
        groups = [
            kafka_group(
                version=version,
                group_id=group.group_id,
                topics=_committed(
                    kafka_group.OffsetFetchResponseTopics, version, group.topics, committed(group.group_id)
                ),
                error_code=0,
            )
            for group in asked.groups
        ]
        message = consumer.OffsetFetchResponse(version=version, throttle_time_ms=0, groups=groups)
    return _answer(ApiKey.OFFSET_FETCH, version, correlation_id, message)


_NOTHING = Committed(-1, -1, "")


def _committed(kafka_topic: Any, version: int, topics: Any, of: Mapping[tuple[str, int], Committed]) -> list[Any]:
    """`topics` None: all that there are."""
    if topics is None:
        wanted = {name: [index for topic, index in of if topic == name] for name, _ in of}
    else:
        wanted = {topic.name: topic.partition_indexes for topic in topics}
    name = "OffsetFetchResponsePartition" if version < 8 else "OffsetFetchResponsePartitions"
    kafka_partition = getattr(kafka_topic, name)

    def partition(topic: str, index: int) -> Any:
        found = of.get((topic, index), _NOTHING)
        return kafka_partition(
            version=version,
            partition_index=index,
            committed_offset=found.offset,
            committed_leader_epoch=found.leader_epoch,
            metadata=found.metadata,
            error_code=0,
        )

    return [
        kafka_topic(version=version, name=topic, partitions=[partition(topic, index) for index in indexes])
        for topic, indexes in wanted.items()
    ]


# ---- Produce -----------------------------------------------------------------------------------------------


def produce_refusal(body: Buffer, version: int, correlation_id: int, error: ErrorCode, words: str) -> bytes | None:
    """None where the producer wants no answer (acks=0): it can only be told by closing."""
    asked = decode_message(producer.ProduceRequest, body, 0, version)
    if asked.acks == 0:
        return None
    kafka_topic = producer.ProduceResponse.TopicProduceResponse
    told = {"record_errors": [], "error_message": words} if version >= 8 else {}
    topics = [
        kafka_topic(
            version=version,
            **({"topic_id": topic.topic_id} if version >= 13 else {"name": topic.name}),
            partition_responses=[
                kafka_topic.PartitionProduceResponse(
                    version=version, index=part.index, error_code=error, base_offset=-1, **told
                )
                for part in topic.partition_data
            ],
        )
        for topic in asked.topic_data
    ]
    message = producer.ProduceResponse(version=version, responses=topics, throttle_time_ms=0)
    return _answer(ApiKey.PRODUCE, version, correlation_id, message)
