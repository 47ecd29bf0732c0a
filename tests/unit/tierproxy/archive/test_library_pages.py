"""A manifest whose older entries are in pages is the same, to everybody who asks the library, as one without."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tierproxy.archive.memory import MemoryStore
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Gap, Manifest, PageRef, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.pages import Paging
from tierproxy.archive.retention import trim_point

PID = PartitionId("flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 3)
EMPTY = Manifest.empty("prod", "5L6g3nShT-eMCtK--X86sw", PID, 0)
FOLDER = "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/3/"
SMALL = Paging(root_most=4, root_keep=2, page_most=6)

T = TypeVar("T")


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
@settings(deadline=None)
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
