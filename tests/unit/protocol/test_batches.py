import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.batches import (
    CONTROL_ABORT,
    CONTROL_COMMIT,
    HEADER_SIZE,
    BatchHeader,
    control_kind,
    crc_ok,
    read_batch_header,
    walk,
)
from protocol.errors import MalformedError
from tests.unit.batch_maker import make_batch, patched, plain_records
from tests.unit.vectors import SEGMENT_LOG

# What kafka-dump-log would say of the real log: base, last, size, codec, transactional, control, producer id, count.
REAL_LOG = [
    (0, 4, 871, 0, False, False, -1, 5),
    (5, 9, 167, 1, False, False, -1, 5),
    (10, 14, 201, 2, False, False, -1, 5),
    (15, 19, 184, 3, False, False, -1, 5),
    (20, 24, 160, 4, False, False, -1, 5),
    (25, 29, 148, 2, False, False, 0, 5),
    (30, 30, 230, 0, True, False, 1, 1),
    (31, 31, 232, 0, True, False, 2, 1),
    (32, 32, 78, 0, True, True, 2, 1),
    (33, 33, 78, 0, True, True, 1, 1),
    (34, 34, 238, 0, True, False, 1, 1),
]


def test_a_real_log_is_walked_batch_by_batch() -> None:
    found = [
        (h.base_offset, h.last_offset, h.size, h.codec, h.is_transactional, h.is_control, h.producer_id, h.record_count)
        for h, _ in walk(memoryview(SEGMENT_LOG))
    ]
    assert found == REAL_LOG
    assert b"".join(batch for _, batch in walk(memoryview(SEGMENT_LOG))) == SEGMENT_LOG


def test_a_real_log_has_right_checksums_and_markers() -> None:
    batches = [batch for _, batch in walk(memoryview(SEGMENT_LOG))]
    assert all(crc_ok(batch) for batch in batches)
    kinds = [control_kind(batch) for batch in batches]
    assert kinds == [None] * 8 + [CONTROL_COMMIT, CONTROL_ABORT, None]


def test_every_field_of_a_header() -> None:
    raw = struct.pack(
        ">qiibIhiqqqhii", 1 << 40, 60, 7, 2, 0xFEDCBA98, 0x3C, 11, 1_000, 2_000, 1 << 50, 12, 13, 14
    ) + bytes(11)
    header = read_batch_header(b"xx" + raw, 2)
    assert header == BatchHeader(1 << 40, 72, 7, 2, 0xFEDCBA98, 0x3C, 11, 1_000, 2_000, 1 << 50, 12, 13, 14)
    assert header.last_offset == (1 << 40) + 11
    assert header.next_offset == (1 << 40) + 12
    assert (header.codec, header.is_log_append_time, header.is_transactional, header.is_control) == (
        4,
        True,
        True,
        True,
    )


@pytest.mark.parametrize("size", range(HEADER_SIZE))
def test_part_of_a_header_is_none(size: int) -> None:
    assert read_batch_header(make_batch(0)[:size]) is None


@pytest.mark.parametrize("magic", [0, 1, 3, 255])
@pytest.mark.parametrize("size", [17, 30, 61])
def test_other_message_formats_are_refused_even_if_smaller_than_a_batch(magic: int, size: int) -> None:
    old = patched(make_batch(0), 16, ">B", magic)[:size]
    with pytest.raises(MalformedError, match=f"message format {magic}"):
        list(walk(memoryview(old)))


@pytest.mark.parametrize(
    ("at", "layout", "value"),
    [
        (0, ">q", -1),
        (0, ">q", (1 << 63) - 1),
        (8, ">i", -1),
        (8, ">i", HEADER_SIZE - 12 - 1),
        (8, ">i", 0),
        (23, ">i", -1),
        (57, ">i", -1),
    ],
)
def test_values_that_no_broker_writes_are_refused(at: int, layout: str, value: int) -> None:
    good = make_batch(5)
    bad = patched(make_batch(6), at, layout, value)
    batches = walk(memoryview(good + bad))
    assert next(batches)[0].base_offset == 5
    with pytest.raises(MalformedError):
        next(batches)


def test_a_batch_after_compaction_keeps_its_offsets() -> None:
    batch = make_batch(100, plain_records(3), last_offset_delta=9)
    assert [header.next_offset for header, _ in walk(memoryview(batch))] == [110]


def test_a_batch_of_which_compaction_left_no_record() -> None:
    header = read_batch_header(make_batch(100, (), last_offset_delta=9))
    assert header is not None
    assert (header.record_count, header.last_offset) == (0, 109)


@pytest.mark.parametrize("at", [21, 30, 57, 61, -1])
def test_a_flipped_bit_behind_the_checksum_shows(at: int) -> None:
    batch = bytearray(make_batch(0))
    assert crc_ok(batch)
    batch[at] ^= 1
    assert not crc_ok(batch)


def test_what_a_broker_sets_is_not_in_the_checksum() -> None:
    assert crc_ok(patched(patched(make_batch(0), 0, ">q", 77), 12, ">i", 9))


@pytest.mark.parametrize("kind", [CONTROL_ABORT, CONTROL_COMMIT, 5])
def test_the_kind_of_a_marker(kind: int) -> None:
    assert control_kind(make_batch(3, control=kind, producer_id=9)) == kind


def test_a_marker_that_compaction_emptied_says_nothing() -> None:
    assert control_kind(patched(make_batch(3, control=0), 57, ">i", 0)) is None


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        make_batch(3, control=0)[:69],
        patched(make_batch(3, control=0), 21, ">h", 0x31),
        patched(make_batch(3, control=0), 65, ">B", 4),
        patched(make_batch(3, control=0), 65, ">B", 1),
    ],
    ids=["nothing", "cut off in the key", "compressed", "a key of two bytes", "no key"],
)
def test_a_marker_that_cannot_be_read(batch: bytes) -> None:
    with pytest.raises(MalformedError):
        control_kind(batch)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(0, 4)), max_size=8), st.data())
def test_walking_gives_exactly_the_whole_batches(shapes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    batches, offset = [], 0
    for count, hole, codec in shapes:
        batches.append(make_batch(offset + hole, plain_records(count), codec=codec))
        offset += hole + count
    whole = b"".join(batches)
    cut = data.draw(st.integers(0, len(whole)))
    expected, size = [], 0
    for batch in batches:
        size += len(batch)
        if size <= cut:
            expected.append(batch)
    found = list(walk(memoryview(whole)[:cut]))
    assert [bytes(batch) for _, batch in found] == expected
    assert all(header.size == len(batch) for header, batch in found)


@given(st.binary(max_size=300))
def test_any_bytes_are_walked_or_refused(data: bytes) -> None:
    try:
        found = list(walk(memoryview(data)))
    except MalformedError:
        return
    assert sum(header.size for header, _ in found) <= len(data)
