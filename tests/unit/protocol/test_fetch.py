import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedError
from protocol.fetch import (
    FULL_SESSIONLESS,
    FetchPartition,
    FetchRequest,
    build_fetch_request,
    make_sessionless,
    scan_fetch_request,
)
from protocol.headers import read_request_header
from protocol.wire import Buffer
from tests.unit.protocol import oracle
from tests.unit.protocol.reading import (
    reads_alike_from_every_buffer,
    refuses_every_truncation,
    refuses_trailing_bytes,
    survives_damage,
)
from tests.vectors import vector, vectors, version_of

VERSIONS = range(4, 19)
# Where the session id stands in the body, from Kafka's FetchRequest.json.
SESSION_AT = {**dict.fromkeys(range(7, 15), 17), **dict.fromkeys(range(15, 19), 13)}


def scan(payload: Buffer) -> FetchRequest:
    return scan_fetch_request(payload, read_request_header(payload))


def a_request(version: int) -> FetchRequest:
    """Two topics, three partitions; every field the version has differs from its default."""
    by_id = version >= 13

    def part(name: str, index: int) -> FetchPartition:
        return FetchPartition(
            topic=None if by_id else name,
            topic_id=name.encode() * 8 if by_id else None,
            index=index,
            current_leader_epoch=5 if version >= 9 else -1,
            fetch_offset=1_000_000_000_000 + index,
            last_fetched_epoch=4 if version >= 12 else -1,
            max_bytes=1 << 20,
        )

    return FetchRequest(
        version=version,
        replica_id=3,
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=50 << 20,
        isolation=1,
        session_id=77 if version >= 7 else 0,
        session_epoch=0 if version >= 7 else -1,
        session_at=None,
        partitions=[part("t1", 0), part("t1", 7), part("t2", 0)],
        rack="rack-1" if version >= 11 else "",
    )


def without_place(request: FetchRequest) -> FetchRequest:
    return dataclasses.replace(request, session_at=None)


@pytest.mark.parametrize("version", VERSIONS)
class TestEveryVersion:
    def test_is_read_as_kafka_python_wrote_it(self, version: int) -> None:
        asked = a_request(version)
        assert without_place(scan(oracle.encode_request(asked))) == asked

    def test_truncated(self, version: int) -> None:
        refuses_every_truncation(scan, oracle.encode_request(a_request(version)))

    def test_trailing(self, version: int) -> None:
        refuses_trailing_bytes(scan, oracle.encode_request(a_request(version)))

    def test_every_buffer(self, version: int) -> None:
        reads_alike_from_every_buffer(scan, oracle.encode_request(a_request(version)))

    def test_sessionless_is_eight_bytes(self, version: int) -> None:
        payload = oracle.encode_request(a_request(version))
        request = scan(payload)
        patched = bytearray(payload)
        make_sessionless(patched, request)
        if version < 7:
            assert request.session_at is None
            assert patched == payload
            return
        at = read_request_header(payload).body_at + SESSION_AT[version]
        assert request.session_at == at
        assert patched == payload[:at] + FULL_SESSIONLESS + payload[at + 8 :]
        read_back = oracle.decode_request(bytes(patched), version)
        assert (read_back.session_id, read_back.session_epoch) == (0, -1)
        assert read_back == dataclasses.replace(without_place(request), session_id=0, session_epoch=-1)


@pytest.mark.parametrize("version", range(7, 19))
def test_forgotten_topics_and_cluster_id_are_passed_over(version: int) -> None:
    asked = a_request(version)
    names: list[tuple[str | bytes, list[int]]] = [("gone", [1, 2]), ("none", [])]
    ids: list[tuple[str | bytes, list[int]]] = [(b"g" * 16, [1, 2]), (b"n" * 16, [])]
    payload = oracle.encode_request(
        asked, forgotten=ids if version >= 13 else names, cluster_id="cluster" if version >= 12 else None
    )
    assert without_place(scan(payload)) == asked
    refuses_every_truncation(scan, payload)


@pytest.mark.parametrize("version", range(4, 18))
def test_built_as_kafka_python_reads_it(version: int) -> None:
    wanted = a_request(version)
    payload = build_fetch_request(
        version,
        9,
        "oracle",
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=50 << 20,
        isolation=1,
        partitions=wanted.partitions,
    )
    sessionless = dataclasses.replace(wanted, replica_id=-1, session_id=0, session_epoch=-1, rack="")
    assert oracle.decode_request(payload, version) == sessionless
    assert without_place(scan(payload)) == sessionless


@pytest.mark.parametrize("version", [4, 7, 11, 12, 17])
def test_damage(version: int) -> None:
    survives_damage(scan, oracle.encode_request(a_request(version)))


@given(oracle.requests())
def test_any_request_is_read_as_kafka_python_wrote_it(asked: FetchRequest) -> None:
    assert without_place(scan(oracle.encode_request(asked))) == asked


@given(st.integers(4, 18), st.binary(max_size=120))
def test_no_bytes_can_lead_it_astray(version: int, body: bytes) -> None:
    payload = b"\x00\x01" + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff" + b"\x00" * (version >= 12) + body
    try:
        request = scan(payload)
    except MalformedError:
        return
    assert len(request.partitions) * 16 <= len(body)


@pytest.mark.parametrize("name", vectors("fetch-request-"))
def test_requests_of_real_clients(name: str) -> None:
    payload = vector(name)
    request = scan(payload)
    assert request.version == version_of(name)
    assert request.replica_id == -1
    assert (request.max_wait_ms, request.min_bytes, request.max_bytes) == (500, 1, 52428800)
    # librdkafka reads committed records by default; it is the one that was given a rack.
    assert request.isolation == int("librdkafka" in name)
    assert request.rack == ("r1" if "librdkafka" in name else "")
    # Java and kafka-python open a fetch session, the others never do.
    assert (request.session_id, request.session_epoch) == (0, 0 if "java" in name or "kafka-python" in name else -1)
    assert sorted(part.index for part in request.partitions) == [0, 1]
    for part in request.partitions:
        assert part.topic == (None if request.version >= 13 else "vec")
        assert (part.topic_id is not None) == (request.version >= 13)
        assert (part.fetch_offset, part.max_bytes) == (0, 1 << 20)
    refuses_every_truncation(scan, payload)
    refuses_trailing_bytes(scan, payload)
    survives_damage(scan, payload)


# v17, header "c"; written out by hand so that tags nobody defined can be put in.
_HEAD = "0001 0011 00000001 0001 63 00"
_LIMITS = "000001f4 00000001 00000400 00 00000000 ffffffff"
_PART = "00000002 00000005 0000000000000064 ffffffff ffffffffffffffff 00000400"


def test_tags_are_passed_over_and_tag_1_is_the_replica() -> None:
    payload = bytes.fromhex(
        _HEAD
        + _LIMITS
        + "02"
        + "aa" * 16
        + f"02 {_PART} 02 00 10 {'bb' * 16} 7f 01 ff"  # a directory id, and a tag nobody knows
        + "01 05 00"  # the topic's tags: number 5, empty
        + "01 01"  # nothing forgotten, rack ""
        + "03 00 03 026162 01 0c 00000009 0000000000000001 7f 00"  # cluster id, replica state, unknown
    )
    request = scan(payload)
    assert request.replica_id == 9
    assert request.partitions == [FetchPartition(None, b"\xaa" * 16, 2, 5, 100, -1, 1024)]
    refuses_every_truncation(scan, payload)
    survives_damage(scan, payload)


def test_a_replica_state_too_short_is_malformed() -> None:
    with pytest.raises(MalformedError, match="replica state"):
        scan(bytes.fromhex(_HEAD + _LIMITS + "01 01 01 01 01 02 0000"))


def test_tag_1_before_v15_is_not_the_replica() -> None:
    payload = bytes.fromhex("0001 000e 00000001 0001 63 00 ffffffff" + _LIMITS + "01 01 01 01 01 01 ff")
    assert scan(payload).replica_id == -1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("00", "null topic array"),
        ("02" + "aa" * 16 + "00", "null partition array"),
        ("01 00", "null forgotten topics"),
        ("01 01 00", "null rack"),
        ("ffffffff0f", "four billion topics"),
        ("02" + "aa" * 16 + "ffffffff0f", "four billion partitions"),
    ],
)
def test_malformed(body: str, why: str) -> None:
    with pytest.raises(MalformedError):
        scan(bytes.fromhex(_HEAD + _LIMITS + body) + b"\x00")


def test_a_topic_has_a_name() -> None:
    payload = bytes.fromhex("0001 0004 00000001 0001 63 ffffffff 000001f4 00000001 00000400 00 00000001 ffff 00000000")
    with pytest.raises(MalformedError, match="null"):
        scan(payload)


@pytest.mark.parametrize(("key", "version"), [(1, 3), (1, 19), (0, 11), (1, -1)])
def test_only_fetches_of_versions_that_are_known(key: int, version: int) -> None:
    header = read_request_header(oracle.encode_request(a_request(11)))
    header.api_key, header.version = key, version
    with pytest.raises(MalformedError, match="no fetch"):
        scan_fetch_request(oracle.encode_request(a_request(11)), header)


def build(version: int, partitions: list[FetchPartition]) -> bytes:
    return build_fetch_request(
        version, 1, "c", max_wait_ms=500, min_bytes=1, max_bytes=1024, isolation=0, partitions=partitions
    )


def test_built_bytes() -> None:
    part = FetchPartition(None, b"\xaa" * 16, 2, 5, 100, -1, 1024)
    expected = _HEAD + _LIMITS + "02" + "aa" * 16 + f"02 {_PART} 00 00 01 01 00"
    assert build(17, [part]) == bytes.fromhex(expected)


def test_only_neighbours_share_a_topic() -> None:
    parts = [
        FetchPartition(name, None, index, -1, 0, -1, 1) for name, index in [("a", 0), ("a", 1), ("b", 0), ("a", 2)]
    ]
    payload = build(4, parts)
    assert scan(payload).partitions == parts
    assert payload.count(b"\x00\x01a") == 2


def test_a_fetch_of_nothing_can_be_built() -> None:
    assert scan(build(17, [])).partitions == []


@pytest.mark.parametrize(
    ("version", "part"),
    [
        (12, FetchPartition(None, b"i" * 16, 0, -1, 0, -1, 1)),
        (13, FetchPartition("name", None, 0, -1, 0, -1, 1)),
        (13, FetchPartition(None, b"short", 0, -1, 0, -1, 1)),
        (18, FetchPartition(None, b"i" * 16, 0, -1, 0, -1, 1)),
        (3, FetchPartition("name", None, 0, -1, 0, -1, 1)),
    ],
)
def test_what_cannot_be_built(version: int, part: FetchPartition) -> None:
    with pytest.raises(ValueError, match="fetch version"):
        build(version, [part])


@pytest.mark.parametrize("version", VERSIONS)
def test_many_partitions_and_topics_as_small_as_can_be(version: int) -> None:
    asked = a_request(version)
    (first, *_) = asked.partitions
    asked.partitions = [dataclasses.replace(first, index=index) for index in range(1000)]
    asked.rack = ""
    assert len(scan(oracle.encode_request(asked)).partitions) == 1000
    # Topics without partitions: as v12 is the only one with short names, it has the smallest.
    nothing: list[FetchPartition] = []
    asked.partitions = nothing
    body = oracle.encode_request(asked)
    if version == 12:
        at = body.index(b"\x01\x01\x01\x00", 20)  # no topics, none forgotten, no rack, no tags
        body = body[:at] + b"\xe9\x07" + b"\x01\x01\x00" * 1000 + body[at + 1 :]
        assert scan(body).partitions == nothing
        body = body[: -len(b"\x01\x01\x00")] + b"\xe9\x07" + b"\x01\x01\x00" * 1000 + b"\x01\x00"
    assert scan(body).partitions == nothing


def test_a_replica_state_may_be_just_an_id() -> None:
    assert scan(bytes.fromhex(_HEAD + _LIMITS + "01 01 01 01 01 04 00000007")).replica_id == 7
