"""Chunks that are unpacked together, and what is kept."""

import asyncio
import random
from pathlib import Path

from tests.unit.tierproxy.cli.archives import Archive, batch
from tests.unit.tierproxy.cold.shelf import BATCHES, Shelf, three_segments
from tierproxy.archive.errors import FormatError
from tierproxy.archive.segment_index import SegmentIndex
from tierproxy.cold.budget import ByteBudget
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


async def test_indexes_with_many_aborted_transactions_keep_no_more_memory_than_is_theirs(tmp_path: Path) -> None:
    def with_many(directory: Path) -> Archive:
        archive = Archive(directory)
        for one in BATCHES[:10]:
            archive.add(one, aborted=[(producer, 0) for producer in range(500)])
        return archive.save()

    async with Shelf(await asyncio.to_thread(with_many, tmp_path), memory=1 << 20) as shelf:
        for offset in range(0, 100, 10):
            await shelf.read(offset, 1)
        assert len(shelf.chunks._indexes) == 1, "two have more than 128 KiB"


async def test_stored_chunks_have_the_memory_that_plain_ones_and_indexes_leave(tmp_path: Path) -> None:
    def of_random_bytes() -> Archive:
        chance, made = random.Random(1), Archive(tmp_path)
        return made.add(*(batch(n, [chance.randbytes(8000)]) for n in range(100))).save()

    archive = await asyncio.to_thread(of_random_bytes)
    size = archive.manifest.segments[0].stored_size
    async with Shelf(archive, size * 6 // 5, budget=ByteBudget(2 * size)) as shelf:
        segment, index = await first_segment(shelf)
        for first in range(0, 100, 5):
            await shelf.chunks.read(segment, index, first, first + 5)
        assert all(shelf.chunks.is_near(segment.key, number) for number in range(100))
        for number in range(99, -1, -1):
            await shelf.chunks.plain(segment, index, number)
        assert not all(shelf.chunks.is_near(segment.key, number) for number in range(100)), "plain ones take a quarter"
        assert shelf.chunks.stored_capacity < size
