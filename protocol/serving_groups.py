"""As `serving`, of consumer groups: Kafka's classic protocol, and the offsets that groups commit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from kafka.protocol import consumer, metadata

from protocol.apis import ApiKey
from protocol.kafka_messages import decode as decode_message
from protocol.serving import Endpoint, answer_of
from protocol.wire import Buffer


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
    return answer_of(ApiKey.FIND_COORDINATOR, version, correlation_id, message)


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
    return answer_of(ApiKey.JOIN_GROUP, version, correlation_id, message)


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
    return answer_of(ApiKey.SYNC_GROUP, version, correlation_id, message)


def heartbeat_question(body: Buffer, version: int) -> tuple[str, str, int]:
    """(group, member, generation)"""
    asked = decode_message(consumer.HeartbeatRequest, body, 0, version)
    return asked.group_id, asked.member_id, asked.generation_id


def heartbeat_answer(version: int, correlation_id: int, error: int) -> bytes:
    message = consumer.HeartbeatResponse(version=version, throttle_time_ms=0, error_code=error)
    return answer_of(ApiKey.HEARTBEAT, version, correlation_id, message)


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
    return answer_of(ApiKey.LEAVE_GROUP, version, correlation_id, message)


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
    return answer_of(ApiKey.OFFSET_COMMIT, version, correlation_id, message)


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
    return answer_of(ApiKey.OFFSET_FETCH, version, correlation_id, message)


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
