"""What is read ahead of whom, and by how many requests. Sizes are scaled down: a border lies every 64 KiB."""

import asyncio
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tierproxy.cli.archives import Archive, batch
from tests.unit.tierproxy.cold.shelf import Shelf
from tierproxy.cold import ahead, chunks, guess, streams
from tierproxy.cold.budget import ByteBudget

JOIN = 64 << 10
CHUNKS = 40  # of a segment: each about 8 KiB, which doesn't get smaller
SEGMENTS = 3
MEMORY = 8 << 20


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(ahead, "READ_JOIN_BYTES", JOIN)
    monkeypatch.setattr(ahead, "READ_WHOLE_BYTES", JOIN)
    monkeypatch.setattr(ahead, "FIRST_READ", 8 << 10)
    monkeypatch.setattr(streams, "LEAST_WINDOW", 8 << 10)
    monkeypatch.setattr(guess, "CHUNK", 8 << 10)
    monkeypatch.setattr(guess, "MARGIN", 2 << 10)
    chance = random.Random(1)
    archive = Archive(tmp_path)
    for segment in range(SEGMENTS):
        first = segment * CHUNKS * 10
        archive.add(*(batch(first + n * 10, [chance.randbytes(800) for _ in range(10)]) for n in range(CHUNKS)))
    return archive.save()


def shelf(archive: Archive, memory: int = MEMORY) -> Shelf:
    return Shelf(archive, memory, budget=ByteBudget(MEMORY))


async def read_all(shelf: Shelf, start: int = 0, limit: int = 8 << 10) -> bytes:
    read, offset = b"", start
    while offset < shelf.archive.manifest.end_offset:
        records, last = await shelf.read(offset, limit)
        read += records
        offset = last + 1
    return read


def stored(archive: Archive) -> int:
    return sum(entry.stored_size for entry in archive.manifest.segments)


async def test_a_sequential_reader_costs_few_requests_and_no_byte_twice(archive: Archive) -> None:
    async with shelf(archive) as one:
        await read_all(one)
        sizes = [end - start for _, start, end in one.store.reads]
        overlaps = 2 * (12 << 10)  # of the first requests, which go out before the index is known
        assert sum(sizes) <= stored(archive) + overlaps
        assert len(sizes) <= SEGMENTS * (stored(archive) // SEGMENTS // JOIN + 2) + 6, "and some small ones at first"
        assert max(sizes) <= JOIN + (13 << 10), "a request ends with the chunk at the border"


async def test_segments_that_fit_are_read_whole_once_there_is_room(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "READ_WHOLE_BYTES", stored(archive) // SEGMENTS + JOIN)
    async with shelf(archive) as one:
        offset = 0
        while offset < archive.manifest.end_offset:
            offset = (await one.read(offset, 8 << 10))[1] + 1
            await one.quiet()
        _, *others = [entry.stored_size for entry in archive.manifest.segments]
        assert [end - start for _, start, end in one.store.reads[-len(others) :]] == others


async def test_large_reads_take_as_long_as_they_are_large(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shelf(archive) as one:
        await one.read(0, 1)
        assert one.chunks.read_seconds(1) == one.chunks.read_seconds(1 << 40) > 0, "only small ones came"
        monkeypatch.setattr(chunks, "LARGE_READ", 1)
        await read_all(one)
        assert one.chunks.read_seconds(2 << 40) == 2 * one.chunks.read_seconds(1 << 40) > one.chunks.read_seconds(1)


async def test_who_only_looks_at_the_first_records_costs_no_more_than_one_read_ahead(archive: Archive) -> None:
    async with shelf(archive) as one:
        await one.read(0, 1)
        await one.quiet()
        assert sum(end - start for _, start, end in one.store.reads) < 0.8 * stored(archive), "two of three segments"


async def test_who_follows_reads_nothing_from_the_store(archive: Archive) -> None:
    async with shelf(archive) as one:
        first = await read_all(one)
        reads = len(one.store.reads)
        assert await read_all(one) == first
        assert len(one.store.reads) == reads


async def test_many_readers_at_once_read_each_byte_once(archive: Archive) -> None:
    async with shelf(archive) as one:
        read = await asyncio.gather(*(read_all(one, limit=limit << 10) for limit in range(4, 20)))
        assert len(set(read)) == 1
        assert sum(end - start for _, start, end in one.store.reads) <= stored(archive) * 1.1


async def test_what_is_read_ahead_of_many_readers_fits_into_memory(archive: Archive) -> None:
    memory = 512 << 10
    async with shelf(archive, memory) as one:
        offsets = [n * 100 for n in range(SEGMENTS * CHUNKS // 10)]
        for _ in range(8):  # each goes on for 8 chunks of 10
            for at, offset in enumerate(offsets):
                _, last = await one.read(offset, 8 << 10)
                offsets[at] = last + 1
        read = sum(end - start for _, start, end in one.store.reads)
        assert read <= stored(archive) * 1.3, "hardly anything was thrown out before it was taken"


async def test_nothing_is_unpacked_ahead_of_more_readers_than_there_is_room_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shelf(archive, 256 << 10) as one:  # room for 7 chunks, unpacked
        unpacked, in_thread = 0, one.chunks.in_thread

        async def counted(work: Any, *args: Any) -> Any:
            nonlocal unpacked
            unpacked += len(args[0])
            return await in_thread(work, *args)

        monkeypatch.setattr(one.chunks, "in_thread", counted)
        offsets = [n * 100 for n in range(SEGMENTS * CHUNKS // 10)]
        for _ in range(10):
            for at, offset in enumerate(offsets):
                _, last = await one.read(offset, 8 << 10)
                offsets[at] = last + 1
                await one.quiet()
        assert unpacked < 1.2 * SEGMENTS * CHUNKS


@pytest.mark.parametrize("memory", [MEMORY, JOIN])
async def test_who_begins_at_the_beginning_waits_for_one_trip_for_all_up_to_the_border(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    async with shelf(archive, memory) as one:
        with one.store.closed():
            reading = asyncio.ensure_future(one.read(0, 1))
            while len(one.store.reads) < 2:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            asked = sorted((start, end) for _, start, end in one.store.reads)[:-1]  # but for the index
        await reading
        reach = max(end for _, end in asked)
        if memory < MEMORY:
            assert len(asked) == 1, "others need the memory"
            return
        assert JOIN <= reach <= JOIN + (20 << 10)
        assert asked[0][1] < 16 << 10, "the first records come soon"
        assert all(start < end for (_, end), (start, _) in pairwise(asked)), "they overlap"
        before = len(one.store.reads)
        offset = 0
        while offset < 60:
            _, last = await one.read(offset, 8 << 10)
            offset = last + 1
        segment = one.store.reads[0][0]
        again = [(start, end) for key, start, end in one.store.reads[before:] if key == segment and start < JOIN]
        assert again == [], "nothing of it is read twice"


async def test_all_who_begin_in_one_moment_share_the_memory(archive: Archive) -> None:
    """As the partitions of a first fetch do."""
    other = Archive(archive.root.parent, replace(archive.pid, partition=1))
    chance = random.Random(2)
    await asyncio.to_thread(other.add, *(batch(n, [chance.randbytes(8000)]) for n in range(CHUNKS)))
    await asyncio.to_thread(other.save)
    async with shelf(archive, 3 * JOIN) as one:  # half of it is room for one of the two
        with one.store.closed():
            reading = [
                asyncio.ensure_future(one.reader.fetch(one.library, each.pid, each.manifest, 0))
                for each in (archive, other)
            ]
            for _ in range(20):
                await asyncio.sleep(0)
            asked = [key for key, *_ in one.store.reads]
        await asyncio.gather(*reading)
    assert sorted(asked.count(key) for key in set(asked)) == [2, 3], "the second one: its index, and one chunk"


async def test_who_begins_elsewhere_is_not_known_to_want_more(archive: Archive) -> None:
    async with shelf(archive) as one:
        await one.read(100, 1)
        await one.quiet()
        assert sum(end - start for _, start, end in one.store.reads) < 4 * (8 << 10)


async def test_nothing_is_read_ahead_of_more_readers_than_there_is_room_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shelf(archive, 12 << 10) as one:  # room for 7 chunks, as they are stored
        offsets = [n * 40 for n in range(CHUNKS // 4)]
        for _ in range(4):
            for at, offset in enumerate(offsets):
                _, last = await one.read(offset, 8 << 10)
                offsets[at] = last + 1
                await one.quiet()
        assert sum(end - start for _, start, end in one.store.reads) < 1.3 * stored(archive) // SEGMENTS


async def test_a_fast_reader_does_not_throw_out_what_is_read_ahead_of_a_slow_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guess, "CHUNK", 8 << 10)
    monkeypatch.setattr(guess, "MARGIN", 6 << 10)

    def of(partition: int, chunks: int) -> Archive:
        chance = random.Random(partition)
        made = Archive(archive.root.parent, replace(archive.pid, partition=partition))
        for first in range(0, chunks, 100):
            made.add(*(batch(n, [chance.randbytes(8000)]) for n in range(first, min(chunks, first + 100))))
        return made.save()

    slow, fast = await asyncio.to_thread(of, 1, 40), await asyncio.to_thread(of, 2, 60 * 15)
    async with shelf(slow, 512 << 10) as one:
        at = {slow.pid: 0, fast.pid: 0}
        for turn in range(60 * 15):
            read = fast if turn % 60 else slow
            ready = await one.reader.fetch(one.library, read.pid, read.manifest, at[read.pid])
            taken = ready.take(1, True)
            assert taken is not None
            at[read.pid] = taken.last_offset + 1
            await one.quiet()
        read_for_slow = [end - start for key, start, end in one.store.reads if "/1/" in key]
        assert sum(read_for_slow) < 1.5 * (15 * 8192 + JOIN)
        assert sum(end - start for _, start, end in one.store.reads) < 1.2 * (stored(fast) + stored(slow))


async def test_a_reader_of_what_was_thrown_out_is_read_ahead_of_anew(archive: Archive) -> None:
    async with shelf(archive, 256 << 10) as one:
        first = await read_all(one)
        assert await read_all(one, 10) == first[len((await one.read(0, 1))[0]) :]


async def test_a_failed_read_ahead_is_tried_again_by_the_reader(archive: Archive) -> None:
    async with shelf(archive) as one:
        await one.read(0, 1)
        one.store.broken = True
        await asyncio.gather(one.read(10, 1), return_exceptions=True)
        await one.quiet()
        one.store.broken = False
        assert len(await read_all(one)) > SEGMENTS * CHUNKS * 8000
