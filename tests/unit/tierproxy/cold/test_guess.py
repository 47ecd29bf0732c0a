import asyncio
import random
from pathlib import Path

import pytest

from tests.unit.tierproxy.cli.archives import Archive, batch
from tests.unit.tierproxy.cold.shelf import Shelf
from tierproxy.cold import guess
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.guess import Guess

CHUNKS = 60  # of 8 KiB, which don't get smaller


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(guess, "CHUNK", 8 << 10)
    monkeypatch.setattr(guess, "MARGIN", 12 << 10)
    chance = random.Random(1)
    return Archive(tmp_path).add(*(batch(n * 10, [chance.randbytes(800)] * 10) for n in range(CHUNKS))).save()


def uneven(directory: Path) -> Archive:
    """Most records are in the first of its chunks, most bytes in the others."""
    chance = random.Random(1)
    batches = [batch(0, [b"x"] * 3000), *(batch(3000 + n, [chance.randbytes(8000)]) for n in range(CHUNKS))]
    return Archive(directory).add(*batches).save()


async def test_who_begins_anywhere_waits_for_one_trip(archive: Archive) -> None:
    for offset in (1, 5, 123, 300, 420, 595, 599):
        async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
            with shelf.store.closed():
                reading = asyncio.ensure_future(shelf.read(offset, 1))
                while len(shelf.store.reads) < 2:
                    await asyncio.sleep(0)
            assert (await reading)[1] == offset // 10 * 10 + 9
            assert len(shelf.store.reads) == 2, "the index, and where the chunk was guessed to be"


async def test_who_begins_at_the_beginning_of_a_small_segment_reads_it_whole(archive: Archive) -> None:
    half = archive.manifest.segments[0].stored_size // 2 + 1
    for offset, reads in ((0, 1), (300, 2)):
        async with Shelf(archive, budget=ByteBudget(1 << 20), small_segment=half) as shelf:
            await shelf.read(offset, 1)
            await shelf.quiet()
            assert len(shelf.store.reads) == reads
            assert shelf.chunks.is_near(shelf.store.reads[0][0], CHUNKS - 1) is (reads == 1)


async def test_what_was_guessed_is_there_for_who_comes_again(archive: Archive) -> None:
    async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
        with shelf.store.closed():
            impatient = asyncio.ensure_future(shelf.read(300, 1))
            while len(shelf.store.reads) < 2:
                await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait([impatient])
        await shelf.quiet()
        assert (await shelf.read(300, 1))[1] == 309
        assert len(shelf.store.reads) == 2


async def test_all_who_wait_for_the_index_find_what_was_guessed(archive: Archive) -> None:
    async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
        waiting = [asyncio.ensure_future(shelf.read(offset, 1)) for offset in (300, 301, 305, 309)]
        assert {(await each)[1] for each in waiting} == {309}
        assert len(shelf.store.reads) == 2


async def test_of_a_guess_no_more_is_kept_than_is_counted(archive: Archive) -> None:
    async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
        await shelf.read(300, 1)
        kept = [memoryview(extent.data.obj) for extent in shelf.chunks._stored._extents._entries.values()]
        assert sum(map(len, kept)) == shelf.chunks._stored.size


async def test_a_wrong_guess_costs_a_read_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guess, "MARGIN", 12 << 10)
    monkeypatch.setattr(guess, "CHUNK", 8 << 10)
    archive = await asyncio.to_thread(uneven, tmp_path)
    async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
        assert (await shelf.read(2900, 1))[1] == 2999
        assert len(shelf.store.reads) == 3


async def test_nothing_is_guessed_where_the_index_is_known(archive: Archive) -> None:
    async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
        await shelf.read(300, 1)
        reads = len(shelf.store.reads)
        await shelf.read(500, 1)
        assert len(shelf.store.reads) == reads + 1


async def test_a_guess_that_cannot_be_read_is_no_trouble(archive: Archive) -> None:
    async with Shelf(archive, budget=ByteBudget(1 << 20)) as shelf:
        with shelf.store.closed():
            reading = asyncio.ensure_future(shelf.read(300, 1))
            while len(shelf.store.reads) < 2:
                await asyncio.sleep(0)
            shelf.store.broken = True
        await asyncio.gather(reading, return_exceptions=True)
        shelf.store.broken = False
        assert (await shelf.read(300, 1))[1] == 309


async def test_who_begins_and_will_go_on_gets_every_chunk_as_a_whole_by_some_request(archive: Archive) -> None:
    entry = archive.manifest.segments[0]
    async with Shelf(archive) as shelf:
        index = await shelf.library.load_index(archive.pid, entry)
    for most in (0, 1, 64 << 10, 200 << 10, entry.stored_size):
        guesses = Guess.onward(entry, 0, most)
        found = [number for each in guesses for number in each.chunks(index, 0)]
        reached = [number for number, chunk in enumerate(index.chunks) if chunk.position < most]
        assert {0, *reached} <= {*found}
        assert guesses[0] == Guess.of(entry, 0), "the first is as small as for anybody, so that it comes soon"
        sizes = [each.end - each.start for each in guesses]
        assert sizes[1:-1] == sorted(sizes[1:-1])
        assert sum(sizes) <= max(most, sizes[0]) + (len(sizes) + 1) * (20 << 10), "little is read twice"
        assert len(sizes) <= 4


def test_a_guess_stays_within_the_segment(archive: Archive) -> None:
    entry = archive.manifest.segments[0]
    size = entry.stored_size - entry.index_size
    for offset in range(-5, 605):
        found = Guess.of(entry, offset)
        assert 0 <= found.start < found.end <= size
