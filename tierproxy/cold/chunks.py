"""Chunks of segments in memory: stored (compressed) ones in a large cache, plain ones in a small one.

One read from the store serves everyone who waits for it, goes on when they have given up, and is not kept when it
failed. Neighbouring chunks are read by one range request. Decompressing happens in threads: zstandard lets go of the
interpreter lock.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from protocol.batches import walk
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.segment_index import Chunk, SegmentIndex, decompress_chunk, read_index
from tierproxy.byte_cache import ByteCache
from tierproxy.cold.budget import ByteBudget
from tierproxy.tasks import Tasks
from tierproxy.telemetry import DAMAGED_READS, STORE_READ_BYTES, STORE_READS

T = TypeVar("T")

INDEX_OVERHEAD = 512
READ_JOIN_BYTES = 4 << 20
"""Neighbouring chunks are read together up to this many stored bytes."""


@dataclass(frozen=True, slots=True)
class Located:
    """A segment and where to read it."""

    library: Library
    key: str
    entry: SegmentEntry


ChunkId = tuple[str, int]  # segment key, number of the chunk


@dataclass(slots=True)
class PlainChunk:
    """A chunk's plain batches and where each ends: `lasts[i]` is batch i's last offset, `ends[i]` its end in `data`."""

    data: memoryview
    lasts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, data: bytes) -> "PlainChunk":
        view = memoryview(data)
        lasts: list[int] = []
        ends: list[int] = []
        at = 0
        for header, batch in walk(view):
            at += len(batch)
            lasts.append(header.last_offset)
            ends.append(at)
        return cls(view, lasts, ends)

    def run(self, offset: int, limit: int, at_least_one: bool) -> tuple[memoryview, int] | None:
        """The batches from the one that holds `offset` (or the next) on that fit into `limit` bytes; their last offset.

        None when there is no such batch, or when the first doesn't fit and needn't be given.
        """
        first = bisect_left(self.lasts, offset)
        if first == len(self.lasts):
            return None
        start = self.ends[first - 1] if first else 0
        stop = bisect_right(self.ends, start + limit)
        if stop <= first:
            if not at_least_one:
                return None
            stop = first + 1
        return self.data[start : self.ends[stop - 1]], self.lasts[stop - 1]

    def batch(self, number: int) -> memoryview:
        return self.data[self.ends[number - 1] if number else 0 : self.ends[number]]


class Chunks:
    """Reads indexes and chunks through caches of `memory` bytes, and no more at a time than `budget` lends."""

    def __init__(self, tasks: Tasks, memory: int, budget: ByteBudget) -> None:
        self._tasks = tasks
        self._stored: ByteCache[ChunkId, bytes] = ByteCache(memory * 5 // 8, len)
        self._plain: ByteCache[ChunkId, PlainChunk] = ByteCache(memory * 2 // 8, lambda c: len(c.data))
        self._indexes: ByteCache[str, SegmentIndex] = ByteCache(
            memory // 8, lambda index: INDEX_OVERHEAD + 256 * len(index.chunks)
        )
        self._index_flights: dict[str, asyncio.Task[SegmentIndex]] = {}
        self._stored_flights: dict[ChunkId, asyncio.Task[dict[int, bytes]]] = {}
        self._plain_flights: dict[ChunkId, asyncio.Task[PlainChunk]] = {}
        self._budget = budget
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="decompress")

    @property
    def crowded(self) -> bool:
        """Whether reads wait for their turn: reading ahead would only make those wait longer that are waited for."""
        return self._budget.crowded

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Do `work` off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    # -- indexes ----------------------------------------------------------------------------------------------------

    def cached_index(self, key: str) -> SegmentIndex | None:
        return self._indexes.get(key)

    async def index(self, segment: Located) -> SegmentIndex:
        """Raises StoreError, or FormatError when what is stored is no index."""
        index = self._indexes.get(segment.key)
        if index is not None:
            return index
        task = self._index_flights.get(segment.key)
        if task is None:
            task = self._tasks.spawn(self._read_index(segment), f"index of {segment.key}", awaited=True)
            self._index_flights[segment.key] = task
            task.add_done_callback(lambda _: self._index_flights.pop(segment.key, None))
        return await asyncio.shield(task)

    async def _read_index(self, segment: Located) -> SegmentIndex:
        end = segment.entry.stored_size
        start = end - segment.entry.index_size
        try:
            index = read_index(await self._read(segment, start, end))
        except FormatError:  # it may have been damaged on the way
            DAMAGED_READS.labels("index").inc()
            index = read_index(await self._read(segment, start, end))
        self._indexes.put(segment.key, index)
        return index

    # -- chunks -----------------------------------------------------------------------------------------------------

    def cached_plain(self, key: str, number: int) -> PlainChunk | None:
        return self._plain.get((key, number))

    async def plain(self, segment: Located, index: SegmentIndex, number: int) -> PlainChunk:
        """Raises StoreError, or FormatError when the stored bytes are damaged."""
        chunk = self._plain.get((segment.key, number))
        return chunk if chunk is not None else await asyncio.shield(self.unpack(segment, index, number))

    def unpack(self, segment: Located, index: SegmentIndex, number: int) -> asyncio.Task[PlainChunk]:
        """Have a chunk decompressed, and read before if need be."""
        key = (segment.key, number)
        task = self._plain_flights.get(key)
        if task is None:
            task = self._tasks.spawn(self._unpack(segment, index, number), f"chunk {number} of {key[0]}", awaited=True)
            self._plain_flights[key] = task
            task.add_done_callback(lambda _: self._plain_flights.pop(key, None))
        return task

    async def _unpack(self, segment: Located, index: SegmentIndex, number: int) -> PlainChunk:
        """What is damaged is read once more before that is said, and never kept."""
        key = (segment.key, number)
        try:
            plain = await self._decompressed(segment, index, number)
        except FormatError:
            DAMAGED_READS.labels("chunk").inc()
            self._stored.drop(key)
            try:
                plain = await self._decompressed(segment, index, number)
            except FormatError:
                self._stored.drop(key)
                raise
        self._plain.put(key, plain)
        return plain

    async def _decompressed(self, segment: Located, index: SegmentIndex, number: int) -> PlainChunk:
        key = (segment.key, number)
        stored = self._stored.get(key)
        if stored is None:
            task = self._stored_flights.get(key)
            stored = (await asyncio.shield(task or self.read(segment, index, number, number + 1)))[number]
        return await self.in_thread(_plain_chunk, stored, index.chunks[number])

    def is_near(self, key: str, number: int) -> bool:
        """Whether a chunk is in memory or on its way."""
        chunk = (key, number)
        return chunk in self._plain or chunk in self._stored or chunk in self._stored_flights

    def read(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> asyncio.Task[dict[int, bytes]]:
        """Read chunks [first, stop) by one request, into the cache."""
        task = self._tasks.spawn(
            self._read_chunks(segment, index, first, stop), f"chunks {first}-{stop} of {segment.key}", awaited=True
        )
        keys = [(segment.key, number) for number in range(first, stop)]
        for key in keys:
            self._stored_flights[key] = task

        def landed(_: asyncio.Task[dict[int, bytes]]) -> None:
            for key in keys:
                self._stored_flights.pop(key, None)

        task.add_done_callback(landed)
        return task

    async def _read_chunks(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> dict[int, bytes]:
        chunks = index.chunks[first:stop]
        start = chunks[0].position
        end = chunks[-1].position + chunks[-1].stored_size
        data = memoryview(await self._read(segment, start, end))
        found: dict[int, bytes] = {}
        for number, chunk in enumerate(chunks, first):
            at = chunk.position - start
            found[number] = bytes(data[at : at + chunk.stored_size])
            self._stored.put((segment.key, number), found[number])
        return found

    async def _read(self, segment: Located, start: int, end: int) -> bytes | bytearray:
        async with self._budget.lend(end - start):
            data = await segment.library.store.get_range(segment.key, start, end)
        STORE_READS.inc()
        STORE_READ_BYTES.inc(len(data))
        return data


def _plain_chunk(stored: bytes, chunk: Chunk) -> PlainChunk:
    return PlainChunk.of(decompress_chunk(stored, chunk))
