"""The files of the disk cache: what is read of them is what was written, or it is called damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.cold.disk_extents import (
    BLOCK,
    PAGE,
    Damaged,
    Extent,
    Extents,
    check,
    extent_named,
    header_size,
    make_header,
    read_header,
)

KEY = b"main/prod/flights/0/segment"


def test_names() -> None:
    assert extent_named(Extent(0, 5).name) == Extent(0, 5)
    for name in ("0-0", "5-3", "01-5", "-5", "5-", "a-b", "0-5.tmp", "\u0661-5", "0-5\n", "lost+found"):
        assert extent_named(name) is None, name


ranges = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda r: Extent(r[0], r[0] + r[1]))


@given(st.lists(ranges, max_size=8), ranges)
def test_a_range_is_covered_if_each_byte_is_somewhere(extents: list[Extent], wanted: Extent) -> None:
    here = {byte for extent in extents for byte in range(*extent)}
    pieces = Extents(extents).cover(*wanted)
    if pieces is None:
        assert not set(range(*wanted)) <= here
        return
    assert [byte for piece in pieces for byte in range(piece.start, piece.end)] == list(range(*wanted))
    assert all(p.extent in extents and p.extent.start <= p.start < p.end <= p.extent.end for p in pieces)


@given(st.lists(ranges, max_size=8), ranges)
def test_touching_is_to_share_a_byte(extents: list[Extent], wanted: Extent) -> None:
    expected = [extent for extent in extents if set(range(*extent)) & set(range(*wanted))]
    assert Extents(extents).touching(*wanted) == sorted(expected)


def test_one_extent_is_taken_where_one_will_do() -> None:
    extents = Extents([Extent(0, 10), Extent(5, 40), Extent(10, 20)])
    assert [piece.extent for piece in extents.cover(6, 30) or []] == [Extent(5, 40)]


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 1000 * BLOCK])
def test_a_header_gives_back_its_checksums(size: int) -> None:
    data, extent = bytes(size), Extent(7, 7 + size)
    header = make_header(KEY, extent, data)
    assert len(header) == header_size(KEY, extent)
    assert len(header) % PAGE == 0
    assert len(read_header(header, KEY, extent)) == -(-size // BLOCK)


@given(st.integers(0, PAGE * 8 - 1))
def test_a_wrong_bit_in_a_header_is_noticed_or_behind_it(bit: int) -> None:
    data, extent = bytes(range(250)), Extent(0, 250)
    header = bytearray(make_header(KEY, extent, data))
    good = read_header(bytes(header), KEY, extent)
    header[bit // 8] ^= 1 << bit % 8
    try:
        assert read_header(bytes(header), KEY, extent) == good
    except Damaged:
        return
    assert bit // 8 >= 32 + len(KEY) + 4 + 4


def test_a_header_of_something_else_is_damaged() -> None:
    extent = Extent(0, 100)
    header = make_header(KEY, extent, bytes(100))
    for other, key in ((extent, KEY[:-1]), (extent, KEY[:-1] + b"x"), (Extent(1, 101), KEY), (Extent(0, 101), KEY)):
        with pytest.raises(Damaged):
            read_header(header, key, other)
    for short in (b"", header[:8], header[:40], bytes(PAGE)):
        with pytest.raises(Damaged):
            read_header(short, KEY, extent)


@given(st.data(), st.integers(1, 3 * BLOCK + 5))
def test_any_part_is_checked_by_the_blocks_it_touches(draw: st.DataObject, size: int) -> None:
    data = (b"0123456789abcde" * (size // 15 + 1))[:size]
    extent = Extent(0, size)
    sums = read_header(make_header(KEY, extent, data), KEY, extent)
    start = draw.draw(st.integers(0, size - 1))
    end = draw.draw(st.integers(start + 1, size))
    first, last = start // BLOCK, min(-(-end // BLOCK) * BLOCK, size)
    before, part, after = data[first * BLOCK : start], data[start:end], data[end:last]
    check(sums, first, before, part, after)
    at = draw.draw(st.integers(0, len(part) - 1))
    flipped = bytearray(part)
    flipped[at] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(Damaged):
        check(sums, first, before, bytes(flipped), after)
