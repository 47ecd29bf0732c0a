"""A partition's archive from one offset to another, for tools: large reads, and what readers would be shown of it.

Nothing is cached here and nothing is read twice: whoever reads all of an archive has no use for a cache.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from protocol.batches import CONTROL_ABORT, BatchHeader, control_kind, walk
from protocol.records import first_record_at
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.segment_index import Chunk, SegmentIndex, decompress_chunk

READ_BYTES = 8 * 2**20
"""Stored bytes of neighbouring chunks that are read by one request."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring chunks of one segment, `stored` one behind the other."""

    entry: SegmentEntry
    index: SegmentIndex
    chunks: tuple[Chunk, ...]
    stored: bytes | bytearray

    @property
    def plain_size(self) -> int:
        """Bytes of its batches."""
        return sum(chunk.plain_size for chunk in self.chunks)

    def plain(self) -> Iterator[bytes]:
        """Each chunk's batches. FormatError where one is damaged. Takes its time: call it in a thread."""
        start = self.chunks[0].position
        for chunk in self.chunks:
            at = chunk.position - start
            yield decompress_chunk(self.stored[at : at + chunk.stored_size], chunk)

    def batches(self) -> Iterator[tuple[BatchHeader, memoryview]]:
        """Every batch, as `plain`."""
        for plain in self.plain():
            yield from walk(memoryview(plain))


async def stretches(library: Library, manifest: Manifest, start: int, end: int) -> AsyncIterator[Stretch]:
    """All chunks with offsets in [start, end), in order. Raises errors of the store and FormatError."""
    start, end = max(start, manifest.start_offset), min(end, manifest.end_offset)
    if start >= end:
        return
    async for entry in library.segments(manifest, start):
        if entry.base_offset >= end:
            return
        index = await library.load_index(manifest.pid, entry)
        wanted = [chunk for chunk in index.chunks if chunk.last_offset >= start and chunk.base_offset < end]
        for chunks in _together(wanted):
            first, last = chunks[0].position, chunks[-1].position + chunks[-1].stored_size
            stored = await library.store.get_range(library.segment_key(manifest.pid, entry), first, last)
            yield Stretch(entry, index, chunks, stored)


async def offset_at(library: Library, manifest: Manifest, time_ms: int) -> int:
    """The first offset, in offset order, whose record is not older than `time_ms`; the archive's end if none is.

    As a broker's ListOffsets by time has it, so that [offset_at(a), offset_at(b)) are a time range's records.
    """
    start = manifest.start_offset
    async for entry in library.segments(manifest, start):
        if entry.max_timestamp < time_ms:
            continue
        index = await library.load_index(manifest.pid, entry)
        for chunk in index.chunks:
            if chunk.max_timestamp < time_ms or chunk.last_offset < start:
                continue
            key, end = library.segment_key(manifest.pid, entry), chunk.position + chunk.stored_size
            stored = await library.store.get_range(key, chunk.position, end)
            found = await asyncio.to_thread(_first_in, stored, chunk, time_ms, start)
            if found is not None:
                return found
    return manifest.end_offset


class Shown:
    """Which batches of one segment, told in order, are data for a reader; one who reads committed has aborted ones
    left out, as Kafka's consumer does it (CompletedFetch.nextFetchedRecord): a producer counts as aborted from its
    listed first offset to its abort marker."""

    def __init__(self, index: SegmentIndex, start: int, *, committed: bool) -> None:
        listed = index.aborted_between(start, index.last_offset) if committed else []
        self._start = start
        self._upcoming = sorted((first, producer) for producer, first in listed)
        self._aborting: set[int] = set()

    def is_data(self, header: BatchHeader, batch: memoryview) -> bool:
        while self._upcoming and self._upcoming[0][0] <= header.last_offset:
            self._aborting.add(self._upcoming.pop(0)[1])
        if header.is_control:
            if control_kind(batch) == CONTROL_ABORT:
                self._aborting.discard(header.producer_id)
            return False
        return header.last_offset >= self._start and not (
            header.is_transactional and header.producer_id in self._aborting
        )


def _together(chunks: list[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    run: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if run and size + chunk.stored_size > READ_BYTES:
            yield tuple(run)
            run, size = [], 0
        run.append(chunk)
        size += chunk.stored_size
    if run:
        yield tuple(run)


def _first_in(stored: bytes | bytearray, chunk: Chunk, time_ms: int, start: int) -> int | None:
    for header, batch in walk(memoryview(decompress_chunk(stored, chunk))):
        if header.max_timestamp >= time_ms and header.last_offset >= start and not header.is_control:
            found = first_record_at(batch, time_ms, start)
            if found is not None:
                return found[0]
    return None
