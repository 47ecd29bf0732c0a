"""`tierproxy archive repair`: make a lost or damaged manifest, or a page of one, anew from the segments alone.

A segment describes itself, so a listing of a partition's folder and the end of each segment are enough to tell what the
manifest must have said (`archive.rebuild` chooses). Every byte of what is chosen is then read, for the manifest holds
its SHA-256. The new manifest is written as any other, by compare-and-swap; a damaged one is kept beside it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tierproxy.archive.errors import FormatError, UnknownVersionError
from tierproxy.archive.library import Library, VersionedManifest, VersionedMoved
from tierproxy.archive.manifest import Gap, Manifest, PageRef, SegmentEntry
from tierproxy.archive.names import (
    PartitionId,
    damaged_name,
    manifest_key,
    parse_page_name,
    parse_segment_name,
    partition_prefix,
)
from tierproxy.archive.pages import Page
from tierproxy.archive.rebuild import CAUSE, Candidate, choose, covered, disowned, rebuilt, uncovered
from tierproxy.archive.segment_index import TRAILER_SIZE, SegmentIndex, SegmentInfo, read_index, read_trailer
from tierproxy.archive.store import Conflict, NotFound, ObjectInfo, Truncated
from tierproxy.cli.verify import Problem, SegmentCheck, read_all
from tierproxy.errors import TierproxyError

TAIL_BYTES = 64 * 1024
"""Read first of each segment: most indexes are no longer."""
MOST_READS = 16
"""Segments whose ends are read at a time."""
UNREAD = "0" * 64
"""Stands for the SHA-256 of what has not been read."""

RETURNED = (
    "What had expired, or users had deleted, or was merged into other segments, may be readable again where its "
    "objects had not been collected yet. Delete it once more if it must not be"
)


@dataclass
class Repair:
    """What is to be done, or was done, about one partition."""

    pid: PartitionId
    problem: str = ""
    """What is wrong; empty: nothing is."""
    hopeless: str = ""
    """Why it can't be repaired."""
    pages: list[PageRef] = field(default_factory=list)
    """The damaged or lost ones, if the manifest itself is as it must be."""
    chosen: list[Candidate] = field(default_factory=list)
    """The segments to name, in the manifest or in those pages."""
    gaps: list[Gap] = field(default_factory=list)
    """Those to record."""
    left_out: list[Problem] = field(default_factory=list)
    unsound: list[Problem] = field(default_factory=list)
    """Segments that are named although something in them is damaged: nobody else has their offsets."""
    kept_as: str | None = None
    """Where the damaged manifest is now."""
    changed: bool = False


class Repairer:
    """Looks into one partition, and repairs it. Methods may raise TierproxyError, and leave things as they were."""

    def __init__(self, library: Library, pid: PartitionId, now_ms: int) -> None:
        self._library = library
        self._pid = pid
        self._now_ms = now_ms
        self._about = SegmentInfo(library.cluster, pid.topic, pid.topic_id, pid.partition)
        self._manifest: Manifest | None = None  # that is to have other pages
        self._version: str | None = None  # of the manifest to be replaced
        self._damaged: bytes | None = None  # that manifest, if it can't be read
        self._cluster_id = ""
        self._candidates: dict[str, Candidate] = {}
        self._sums: dict[str, str] = {}  # SHA-256 by name
        self._unfit: dict[str, str] = {}  # why not, by name
        self.result = Repair(pid)

    async def plan(self) -> Repair:
        """What is wrong, and what would be done about it. Reads the manifest, its pages and, if need be, indexes."""
        result = self.result
        await self._examine()
        if not result.problem or result.hopeless:
            return result
        self._cluster_id = await self._library.owner() or ""
        if not self._cluster_id:
            result.hopeless = "cluster.json is lost, so nobody can tell which Kafka cluster's archive this is"
            return result
        await self._find_candidates()
        result.chosen = self._choose(set())
        if not result.chosen and not result.pages:
            result.hopeless = "there is no readable segment of it to make a manifest of"
            return result
        self._account()
        return result

    async def carry_out(self, progress: Callable[[int], None]) -> Repair:
        """Do what was planned. `progress` is told bytes read."""
        result, library = self.result, self._library
        await self._read_chosen(progress)
        self._account()
        if self._manifest is None:
            await self._keep_damaged()
            chosen = [replace(each, entry=self._entry(each)) for each in result.chosen]
            rewritten = [replace(each, entry=self._entry(each)) for each in self._rewritten()]
            manifest = rebuilt(library.cluster, self._cluster_id, self._pid, chosen, self._now_ms, rewritten)
        else:
            gaps = sorted([*self._manifest.gaps, *result.gaps], key=lambda gap: gap.start)
            manifest = replace(self._manifest, gaps=tuple(gaps))
            for page in result.pages:
                entries = [self._entry(each) for each in result.chosen if _is_in(each.entry, page)]
                manifest = await library.rebuilding(manifest, page, entries)
        try:
            await library.save(self._pid, manifest, self._version)
        except Conflict as error:
            raise TierproxyError(f"{self._pid}: its manifest has changed meanwhile, look again: {error}") from error
        result.changed = True
        return result

    # -- what is wrong ------------------------------------------------------------------------------------------------

    async def _examine(self) -> None:
        result, library = self.result, self._library
        try:
            found = await library.load(self._pid)
        except UnknownVersionError as error:
            result.problem = result.hopeless = str(error)
            return
        except FormatError as error:
            result.problem = f"its manifest is damaged: {error}"
            result.hopeless = await self._elsewhere()
            if result.hopeless:
                return
            try:
                stored = await library.store.get(manifest_key(library.cluster, self._pid))
            except NotFound:  # and another archive says that it was moved here
                result.problem = "its manifest is lost"
            else:
                self._version, self._damaged = stored.version, stored.data
            return
        if found is None:
            result.problem = "its manifest is lost"
            return
        self._manifest, self._version = found.manifest, found.version
        self._unfit = {
            entry.key_name: f"it is quarantined: {each.cause}"
            for each in found.manifest.quarantined
            for entry in each.segments
        }
        for page in found.manifest.pages:
            try:
                await library.page(self._pid, page)
            except UnknownVersionError as error:
                result.problem = result.hopeless = str(error)
            except (FormatError, NotFound) as error:
                result.pages.append(page)
                result.problem = result.problem or f"a page of its manifest is damaged or lost: {error}"

    async def _elsewhere(self) -> str:
        """Why a manifest made anew here would be a second truth, beside one in another archive; empty: it wouldn't."""
        with suppress(FormatError):
            here = await self._library.look(self._pid)
            if isinstance(here, VersionedMoved):
                return f"it lies in archive {here.moved.to!r}, so that is where to repair it"
        for other in self._library.others:
            try:
                found = await other.look(self._pid)
            except FormatError as error:
                return f"nor can anybody read what archive {other.name!r} says of it: {error}"
            if isinstance(found, VersionedManifest):
                return f"its manifest is in archive {other.name!r}, and a move may not have ended"
            if found is not None and found.moved.manifest is not None:
                return f"its manifest is in what archive {other.name!r} handed over, and the move has not ended"
        return ""

    # -- what there is ------------------------------------------------------------------------------------------------

    async def _find_candidates(self) -> None:
        segments: list[ObjectInfo] = []
        pages: list[str] = []
        async for name, found in self._library.objects(self._pid):
            with suppress(FormatError):
                parse_page_name(name)
                pages.append(name)
            with suppress(FormatError):
                base, last, _ = parse_segment_name(name)
                if not self.result.pages or any(_lies_in(base, last, page) for page in self.result.pages):
                    segments.append(found)
        known = await self._read_pages(pages)
        left = iter(segments)

        async def look() -> None:
            for found in left:
                await self._look_at(found, known)

        await asyncio.gather(*(look() for _ in range(MOST_READS)))

    async def _read_pages(self, names: Sequence[str]) -> dict[str, SegmentEntry]:
        """What any page, garbage or not, says of segments: it saves reading those."""
        known: dict[str, SegmentEntry] = {}
        end = -1
        spans = [(*parse_page_name(name)[:2], name) for name in names]
        for _, last, name in sorted(spans, key=lambda span: (span[0], -span[1])):
            if last <= end:
                continue  # another has all of it
            try:
                data = (await self._library.store.get(self._key(name))).data
                about, page = await asyncio.to_thread(Page.read, data, name)
            except (FormatError, NotFound):
                continue
            if about == self._about:
                end = page.last_offset
                known |= {entry.key_name: entry for entry in page}
        return known

    async def _look_at(self, found: ObjectInfo, known: dict[str, SegmentEntry]) -> None:
        """Make a candidate of a segment, if it is one of this partition's."""
        name = found.key.rpartition("/")[2]
        try:
            index, index_size = await self._read_end(found)
        except (FormatError, NotFound, Truncated) as error:
            self._unfit[name] = f"its index can't be read: {error}"
            return
        base, last, _ = parse_segment_name(name)
        if index.about != self._about or (index.base_offset, index.last_offset) != (base, last):
            of = f"{index.about.topic}-{index.about.partition} in {index.about.cluster!r}"
            self._unfit[name] = f"it holds offsets {index.base_offset} to {index.last_offset} of {of}"
            return
        told = known.get(name)
        if told is not None and (told.stored_size, told.index_size) == (found.size, index_size):
            self._sums[name] = told.sha256
        entry = SegmentEntry(
            key_name=name,
            base_offset=base,
            last_offset=last,
            stored_size=found.size,
            plain_size=index.plain_size,
            index_size=index_size,
            records=index.record_count,
            min_timestamp=index.min_timestamp,
            max_timestamp=index.max_timestamp,
            sha256=UNREAD,
            created_ms=told.created_ms if told is not None else found.modified_ms,
        )
        self._candidates[name] = Candidate(entry, index.epochs)

    async def _read_end(self, found: ObjectInfo) -> tuple[SegmentIndex, int]:
        """The index and how many bytes it takes up at the end, trailer included."""
        store = self._library.store
        tail = await store.get_range(found.key, max(0, found.size - TAIL_BYTES), found.size)
        size = read_trailer(tail).size + TRAILER_SIZE
        if size > found.size:
            raise FormatError(f"its index has {size} bytes, the object only {found.size}")
        if size > len(tail):
            tail = await store.get_range(found.key, found.size - size, found.size)
        index = read_index(tail)
        if index.data_size + size != found.size:
            raise FormatError(f"its index begins at {index.data_size}, not at {found.size - size}")
        return index, size

    # -- what to name -------------------------------------------------------------------------------------------------

    def _choose(self, without: set[str]) -> list[Candidate]:
        quarantined = self._unfit.keys() if self._manifest is not None else set[str]()
        candidates = [each for name, each in self._candidates.items() if name not in without | quarantined]
        names = disowned(candidates)
        candidates = [each for each in candidates if each.entry.key_name not in names]
        if not self.result.pages:
            return choose(candidates)
        pages = sorted(self.result.pages, key=lambda page: page.base_offset)
        return [one for page in pages for one in choose(each for each in candidates if _is_in(each.entry, page))]

    async def _read_chosen(self, progress: Callable[[int], None]) -> None:
        """Read what is chosen. A damaged segment is exchanged for others where they have all of its offsets."""
        result = self.result
        unsound: dict[str, str] = {}
        settled = False
        while not settled:
            for each in result.chosen:
                name = each.entry.key_name
                if name not in self._sums and (problem := await self._read(each, progress)):
                    unsound[name] = problem
            settled = True
            for name in [each.entry.key_name for each in result.chosen if each.entry.key_name in unsound]:
                others = self._choose({*self._unfit, name})
                if covered(others) >= covered(result.chosen):
                    self._unfit[name] = f"it is damaged, and others have its offsets: {unsound[name]}"
                    result.chosen, settled = others, False
                    break
        for each in self._rewritten() if self._manifest is None else []:
            if each.entry.key_name not in self._sums:
                await self._read(each, progress)  # damaged or not, it is kept as it is
        named = {each.entry.key_name for each in result.chosen}
        result.unsound = [Problem(name, problem) for name, problem in unsound.items() if name in named]

    async def _read(self, candidate: Candidate, progress: Callable[[int], None]) -> str | None:
        """Read a segment whole for its SHA-256; the first thing that is wrong with it, if any is."""
        entry = candidate.entry
        check = SegmentCheck(entry, await self._library.load_index(self._pid, entry))
        await read_all(self._library.store, self._key(entry.key_name), check, progress)
        self._sums[entry.key_name] = check.sha256
        check.entry = self._entry(candidate)
        check.finish()
        return check.problems[0] if check.problems else None

    def _rewritten(self) -> list[Candidate]:
        """Those that hold a history which was rewritten: they stay, in quarantine."""
        names = disowned(self._candidates.values())
        return [each for name, each in self._candidates.items() if name in names]

    def _account(self) -> None:
        """Say of every offset and every segment what becomes of it."""
        result, chosen = self.result, self.result.chosen
        if self._manifest is None:
            spans = [(chosen[0].entry.base_offset, chosen[-1].entry.last_offset + 1)]
            known: Sequence[Gap] = ()
        else:
            start, known = self._manifest.start_offset, self._manifest.gaps
            spans = [(max(start, page.base_offset), page.last_offset + 1) for page in result.pages]
        missing = [each for span in spans for each in uncovered(chosen, *span, known)]
        result.gaps = [Gap(start, end, self._now_ms, CAUSE) for start, end in missing]
        rewritten = {each.entry.key_name for each in self._rewritten()}
        kept = "its history was rewritten" + (", so it is quarantined" if self._manifest is None else "")
        reasons = {
            name: kept if name in rewritten else "others have its offsets, or more of them"
            for name in self._candidates.keys() - {each.entry.key_name for each in chosen}
        }
        result.left_out = [Problem(name, reason) for name, reason in sorted((reasons | self._unfit).items())]

    # -- small things -------------------------------------------------------------------------------------------------

    async def _keep_damaged(self) -> None:
        if self._damaged is not None:
            name = damaged_name(self._now_ms)
            await self._library.store.put_if(self._key(name), self._damaged, None)
            self.result.kept_as = name

    def _entry(self, candidate: Candidate) -> SegmentEntry:
        return replace(candidate.entry, sha256=self._sums[candidate.entry.key_name])

    def _key(self, name: str) -> str:
        return partition_prefix(self._library.cluster, self._pid) + name


def _lies_in(base: int, last: int, page: PageRef) -> bool:
    return page.base_offset <= base and last <= page.last_offset


def _is_in(entry: SegmentEntry, page: PageRef) -> bool:
    return _lies_in(entry.base_offset, entry.last_offset, page)
