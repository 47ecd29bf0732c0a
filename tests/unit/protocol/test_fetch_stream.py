from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode
from protocol.fetch_response import (
    FetchResponse,
    node_endpoints,
    parse_fetch_response,
)
from protocol.fetch_stream import COPY_BELOW, UNKNOWN_TAG, Decide, FetchStream
from protocol.wire import MAX_TAGS, Buffer, Cursor, put_uvarint
from tests.unit.protocol import oracle
from tests.unit.protocol.test_fetch_response import a_partition, a_response, encoded
from tests.vectors import NODES, TOPIC, TOPIC_ID, vector, vectors, version_of

VERSIONS = range(4, 19)


def leave(topic: str | bytes, index: int, error: int, log_start: int) -> None:
    """Change nothing."""


def patch(topic: str | bytes, index: int, error: int, log_start: int) -> tuple[int, int] | None:
    """What the gateway does: hide an out-of-range error, show another log start; some partitions stay."""
    if index % 5 == 4:
        return None
    return (0 if error == ErrorCode.OFFSET_OUT_OF_RANGE else error), log_start ^ 0x0102030405060708


def stream(payload: Buffer, version: int, cuts: list[int], decide: Decide) -> bytes:
    """Feed the payload in the pieces that the cuts make of it; what came out, which must be as long at the end."""
    view = memoryview(payload)
    patcher = FetchStream(version, decide)
    out = bytearray()
    for start, end in pairwise([0, *sorted(cuts), len(view)]):
        assert not patcher.done or start == len(view)
        for piece in patcher.feed(view[start:end]):
            assert len(piece) > 0
            out += piece
    patcher.finish()
    assert len(out) == len(view)
    return bytes(out)


def expected(payload: bytes, version: int, decide: Decide) -> bytes:
    """The same by way of the whole: parse, change, encode, blank the addresses' tag."""
    response = parse_fetch_response(payload, version)
    for part in response.partitions:
        topic = part.topic_id if part.topic is None else part.topic
        assert topic is not None
        shown = decide(topic, part.index, part.error, part.log_start)
        if shown is not None:
            part.error, part.log_start = shown
    if version >= 16:
        response.tags = blanked(response.tags)
    return encoded(response)


def blanked(tags: bytes) -> bytes:
    cur = Cursor(tags)
    count = cur.uvarint()
    out = put_uvarint(count)
    for _ in range(count):
        tag, size = cur.uvarint(), cur.uvarint()
        data = cur.raw(size)
        out += put_uvarint(tag or UNKNOWN_TAG) + put_uvarint(size) + (data if tag else bytes(size))
    return out


# -- any pieces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decide", [leave, patch])
@pytest.mark.parametrize("name", vectors("fetch-v"))
class TestABrokersBytes:
    def test_whole(self, name: str, decide: Decide) -> None:
        payload, version = vector(name), version_of(name)
        assert stream(payload, version, [], decide) == expected(payload, version, decide)

    def test_byte_by_byte(self, name: str, decide: Decide) -> None:
        payload, version = vector(name), version_of(name)
        cuts = list(range(1, len(payload)))
        assert stream(payload, version, cuts, decide) == expected(payload, version, decide)

    def test_cut_in_two_anywhere(self, name: str, decide: Decide) -> None:
        payload, version = vector(name), version_of(name)
        wanted = expected(payload, version, decide)
        for cut in range(len(payload)):
            assert stream(payload, version, [cut], decide) == wanted, cut


@given(oracle.responses(), st.data())
def test_any_response_in_any_pieces(response: FetchResponse, data: st.DataObject) -> None:
    payload = oracle.encode_response(response)
    cuts = data.draw(st.lists(st.integers(0, len(payload)), max_size=12))
    assert stream(payload, response.version, cuts, patch) == expected(payload, response.version, patch)


@given(oracle.responses(st.integers(16, 18)), st.integers(1, 40), st.integers(1, 9))
def test_addresses_are_blanked_in_any_pieces(response: FetchResponse, nodes: int, step: int) -> None:
    payload = oracle.encode_response(response, [(n, f"broker-{n}.internal", 9092, "rack") for n in range(nodes)])
    out = stream(payload, response.version, list(range(step, len(payload), step)), leave)
    assert b"internal" not in out
    assert out == expected(payload, response.version, leave)


@pytest.mark.parametrize("version", [4, 12, 17])
def test_every_buffer(version: int) -> None:
    payload = vector(f"fetch-v{version}")
    wanted = expected(payload, version, patch)
    assert stream(payload, version, [], patch) == wanted
    assert stream(bytearray(payload), version, [5, 100], patch) == wanted
    assert stream(memoryview(b"?" + payload)[1:], version, [5, 100], patch) == wanted


def test_nothing_in_nothing_out() -> None:
    patcher = FetchStream(17, leave)
    assert patcher.feed(b"") == []
    assert not patcher.done


# -- what is asked and what changes ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_each_partition_is_asked_about_once_and_in_order(version: int, step: int) -> None:
    asked: list[tuple[str | bytes, int, int, int]] = []

    def decide(topic: str | bytes, index: int, error: int, log_start: int) -> None:
        asked.append((topic, index, error, log_start))

    payload = vector(f"fetch-v{version}")
    stream(payload, version, list(range(step, len(payload), step)), decide)
    topic = TOPIC_ID if version >= 13 else TOPIC
    start = 0 if version >= 5 else -1
    assert asked == [
        (topic, 0, 0, start),
        (topic, 1, 1, -1),
        (topic, 2, 6, -1),
        (topic, 3, 0, start),
        (topic, 4, 0, start),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_hidden_leaves_no_records_and_no_other_change(version: int) -> None:
    payload = vector(f"fetch-v{version}")
    out = stream(payload, version, [], lambda topic, index, error, start: (0, start) if error == 1 else None)
    before = parse_fetch_response(payload, version)
    after = parse_fetch_response(out, version)
    assert after.partitions[1].error == 0
    assert after.partitions[1].records == memoryview(b"")
    after.partitions[1].error = 1
    assert after.partitions == before.partitions


@pytest.mark.parametrize("version", [16, 17, 18])
def test_clients_that_skip_unknown_tags_see_no_address(version: int) -> None:
    payload = vector(f"fetch-v{version}")
    host, port = NODES[2]
    assert host.encode() in payload
    out = stream(payload, version, [], leave)
    assert host.encode() not in out
    assert port.to_bytes(4, "big") not in out
    assert node_endpoints(parse_fetch_response(out, version).tags) == []
    # kafka-python re-encodes an answer that never had addresses: shorter, and otherwise the same.
    theirs = oracle.decode_response(out, version)
    assert theirs.node_endpoints in ([], None)
    again = parse_fetch_response(bytes(theirs.encode(header=True)), version)
    assert again.partitions == parse_fetch_response(payload, version).partitions


def test_below_v5_only_the_error_can_change() -> None:
    payload = vector("fetch-v4")
    assert stream(payload, 4, [], lambda topic, index, error, start: (error, 77)) == payload
    changed = stream(payload, 4, [], lambda topic, index, error, start: (56, 77))
    assert [part.error for part in parse_fetch_response(changed, 4).partitions] == [56] * 5


def test_tag_0_is_an_address_only_at_the_end_and_from_v16_on() -> None:
    leader = "01 00 03 aabbcc"  # tag 0 of a partition is its diverging epoch
    for version, tags, wanted in [
        (15, b"\x01\x00\x02ab", b"\x01\x00\x02ab"),
        (16, b"\x01\x00\x02ab", b"\x01\x7f\x02\x00\x00"),
        (18, b"\x03\x00\x02ab\x05\x01x\x81\x01\x00", b"\x03\x7f\x02\x00\x00\x05\x01x\x81\x01\x00"),
        (16, b"\x01\x00\x00", b"\x01\x7f\x00"),
    ]:
        response = a_response(version, a_partition(version, tags=bytes.fromhex(leader)), tags=tags)
        payload = encoded(response)
        for step in (1, 1000):
            out = stream(payload, version, list(range(step, len(payload), step)), leave)
            assert out == payload[: -len(tags)] + wanted


def test_tags_everywhere_pass() -> None:
    tagged = "00000005 010500 00000000 0000 00000000 02" + "69" * 16 + "03"
    for index, aborted in (("00000000", "02 0000000000000007 0000000000000032 010500"), ("00000001", "01")):
        tagged += index + "0000" + "00" * 24 + aborted + "ffffffff 04 abcdef 02 0500 0600"
    payload = bytes.fromhex(tagged + "01 09 03 aaaaaa" + "01 7e 01 ff")
    for step in (1, 3, 1000):
        assert stream(payload, 17, list(range(step, len(payload), step)), leave) == payload


@pytest.mark.parametrize("version", [4, 11, 12, 18])
@pytest.mark.parametrize("records", [None, b"", b"x"])
def test_null_empty_and_tiny_records(version: int, records: bytes | None) -> None:
    view = None if records is None else memoryview(records)
    payload = encoded(a_response(version, *(a_partition(version, index, records=view) for index in range(3))))
    for step in (1, 2, 1000):
        out = stream(payload, version, list(range(step, len(payload), step)), patch)
        assert out == expected(payload, version, patch)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_topics(version: int) -> None:
    payload = encoded(a_response(version))
    assert stream(payload, version, list(range(len(payload))), leave) == payload


@pytest.mark.parametrize("version", [4, 12, 17])
def test_topics_without_partitions(version: int) -> None:
    topics = {
        4: "00000005 00000000 00000002 0001 61 00000000 0001 62 00000000",
        12: "00000005 00 00000000 0000 00000000 03 0261 01 00 0262 01 00 00",
        17: "00000005 00 00000000 0000 00000000 03" + ("69" * 16 + "01 00") * 2 + "00",
    }
    payload = bytes.fromhex(topics[version])
    for step in (1, 1000):
        assert stream(payload, version, list(range(step, len(payload), step)), leave) == payload


@pytest.mark.parametrize("version", [11, 12, 17])
@pytest.mark.parametrize("count", [1, 2, 126, 127, 128, 3000])
@pytest.mark.parametrize("step", [1, 50, 4096])
def test_many_aborted_transactions(version: int, count: int, step: int) -> None:
    aborted = [(n, -n) for n in range(count)]
    parts = [a_partition(version, index, aborted=aborted) for index in range(2)]
    payload = encoded(a_response(version, *parts))
    out = stream(payload, version, list(range(step, len(payload), step)), patch)
    assert out == expected(payload, version, patch)


@pytest.mark.parametrize("tagged", range(6))
@pytest.mark.parametrize("step", [1, 40, 1000])
def test_a_tag_of_any_aborted_transaction_passes(tagged: int, step: int) -> None:
    entries = b"".join(bytes(16) + (b"\x01\x05\x02ab" if n == tagged else b"\x00") for n in range(6))
    partition = bytes(30) + b"\x07" + entries + b"\xff\xff\xff\xff" + b"\x04abc" + b"\x00"
    payload = bytes.fromhex("00000005 00 00000000 0000 00000000 02") + bytes(16) + b"\x02" + partition + b"\x00\x00"
    assert stream(payload, 17, list(range(step, len(payload), step)), leave) == payload


def test_a_section_may_have_so_many_tags() -> None:
    tags = put_uvarint(MAX_TAGS) + b"\x05\x00" * MAX_TAGS
    payload = encoded(a_response(17, a_partition(17, tags=tags), tags=tags))
    assert stream(payload, 17, [100, 1000], leave) == payload


# -- nothing is held, nothing is copied ------------------------------------------------------------------------


@pytest.mark.parametrize("name", vectors("fetch-v"))
def test_what_came_in_leaves_soon(name: str) -> None:
    payload = vector(name)
    patcher = FetchStream(version_of(name), patch)
    gone = 0
    for at in range(len(payload)):
        gone += sum(len(piece) for piece in patcher.feed(payload[at : at + 1]))
        assert at + 1 - gone <= 48  # the fixed part of a partition and the lengths behind it


def test_large_records_leave_as_views_of_what_came_in() -> None:
    payload = encoded(a_response(17, *(a_partition(17, i, records=memoryview(bytes(300_000))) for i in range(3))))
    patcher = FetchStream(17, patch)
    copied = 0
    for at in range(0, len(payload), 65536):
        chunk = payload[at : at + 65536]
        for piece in patcher.feed(chunk):
            if piece is chunk or (isinstance(piece, memoryview) and piece.obj is chunk):
                continue
            copied += len(piece)
    patcher.finish()
    assert 0 < copied < 3 * 1100  # a patch and its surroundings for each partition


def test_a_piece_inside_records_is_handed_on_itself() -> None:
    payload = encoded(a_response(17, a_partition(17, records=memoryview(bytes(1000)))))
    patcher = FetchStream(17, leave)
    patcher.feed(payload[:200])
    middle = payload[200:900]
    assert patcher.feed(middle)[0] is middle


def test_patches_close_together_leave_as_one_piece_and_others_apart() -> None:
    def pieces(size: int) -> int:
        payload = encoded(a_response(17, *(a_partition(17, i, records=memoryview(bytes(size))) for i in range(4))))
        return len(FetchStream(17, patch).feed(payload))

    assert pieces(100) == 3  # before, all four patches, after
    assert pieces(COPY_BELOW + 1) == 9
