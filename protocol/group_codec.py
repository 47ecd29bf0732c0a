"""What a member of a consumer group and its coordinator say to each other (the classic protocol), and where it is.

As in `codec`: requests are bodies, answers whole payloads, other versions than `GROUP_VERSIONS` are refused. What the
members tell one another through the coordinator is in `consumer_protocol`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kafka.protocol import admin, consumer, metadata

from protocol.apis import ApiKey
from protocol.errors import MalformedError
from protocol.kafka_messages import decode_response, encode
from protocol.wire import Buffer

GROUP_VERSIONS: Mapping[int, tuple[int, int]] = {
    ApiKey.FIND_COORDINATOR: (1, 6),
    ApiKey.JOIN_GROUP: (2, 9),  # 2: the lowest that Kafka 4 takes
    ApiKey.SYNC_GROUP: (1, 5),
    ApiKey.HEARTBEAT: (1, 4),
    ApiKey.LEAVE_GROUP: (1, 5),
    ApiKey.DESCRIBE_GROUPS: (0, 5),  # 6 says "no such group" where the others say "Dead"
}
"""First and last version that this module encodes and decodes, by API key; Kafka 2.1 to 4.3 have some of each."""

KEY_TYPE_GROUP = 0


@dataclass(frozen=True, slots=True)
class CoordinatorAnswer:
    error: int
    node_id: int  # -1 with an error


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """`member_id` is ours; with error MEMBER_ID_REQUIRED the one to come back with. `members` (id and the bytes that
    each joined with) are for the leader alone."""

    error: int
    generation: int
    leader: str
    member_id: str
    members: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    error: int
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupMember:
    """`host` is as the coordinator saw it (`/10.1.2.3`), `assignment` what the leader gave this member."""

    member_id: str
    client_id: str
    host: str
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """`state` in Kafka's words: Stable, Empty, Dead (there is none), PreparingRebalance, CompletingRebalance."""

    error: int
    state: str
    protocol: str
    members: tuple[GroupMember, ...]


def encode_find_coordinator_request(version: int, group: str) -> bytes:
    _check(ApiKey.FIND_COORDINATOR, version)
    kind = metadata.FindCoordinatorRequest
    asked = {"coordinator_keys": [group]} if version >= 4 else {"key": group}
    return encode(kind(version=version, key_type=KEY_TYPE_GROUP, **asked), version)


def decode_find_coordinator_response(payload: Buffer, version: int) -> CoordinatorAnswer:
    _check(ApiKey.FIND_COORDINATOR, version)
    message = decode_response(metadata.FindCoordinatorResponse, payload, version)
    if version < 4:
        return CoordinatorAnswer(message.error_code, message.node_id)
    if not message.coordinators:
        raise MalformedError(f"FindCoordinatorResponse v{version}: no coordinator in it")
    return CoordinatorAnswer(message.coordinators[0].error_code, message.coordinators[0].node_id)


def encode_join_request(
    version: int,
    group: str,
    member_id: str,
    protocol: tuple[str, bytes],
    *,
    protocol_type: str,
    session_timeout_ms: int,
    rebalance_timeout_ms: int,
) -> bytes:
    """`protocol`: the assignor's name, and what this member tells the leader. `member_id` is empty for a new one."""
    _check(ApiKey.JOIN_GROUP, version)
    name, told = protocol
    kind = consumer.JoinGroupRequest
    return encode(
        kind(
            version=version,
            group_id=group,
            session_timeout_ms=session_timeout_ms,
            rebalance_timeout_ms=rebalance_timeout_ms,
            member_id=member_id,
            group_instance_id=None,
            protocol_type=protocol_type,
            protocols=[kind.JoinGroupRequestProtocol(version=version, name=name, metadata=told)],
            reason=None,
        ),
        version,
    )


def decode_join_response(payload: Buffer, version: int) -> JoinAnswer:
    _check(ApiKey.JOIN_GROUP, version)
    message = decode_response(consumer.JoinGroupResponse, payload, version)
    return JoinAnswer(
        error=message.error_code,
        generation=message.generation_id,
        leader=message.leader,
        member_id=message.member_id,
        members=tuple((member.member_id, bytes(member.metadata or b"")) for member in message.members or ()),
    )


def encode_sync_request(
    version: int,
    group: str,
    generation: int,
    member_id: str,
    assignments: Iterable[tuple[str, bytes]],
    *,
    protocol_type: str,
    protocol: str,
) -> bytes:
    """`assignments`: by the leader, for each member; from the others none."""
    _check(ApiKey.SYNC_GROUP, version)
    kind = consumer.SyncGroupRequest
    each = kind.SyncGroupRequestAssignment
    return encode(
        kind(
            version=version,
            group_id=group,
            generation_id=generation,
            member_id=member_id,
            group_instance_id=None,
            protocol_type=protocol_type,
            protocol_name=protocol,
            assignments=[each(version=version, member_id=member, assignment=told) for member, told in assignments],
        ),
        version,
    )


def decode_sync_response(payload: Buffer, version: int) -> SyncAnswer:
    _check(ApiKey.SYNC_GROUP, version)
    message = decode_response(consumer.SyncGroupResponse, payload, version)
    return SyncAnswer(message.error_code, bytes(message.assignment or b""))


def encode_heartbeat_request(version: int, group: str, generation: int, member_id: str) -> bytes:
    _check(ApiKey.HEARTBEAT, version)
    message = consumer.HeartbeatRequest(
        version=version, group_id=group, generation_id=generation, member_id=member_id, group_instance_id=None
    )
    return encode(message, version)


def decode_heartbeat_response(payload: Buffer, version: int) -> int:
    """The error code."""
    _check(ApiKey.HEARTBEAT, version)
    return int(decode_response(consumer.HeartbeatResponse, payload, version).error_code)


def encode_leave_request(version: int, group: str, member_id: str) -> bytes:
    _check(ApiKey.LEAVE_GROUP, version)
    kind = consumer.LeaveGroupRequest
    if version < 3:
        return encode(kind(version=version, group_id=group, member_id=member_id), version)
    member = kind.MemberIdentity(version=version, member_id=member_id, group_instance_id=None, reason=None)
    return encode(kind(version=version, group_id=group, members=[member]), version)


def decode_leave_response(payload: Buffer, version: int) -> int:
    """The error code: the request's own, or else the member's."""
    _check(ApiKey.LEAVE_GROUP, version)
    message = decode_response(consumer.LeaveGroupResponse, payload, version)
    codes = [message.error_code, *(member.error_code for member in (message.members or () if version >= 3 else ()))]
    return next((int(code) for code in codes if code), 0)


def encode_describe_group_request(version: int, group: str) -> bytes:
    _check(ApiKey.DESCRIBE_GROUPS, version)
    message = admin.DescribeGroupsRequest(version=version, groups=[group], include_authorized_operations=False)
    return encode(message, version)


def decode_describe_group_response(payload: Buffer, version: int) -> GroupDescription:
    _check(ApiKey.DESCRIBE_GROUPS, version)
    message = decode_response(admin.DescribeGroupsResponse, payload, version)
    if not message.groups:
        raise MalformedError(f"DescribeGroupsResponse v{version}: no group in it")
    group = message.groups[0]
    return GroupDescription(
        error=group.error_code,
        state=group.group_state,
        protocol=group.protocol_data,
        members=tuple(
            GroupMember(each.member_id, each.client_id, each.client_host, bytes(each.member_assignment or b""))
            for each in group.members or ()
        ),
    )


def _check(key: int, version: int) -> None:
    first, last = GROUP_VERSIONS[key]
    if not first <= version <= last:
        raise MalformedError(f"API {key} version {version}: only {first} to {last} can be read or written")
