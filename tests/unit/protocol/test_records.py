import gzip
import struct
from contextlib import suppress

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.batches import HEADER_SIZE, walk
from protocol.errors import MalformedError
from protocol.records import Record, decode_records, first_record_at
from tests.unit.batch_maker import MadeRecord, make_batch, patched, plain_records, varint
from tests.unit.vectors import SEGMENT_LOG

CODECS = pytest.mark.parametrize("codec", range(5), ids=["none", "gzip", "snappy", "lz4", "zstd"])
START_MS = 1_357_000_000_000
HEADERS = [("source", b"kit"), ("none", None), ("größe", b"")]


def with_body(body: bytes, codec: int, count: int = 1) -> bytes:
    """A batch with any bytes where its records should be."""
    head = patched(make_batch(0, codec=codec)[:HEADER_SIZE], 57, ">i", count)
    return patched(head, 8, ">i", HEADER_SIZE - 12 + len(body)) + body


def test_a_real_log_with_every_codec() -> None:
    records = [decode_records(batch) for _, batch in walk(memoryview(SEGMENT_LOG))]
    assert [record.offset for batch in records for record in batch] == list(range(35))
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        assert records[number] == [
            Record(5 * number + i, START_MS + 10 * number + i, None, f"{codec} {i} {'again ' * 20}".encode(), HEADERS)
            for i in range(5)
        ]


def test_snappy_as_java_frames_it() -> None:
    java = [batch for _, batch in walk(memoryview(SEGMENT_LOG))][5]
    assert bytes(java[HEADER_SIZE : HEADER_SIZE + 8]) == b"\x82SNAPPY\x00"
    assert decode_records(java) == [
        Record(25 + i, START_MS + 100 + i, b"N14228", b"x" * 50, [("source", b"kit")]) for i in range(5)
    ]


def test_snappy_as_java_frames_it_in_several_blocks() -> None:
    raw = [(0, 5, b"k", b"v" * 200, ()), (1, 6, None, b"w" * 100, ())]
    plain = make_batch(0, raw)[HEADER_SIZE:]
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for at in range(0, len(plain), 64):
        block = bytes(cramjam.snappy.compress_raw(plain[at : at + 64]))
        framed += struct.pack(">i", len(block)) + block
    found = decode_records(patched(with_body(framed, 2, count=2), 27, ">q", 5))
    assert [(record.timestamp, record.value) for record in found] == [(5, b"v" * 200), (6, b"w" * 100)]


def test_gzip_of_several_members_is_one() -> None:
    plain = make_batch(0, plain_records(2))[HEADER_SIZE:]
    body = gzip.compress(plain[:10]) + gzip.compress(plain[10:])
    assert [record.value for record in decode_records(with_body(body, 1, count=2))] == [b"value", b"value"]


blobs = st.none() | st.binary(max_size=40)
made = st.lists(
    st.tuples(
        st.integers(0, 1 << 31 - 2),
        st.integers(0, 1 << 50),
        blobs,
        blobs,
        st.lists(st.tuples(st.text(max_size=5), blobs), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@CODECS
@given(records=made)
def test_what_went_in_comes_out(codec: int, records: list[MadeRecord]) -> None:
    batch = make_batch(1 << 40, records, codec=codec)
    assert decode_records(batch) == [
        Record((1 << 40) + delta, time, key, value, list(headers)) for delta, time, key, value, headers in records
    ]


@CODECS
def test_a_body_that_is_cut_short(codec: int) -> None:
    batch = make_batch(0, plain_records(20), codec=codec)
    for cut in (len(batch) - 1, len(batch) - 9, HEADER_SIZE + 3, HEADER_SIZE):
        with pytest.raises(MalformedError):
            decode_records(patched(batch[:cut], 8, ">i", cut - 12))


@CODECS
def test_a_body_that_is_something_else(codec: int) -> None:
    with pytest.raises(MalformedError):
        decode_records(with_body(b"\xff\x17this is no record" * 5, codec))


@CODECS
@pytest.mark.parametrize("step", [-1, 1])
def test_a_count_of_records_that_is_not_so(codec: int, step: int) -> None:
    batch = make_batch(0, plain_records(3), codec=codec)
    with pytest.raises(MalformedError):
        decode_records(patched(batch, 57, ">i", 3 + step))


@pytest.mark.parametrize("codec", range(1, 5))
def test_decompressing_stops_at_the_limit(codec: int) -> None:
    batch = make_batch(0, [(0, 1, None, bytes(5_000_000), ())], codec=codec)
    assert len(decode_records(batch)[0].value or b"") == 5_000_000
    with pytest.raises(MalformedError, match="more than 1000000 bytes"):
        decode_records(batch, max_bytes=1_000_000)
    with pytest.raises(MalformedError, match="more than 5000010 bytes"):
        decode_records(batch, max_bytes=5_000_010)  # the value fits, the record around it does not


def test_snappy_that_lies_about_its_size() -> None:
    with pytest.raises(MalformedError, match="more than"):
        decode_records(with_body(b"\xff\xff\xff\xff\x0f" + bytes(50), 2))


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_codecs_that_nobody_defined(codec: int) -> None:
    with pytest.raises(MalformedError, match="unknown codec"):
        decode_records(make_batch(0, codec=codec))


@pytest.mark.parametrize("size", [0, 40, 61, 70, 75])
def test_less_than_a_batch(size: int) -> None:
    batch = make_batch(0)
    assert len(batch) > size
    with pytest.raises(MalformedError, match="not one whole batch"):
        decode_records(batch[:size])


def test_more_than_a_batch() -> None:
    with pytest.raises(MalformedError, match="not one whole batch"):
        decode_records(make_batch(0) + b"x")


@pytest.mark.parametrize(
    "record",
    [
        varint(-1),
        varint(100),
        varint(6) + b"\x00" + varint(0) + varint(0) + varint(-2) + varint(-1) + varint(0),
        varint(6) + b"\x00" + varint(0) + varint(0) + varint(-1) + varint(-1) + varint(-1),
        varint(6) + b"\x00" + varint(0) + varint(0) + varint(-1) + varint(-1) + varint(60),
        varint(6) + b"\x00" + varint(0) + varint(0) + varint(9) + varint(-1) + varint(0),
        varint(7) + b"\x00" + varint(0) + varint(0) + varint(-1) + varint(-1) + varint(1) + varint(-1),
        varint(7) + b"\x00" + varint(0) + varint(0) + varint(-1) + varint(-1) + varint(0),
    ],
    ids=[
        "negative length",
        "longer than the batch",
        "key of length -2",
        "-1 headers",
        "too many headers",
        "key beyond the end",
        "header without a name",
        "shorter than it says",
    ],
)
def test_records_that_cannot_be(record: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_records(with_body(record + bytes(7), 0))


def test_with_log_append_time_every_record_has_the_broker_s_time() -> None:
    batch = make_batch(10, plain_records(3, time=5), append_time=9_999)
    assert [record.timestamp for record in decode_records(batch)] == [9_999] * 3
    assert first_record_at(batch, 9_999) == (10, 9_999)
    assert first_record_at(batch, 10_000) is None


def test_a_header_s_name_that_is_no_text() -> None:
    record = b"\x00" + varint(0) + varint(0) + varint(-1) + varint(-1) + varint(1) + varint(1) + b"\xff" + varint(-1)
    batch = with_body(varint(len(record)) + record, 0)
    assert decode_records(batch)[0].headers == [("\ufffd", None)]


# Offsets 10 to 15; time goes back once.
BY_TIME = make_batch(10, [(i, time, None, b"v", ()) for i, time in enumerate([100, 300, 200, 300, 400, 400])])


@pytest.mark.parametrize(
    ("timestamp", "min_offset", "found"),
    [
        (0, 0, (10, 100)),
        (100, 0, (10, 100)),
        (101, 0, (11, 300)),
        (300, 0, (11, 300)),
        (150, 12, (12, 200)),
        (301, 0, (14, 400)),
        (400, 15, (15, 400)),
        (401, 0, None),
        (0, 16, None),
    ],
)
def test_the_first_record_that_is_not_older(timestamp: int, min_offset: int, found: tuple[int, int] | None) -> None:
    assert first_record_at(BY_TIME, timestamp, min_offset) == found


@CODECS
def test_looking_up_a_time_in_any_codec(codec: int) -> None:
    assert first_record_at(make_batch(0, plain_records(50, time=7), codec=codec), 40) == (33, 40)


def test_a_compacted_batch_has_fewer_records_than_offsets() -> None:
    batch = make_batch(100, [(3, 30, b"k", None, ()), (7, 70, b"k", b"v", ())], last_offset_delta=9)
    assert [record.offset for record in decode_records(batch)] == [103, 107]
    assert first_record_at(batch, 31) == (107, 70)
    assert decode_records(make_batch(100, (), last_offset_delta=9)) == []


@given(st.binary(max_size=200), st.integers(0, 7), st.integers(0, 9))
def test_any_body_is_decoded_or_refused(body: bytes, codec: int, count: int) -> None:
    with suppress(MalformedError):
        assert len(decode_records(with_body(body, codec, count), max_bytes=1 << 20)) == count
