import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.tierproxy.cli.archives import TIME, Archive, batch
from tests.unit.tierproxy.cold.shelf import BATCHES, Shelf, in_pages, three_segments, with_aborted_transactions
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.store import Unavailable
from tierproxy.routing.offsets import FoundRecord


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return three_segments(tmp_path)


@pytest.fixture
def paged(tmp_path: Path) -> Archive:
    return in_pages(tmp_path)


@pytest.mark.parametrize(
    ("offset", "number"), [(0, 0), (5, 0), (9, 0), (10, 1), (99, 9), (100, 10), (199, 19), (299, 29)]
)
async def test_the_first_batch_holds_the_offset(archive: Archive, offset: int, number: int) -> None:
    async with Shelf(archive) as shelf:
        records, last = await shelf.read(offset, limit=1)
        assert records == BATCHES[number]
        assert last == number * 10 + 9


async def test_a_reader_gets_every_batch_once_and_in_order_across_segments(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        read, offset = b"", 0
        while offset < archive.manifest.end_offset:
            records, last = await shelf.read(offset, limit=1500)
            read += records
            offset = last + 1
        assert read == b"".join(BATCHES)


async def test_limits_are_kept_in_whole_batches(tmp_path: Path) -> None:
    archive = await asyncio.to_thread(lambda: Archive(tmp_path).add(*BATCHES[:10], chunk_bytes=1 << 20).save())
    sizes = [len(one) for one in BATCHES]
    async with Shelf(archive) as shelf:
        assert (await shelf.read(20, sum(sizes[2:5])))[0] == b"".join(BATCHES[2:5])
        assert (await shelf.read(20, sum(sizes[2:5]) - 1))[0] == b"".join(BATCHES[2:4])
        assert (await shelf.read(20, sizes[2] - 1))[0] == BATCHES[2]
        assert await shelf.read(20, sizes[2] - 1, at_least_one=False) == (b"", -1)


async def test_a_gap_is_read_across(tmp_path: Path) -> None:
    archive = await asyncio.to_thread(lambda: Archive(tmp_path).add(BATCHES[0]).gap(10, 50).add(BATCHES[5]).save())
    async with Shelf(archive) as shelf:
        assert await shelf.read(10) == (BATCHES[5], 59)
        assert await shelf.read(49) == (BATCHES[5], 59)


@pytest.mark.parametrize(
    ("offset", "limit", "aborted"),
    [
        (0, 1, []),  # ends before the transaction begins
        (10, 1, [(7, 10)]),
        (20, 1, [(7, 10)]),  # its marker is still to come
        (30, 1, [(7, 10)]),
        (31, 1, []),  # behind the marker: to name it would drop what the producer wrote later
        (40, 1, [(7, 40)]),  # its marker is in the next segment
        (50, 1, [(7, 40)]),
        (61, 1, []),
    ],
)
async def test_aborted_transactions_are_those_a_broker_would_list(
    tmp_path: Path, offset: int, limit: int, aborted: list[tuple[int, int]]
) -> None:
    archive = await asyncio.to_thread(with_aborted_transactions, tmp_path)
    async with Shelf(archive) as shelf:
        ready = await shelf.reader.fetch(shelf.library, archive.pid, archive.manifest, offset)
        taken = ready.take(limit, True)
        assert taken is not None
        assert taken.aborted == aborted


async def test_aborted_transactions_of_all_segments_in_an_answer_are_named_once(tmp_path: Path) -> None:
    archive = await asyncio.to_thread(with_aborted_transactions, tmp_path)
    async with Shelf(archive) as shelf:
        for offset in range(60, -1, -10):  # everything into memory, so that one answer spans chunks of both segments
            await shelf.read(offset)
        ready = shelf.reader.ready(shelf.library, archive.pid, archive.manifest, 40)
        assert ready is not None
        taken = ready.take(1 << 20, True)
        assert taken is not None
        assert taken.last_offset >= 59
        assert taken.aborted == [(7, 40)]


# -- how often the store is asked -------------------------------------------------------------------------------------


async def test_what_is_in_memory_is_not_read_again(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        await shelf.read(50, 1)
        reads = len(shelf.store.reads)
        assert reads == 2, "the index and one chunk"
        await shelf.read(55, 1)
        assert shelf.reader.ready(shelf.library, archive.pid, archive.manifest, 52) is not None
        assert len(shelf.store.reads) == reads


async def test_readers_of_one_chunk_share_one_read(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        with shelf.store.closed():
            waiting = [asyncio.ensure_future(shelf.read(50, 1)) for _ in range(10)]
            while not shelf.store.reads:
                await asyncio.sleep(0)
        assert {(await each)[1] for each in waiting} == {59}
        assert len(shelf.store.reads) == 2


async def test_a_sequential_reader_is_read_ahead_of_across_the_border_of_segments(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        for offset in range(0, 300, 10):
            await shelf.read(offset, 1)
            await shelf.quiet()
            if offset == 90:
                assert shelf.reader.ready(shelf.library, archive.pid, archive.manifest, 100) is not None
        assert len(shelf.store.reads) <= 15, "of 30 chunks and 3 indexes; neighbouring chunks are read together"


async def test_who_jumps_about_is_not_read_ahead_of(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        for offset in (250, 30, 170):
            await shelf.read(offset, 1)
            await shelf.quiet()
        assert len(shelf.store.reads) == 6, "an index and a chunk each"


async def test_a_failed_read_is_told_and_not_kept(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        shelf.store.broken = True
        with pytest.raises(Unavailable):
            await shelf.read(50)
        shelf.store.broken = False
        assert (await shelf.read(50, 1))[1] == 59


async def test_a_read_that_nobody_waits_for_any_more_is_kept(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        await shelf.read(0, 1)  # the index
        with shelf.store.closed():
            impatient = asyncio.ensure_future(shelf.read(50, 1))
            while len(shelf.store.reads) < 3:
                await asyncio.sleep(0)
            impatient.cancel()
        while (ready := shelf.reader.ready(shelf.library, archive.pid, archive.manifest, 50)) is None:
            await asyncio.sleep(0)
        assert ready.take(1, True) is not None


async def test_memory_stays_within_its_bound(archive: Archive) -> None:
    async with Shelf(archive, memory=16_000) as shelf:
        for offset in range(0, 300, 10):
            await shelf.read(offset, 1)
            held = shelf.chunks._stored.size + shelf.chunks._plain.size + shelf.chunks._indexes.size
            assert held <= 16_000


async def test_small_chunks_keep_no_more_memory_than_is_counted(archive: Archive) -> None:
    async with Shelf(archive, memory=1 << 20) as shelf:
        for offset in range(290, -1, -10):  # who jumps about
            await shelf.read(offset, 1)
        kept = [memoryview(chunk.data.obj) for chunk in shelf.chunks._plain._entries.values()]
        assert len(kept) > 10
        assert sum(map(len, kept)) <= shelf.chunks._plain.size <= shelf.chunks.plain_capacity


# -- pages of the manifest ------------------------------------------------------------------------------------------


async def test_a_reader_goes_across_the_borders_of_pages(paged: Archive) -> None:
    assert [page.sums.segments for page in paged.manifest.pages] == [5, 5, 5, 5, 5, 3]
    async with Shelf(paged) as shelf:
        read, offset = b"", 0
        while offset < paged.manifest.end_offset:
            records, last = await shelf.read(offset, limit=400)
            read += records
            offset = last + 1
            await shelf.quiet()
        assert read == b"".join(BATCHES)
        pages = [key for key, _, end in shelf.store.reads if not end]
        assert len(pages) == len(set(pages)) == 6


async def test_a_reader_that_has_been_read_ahead_of_needs_not_wait_at_a_page_s_border(paged: Archive) -> None:
    async with Shelf(paged) as shelf:
        for offset in range(0, 50, 10):
            await shelf.read(offset, 1)
            await shelf.quiet()
        ready = shelf.reader.ready(shelf.library, paged.pid, paged.manifest, 50)
        assert ready is not None
        assert ready.take(1, True) is not None


async def test_a_cold_read_costs_a_page_an_index_and_a_chunk(paged: Archive) -> None:
    async with Shelf(paged) as shelf:
        assert shelf.reader.ready(shelf.library, paged.pid, paged.manifest, 123) is None
        assert shelf.store.reads == [], "to look costs nothing"
        assert await shelf.read(123, 1) == (BATCHES[12], 129)
        assert len(shelf.store.reads) == 3
        assert await shelf.read(100, 1) == (BATCHES[10], 109)
        assert len(shelf.store.reads) == 5, "the page was there"


async def test_a_page_that_nobody_waits_for_any_more_is_kept(paged: Archive) -> None:
    async with Shelf(paged) as shelf:
        with shelf.store.closed():
            impatient = asyncio.ensure_future(shelf.read(50, 1))
            while not shelf.store.reads:
                await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait([impatient])
        while shelf.library.cached_segment_at(paged.manifest, 50) is None:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("since", "offset", "pages"), [(TIME + 123, 123, 1), (TIME + 285, 285, 0), (TIME + 300, None, 0)]
)
async def test_a_time_is_found_by_one_page(paged: Archive, since: int, offset: int | None, pages: int) -> None:
    async with Shelf(paged) as shelf:
        found = await shelf.reader.first_at(shelf.library, paged.pid, paged.manifest, since)
        assert (found.offset if found is not None else None) == offset
        assert sum(not end for _, _, end in shelf.store.reads) == pages


async def test_the_highest_time_is_of_what_the_start_has_left(tmp_path: Path) -> None:
    archive = await asyncio.to_thread(in_pages, tmp_path)
    late = await asyncio.to_thread(_with_a_late_record, archive)
    async with Shelf(archive) as shelf:
        assert await shelf.reader.latest_time(shelf.library, archive.pid, late) == FoundRecord(299, TIME + 299, 2)


def _with_a_late_record(archive: Archive) -> Manifest:
    """As if the second segment held the highest time, and the start had been raised above that segment."""
    old = archive.manifest

    async def change(library: Library) -> Manifest:
        second = (await library.page(archive.pid, old.pages[0]))[1]
        changed = await library.replacing(old, [second], [replace(second, max_timestamp=TIME + 5000)])
        return changed.with_start(30)

    return archive.do(change)


# -- by time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (0, FoundRecord(0, TIME, 0)),
        (TIME, FoundRecord(0, TIME, 0)),
        (TIME + 1, FoundRecord(1, TIME + 1, 0)),
        (TIME + 123, FoundRecord(123, TIME + 123, 1)),
        (TIME + 299, FoundRecord(299, TIME + 299, 2)),
        (TIME + 300, None),
    ],
)
async def test_the_first_record_at_a_time(archive: Archive, timestamp: int, expected: FoundRecord | None) -> None:
    async with Shelf(archive) as shelf:
        assert await shelf.reader.first_at(shelf.library, archive.pid, archive.manifest, timestamp) == expected


async def test_records_below_the_archives_start_are_not_found(archive: Archive) -> None:
    manifest = archive.manifest.with_start(125)
    async with Shelf(archive) as shelf:
        found = await shelf.reader.first_at(shelf.library, archive.pid, manifest, TIME)
        assert found == FoundRecord(125, TIME + 125, 1)


async def test_the_record_with_the_highest_time_is_the_first_of_several(tmp_path: Path) -> None:
    archive = await asyncio.to_thread(lambda: Archive(tmp_path).add(batch(0, [b"a", b"b"]), batch(2, [b"c"])).save())
    async with Shelf(archive) as shelf:
        latest = await shelf.reader.latest_time(shelf.library, archive.pid, archive.manifest)
        assert latest == FoundRecord(2, TIME + 2, 0)


# -- bits that turn over on the way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("index_is_known", [False, True])
async def test_what_comes_damaged_is_read_again(archive: Archive, index_is_known: bool) -> None:
    async with Shelf(archive) as shelf:
        if index_is_known:
            await shelf.read(50, limit=1)
        shelf.store.flips = 1
        assert (await shelf.read(0, limit=1))[0] == BATCHES[0]
        assert shelf.store.flips == 0


async def test_what_always_comes_damaged_is_told_and_not_kept(archive: Archive) -> None:
    async with Shelf(archive) as shelf:
        await shelf.read(50, limit=1)
        shelf.store.flips = 2
        with pytest.raises(FormatError, match="is damaged"):
            await shelf.read(0, limit=1)
        assert (await shelf.read(0, limit=1))[0] == BATCHES[0]
