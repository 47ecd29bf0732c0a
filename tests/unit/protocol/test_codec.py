"""protocol.codec: what is read and written, and what we lean on in kafka-python.

Byte literals were laid out by hand from Kafka 4.3.1's message definitions (clients/src/main/resources/common/
message); the broker accepting and sending the same is shown by tests/integration/test_upstream.py.
"""

import contextlib
import struct

import kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol import admin, consumer, metadata

from protocol import codec
from protocol.errors import ErrorCode, MalformedError
from protocol.messages import (
    NO_TOPIC_ID,
    DeleteAnswer,
    DeleteRecordsResponse,
    EpochEnd,
    ListOffsetsResponse,
    MetadataPartition,
    OffsetAnswer,
)

LIST_OFFSETS_REQUEST_V2 = bytes.fromhex(
    "ffffffff 01"  # replica_id, isolation
    "00000001 0001 74 00000002"  # one topic "t" with two partitions
    "00000000 fffffffffffffffe"  # partition 0, timestamp -2
    "00000003 00000192f3a0c000"
)
LIST_OFFSETS_REQUEST_V10 = bytes.fromhex(
    "ffffffff 00"
    "02 0274 02"  # compact: lengths are one more
    "00000005 ffffffff ffffffffffffffff 00"  # partition 5, leader epoch -1, timestamp -1, no tags
    "00 00000000 00"  # topic's tags, timeout_ms, tags
)
LIST_OFFSETS_RESPONSE_V6 = bytes.fromhex(
    "0000002a 00"  # correlation id, header tags
    "00000000 02 0274 02"
    "00000000 0000 ffffffffffffffff 0000000000000064 00000003 00"
    "00 00"
)
DELETE_RECORDS_REQUEST_V1 = bytes.fromhex("00000001 0001 74 00000001 00000000 0000000000000032 00007530")
DELETE_RECORDS_RESPONSE_V2 = bytes.fromhex("00000007 00 00000000 02 0274 02 00000000 0000000000000032 0000 00 00 00")


def test_reads_a_list_offsets_request() -> None:
    request = codec.decode_list_offsets_request(LIST_OFFSETS_REQUEST_V2, 2)
    assert request.isolation == 1
    assert request.partitions == [("t", 0, -2), ("t", 3, 0x192F3A0C000)]


def test_reads_a_flexible_list_offsets_request() -> None:
    request = codec.decode_list_offsets_request(memoryview(LIST_OFFSETS_REQUEST_V10), 10)
    assert (request.isolation, request.partitions) == (0, [("t", 5, -1)])


def test_writes_list_offsets_requests() -> None:
    assert (
        codec.encode_list_offsets_request(2, 1, [("t", 0, -1, -2), ("t", 3, -1, 0x192F3A0C000)])
        == LIST_OFFSETS_REQUEST_V2
    )
    assert codec.encode_list_offsets_request(10, 0, [("t", 5, -1, -1)]) == LIST_OFFSETS_REQUEST_V10


def test_changes_a_list_offsets_response() -> None:
    response = codec.decode_list_offsets_response(LIST_OFFSETS_RESPONSE_V6, 6)
    assert response.partitions == [OffsetAnswer("t", 0, 0, -1, 100, 3)]
    assert codec.encode_list_offsets_response(response, 6, 42) == LIST_OFFSETS_RESPONSE_V6
    response.partitions[0].offset = 7
    again = codec.decode_list_offsets_response(codec.encode_list_offsets_response(response, 6, 42), 6)
    assert again.partitions == [OffsetAnswer("t", 0, 0, -1, 7, 3)]


def test_reads_and_writes_delete_records() -> None:
    request = codec.decode_delete_records_request(DELETE_RECORDS_REQUEST_V1, 1)
    assert (request.timeout_ms, request.partitions) == (30_000, [("t", 0, 50)])
    assert codec.encode_delete_records_request(1, 30_000, [("t", 0, 50)]) == DELETE_RECORDS_REQUEST_V1
    response = codec.decode_delete_records_response(DELETE_RECORDS_RESPONSE_V2, 2)
    assert response.partitions == [DeleteAnswer("t", 0, 50, 0)]
    assert codec.encode_delete_records_response(response, 2, 7) == DELETE_RECORDS_RESPONSE_V2


names = st.text("abcdefghij.-_", min_size=1, max_size=8)
int16, int32 = st.integers(-(2**15), 2**15 - 1), st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)


@given(
    st.sampled_from([1, 2, 4, 5, 6, 7, 11]),
    st.lists(st.builds(OffsetAnswer, names, int32, int16, int64, int64, int32), max_size=6),
)
def test_a_list_offsets_response_survives(version: int, answers: list[OffsetAnswer]) -> None:
    if version < 4:
        for answer in answers:
            answer.leader_epoch = -1
    payload = codec.encode_list_offsets_response(ListOffsetsResponse(0, answers), version, 9)
    assert codec.decode_list_offsets_response(payload, version).partitions == answers


@given(
    st.sampled_from([0, 1, 2]),
    st.lists(st.builds(DeleteAnswer, names, int32, int64, int16), max_size=6),
)
def test_a_delete_records_response_survives(version: int, answers: list[DeleteAnswer]) -> None:
    payload = codec.encode_delete_records_response(DeleteRecordsResponse(5, answers), version, 9)
    again = codec.decode_delete_records_response(payload, version)
    assert (again.throttle_ms, again.partitions) == (5, answers)


BODIES = [
    (codec.decode_list_offsets_request, LIST_OFFSETS_REQUEST_V2, 2),
    (codec.decode_list_offsets_request, LIST_OFFSETS_REQUEST_V10, 10),
    (codec.decode_list_offsets_response, LIST_OFFSETS_RESPONSE_V6, 6),
    (codec.decode_delete_records_request, DELETE_RECORDS_REQUEST_V1, 1),
    (codec.decode_delete_records_response, DELETE_RECORDS_RESPONSE_V2, 2),
]


@pytest.mark.parametrize(("decode", "whole", "version"), BODIES)
def test_refuses_every_truncation_and_anything_left_over(decode, whole, version) -> None:  # type: ignore[no-untyped-def] # one table for five functions
    for end in range(len(whole)):
        with pytest.raises(MalformedError):
            decode(whole[:end], version)
    with pytest.raises(MalformedError, match="left over"):
        decode(whole + b"\x00", version)


def test_refuses_a_string_cut_short_at_the_end() -> None:
    # kafka-python slices what is there: the topic's name would silently lose its tail.
    body = bytes.fromhex("00000001 0005 7465")
    with pytest.raises(MalformedError):
        codec.decode_delete_records_request(body, 1)


def test_refuses_a_count_that_no_bytes_stand_behind() -> None:
    body = bytes.fromhex("ffffffff 01 7fffffff")
    with pytest.raises(MalformedError):
        codec.decode_list_offsets_request(body, 2)


def test_refuses_a_topic_without_a_name() -> None:
    body = bytes.fromhex("ffffffff 01 00000001 ffff 00000001 00000000 fffffffffffffffe")
    with pytest.raises(MalformedError, match="without a name"):
        codec.decode_list_offsets_request(body, 2)


@given(st.binary(max_size=80), st.sampled_from([1, 4, 6, 11]))
def test_random_bytes_are_malformed_or_read(body: bytes, version: int) -> None:
    for decode in (codec.decode_list_offsets_request, codec.decode_list_offsets_response):
        with contextlib.suppress(MalformedError):
            decode(body, version)


@pytest.mark.parametrize("version", [0, 12])
def test_refuses_versions_it_does_not_know(version: int) -> None:
    with pytest.raises(MalformedError, match="version"):
        codec.decode_list_offsets_request(LIST_OFFSETS_REQUEST_V2, version)


def test_reads_api_versions() -> None:
    v3 = bytes.fromhex("00000001 0000 02 0012 0000 0004 00 00000000 00")
    assert codec.decode_api_versions_response(v3, 3) == (0, {18: (0, 4)})
    refused = bytes.fromhex("00000001 0023 00000001 0012 0000 0004")  # v0's schema whatever was asked
    assert codec.decode_api_versions_response(refused, 3) == (ErrorCode.UNSUPPORTED_VERSION, {18: (0, 4)})
    with pytest.raises(MalformedError):
        codec.decode_api_versions_response(v3[:5], 3)


def test_reads_metadata() -> None:
    topic_id = bytes(range(16))
    payload = (
        bytes.fromhex("00000001 00 00000000")
        + bytes.fromhex("02 00000001 0268 00002384 00 00")  # broker 1 at h:9092
        + bytes.fromhex("0263 00000001")  # cluster "c", controller 1
        + bytes.fromhex("03")
        + bytes.fromhex("0000 0274")
        + topic_id
        + bytes.fromhex("01 02 0000 00000000 00000001 00000007 02 00000001 02 00000001 01 00 80000000 00")
        + bytes.fromhex("0064 00")  # an unknown id: no name
        + bytes(16)
        + bytes.fromhex("00 01 80000000 00")
        + bytes.fromhex("00")
    )
    read = codec.decode_metadata_response(payload, 12)
    assert (read.cluster_id, read.controller, read.brokers) == ("c", 1, {1: ("h", 9092)})
    (topic,) = read.topics
    assert (topic.name, topic.topic_id, topic.internal) == ("t", topic_id, True)
    assert topic.partitions == (MetadataPartition(0, 0, 1, 7, (1,)),)


def test_metadata_below_v10_has_no_topic_id() -> None:
    payload = bytes.fromhex("00000001 00000000 ffffffff 00000001 0000 0001 74 00 00000000")
    (topic,) = codec.decode_metadata_response(payload, 1).topics
    assert topic.topic_id == NO_TOPIC_ID


def test_asking_for_metadata_creates_no_topic() -> None:
    assert codec.encode_metadata_request(4, None) == bytes.fromhex("ffffffff 00")
    assert codec.encode_metadata_request(4, ["t"]) == bytes.fromhex("00000001 0001 74 00")
    assert codec.encode_metadata_request(4, []) == bytes.fromhex("00000000 00")


def test_reads_and_writes_ends_of_epochs() -> None:
    assert codec.encode_epoch_ends_request(2, [("t", 0, -1, 4)]) == bytes.fromhex(
        "00000001 0001 74 00000001 00000000 ffffffff 00000004"
    )
    payload = bytes.fromhex("00000001 00000000 00000001 0001 74 00000001 0000 00000000 00000003 0000000000000064")
    assert codec.decode_epoch_ends_response(payload, 2) == [EpochEnd("t", 0, 0, 3, 100)]


def test_reads_topic_settings() -> None:
    payload = bytes.fromhex(
        "00000001 00000000 00000001"
        "0000 ffff 02 0001 74 00000002"  # topic "t"
        "0001 61 0001 62 00 01 00 00000000"  # a = b
        "0001 73 ffff 00 01 01 00000000"  # s is a secret: null
    )
    assert codec.decode_topic_configs_response(payload, 1) == {"t": (0, {"a": "b"})}


LOG_DIRS_RESPONSE_V1 = bytes.fromhex(
    "00000001 00000000 00000001"  # correlation id, throttle time, one directory
    "0000 0002 2f64 00000001"  # no error, "/d", one topic
    "0001 74 00000002"  # "t" with two partitions
    "00000003 0000000000000400 0000000000000000 00"
    "00000003 0000000000000007 0000000000000009 01"  # the same, on its way to another directory
)
LOG_DIRS_RESPONSE_V4 = bytes.fromhex(
    "00000001 00 00000000 0000 03"  # ..., header tags, error, two directories
    "0038 032f64 01 ffffffffffffffff ffffffffffffffff 00"  # error 56, "/d", nothing in it
    "0000 032f65 02 0274 02 00000000 0000000000000400 0000000000000000 00 00 00"
    "ffffffffffffffff ffffffffffffffff 00 00"
)


def test_reads_and_writes_sizes_of_logs() -> None:
    asked = [("t", 0), ("t", 3), ("u", 1)]
    expected = "00000002 0001 74 00000002 00000000 00000003 0001 75 00000001 00000001"
    assert codec.encode_log_dirs_request(1, asked) == bytes.fromhex(expected)
    assert codec.encode_log_dirs_request(4, asked[:1]) == bytes.fromhex("02 0274 02 00000000 00 00")
    assert codec.decode_log_dirs_response(LOG_DIRS_RESPONSE_V1, 1) == (0, {("t", 3): 1024})
    assert codec.decode_log_dirs_response(LOG_DIRS_RESPONSE_V4, 4) == (56, {("t", 0): 1024})


def test_a_broker_without_log_directories_says_no() -> None:
    assert codec.decode_log_dirs_response(bytes.fromhex("00000001 00000000 00000000"), 1) == (31, {})
    assert codec.decode_log_dirs_response(bytes.fromhex("00000001 00 00000000 001f 01 00"), 4) == (31, {})


def test_kafka_python_is_still_what_we_lean_on() -> None:
    """Not our code, but what ours is built upon; a new release that changes it must be noticed here."""
    assert kafka.__version__.startswith("3.")
    asked = {
        admin.DeleteRecordsRequest: 21,
        admin.DescribeConfigsRequest: 32,
        consumer.ListOffsetsRequest: 2,
        consumer.OffsetForLeaderEpochRequest: 23,
        metadata.ApiVersionsRequest: 18,
        metadata.MetadataRequest: 3,
    }
    for message_class, key in asked.items():
        first, last = codec.CODEC_VERSIONS[key]
        assert key == message_class.API_KEY
        assert message_class.min_version <= first
        assert last <= message_class.max_version
    # The compiled decoder returns (message, position) and does not mind what follows.
    decode = admin.DeleteRecordsRequest._struct.compiled_decode_from(
        1, compact=False, tagged=False, data_class=admin.DeleteRecordsRequest[None]
    )
    message, end = decode(memoryview(DELETE_RECORDS_REQUEST_V1 + b"more"), 0)
    assert (message.timeout_ms, end) == (30_000, len(DELETE_RECORDS_REQUEST_V1))
    with pytest.raises((IndexError, struct.error)):
        decode(memoryview(DELETE_RECORDS_REQUEST_V1[:-1]), 0)


def test_tags_where_kafka_python_expects_none_are_malformed() -> None:
    supported = bytes.fromhex("02 0261 0000 0001") + b"\x01\x00\x00"  # a feature with a tag section of its own
    payload = bytes.fromhex("00000001 0000 01 00000000") + b"\x01\x00" + bytes([len(supported)]) + supported
    with pytest.raises(MalformedError):
        codec.decode_api_versions_response(payload, 3)
