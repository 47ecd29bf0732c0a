import io
import struct
from dataclasses import replace
from hashlib import sha256

import pytest
import zstandard
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vectors import SEGMENT, SEGMENT_LOG
from tierproxy.archive.errors import FormatError, UnknownVersionError
from tierproxy.archive.segment_index import (
    TRAILER_SIZE,
    Aborted,
    Chunk,
    IndexLocation,
    SegmentIndex,
    SegmentInfo,
    decode_index,
    decompress_chunk,
    encode_tail,
    read_index,
    read_trailer,
)

# The index of tests/vectors/segment-v1.log.zst, and how it is written. Neither may ever change.
INDEX = SegmentIndex(
    about=SegmentInfo("prod", "flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 0),
    writer="tierproxy 0.1.0",
    batch_codecs=0b11111,
    record_count=35,
    batch_count=11,
    plain_size=2587,
    plain_sha256=bytes.fromhex("7691b866866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb"),
    chunks=(
        Chunk(0, 4, 0, 136, 871, 1357000000000, 1357000000004),
        Chunk(5, 19, 136, 429, 552, 1357000000010, 1357000000034),
        Chunk(20, 30, 565, 300, 538, 1357000000040, 1357000000200),
        Chunk(31, 33, 865, 181, 388, 1357000000201, 1795412829985),
        Chunk(34, 34, 1046, 119, 238, 1357000000202, 1357000000202),
    ),
    epochs=((0, 0),),
    aborted=(Aborted(1, 30, 33), Aborted(1, 34, None)),
)
TAIL = bytes.fromhex(
    # index frame: head; versions and codecs; cluster, topic, topic id, partition, writer
    "5a2a4d18 ac010000 01011f00 0400 70726f64 0700 666c6967687473"
    "33d08f38e4bd40ef86504602c0b936a7 00000000 0f00 7469657270726f787920302e312e30"
    # records, batches, plain size, SHA-256
    "2300000000000000 0b00000000000000 1b0a000000000000"
    "7691b866866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb"
    # chunks
    "05000000"
    "0000000000000000 0400000000000000 0000000000000000 88000000 67030000 00c280f33b010000 04c280f33b010000"
    "0500000000000000 1300000000000000 8800000000000000 ad010000 28020000 0ac280f33b010000 22c280f33b010000"
    "1400000000000000 1e00000000000000 3502000000000000 2c010000 1a020000 28c280f33b010000 c8c280f33b010000"
    "1f00000000000000 2100000000000000 6103000000000000 b5000000 84010000 c9c280f33b010000 21a7f106a2010000"
    "2200000000000000 2200000000000000 1604000000000000 77000000 ee000000 cac280f33b010000 cac280f33b010000"
    # epochs, aborted transactions, checksum
    "01000000 00000000 0000000000000000"
    "02000000"
    "0100000000000000 1e00000000000000 2100000000000000"
    "0100000000000000 2200000000000000 ffffffffffffffff"
    "ea08a0be"
    # trailer frame: head; position and size of the index frame, its checksum; version, zero, checksum, mark
    "5b2a4d18 20000000 8d04000000000000 b4010000 ea08a0be 0100 0000 fda3583e 5449455253454731"
)


def test_the_end_of_a_segment_is_written_like_this_for_ever() -> None:
    assert encode_tail(INDEX) == TAIL


def test_the_stored_segment_of_version_1_is_read() -> None:
    assert SEGMENT.endswith(TAIL)
    assert read_trailer(SEGMENT[-TRAILER_SIZE:]) == IndexLocation(1165, 436, 0xBEA008EA)
    assert decode_index(SEGMENT[1165 : 1165 + 436]) == INDEX
    assert read_index(SEGMENT[-len(TAIL) :]) == INDEX


def test_the_chunks_of_the_stored_segment_are_the_broker_s_log() -> None:
    plain = b"".join(decompress_chunk(stored(chunk), chunk) for chunk in INDEX.chunks)
    assert plain == SEGMENT_LOG
    assert sha256(plain).digest() == INDEX.plain_sha256


def test_zstd_sees_nothing_but_the_log() -> None:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(SEGMENT), read_across_frames=True)
    assert reader.read() == SEGMENT_LOG


def stored(chunk: Chunk) -> bytes:
    return SEGMENT[chunk.position : chunk.position + chunk.stored_size]


def test_what_the_whole_segment_says() -> None:
    assert (INDEX.base_offset, INDEX.last_offset, INDEX.data_size) == (0, 34, 1165)
    assert (INDEX.min_timestamp, INDEX.max_timestamp) == (1357000000000, 1795412829985)


def test_times_of_chunks_without_any_do_not_count() -> None:
    timeless = tuple(replace(chunk, min_timestamp=-1, max_timestamp=-1) for chunk in INDEX.chunks)
    assert (replace(INDEX, chunks=timeless).min_timestamp, replace(INDEX, chunks=timeless).max_timestamp) == (-1, -1)
    some = replace(INDEX, chunks=(*timeless[:4], INDEX.chunks[4]))
    assert (some.min_timestamp, some.max_timestamp) == (1357000000202, 1357000000202)


SPARSE = (Chunk(10, 19, 0, 1, 1, 0, 0), Chunk(30, 39, 1, 1, 1, 0, 0), Chunk(40, 40, 2, 1, 1, 0, 0))


@pytest.mark.parametrize(
    ("offset", "place"), [(0, 0), (10, 0), (19, 0), (20, 1), (29, 1), (30, 1), (39, 1), (40, 2), (41, None)]
)
def test_the_chunk_that_holds_an_offset_or_the_next(offset: int, place: int | None) -> None:
    assert replace(INDEX, chunks=SPARSE).chunk_at(offset) == place


# A segment from 100 to 199: producer 1 began below it, 4's marker lies beyond it.
ABORTED = (Aborted(1, 90, 110), Aborted(2, 100, 120), Aborted(3, 105, 106), Aborted(4, 150, None))


@pytest.mark.parametrize(
    ("fetch_offset", "last_offset", "listed"),
    [
        (100, 199, [(1, 90), (2, 100), (3, 105), (4, 150)]),
        (100, 149, [(1, 90), (2, 100), (3, 105)]),
        (100, 104, [(1, 90), (2, 100)]),
        (100, 100, [(1, 90), (2, 100)]),
        (106, 149, [(1, 90), (2, 100), (3, 105)]),  # the marker itself is still to come
        (107, 149, [(1, 90), (2, 100)]),  # 3's entry would be stale
        (110, 149, [(1, 90), (2, 100)]),
        (111, 149, [(2, 100)]),
        (121, 149, []),
        (121, 150, [(4, 150)]),
        (199, 199, [(4, 150)]),
    ],
)
def test_aborted_transactions_are_listed_as_a_broker_lists_them(
    fetch_offset: int, last_offset: int, listed: list[tuple[int, int]]
) -> None:
    assert replace(INDEX, aborted=ABORTED).aborted_between(fetch_offset, last_offset) == listed


offsets = st.integers(0, (1 << 62) - 1)
times = st.integers(-1, 1 << 60)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def indexes(draw: st.DrawFn) -> SegmentIndex:
    borders = sorted(draw(st.sets(offsets, min_size=2, max_size=12)))
    chunks, position = [], 0
    for first, behind in zip(borders[::2], borders[1::2], strict=False):
        size = draw(st.integers(1, (1 << 32) - 1))
        plain = draw(st.integers(1, (1 << 32) - 1))
        chunks.append(Chunk(first, behind - 1, position, size, plain, draw(times), draw(times)))
        position += size
    epochs = zip(
        sorted(draw(st.sets(st.integers(0, (1 << 31) - 1), min_size=3, max_size=3))),
        sorted(draw(st.sets(offsets, min_size=3, max_size=3))),
        strict=True,
    )
    aborted = st.builds(Aborted, st.integers(0, (1 << 63) - 1), offsets, st.none() | offsets)
    return SegmentIndex(
        about=SegmentInfo(
            draw(names), draw(names), draw(st.binary(min_size=16, max_size=16)), draw(st.integers(0, 99))
        ),
        writer=draw(names),
        batch_codecs=draw(st.integers(0, 31)),
        record_count=draw(offsets),
        batch_count=draw(offsets),
        plain_size=sum(chunk.plain_size for chunk in chunks),
        plain_sha256=draw(st.binary(min_size=32, max_size=32)),
        chunks=tuple(chunks),
        epochs=tuple(epochs)[: draw(st.integers(0, 3))],
        aborted=tuple(draw(st.lists(aborted, max_size=3))),
    )


@given(indexes(), st.binary(max_size=30))
def test_an_index_there_and_back(index: SegmentIndex, before: bytes) -> None:
    assert read_index(before + encode_tail(index)) == index


@given(st.integers(0, len(TAIL) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, flip: int) -> None:
    damaged = bytearray(TAIL)
    damaged[at] ^= flip
    with pytest.raises(FormatError):
        read_index(damaged)


@pytest.mark.parametrize("cut", [0, 1, 39, 40, 41, 100, len(TAIL) - 1])
def test_less_than_the_whole_end_is_refused(cut: int) -> None:
    with pytest.raises(FormatError):
        read_index(TAIL[len(TAIL) - cut :])
    with pytest.raises(FormatError):
        decode_index(TAIL[:cut])


def test_an_index_with_a_trailer_that_belongs_to_another() -> None:
    other = encode_tail(replace(INDEX, writer="tierproxy 0.1.1"))
    with pytest.raises(FormatError, match="another index"):
        read_index(TAIL[:-TRAILER_SIZE] + other[-TRAILER_SIZE:])


def test_files_that_are_no_segments() -> None:
    for data in (b"", b"x" * 500, SEGMENT_LOG, zstandard.compress(SEGMENT_LOG)):
        with pytest.raises(FormatError, match="no segment of ours"):
            read_trailer(data)


def test_a_newer_layout_is_told_apart_from_damage() -> None:
    trailer = bytearray(TAIL[-TRAILER_SIZE:])
    struct.pack_into("<H", trailer, 24, 2)
    struct.pack_into("<I", trailer, 28, crc32c(trailer[8:28]))
    with pytest.raises(UnknownVersionError, match="layout version 2"):
        read_trailer(trailer)
    with pytest.raises(UnknownVersionError, match="layout version 2"):
        decode_index(with_right_checksum(b"\x02" + payload()[1:]))


def payload() -> bytes:
    return TAIL[8 : -TRAILER_SIZE - 4]


def with_right_checksum(payload: bytes) -> bytes:
    """An index frame that was not damaged on the way, but written wrongly."""
    return struct.pack("<II", 0x184D2A5A, len(payload) + 4) + payload + struct.pack("<I", crc32c(payload))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chunks": ()}, "no chunks"),
        ({"plain_size": 2586}, "do not add up"),
        ({"codec": 2}, "codec 2"),
        ({"chunks": (replace(INDEX.chunks[0], position=1), *INDEX.chunks[1:])}, "does not lie behind"),
        ({"chunks": (replace(INDEX.chunks[0], stored_size=0), *INDEX.chunks[1:])}, "does not lie behind"),
        ({"chunks": (replace(INDEX.chunks[0], last_offset=5), *INDEX.chunks[1:])}, "does not continue"),
        ({"chunks": (replace(INDEX.chunks[0], base_offset=-1), *INDEX.chunks[1:])}, "does not continue"),
        ({"chunks": (*INDEX.chunks[:4], replace(INDEX.chunks[4], last_offset=33))}, "does not continue"),
        ({"epochs": ((1, 0), (1, 5))}, "do not ascend"),
        ({"epochs": ((1, 5), (2, 5))}, "do not ascend"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(change: dict[str, object], words: str) -> None:
    wrong = replace(INDEX, **change)  # type: ignore[arg-type]  # any field, each of its own type
    frame = encode_tail(wrong)[:-TRAILER_SIZE] if wrong.chunks else with_right_checksum(without_chunks())
    with pytest.raises(FormatError, match=words):
        decode_index(frame)


def without_chunks() -> bytes:
    at = payload().index(struct.pack("<I", 5) + struct.pack("<qq", 0, 4))
    return payload()[:at] + bytes(4) + payload()[at + 4 + 5 * 48 :]


@pytest.mark.parametrize("change", [lambda p: p + b"\x00", lambda p: p[:-1], lambda p: p[:60], lambda p: p[:4]])
def test_an_index_with_too_much_or_too_little_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(FormatError, match="makes no sense"):
        decode_index(with_right_checksum(change(payload())))


def test_a_chunk_of_another_size_is_refused_before_it_is_decompressed() -> None:
    chunk = INDEX.chunks[0]
    with pytest.raises(FormatError, match="135 bytes, not 136"):
        decompress_chunk(stored(chunk)[:-1], chunk)
    with pytest.raises(FormatError, match="another size"):
        decompress_chunk(stored(chunk), replace(chunk, plain_size=870))


def test_a_frame_that_claims_a_huge_size_allocates_nothing() -> None:
    bomb = struct.pack("<IBQ", 0xFD2FB528, 0xE0, 1 << 60) + bytes(20)
    with pytest.raises(FormatError, match="another size"):
        decompress_chunk(bomb, Chunk(0, 0, 0, len(bomb), 100, 0, 0))


@given(st.integers(0, INDEX.chunks[1].stored_size - 1), st.integers(1, 255))
def test_any_changed_byte_of_a_chunk_is_noticed(at: int, flip: int) -> None:
    chunk = INDEX.chunks[1]
    damaged = bytearray(stored(chunk))
    damaged[at] ^= flip
    with pytest.raises(FormatError):
        decompress_chunk(damaged, chunk)
