"""From a manifest and an offset to records in memory: which segment, which chunk, what to read ahead.

Sequential readers are the rule. A reader that comes back for the offset after the last one it was given is one; its
window of chunks read ahead doubles from one chunk up to a cap, across segment borders, and whoever jumps begins anew.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from protocol.batches import BatchHeader, read_batch_header
from protocol.records import first_record_at
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment_index import SegmentIndex
from tierproxy.cold.chunks import READ_JOIN_BYTES, Chunks, Located, PlainChunk
from tierproxy.errors import TierproxyError
from tierproxy.routing.fetch import ColdRecords
from tierproxy.routing.offsets import FoundRecord
from tierproxy.tasks import Tasks

READ_AHEAD_CAP = 16 << 20
"""Plain bytes a sequential reader of one partition has read ahead for it, at most."""

READERS_REMEMBERED = 10_000


@dataclass(slots=True)
class _Place:
    """A chunk in a segment in a manifest."""

    segment: Located
    index: SegmentIndex
    number: int


@dataclass(slots=True)
class ReadyRecords:
    """Chunks in memory that hold records from `offset` on; see routing.fetch.ColdSource."""

    offset: int
    places: list[tuple[_Place, PlainChunk]]
    served: Callable[[int], None]  # told the last offset that was taken
    held: int = 0
    """Bytes of the chunks of which records were taken: they stay in memory until those have been sent."""

    def take(self, limit: int, at_least_one: bool) -> ColdRecords | None:
        runs: list[memoryview] = []
        aborted: set[tuple[int, int]] = set()
        last = -1
        for place, chunk in self.places:
            run = chunk.run(max(self.offset, last + 1), limit, at_least_one and not runs)
            if run is None:
                break
            records, last = run
            self.held += len(chunk.data)
            runs.append(records)
            limit -= len(records)
            aborted.update(place.index.aborted_between(self.offset, last))
            if last < chunk.lasts[-1]:
                break
        if not runs:
            return None
        self.served(last)
        return ColdRecords(runs, last, sorted(aborted, key=lambda entry: entry[1]))


class ColdReader:
    """Reads archived partitions through `chunks`."""

    def __init__(self, chunks: Chunks, tasks: Tasks) -> None:
        self._chunks = chunks
        self._tasks = tasks
        self._windows: OrderedDict[tuple[PartitionId, int], int] = OrderedDict()  # next offset → window in bytes

    def ready(self, library: Library, pid: PartitionId, manifest: Manifest, offset: int) -> ReadyRecords | None:
        """Records from `offset` on if they are in memory, without waiting."""
        place = self._cached_place(library, pid, manifest, offset)
        if place is None:
            return None
        chunk = self._chunks.cached_plain(place.segment.key, place.number)
        return None if chunk is None else self._records(library, pid, manifest, offset, place, chunk)

    async def fetch(self, library: Library, pid: PartitionId, manifest: Manifest, offset: int) -> ReadyRecords:
        """Records from `offset` on: of its batch, or of the next one archived.

        `offset` must be below the manifest's end. Raises StoreError, or ArchiveError when the archive is damaged.
        """
        segment = await self._segment(library, pid, manifest, offset)
        index = await self._chunks.index(segment)
        place = _Place(segment, index, self._chunk_at(segment, index, offset))
        chunk = await self._chunks.plain(segment, index, place.number)
        return self._records(library, pid, manifest, offset, place, chunk)

    # -- by time ----------------------------------------------------------------------------------------------------

    async def first_at(
        self, library: Library, pid: PartitionId, manifest: Manifest, timestamp: int
    ) -> FoundRecord | None:
        """The first archived record, in offset order, whose time is `timestamp` or later."""
        async for entry in library.segments(manifest, since_ms=timestamp):
            segment = Located(library, library.segment_key(pid, entry), entry)
            index = await self._chunks.index(segment)
            for number, about in enumerate(index.chunks):
                if about.max_timestamp < timestamp or about.last_offset < manifest.start_offset:
                    continue
                chunk = await self._chunks.plain(segment, index, number)
                found = await self._chunks.in_thread(_first_in, chunk, timestamp, manifest.start_offset)
                if found is not None:
                    return found
        return None

    async def latest_time(self, library: Library, pid: PartitionId, manifest: Manifest) -> FoundRecord | None:
        """The archived record with the highest timestamp, the first of several."""
        sums = await library.sums(manifest)
        return await self.first_at(library, pid, manifest, sums.max_timestamp) if sums.segments else None

    # -- places -----------------------------------------------------------------------------------------------------

    @staticmethod
    async def _segment(library: Library, pid: PartitionId, manifest: Manifest, offset: int) -> Located:
        entry = await library.segment_at(manifest, offset)
        if entry is None:
            raise TierproxyError(f"{pid}: nothing is archived at or after offset {offset}")
        return Located(library, library.segment_key(pid, entry), entry)

    @staticmethod
    def _chunk_at(segment: Located, index: SegmentIndex, offset: int) -> int:
        number = index.chunk_at(offset)
        if number is None:
            raise TierproxyError(f"{segment.key}: its index ends before offset {offset}, its manifest entry doesn't")
        return number

    def _cached_place(self, library: Library, pid: PartitionId, manifest: Manifest, offset: int) -> _Place | None:
        entry = library.cached_segment_at(manifest, offset)
        if entry is None:
            return None
        key = library.segment_key(pid, entry)
        index = self._chunks.cached_index(key)
        if index is None:
            return None
        number = index.chunk_at(offset)
        return None if number is None else _Place(Located(library, key, entry), index, number)

    def _cached_after(self, library: Library, pid: PartitionId, manifest: Manifest, place: _Place) -> _Place | None:
        if place.number + 1 < len(place.index.chunks):
            return _Place(place.segment, place.index, place.number + 1)
        after = place.segment.entry.last_offset + 1
        if after >= manifest.end_offset or manifest.gap_at(after) is not None:
            return None  # a gap is never stepped over inside an answer: whether it may be is the policy's business
        return self._cached_place(library, pid, manifest, after)

    def _records(
        self, library: Library, pid: PartitionId, manifest: Manifest, offset: int, place: _Place, chunk: PlainChunk
    ) -> ReadyRecords:
        places = [(place, chunk)]
        following = self._cached_after(library, pid, manifest, place)
        if following is not None:
            next_chunk = self._chunks.cached_plain(following.segment.key, following.number)
            if next_chunk is not None:
                places.append((following, next_chunk))

        window = self._windows.pop((pid, offset), 0)

        def served(last: int) -> None:
            grown = min(max(window * 2, len(chunk.data)), READ_AHEAD_CAP)
            self._windows[pid, last + 1] = grown
            if len(self._windows) > READERS_REMEMBERED:
                self._windows.popitem(last=False)
            if window and last + 1 < manifest.end_offset and not self._chunks.crowded:
                reading = self._read_ahead(library, pid, manifest, last + 1, grown)
                self._tasks.spawn(reading, f"read ahead of {pid}", awaited=True)

        return ReadyRecords(offset, places, served)

    # -- read ahead -------------------------------------------------------------------------------------------------

    async def _read_ahead(
        self, library: Library, pid: PartitionId, manifest: Manifest, offset: int, window: int
    ) -> None:
        """Have the next `window` plain bytes read, and the next chunk decompressed. Errors are the next reader's.

        Nothing is read while half of the window is still there: topping it up with every fetch would cost a request
        for each chunk.
        """
        near = 0
        filling = False
        first = True
        while near < window and offset < manifest.end_offset:
            segment = await self._segment(library, pid, manifest, offset)
            index = await self._chunks.index(segment)
            number = self._chunk_at(segment, index, offset)
            while near < window and number < len(index.chunks):
                stop = self._run_to_read(segment, index, number, window - near)
                if stop > number:
                    if not filling and near >= window // 2:
                        return
                    filling = True
                    self._chunks.read(segment, index, number, stop)
                stop = max(stop, number + 1)
                if first and self._chunks.cached_plain(segment.key, number) is None:
                    self._chunks.unpack(segment, index, number)
                first = False
                near += sum(chunk.plain_size for chunk in index.chunks[number:stop])
                number = stop
            offset = segment.entry.last_offset + 1

    def _run_to_read(self, segment: Located, index: SegmentIndex, number: int, most: int) -> int:
        """Where the run of chunks ends that starts at `number` and is best read by one request; `number` if none is."""
        stored = plain = 0
        stop = number
        while (
            stop < len(index.chunks)
            and plain < most
            and stored < READ_JOIN_BYTES
            and not self._chunks.is_near(segment.key, stop)
        ):
            stored += index.chunks[stop].stored_size
            plain += index.chunks[stop].plain_size
            stop += 1
        return stop


def _first_in(chunk: PlainChunk, timestamp: int, start_offset: int) -> FoundRecord | None:
    for number in range(len(chunk.lasts)):
        batch = chunk.batch(number)
        header = read_batch_header(batch)
        assert isinstance(header, BatchHeader)
        if header.max_timestamp < timestamp or header.last_offset < start_offset:
            continue
        found = first_record_at(batch, timestamp, start_offset)
        if found is not None:
            return FoundRecord(found[0], found[1], header.leader_epoch)
    return None
