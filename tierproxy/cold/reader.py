"""Archived records for fetches, by offset and by time: what is in memory at once, the rest by reading."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from protocol.batches import BatchHeader, read_batch_header
from protocol.records import first_record_at
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.cold.ahead import ReadAhead
from tierproxy.cold.chunks import Chunks, Located
from tierproxy.cold.meter import came_from
from tierproxy.cold.places import Place, Places, Source
from tierproxy.cold.plain import PlainChunk
from tierproxy.cold.streams import Stream, Streams
from tierproxy.routing.fetch import ColdRecords
from tierproxy.routing.offsets import FoundRecord
from tierproxy.tasks import Tasks
from tierproxy.telemetry import COLD_WAITS

MOST_IN_ANSWER = 8 << 20
"""Plain bytes of one partition in one answer: what a reader that asks for more gets sooner."""


@dataclass(slots=True)
class ReadyRecords:
    """A chunk in memory that holds records from `offset` on, and what follows it; see routing.fetch.ColdSource."""

    offset: int
    place: Place
    chunk: PlainChunk
    following: Callable[[Place], tuple[Place, PlainChunk] | None]
    served: Callable[[list[Place], int, int, int], None]
    """Told the places that were taken from, the last one's last offset, and how many bytes were, stored and plain."""
    most: int = MOST_IN_ANSWER
    """Plain bytes to take at the most, but for the first batch."""
    held: int = 0
    """Bytes of the chunks of which records were taken: they stay in memory until those have been sent."""

    def take(self, limit: int, at_least_one: bool) -> ColdRecords | None:
        """See ColdSource."""
        limit = min(limit, self.most)
        runs: list[memoryview] = []
        last, stored, plain = -1, 0, 0
        places: list[Place] = []
        place, chunk = self.place, self.chunk
        while True:
            run = chunk.run(max(self.offset, last + 1), limit - plain, at_least_one and not runs)
            if run is None:
                break
            records, last = run
            places.append(place)
            self.held += chunk.memory
            runs.append(records)
            plain += len(records)
            stored += place.chunk.stored_size * len(records) // len(chunk.data)
            if last < chunk.lasts[-1] or plain >= limit or (after := self.following(place)) is None:
                break
            place, chunk = after
        if not runs:
            return None
        self.served(places, last, stored, plain)
        indexes = {place.segment.key: place.index for place in places}.values()
        aborted = {entry for index in indexes for entry in index.aborted_between(self.offset, last)}
        return ColdRecords(runs, last, sorted(aborted, key=lambda entry: entry[1]))


class ColdReader:
    """Reads archived partitions through `chunks`."""

    def __init__(self, chunks: Chunks, tasks: Tasks) -> None:
        self._chunks = chunks
        self._places = Places(chunks)
        self._streams = Streams()
        self._ahead = ReadAhead(chunks, self._places, self._streams, tasks)

    def ready(self, library: Library, pid: PartitionId, manifest: Manifest, offset: int) -> ReadyRecords | None:
        """Records from `offset` on if they are in memory, without waiting."""
        source = Source(library, pid, manifest)
        self._asked(pid, offset)
        place = self._places.cached(source, offset)
        if place is None:
            return None
        chunk = self._chunks.cached_plain(place.segment.key, place.number)
        if chunk is None:
            return None
        came_from("memory", place.chunk.stored_size)
        return self._records(source, offset, place, chunk)

    async def fetch(self, library: Library, pid: PartitionId, manifest: Manifest, offset: int) -> ReadyRecords:
        """Records from `offset` on: of its batch, or of the next one archived.

        `offset` must be below the manifest's end. Raises StoreError, or ArchiveError when the archive is damaged.
        """
        COLD_WAITS.inc()
        source = Source(library, pid, manifest)
        stream = self._asked(pid, offset)
        segment = await self._places.segment(source, offset)
        place = await self._places.within(segment, offset, onward=self._ahead.onward(source, segment, offset))
        if stream is not None and not self._chunks.is_near(place.segment.key, place.number):
            stream.missed()
        chunk = await self._chunks.plain(place.segment, place.index, place.number)
        return self._records(source, offset, place, chunk)

    def _asked(self, pid: PartitionId, offset: int) -> Stream | None:
        stream = self._streams.at(pid, offset)
        if stream is not None:
            stream.asked(asyncio.get_running_loop().time())
        return stream

    def _records(self, source: Source, offset: int, place: Place, chunk: PlainChunk) -> ReadyRecords:
        def following(after: Place) -> tuple[Place, PlainChunk] | None:
            place = self._places.cached_after(source, after)
            if place is None:
                return None
            chunk = self._chunks.cached_plain(place.segment.key, place.number)
            return None if chunk is None else (place, chunk)

        def served(places: list[Place], last_offset: int, stored: int, plain: int) -> None:
            now, last = asyncio.get_running_loop().time(), places[-1]
            # Who begins at the beginning will hardly want that alone.
            begins = offset <= source.manifest.start_offset
            stream = self._streams.at(source.pid, offset) or Stream(now, answers=1 if begins else 0)
            stream.served(now, stored)
            if stream.answers > 2 and self._streams.alone(source.pid, now):
                for place in places if last_offset >= last.chunk.last_offset else places[:-1]:
                    self._chunks.release(place.segment.key, place.number)
            self._streams.moved(source.pid, offset, stream, last_offset + 1)
            self._ahead.served(source, stream, last, last_offset + 1, plain)

        return ReadyRecords(offset, place, chunk, following, served)

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
