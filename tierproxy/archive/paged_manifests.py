"""A manifest's entries, wherever they are: the newest in its root, the older ones in pages.

Nobody else has to know: `segments` walks through all of them, `segment_at` finds one, `spilled` moves those away that
make the root too long, `replacing` puts some in the place of others.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

from tierproxy.archive.errors import ContinuityError, FormatError
from tierproxy.archive.manifest import Manifest, SegmentEntry, Sums
from tierproxy.archive.names import PartitionId
from tierproxy.archive.page_files import PageFiles
from tierproxy.archive.pages import Page, PageRef, Paging
from tierproxy.archive.store import NotFound

log = logging.getLogger("tierproxy.archive")

PAGING = Paging()


class PagedManifests(ABC):
    """What a library knows of manifests' pages. Methods that wait may raise StoreError."""

    def __init__(self, paging: Paging = PAGING) -> None:
        self._paging = paging

    @abstractmethod
    def _pages_of(self, pid: PartitionId) -> PageFiles:
        """Those of the archive where the partition lies."""

    async def segments(
        self, manifest: Manifest, from_offset: int = 0, *, since_ms: int | None = None
    ) -> AsyncIterator[SegmentEntry]:
        """The segments that hold `from_offset` or what follows, in order: the way to walk through all of them.

        With `since_ms` only those with a record of that time or later; pages without any are not read.
        FormatError, NotFound if a page is not what it should be.
        """
        first = max(from_offset, manifest.start_offset)
        for page in manifest.pages:
            if page.last_offset < first or (since_ms is not None and page.sums.max_timestamp < since_ms):
                continue
            entries = await self.page(manifest.pid, page)
            for entry in entries.walk(first, since_ms):
                yield entry
        for entry in manifest.segments:
            if entry.last_offset >= first and (since_ms is None or entry.max_timestamp >= since_ms):
                yield entry

    async def segment_at(self, manifest: Manifest, offset: int) -> SegmentEntry | None:
        """The segment that holds `offset`, or else the next; None: all end below. Reads a page at the most.

        FormatError, NotFound if the page is not what it should be.
        """
        offset = max(offset, manifest.start_offset)
        found = manifest.find(offset)
        if not isinstance(found, PageRef):
            return found
        entries = await self.page(manifest.pid, found)
        return entries[entries.place(offset)]

    def cached_segment_at(self, manifest: Manifest, offset: int) -> SegmentEntry | None:
        """segment_at() without waiting: also None if the page that says it is not in memory."""
        offset = max(offset, manifest.start_offset)
        found = manifest.find(offset)
        if not isinstance(found, PageRef):
            return found
        entries = self._pages_of(manifest.pid).cached(manifest.pid, found)
        return entries[entries.place(offset)] if entries is not None else None

    async def page(self, pid: PartitionId, page: PageRef) -> Page:
        """All entries of one page, also those below the start. FormatError, NotFound if it is not what it should be."""
        return await self._pages_of(pid).read(pid, page)

    async def sums(self, manifest: Manifest) -> Sums:
        """What all segments from the start on come to: Manifest.sums, but exact. Reads a page at the most."""
        if not manifest.pages or manifest.pages[0].base_offset >= manifest.start_offset:
            return manifest.sums
        first, *others = manifest.pages
        shown = await asyncio.to_thread(Sums.of, await self._shown(manifest, first))
        return sum((page.sums for page in others), shown + Sums.of(manifest.segments))

    async def replacing(self, manifest: Manifest, old: Sequence[SegmentEntry], new: Sequence[SegmentEntry]) -> Manifest:
        """The next manifest, with `new` in the place of `old`, some neighbouring entries, wherever those are.

        Pages that change are written anew, which is garbage unless the manifest is then saved. Offsets that `new`
        leaves out are the caller's to account for: start_offset, end_offset, epochs and gaps stay as they are.
        ContinuityError if `old` is not there as it is given, or `new` does not fit between its neighbours.
        """
        if not old:
            raise ValueError("nothing is to be replaced")
        first, last = old[0].base_offset, old[-1].last_offset
        pages = manifest.pages
        touched = [at for at, page in enumerate(pages) if page.last_offset >= first and page.base_offset <= last]
        start, stop = (touched[0], touched[-1] + 1) if touched else (len(pages), len(pages))
        paged = [entry for page in pages[start:stop] for entry in await self._shown(manifest, page)]
        entries = [*paged, *manifest.segments]
        at = next((at for at, entry in enumerate(entries) if entry.base_offset == first), len(entries))
        after = at + len(old)
        if entries[at:after] != list(old):
            raise ContinuityError(f"{manifest.pid}: the segments to be replaced are not in the manifest any more")
        end = entries[at - 1].last_offset if at else pages[start - 1].last_offset if start else -1
        for entry in (*new, *entries[after : after + 1]):
            if not end < entry.base_offset <= entry.last_offset:
                raise ContinuityError(f"{manifest.pid}: {entry.key_name} does not fit where it is to be put")
            end = entry.last_offset
        generation = manifest.generation + 1
        if not touched:
            return replace(manifest, segments=(*entries[:at], *new, *entries[after:]), generation=generation)
        rewritten = await self._write_pages(manifest, start, stop, [*paged[:at], *new, *paged[after:]])
        left = tuple(entries[max(after, len(paged)) :])
        return replace(manifest, pages=rewritten, segments=left, generation=generation)

    async def unfolded(self, manifest: Manifest, offset: int) -> Manifest:
        """The same with the segment before `offset`, and all that follow, in its root. For rare changes of a tail."""
        pages = manifest.pages
        below = sum(page.last_offset < offset for page in pages)
        following: list[PageRef | SegmentEntry] = [*pages[below:], *manifest.segments]
        if not following or following[0].base_offset >= offset:
            below -= 1  # the one before is in an older page
        stay = pages[: max(below, 0)]
        entries = [entry for page in manifest.pages[len(stay) :] for entry in await self._shown(manifest, page)]
        return replace(manifest, pages=stay, segments=(*entries, *manifest.segments))

    async def merging(self, manifest: Manifest, run: Sequence[SegmentEntry], merged: SegmentEntry) -> Manifest:
        """The next manifest, with one segment in the place of neighbours that hold the same together.

        ContinuityError if they are not there any more, or `merged` holds something else.
        """
        if _contents([merged]) != _contents(run):
            raise ContinuityError(f"{manifest.pid}: {merged.key_name} does not hold what it was merged from")
        return await self.replacing(manifest, run, [merged])

    async def rebuilding(self, manifest: Manifest, page: PageRef, entries: Sequence[SegmentEntry]) -> Manifest:
        """The next manifest, with `entries` in the place of a page that can't be read; see replacing()."""
        at = manifest.pages.index(page)
        pages = await self._write_pages(manifest, at, at + 1, entries)
        return replace(manifest, pages=pages, generation=manifest.generation + 1)

    async def spilled(self, manifest: Manifest) -> Manifest:
        """With the older ones of the root's entries in pages, if there are too many."""
        if len(manifest.segments) <= self._paging.root_most:
            return manifest
        keep = self._paging.root_keep
        moving, kept = manifest.segments[:-keep], manifest.segments[-keep:]
        end = len(manifest.pages)
        start, entries = end, list(moving)
        if manifest.pages and manifest.pages[-1].sums.segments < self._paging.page_most:
            try:
                entries[:0] = await self._shown(manifest, manifest.pages[-1])
                start = end - 1
            except (FormatError, NotFound) as error:
                log.error("%s: a page of its manifest is damaged, a new one is begun: %s", manifest.pid, error)
        return replace(manifest, pages=await self._write_pages(manifest, start, end, entries), segments=kept)

    async def _shown(self, manifest: Manifest, page: PageRef) -> Sequence[SegmentEntry]:
        """A page's entries from the start on."""
        entries = await self.page(manifest.pid, page)
        return await asyncio.to_thread(list, entries.walk(manifest.start_offset))

    async def _write_pages(
        self, manifest: Manifest, start: int, stop: int, entries: Sequence[SegmentEntry]
    ) -> tuple[PageRef, ...]:
        """The manifest's pages, with new ones of `entries` in the places [start, stop).

        The page before is taken in if both together fill no more than half a page, so that what shrinks does not
        leave many small ones.
        """
        most = self._paging.page_most
        if start and entries and stop - start and manifest.pages[start - 1].sums.segments + len(entries) <= most // 2:
            with suppress(FormatError, NotFound):  # what is damaged stays for itself
                entries = [*await self._shown(manifest, manifest.pages[start - 1]), *entries]
                start -= 1
        parts = [entries[at : at + most] for at in range(0, len(entries), most)]
        written = [await self._pages_of(manifest.pid).write(manifest.pid, part) for part in parts]
        return (*manifest.pages[:start], *written, *manifest.pages[stop:])


def _contents(run: Sequence[SegmentEntry]) -> tuple[object, ...]:
    """What must be the same before and after merging."""
    sums = Sums.of(run)
    counts = sums.plain_size, sums.records, sums.min_timestamp, sums.max_timestamp, sums.created_ms
    return run[0].base_offset, run[-1].last_offset, *counts
