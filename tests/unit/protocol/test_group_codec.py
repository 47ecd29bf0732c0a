"""protocol.group_codec: byte literals laid out by hand from Kafka 4.3.1's message definitions.

Brokers taking and sending the same is shown by tests/integration/test_archiver_group.py, Kafka 3.9 included.
"""

import pytest

from protocol import group_codec
from protocol.apis import ApiKey
from protocol.codec import CODEC_VERSIONS
from protocol.errors import ErrorCode, MalformedError
from protocol.group_codec import (
    GROUP_VERSIONS,
    CoordinatorAnswer,
    GroupDescription,
    GroupMember,
    JoinAnswer,
    SyncAnswer,
)


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_find_coordinator() -> None:
    assert group_codec.encode_find_coordinator_request(1, "g") == raw("0001 67 00")
    assert group_codec.encode_find_coordinator_request(6, "g") == raw("00 02 0267 00")
    v1 = raw("00000009 00000000 0000 ffff 00000003 0001 68 00002384")
    assert group_codec.decode_find_coordinator_response(v1, 1) == CoordinatorAnswer(0, 3)
    v6 = raw("00000009 00 00000000 02 0267 ffffffff 01 ffffffff 000f 00 00 00")
    assert group_codec.decode_find_coordinator_response(v6, 6) == CoordinatorAnswer(15, -1)
    with pytest.raises(MalformedError, match="no coordinator in it"):
        group_codec.decode_find_coordinator_response(raw("00000009 00 00000000 01 00"), 6)


def join(version: int, member: str = "") -> bytes:
    return group_codec.encode_join_request(
        version, "g", member, ("p", b"\1\2"), protocol_type="consumer", session_timeout_ms=10, rebalance_timeout_ms=20
    )


def test_join_group() -> None:
    consumer = "636f6e73756d6572"
    assert join(2) == raw(f"0001 67 0000000a 00000014 0000 0008 {consumer} 00000001 0001 70 00000002 0102")
    assert join(9, "m") == raw(f"0267 0000000a 00000014 026d 00 09{consumer} 02 0270 030102 00 00 00")
    v2 = raw("00000009 00000000 0000 00000005 0001 70 0001 6d 0001 6d 00000001 0001 6d 00000002 0102")
    expected = JoinAnswer(0, 5, "m", "m", (("m", b"\1\2"),))
    assert group_codec.decode_join_response(v2, 2) == expected
    v9 = raw(f"00000009 00 00000000 0000 00000005 09{consumer} 0270 026d 00 026d 02 026d 00 030102 00 00")
    assert group_codec.decode_join_response(v9, 9) == expected
    refused = raw("00000009 00 00000000 004f ffffffff 00 00 01 00 026e 01 00")
    answer = group_codec.decode_join_response(refused, 9)
    assert (answer.error, answer.member_id, answer.members) == (ErrorCode.MEMBER_ID_REQUIRED, "n", ())


def test_sync_group() -> None:
    ours = [("m", b"\1\2")]
    v1 = group_codec.encode_sync_request(1, "g", 5, "m", ours, protocol_type="t", protocol="p")
    assert v1 == raw("0001 67 00000005 0001 6d 00000001 0001 6d 00000002 0102")
    v5 = group_codec.encode_sync_request(5, "g", 5, "m", ours, protocol_type="t", protocol="p")
    assert v5 == raw("0267 00000005 026d 00 0274 0270 02 026d 030102 00 00")
    assert group_codec.decode_sync_response(raw("00000009 00000000 001b 00000000"), 1) == SyncAnswer(27, b"")
    answer = raw("00000009 00 00000000 0000 0274 0270 030102 00")
    assert group_codec.decode_sync_response(answer, 5) == SyncAnswer(0, b"\1\2")


def test_heartbeat_and_leave() -> None:
    assert group_codec.encode_heartbeat_request(1, "g", 5, "m") == raw("0001 67 00000005 0001 6d")
    assert group_codec.encode_heartbeat_request(4, "g", 5, "m") == raw("0267 00000005 026d 00 00")
    assert group_codec.decode_heartbeat_response(raw("00000009 00 00000000 0019 00"), 4) == 25
    assert group_codec.encode_leave_request(1, "g", "m") == raw("0001 67 0001 6d")
    assert group_codec.encode_leave_request(5, "g", "m") == raw("0267 02 026d 00 00 00 00")
    assert group_codec.decode_leave_response(raw("00000009 00000000 0000"), 1) == 0
    assert group_codec.decode_leave_response(raw("00000009 00 00000000 0000 02 026d 00 0019 00 00"), 4) == 25


def test_other_versions_are_refused() -> None:
    with pytest.raises(MalformedError, match="only 2 to 9"):
        join(1)
    with pytest.raises(MalformedError, match="only 1 to 4"):
        group_codec.decode_heartbeat_response(b"", 5)


def test_the_connection_knows_the_versions() -> None:
    """`BrokerConnection.codec_version` looks them up in one table."""
    assert GROUP_VERSIONS.items() <= CODEC_VERSIONS.items()
    kafka_2_1 = {
        ApiKey.FIND_COORDINATOR: 2,
        ApiKey.JOIN_GROUP: 3,
        ApiKey.SYNC_GROUP: 2,
        ApiKey.HEARTBEAT: 2,
        ApiKey.LEAVE_GROUP: 2,
    }
    assert all(GROUP_VERSIONS[key][0] <= highest for key, highest in kafka_2_1.items())


def test_describe_groups() -> None:
    assert group_codec.encode_describe_group_request(0, "g") == raw("00000001 0001 67")
    assert group_codec.encode_describe_group_request(5, "g") == raw("02 0267 00 00")
    expected = GroupDescription(0, "Stable", "p", (GroupMember("m", "c", "/h", b"\1"),))
    v0 = raw("00000009 00000001 0000 0001 67 0006 537461626c65 0001 74 0001 70 00000001") + raw(
        "0001 6d 0001 63 0002 2f68 00000000 00000001 01"
    )
    assert group_codec.decode_describe_group_response(v0, 0) == expected
    v5 = raw("00000009 00 00000000 02 0000 0267 07 537461626c65 0274 0270 02") + raw(
        "026d 00 0263 03 2f68 01 0201 00 80000000 00 00"
    )
    assert group_codec.decode_describe_group_response(v5, 5) == expected
    with pytest.raises(MalformedError, match="no group in it"):
        group_codec.decode_describe_group_response(raw("00000009 00000000"), 0)
