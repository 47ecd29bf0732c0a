import dataclasses
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.endpoints import Endpoint
from protocol.errors import ErrorCode, MalformedError
from protocol.fetch_response import (
    FetchedPartition,
    FetchResponse,
    diverging_epoch,
    encode_fetch_response,
    error_response,
    node_endpoints,
    parse_fetch_response,
    replace_node_endpoints,
)
from tests.unit.protocol import oracle
from tests.unit.protocol.reading import (
    reads_alike_from_every_buffer,
    refuses_every_truncation,
    refuses_trailing_bytes,
    survives_damage,
)
from tests.vectors import NODES, TOPIC, TOPIC_ID, vector, vectors, version_of

VERSIONS = range(4, 19)


def encoded(response: FetchResponse) -> bytes:
    return b"".join(encode_fetch_response(response))


def a_partition(version: int, index: int = 0, **changed: Any) -> FetchedPartition:
    by_id = version >= 13
    part = FetchedPartition(
        topic=None if by_id else "t",
        topic_id=b"i" * 16 if by_id else None,
        index=index,
        error=0,
        high_watermark=100,
        last_stable_offset=90,
        log_start=10 if version >= 5 else -1,
        aborted=[(7, 50), (8, 51)],
        preferred_replica=-1,
        records=memoryview(b"records"),
        tags=b"\x00" if version >= 12 else b"",
    )
    return dataclasses.replace(part, **changed)


def a_response(version: int, *partitions: FetchedPartition, **changed: Any) -> FetchResponse:
    tags = b"\x00" if version >= 12 else b""
    response = FetchResponse(version, 5, 0, 0, 0, list(partitions), tags)
    return dataclasses.replace(response, **changed)


# -- what a real broker sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", vectors("fetch-v"))
class TestABrokersBytes:
    def test_come_out_as_they_went_in(self, name: str) -> None:
        payload = vector(name)
        assert encoded(parse_fetch_response(payload, version_of(name))) == payload

    def test_truncated(self, name: str) -> None:
        refuses_every_truncation(lambda data: parse_fetch_response(data, version_of(name)), vector(name))

    def test_trailing(self, name: str) -> None:
        refuses_trailing_bytes(lambda data: parse_fetch_response(data, version_of(name)), vector(name))

    def test_every_buffer(self, name: str) -> None:
        reads_alike_from_every_buffer(lambda data: parse_fetch_response(data, version_of(name)), vector(name))


@pytest.mark.parametrize("version", [4, 5, 11, 12, 17])
def test_damage(version: int) -> None:
    survives_damage(lambda data: parse_fetch_response(data, version), vector(f"fetch-v{version}"))


@pytest.mark.parametrize("version", VERSIONS)
def test_facts_of_a_brokers_answer(version: int) -> None:
    response = parse_fetch_response(vector(f"fetch-v{version}"), version)
    assert (response.version, response.correlation_id) == (version, version)
    assert (response.throttle_ms, response.error, response.session_id) == (0, 0, 0)
    parts = response.partitions
    assert [part.index for part in parts] == [0, 1, 2, 3, 4]
    assert [part.error for part in parts] == [0, 1, 6, 0, 0]
    assert [part.high_watermark for part in parts] == [3, -1, -1, 6, 50]
    assert [part.last_stable_offset for part in parts] == [3, -1, -1, 6, 50]
    assert [part.log_start for part in parts] == ([0, -1, -1, 0, 0] if version >= 5 else [-1] * 5)
    assert {part.preferred_replica for part in parts} == {-1}
    assert {(part.topic, part.topic_id) for part in parts} == {(None, TOPIC_ID) if version >= 13 else (TOPIC, None)}
    # Aborted transactions are listed where records are, and null where they are not.
    assert [part.aborted is None for part in parts] == [False, True, True, False, False]
    assert parts[3].aborted is not None
    assert parts[3].aborted[0][1] == 0
    sizes = [len(part.records) if part.records is not None else None for part in parts]
    assert sizes[1:3] == [0, 0]
    assert parts[0].records is not None
    assert b"value 2" in bytes(parts[0].records)
    assert struct.unpack_from(">q", parts[4].records or b"")[0] == 0  # base offset of the first batch
    expected = [Endpoint(2, *NODES[2])] if version >= 16 else []
    assert node_endpoints(response.tags) == expected


def test_a_session_that_does_not_exist() -> None:
    response = parse_fetch_response(vector("fetch-v12-error-70"), 12)
    assert response == a_response(12, correlation_id=12, error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)


def test_a_topic_id_that_does_not_exist_has_an_empty_aborted_list() -> None:
    (part,) = parse_fetch_response(vector("fetch-v13-error-100"), 13).partitions
    assert (part.error, part.aborted, part.high_watermark) == (ErrorCode.UNKNOWN_TOPIC_ID, [], -1)


def test_one_batch_may_exceed_the_limit() -> None:
    parts = parse_fetch_response(vector("fetch-v17-full-limit"), 17).partitions
    sizes = [len(part.records or b"") for part in parts]
    assert sizes[0] > 0
    assert sizes[1:] == [0, 0, 0, 0]


# -- against kafka-python --------------------------------------------------------------------------------------


@given(oracle.responses())
def test_any_response_is_read_as_kafka_python_wrote_it(response: FetchResponse) -> None:
    payload = oracle.encode_response(response)
    assert parse_fetch_response(payload, response.version) == response
    assert encoded(response) == payload


@pytest.mark.parametrize("version", VERSIONS)
def test_kafka_python_reads_what_is_written(version: int) -> None:
    response = a_response(
        version,
        a_partition(version, 3, error=1, aborted=None, records=None),
        a_partition(version, 4),
        error=70 if version >= 7 else 0,
        throttle_ms=250,
    )
    read = oracle.decode_response(encoded(response), version)
    assert (read.throttle_time_ms, read.error_code, read.session_id) == (250, response.error, 0)
    (topic,) = read.responses
    first, second = topic.partitions
    assert (first.partition_index, first.error_code, first.aborted_transactions, first.records) == (3, 1, None, None)
    assert (second.high_watermark, second.last_stable_offset) == (100, 90)
    assert second.log_start_offset == (10 if version >= 5 else -1)
    assert [(txn.producer_id, txn.first_offset) for txn in second.aborted_transactions] == [(7, 50), (8, 51)]
    assert bytes(second.records) == b"records"


@given(st.integers(4, 18), st.binary(max_size=200))
def test_no_bytes_can_lead_it_astray(version: int, data: bytes) -> None:
    try:
        response = parse_fetch_response(data, version)
    except MalformedError:
        return
    assert sum(len(part.records or b"") for part in response.partitions) <= len(data)


# -- records ---------------------------------------------------------------------------------------------------


def test_records_are_never_copied() -> None:
    payload = bytearray(encoded(a_response(17, a_partition(17))))
    (part,) = parse_fetch_response(payload, 17).partitions
    assert part.records is not None
    assert part.records.obj is payload
    pieces = encode_fetch_response(a_response(17, part))
    assert any(piece is part.records for piece in pieces)


@pytest.mark.parametrize("version", [4, 12])
@pytest.mark.parametrize(
    ("records", "more"),
    [
        (b"abc", (b"defg", b"h")),
        (b"", (b"abcdefgh",)),
        (None, (b"abcd", b"", b"efgh")),
        (b"abcdefgh", (b"",)),
    ],
)
def test_records_may_come_from_several_places(version: int, records: bytes | None, more: tuple[bytes, ...]) -> None:
    views = tuple(memoryview(run) for run in more)
    split = a_partition(version, records=None if records is None else memoryview(records), more=views)
    joined = a_partition(version, records=memoryview(b"abcdefgh"))
    assert encoded(a_response(version, split)) == encoded(a_response(version, joined))


@pytest.mark.parametrize("version", [4, 11, 12, 18])
def test_null_and_empty_records_differ(version: int) -> None:
    # Kafka 3.9 sends null with error 76.
    for records in (None, memoryview(b"")):
        response = a_response(version, a_partition(version, records=records))
        assert parse_fetch_response(encoded(response), version).partitions[0].records == records


# -- grouping and tags -----------------------------------------------------------------------------------------


def test_only_neighbours_share_a_topic() -> None:
    parts = [a_partition(4, index, topic=name) for name, index in [("a", 0), ("a", 1), ("b", 0), ("a", 2)]]
    payload = encoded(a_response(4, *parts))
    assert parse_fetch_response(payload, 4).partitions == parts
    assert payload.count(b"\x00\x01a") == 2


def test_tags_of_partitions_and_of_the_response_are_kept() -> None:
    leader = b"\x02\x01\x09\x00\x00\x00\x02\x00\x00\x00\x05\x00\x7e\x03abc"
    response = a_response(17, a_partition(17, tags=leader), tags=b"\x01\x20\x01z")
    assert parse_fetch_response(encoded(response), 17) == response


def test_tags_of_aborted_transactions_topics_and_the_header_are_dropped() -> None:
    # Nobody defines any. Header with a tag; one topic, one partition, one aborted transaction with a tag.
    tagged = "00000005 010500 00000000 0000 00000000 02" + "69" * 16 + "02" + "00000000 0000" + "00" * 24
    tagged += "02 0000000000000007 0000000000000032 010500 ffffffff 01 00" + "010500" + "00"
    (part,) = parse_fetch_response(bytes.fromhex(tagged), 17).partitions
    assert part.aborted == [(7, 50)]
    refuses_every_truncation(lambda data: parse_fetch_response(data, 17), bytes.fromhex(tagged))


def test_diverging_epoch() -> None:
    # As Kafka writes it: tag 0, 13 bytes: epoch, end offset, and the structure's own tag section.
    assert diverging_epoch(bytes.fromhex("01 00 0d 00000005 0000000000000064 00")) == (5, 100)
    assert diverging_epoch(bytes.fromhex("02 00 0d 00000000 0000000000000000 00 01 01 aa")) == (0, 0)
    assert diverging_epoch(bytes.fromhex("01 01 09 00000002 00000005 00")) is None
    assert diverging_epoch(b"\x00") is None
    assert diverging_epoch(b"") is None
    with pytest.raises(MalformedError):
        diverging_epoch(bytes.fromhex("01 00 04 00000005"))


def test_diverging_epoch_of_kafka_python() -> None:
    kind = oracle.decode_response(vector("fetch-v17"), 17)
    part = kind.responses[0].partitions[0]
    part.diverging_epoch = type(part).EpochEndOffset(version=17, epoch=3, end_offset=1 << 40)
    read = parse_fetch_response(bytes(kind.encode(header=True)), 17)
    assert diverging_epoch(read.partitions[0].tags) == (3, 1 << 40)
    assert diverging_epoch(read.partitions[1].tags) is None


# -- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [16, 17, 18])
@pytest.mark.parametrize("address", [("proxy", 9193), ("127.0.0.1", 1), ("p" * 150 + ".example", 65535)])
def test_addresses_are_replaced_and_nothing_else(version: int, address: tuple[str, int]) -> None:
    payload = vector(f"fetch-v{version}")
    response = parse_fetch_response(payload, version)
    response.tags = replace_node_endpoints(response.tags, lambda node: address)
    theirs = oracle.decode_response(payload, version)
    for endpoint in theirs.node_endpoints:
        endpoint.host, endpoint.port = address
    assert encoded(response) == bytes(theirs.encode(header=True))
    assert node_endpoints(response.tags) == [Endpoint(2, *address)]


def test_a_response_without_that_tag_keeps_its_tags() -> None:
    for tags in (b"", b"\x00", b"\x01\x07\x02ab"):
        assert node_endpoints(tags) == []
        assert replace_node_endpoints(tags, lambda node: ("never", 0)) == tags


def test_other_tags_beside_the_addresses_are_kept() -> None:
    nodes = bytes.fromhex("02 00000002 0261 00000001 00 00")
    tags = b"\x03\x00" + bytes([len(nodes)]) + nodes + b"\x05\x01x\xff\x01\x02yz"
    replaced = replace_node_endpoints(tags, lambda node: ("abcd", 2))
    assert node_endpoints(replaced) == [Endpoint(2, "abcd", 2)]
    assert replaced.endswith(b"\x05\x01x\xff\x01\x02yz")
    assert replace_node_endpoints(replaced, lambda node: ("a", 1)) == tags
    for cut in range(1, len(tags)):
        with pytest.raises(MalformedError):
            replace_node_endpoints(tags[:cut], lambda node: ("a", 1))


@pytest.mark.parametrize("tags", ["01 00 00", "01 00 02 01ff", "01 00 05 0200000002", "01 00 01 01 ff"])
def test_malformed_addresses(tags: str) -> None:
    with pytest.raises(MalformedError):
        node_endpoints(bytes.fromhex(tags))


# -- errors and refusals ---------------------------------------------------------------------------------------


def test_error_response_is_a_brokers() -> None:
    assert error_response(12, 12, ErrorCode.FETCH_SESSION_ID_NOT_FOUND) == vector("fetch-v12-error-70")


@pytest.mark.parametrize("version", range(7, 19))
def test_error_response_as_kafka_python_reads_it(version: int) -> None:
    payload = error_response(version, -3, 70)
    read = oracle.decode_response(payload, version)
    assert (read.header.correlation_id, read.error_code, read.session_id, read.responses) == (-3, 70, 0, [])
    assert parse_fetch_response(payload, version).error == 70


def test_no_top_level_error_below_v7() -> None:
    with pytest.raises(ValueError, match="top-level"):
        error_response(6, 1, 70)


@pytest.mark.parametrize("version", [3, 19, -1])
def test_unknown_versions(version: int) -> None:
    with pytest.raises(ValueError, match="4 to 18"):
        parse_fetch_response(bytes(20), version)
    with pytest.raises(ValueError, match="4 to 18"):
        encode_fetch_response(a_response(version))


@pytest.mark.parametrize(
    ("version", "changed"), [(12, {"topic": None}), (13, {"topic_id": None}), (13, {"topic_id": b"x"})]
)
def test_a_topic_is_needed(version: int, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs the"):
        encode_fetch_response(a_response(version, a_partition(version, **changed)))


_TOP = "00000005 00 00000000 0000 00000000"


@pytest.mark.parametrize(
    ("version", "payload", "why"),
    [
        (17, _TOP + "00 00", "null topics"),
        (17, _TOP + "02" + "69" * 16 + "00 00 00", "null partitions"),
        (17, _TOP + "ffffffff0f 00", "four billion topics"),
        (12, _TOP + "02 00 01 00 00", "a topic without a name"),
        (4, "00000005 00000000 00000001 ffff 00000000", "a topic without a name"),
        (4, "00000005 00000000 fffffffe", "minus two topics"),
        (4, "00000005 00000000 00000001 0001 61 00000001" + "00" * 22 + "fffffffe 00000000", "minus two aborted"),
        (4, "00000005 00000000 00000001 0001 61 00000001" + "00" * 22 + "ffffffff fffffffe", "minus two records"),
    ],
)
def test_malformed(version: int, payload: str, why: str) -> None:
    with pytest.raises(MalformedError):
        parse_fetch_response(bytes.fromhex(payload), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_many_elements_as_small_as_can_be(version: int) -> None:
    small = a_partition(version, records=None, aborted=None)
    response = a_response(version, *[dataclasses.replace(small, index=index) for index in range(1000)])
    assert parse_fetch_response(encoded(response), version) == response
    aborted = [(n, n) for n in range(1000)]
    response = a_response(version, dataclasses.replace(small, aborted=aborted))
    assert parse_fetch_response(encoded(response), version) == response


def test_many_topics_without_partitions() -> None:
    # The shortest there can be: an empty name, no partitions, no tags. And so in v4, where a name takes two bytes.
    payload = bytes.fromhex(_TOP) + b"\xe9\x07" + b"\x01\x01\x00" * 1000 + b"\x00"
    assert parse_fetch_response(payload, 12).partitions == []
    payload = bytes.fromhex("00000005 00000000 000003e8") + bytes(6) * 1000
    assert parse_fetch_response(payload, 4).partitions == []
