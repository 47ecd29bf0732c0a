"""A manifest whose older entries are in pages is the same, to everybody who asks the library, as one without."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tierproxy.archive.memory import MemoryStore
from tierproxy.archive.errors import ContinuityError, FormatError
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Gap, Manifest, PageRef, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.pages import Page, Paging
from tierproxy.archive.retention import trim_point
from tierproxy.archive.store import Conflict, NotFound, Store, StoredObject, Unavailable

PID = PartitionId("flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 3)
EMPTY = Manifest.empty("prod", "5L6g3nShT-eMCtK--X86sw", PID, 0)
FOLDER = "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/3/"
SMALL = Paging(root_most=4, root_keep=2, page_most=6)


def entry(base: int, last: int, *, size: int = 10, time: int = -1, tag: str = "t") -> SegmentEntry:
    created = 100 + base
    return SegmentEntry(
        segment_name(base, last, tag), base, last, size + 5, size, 5, last - base + 1, time, time, "0" * 64, created
    )


def row(count: int, manifest: Manifest = EMPTY) -> Manifest:
    """With so many more segments of ten offsets each, all of them in the root."""
    for _ in range(count):
        end = manifest.end_offset
        manifest = manifest.with_segment(entry(end, end + 9, time=end), [])
    return manifest


async def saved(library: Library, manifest: Manifest) -> VersionedManifest:
    found = await library.load(manifest.pid)
    return await library.save(manifest.pid, manifest, found.version if found is not None else None)


async def listed(library: Library, manifest: Manifest, from_offset: int = 0) -> list[SegmentEntry]:
    return [entry async for entry in library.segments(manifest, from_offset)]


# -- the same as without pages ------------------------------------------------------------------------------------

Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["append"] * 6 + ["gap", "hole", "start", "merge", "cut"]),
        st.integers(0, 30),
        st.integers(-1, 200),
    ),
    max_size=60,
)


def grown(plain: Manifest, step: Step) -> tuple[Manifest, tuple[list[SegmentEntry], list[SegmentEntry]] | None]:
    """`plain` after one step; and what was replaced by what, if that is what the step does."""
    kind, size, time = step
    end = plain.end_offset
    match kind:
        case "append":
            return plain.with_segment(entry(end, end + size, size=size + 1, time=time), []), None
        case "gap":
            return plain.with_gap(Gap(end, end + size + 1, 0, "lost")), None
        case "hole":
            added = entry(end + size, end + 2 * size, time=time)
            return plain.with_segment(added, [], fetched_at=end), None
        case "start":
            start = plain.start_offset
            return plain.with_start(start + (end + 1 - start) * size // 30), None
    if len(plain.segments) < 3:
        return plain, None
    first = (len(plain.segments) - 1) * size // 31
    old = list(plain.segments[first : first + 1 + max(0, time) % 9])
    if kind == "cut" and old[-1] == plain.segments[-1]:
        old.pop()  # where the archive ends is not changed by it
    new = [] if kind == "cut" else [entry(old[0].base_offset, old[-1].last_offset, time=time, tag="m")]
    if not old:
        return plain, None
    segments = (*plain.segments[:first], *new, *plain.segments[first + len(old) :])
    return replace(plain, segments=segments, generation=plain.generation + 1), (old, new)


@given(steps, st.none() | st.integers(0, 150), st.none() | st.integers(0, 150))
def test_nobody_can_tell_whether_there_are_pages(
    history: list[Step], keep_time: int | None, keep_bytes: int | None
) -> None:
    async def play() -> None:
        store = MemoryStore()
        library = Library(store, "prod", paging=SMALL)
        plain = EMPTY
        paged = await library.save(PID, plain, None)
        for step in history:
            before = plain
            plain, replaced = grown(plain, step)
            if replaced is not None:
                following = await library.replacing(paged.manifest, *replaced)
            elif plain is before:
                continue
            else:
                following, _ = grown(paged.manifest, step)
            paged = await library.save(PID, following, paged.version)
            await same(library, paged.manifest, plain)
        fresh = Library(store, "prod", paging=SMALL)
        found = await fresh.load(PID)
        assert found == paged
        await same(fresh, paged.manifest, plain)
        for now in range(0, 600, 50):
            for log_start in (-1, plain.end_offset // 2):
                limits = keep_time, keep_bytes, now, log_start
                assert await trimmed(fresh, paged.manifest, *limits) == trim_point(plain, *limits)

    asyncio.run(play())


async def same(library: Library, paged: Manifest, plain: Manifest) -> None:
    """Every question to the library has the same answer for both."""
    assert len(paged.segments) <= SMALL.root_most
    assert all(page.sums.segments <= SMALL.page_most for page in paged.pages)
    assert Manifest.from_json(paged.to_json()) == paged
    assert replace(paged, pages=(), segments=()) == replace(plain, segments=())
    assert await listed(library, paged) == list(plain.segments)
    assert await library.sums(paged) == plain.sums
    assert paged.last_archived == plain.last_archived or not plain.segments
    borders = {entry.base_offset for entry in plain.segments} | {entry.last_offset for entry in plain.segments}
    for offset in {0, *borders, *(border + 1 for border in borders)}:
        expected = plain.find(max(offset, plain.start_offset))
        assert await library.segment_at(paged, offset) == expected
        assert library.cached_segment_at(paged, offset) == expected
    for time in (-1, 0, 50, 199, 500):
        found = [each async for each in library.segments(paged, since_ms=time)]
        assert found == [each for each in plain.segments if each.max_timestamp >= time]


async def trimmed(library: Library, manifest: Manifest, *limits: int | None) -> int:
    pages: dict[PageRef, Sequence[SegmentEntry]] = {}
    keep_time, keep_bytes, now, log_start = limits
    assert now is not None
    assert log_start is not None
    while isinstance(point := trim_point(manifest, keep_time, keep_bytes, now, log_start, pages), PageRef):
        assert point not in pages, "asked for twice"
        pages[point] = await library.page(PID, point)
    return point


# -- how pages come to be -----------------------------------------------------------------------------------------


def spans(manifest: Manifest) -> tuple[list[tuple[int, int, int]], int]:
    """Offsets and number of segments of each page, and the number in the root."""
    pages = [(page.base_offset, page.last_offset, page.sums.segments) for page in manifest.pages]
    return pages, len(manifest.segments)


async def test_the_oldest_entries_move_to_pages_when_the_root_gets_long(store: Store) -> None:
    library = Library(store, "prod", paging=SMALL)
    found = await library.save(PID, row(4), None)
    assert spans(found.manifest) == ([], 4)
    found = await library.save(PID, row(1, found.manifest), found.version)
    assert spans(found.manifest) == ([(0, 29, 3)], 2)
    assert {each.key async for each in store.list(FOLDER)} == {
        FOLDER + "manifest.json",
        FOLDER + found.manifest.pages[0].name,
    }
    found = await library.save(PID, row(3, found.manifest), found.version)
    assert spans(found.manifest) == ([(0, 59, 6)], 2), "a page that is not full is filled up"
    found = await library.save(PID, row(3, found.manifest), found.version)
    assert spans(found.manifest) == ([(0, 59, 6), (60, 89, 3)], 2), "then another is begun"
    fresh = Library(store, "prod")
    assert await fresh.load(PID) == found
    assert await listed(fresh, found.manifest) == list(row(11).segments)


async def test_pages_never_change(store: Store) -> None:
    library = Library(store, "prod", paging=SMALL)
    first = await saved(library, row(5))
    (page,) = first.manifest.pages
    before = (await store.get(FOLDER + page.name)).data
    second = await saved(library, row(3, first.manifest))
    assert second.manifest.pages != first.manifest.pages
    assert (await store.get(FOLDER + page.name)).data == before
    assert await listed(Library(store, "prod"), first.manifest) == list(row(5).segments), "for those who still have it"


async def test_a_manifest_without_pages_may_be_of_any_length() -> None:
    """As version 1 wrote them."""
    store = MemoryStore()
    long = row(200)
    old = json.loads(long.to_json()) | {"version": 1}
    del old["checksum"]
    await store.put_if(FOLDER + "manifest.json", json.dumps(old).encode(), None)
    library = Library(store, "prod", paging=SMALL)
    found = await library.load(PID)
    assert found is not None
    assert found.manifest == long
    paged = await library.save(PID, long.with_start(5), found.version)
    assert spans(paged.manifest)[1] == 2
    assert [page.sums.segments for page in paged.manifest.pages] == [6] * 33
    assert await listed(library, paged.manifest) == list(long.segments)


async def test_the_page_is_durable_before_the_root_names_it() -> None:
    store = MemoryStore()
    found = await saved(Library(store, "prod", paging=SMALL), row(5))
    page = FOLDER + found.manifest.pages[0].name
    assert store.writes == [page, FOLDER + "manifest.json"]
    root = FOLDER + "manifest.json"
    assert store.reads == [root, page, root], "to see whether there is one; and both were read back"


class Failing(MemoryStore):
    """Fails at what is called `broken`."""

    broken = ""

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        assert isinstance(body, bytes)
        if self.broken == "put":
            raise Unavailable("down")
        await super().put(key, body[:-1] if self.broken == "lie" else body)
        if self.broken == "lose":
            await self.delete(key)

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        if self.broken == "put_if":
            raise Unavailable("down")
        if self.broken == "conflict":
            raise Conflict("somebody was quicker")
        return await super().put_if(key, data, version)


@pytest.mark.parametrize("broken", ["put", "lie", "lose", "put_if", "conflict"])
async def test_what_goes_wrong_in_between_leaves_garbage_only(broken: str) -> None:
    store = Failing()
    library = Library(store, "prod", paging=SMALL)
    before = await saved(library, row(4))
    store.broken = broken
    with pytest.raises((Unavailable, Conflict)):
        await library.save(PID, row(1, before.manifest), before.version)
    assert await Library(store, "prod").load(PID) == before
    store.broken = ""
    after = await library.save(PID, row(1, before.manifest), before.version)
    assert await listed(Library(store, "prod"), after.manifest) == list(row(5).segments)
    assert len({key for key in store.objects if "/manifest/" in key}) == (1 if broken in ("put", "lose") else 2)


# -- damage -------------------------------------------------------------------------------------------------------


async def damage(store: Store, page: PageRef, data: bytes | None) -> None:
    if data is None:
        await store.delete(FOLDER + page.name)
    else:
        await store.put(FOLDER + page.name, data)


@pytest.mark.parametrize(("data", "error"), [(None, NotFound), (b"", FormatError), (b"x" * 500, FormatError)])
async def test_a_damaged_page_is_told_and_hurts_nothing_else(
    store: Store, data: bytes | None, error: type[Exception]
) -> None:
    manifest = (await saved(Library(store, "prod", paging=SMALL), row(11))).manifest
    first, second = manifest.pages
    await damage(store, first, data)
    library = Library(store, "prod", paging=SMALL)
    with pytest.raises(error, match=first.name):
        await library.segment_at(manifest, 0)
    with pytest.raises(error, match=first.name):
        await listed(library, manifest)
    assert library.cached_segment_at(manifest, 0) is None
    assert [each.base_offset for each in await listed(library, manifest, second.base_offset)] == [60, 70, 80, 90, 100]
    found = await library.segment_at(manifest, 65)
    assert found is not None
    assert found.base_offset == 60
    assert manifest.sums == row(11).sums, "the rows say it"


async def test_archiving_goes_on_when_the_newest_page_is_damaged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    found = await saved(Library(store, "prod", paging=SMALL), row(5))
    await damage(store, found.manifest.pages[0], b"x")
    library = Library(store, "prod", paging=SMALL)
    after = await library.save(PID, row(3, found.manifest), found.version)
    assert spans(after.manifest) == ([(0, 29, 3), (30, 59, 3)], 2)
    assert after.manifest.pages[0] == found.manifest.pages[0], "it may be repaired"
    assert found.manifest.pages[0].name in caplog.text
    for _ in range(6):
        after = await library.save(PID, row(1, after.manifest), after.version)
    assert after.manifest.pages[0] == found.manifest.pages[0]
    assert spans(after.manifest)[0][1:] == [(30, 89, 6), (90, 119, 3)]


async def test_a_small_page_that_is_damaged_is_not_taken_into_the_next(store: Store) -> None:
    paging = Paging(root_most=1, root_keep=1, page_most=8)
    found = await saved(Library(store, "prod", paging=paging), row(2))
    await damage(store, found.manifest.pages[0], None)
    library = Library(store, "prod", paging=paging)
    for _ in range(3):
        found = await library.save(PID, row(1, found.manifest), found.version)
    assert spans(found.manifest) == ([(0, 9, 1), (10, 39, 3)], 1)


# -- in memory ----------------------------------------------------------------------------------------------------


class Slow(MemoryStore):
    """Answers when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    async def get(self, key: str) -> StoredObject:
        found = await super().get(key)
        await self.open.wait()
        return found


@pytest.fixture
async def slow() -> tuple[Slow, Manifest]:
    """Two pages of six segments and one of three, and nothing of it in memory."""
    store = Slow()
    found = await saved(Library(store, "prod", paging=SMALL), row(17))
    assert spans(found.manifest) == ([(0, 59, 6), (60, 119, 6), (120, 149, 3)], 2)
    store.reads.clear()
    return store, found.manifest


async def test_a_page_in_memory_is_not_read_again(slow: tuple[Slow, Manifest]) -> None:
    store, manifest = slow
    library = Library(store, "prod")
    assert library.cached_segment_at(manifest, 15) is None
    assert library.cached_segment_at(manifest, 155) == manifest.segments[0], "the root is in memory anyway"
    found = await library.segment_at(manifest, 15)
    assert found == library.cached_segment_at(manifest, 15) == row(2).segments[1]
    await library.segment_at(manifest, 55)
    assert store.reads == [FOLDER + manifest.pages[0].name]


async def test_readers_of_one_page_share_one_read_which_goes_on_when_they_leave(slow: tuple[Slow, Manifest]) -> None:
    store, manifest = slow
    library = Library(store, "prod")
    store.open.clear()
    asking = [asyncio.ensure_future(library.segment_at(manifest, offset)) for offset in range(0, 60, 5)]
    while not store.reads:
        await asyncio.sleep(0)
    for each in asking:
        each.cancel()
    await asyncio.wait(asking)
    store.open.set()
    while library.cached_segment_at(manifest, 0) is None:
        await asyncio.sleep(0)
    assert store.reads == [FOLDER + manifest.pages[0].name]


async def test_pages_in_memory_are_bounded(slow: tuple[Slow, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    store, manifest = slow
    monkeypatch.setattr("tierproxy.archive.page_files.KEPT_BYTES", 2 * (await page_memory(slow)))
    library = Library(store, "prod")
    for offset in (0, 60, 120):
        await library.segment_at(manifest, offset)
    kept = [library.cached_segment_at(manifest, offset) is not None for offset in (0, 60, 120)]
    assert kept == [False, True, True], "the one that was not used the longest went"


async def page_memory(slow: tuple[Slow, Manifest]) -> int:
    store, manifest = slow
    return (await Library(store, "prod").page(PID, manifest.pages[0])).memory


async def test_pages_are_not_packed_and_unpacked_on_the_event_loop(
    slow: tuple[Slow, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = slow
    loop = threading.get_ident()
    threads: list[int] = []
    check = Page._check

    def noting(page: Page, what: str) -> None:
        threads.append(threading.get_ident())
        check(page, what)

    monkeypatch.setattr(Page, "_check", noting)
    await Library(store, "prod").segment_at(manifest, 0)
    assert threads
    assert loop not in threads


# -- replacing some entries by others -----------------------------------------------------------------------------


def merged(entries: Sequence[SegmentEntry]) -> SegmentEntry:
    return entry(entries[0].base_offset, entries[-1].last_offset, tag="m")


@pytest.mark.parametrize(
    ("first", "stop", "pages", "in_root"),
    [
        (0, 6, [(0, 0)], 2),
        (0, 2, [(0, 1)], 2),
        (4, 8, [(0, 1)], 2),
        (10, 12, [(1, 2)], 2),
        (11, 16, [(1, 3)], 1),
        (14, 16, [(2, 3)], 1),
        (15, 17, [], 1),
        (15, 16, [], 2),
        (0, 17, [(0, 3)], 0),
    ],
)
async def test_entries_are_replaced_wherever_they_are(
    slow: tuple[Slow, Manifest], first: int, stop: int, pages: list[tuple[int, int]], in_root: int
) -> None:
    store, manifest = slow
    library = Library(store, "prod", paging=SMALL)
    everything = list(row(17).segments)
    old = everything[first:stop]
    after = await library.replacing(manifest, old, [merged(old)])
    assert await listed(library, after) == [*everything[:first], merged(old), *everything[stop:]]
    assert after.generation == manifest.generation + 1
    assert len(after.segments) == in_root
    assert await listed(Library(store, "prod"), manifest) == everything, "the old pages are as they were"
    assert Manifest.from_json(after.to_json()) == after
    for from_page, to_page in pages:
        untouched = [*manifest.pages[:from_page], *manifest.pages[to_page + 1 :]]
        assert set(untouched) <= set(after.pages) or len(after.pages) < len(manifest.pages)
    if not pages:
        assert after.pages == manifest.pages


async def test_what_shrinks_does_not_leave_many_small_pages() -> None:
    library = Library(MemoryStore(), "prod", paging=SMALL)
    manifest = (await saved(library, row(50))).manifest
    assert len(manifest.pages) == 8
    for first in range(0, 48, 6):
        old = row(50).segments[first : first + 6]
        manifest = await library.replacing(manifest, old, [merged(old)])
    assert [page.sums.segments for page in manifest.pages] == [3, 3, 2]


@pytest.mark.parametrize(
    "old",
    [
        [entry(0, 9, time=0), entry(20, 29, time=20)],  # no neighbours
        [entry(0, 9, time=0, tag="other")],
        [entry(170, 179)],
        [entry(160, 169, time=160), entry(170, 179, time=170)],
    ],
)
async def test_what_is_not_there_any_more_is_not_replaced(slow: tuple[Slow, Manifest], old: list[SegmentEntry]) -> None:
    with pytest.raises(ContinuityError, match="not in the manifest any more"):
        await Library(slow[0], "prod").replacing(slow[1], old, [])


@pytest.mark.parametrize(
    "new",
    [
        [entry(59, 69)],
        [entry(60, 70)],
        [entry(60, 65), entry(65, 69)],
        [entry(65, 69), entry(60, 64)],
    ],
)
async def test_what_overlaps_its_neighbours_is_refused(slow: tuple[Slow, Manifest], new: list[SegmentEntry]) -> None:
    with pytest.raises(ContinuityError, match="does not fit"):
        await Library(slow[0], "prod").replacing(slow[1], row(7).segments[6:], new)


async def test_a_tail_that_reaches_into_pages_can_be_cut(slow: tuple[Slow, Manifest]) -> None:
    store, manifest = slow
    library = Library(store, "prod", paging=SMALL)
    cut = replace(await library.replacing(manifest, row(17).segments[8:], []), end_offset=80)
    assert spans(cut) == ([(0, 59, 6), (60, 79, 2)], 0)
    assert (cut.last_archived, cut.sums) == (79, row(8).sums)
    after = await saved(library, row(9, cut))
    assert await listed(library, after.manifest) == list(row(17).segments)
