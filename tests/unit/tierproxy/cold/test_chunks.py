"""Chunks that are unpacked together."""

import asyncio
from pathlib import Path

from tests.unit.tierproxy.cold.shelf import BATCHES, Shelf, three_segments
from tierproxy.archive.errors import FormatError
from tierproxy.archive.segment_index import SegmentIndex
from tierproxy.cold.chunks import Located


async def first_segment(shelf: Shelf) -> tuple[Located, SegmentIndex]:
    entry = shelf.archive.manifest.segments[0]
    segment = Located(shelf.library, shelf.library.segment_key(shelf.archive.pid, entry), entry)
    return segment, await shelf.chunks.index(segment)


async def test_no_chunk_waits_for_one_that_comes_later(tmp_path: Path) -> None:
    async with Shelf(await asyncio.to_thread(three_segments, tmp_path)) as shelf:
        segment, index = await first_segment(shelf)
        await shelf.chunks.read(segment, index, 0, 1)
        with shelf.store.closed():
            shelf.chunks.read(segment, index, 1, 3)
            shelf.chunks.unpack(segment, index, 0, 3)
            async with asyncio.timeout(30):
                assert bytes((await shelf.chunks.plain(segment, index, 0)).data) == BATCHES[0]
        assert bytes((await shelf.chunks.plain(segment, index, 2)).data) == BATCHES[2]


async def test_a_damaged_chunk_is_no_trouble_for_those_unpacked_with_it(tmp_path: Path) -> None:
    async with Shelf(await asyncio.to_thread(three_segments, tmp_path)) as shelf:
        segment, index = await first_segment(shelf)
        await shelf.chunks.read(segment, index, 0, 1)
        shelf.store.flips = 1
        await shelf.chunks.read(segment, index, 1, 2)
        await shelf.chunks.read(segment, index, 2, 3)
        shelf.store.flips = 1  # when it is read anew
        shelf.chunks.unpack(segment, index, 0, 3)
        chunks = [shelf.chunks.plain(segment, index, number) for number in range(3)]
        first, damaged, last = await asyncio.gather(*chunks, return_exceptions=True)
        assert isinstance(damaged, FormatError)
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)
        assert (bytes(first.data), bytes(last.data)) == (BATCHES[0], BATCHES[2])
        assert bytes((await shelf.chunks.plain(segment, index, 1)).data) == BATCHES[1], "and it is not kept"
