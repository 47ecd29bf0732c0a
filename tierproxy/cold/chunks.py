"""Chunks of segments in memory: plain ones in a small cache, stored (compressed) ones in all that those leave.

One read serves everyone who waits for it, goes on when they have given up, and is not kept when it failed. Neighbouring
chunks are read by one range request, small segments whole. Decompressing happens in threads, some chunks at a time:
each trip to a thread and back costs as much as a tenth of a chunk.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from protocol.wire import Buffer
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.segment_index import Chunk, SegmentIndex, read_index
from tierproxy.background_threads import background_threads
from tierproxy.byte_cache import ByteCache
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.guess import Guess
from tierproxy.cold.plain import PlainChunk, unpacked
from tierproxy.cold.reads import DirectReads, Reads
from tierproxy.cold.slabs import SLAB, Slabs
from tierproxy.cold.stored import ChunkId, StoredChunks
from tierproxy.errors import TierproxyError
from tierproxy.tasks import Tasks
from tierproxy.telemetry import DAMAGED_READS, MEMORY_CACHE_BYTES, MEMORY_CACHE_LIMIT, MEMORY_CACHE_READS
from tierproxy.tracing import traced

T = TypeVar("T")

INDEX_OVERHEAD = 512
SMALL_SEGMENT = 1 << 20
"""Stored bytes up to which a segment is read whole when only its index is asked for: one trip instead of two."""
READ_JOIN_BYTES = 16 << 20
"""Stored bytes that one request reads at the most."""
LARGE_READ = 2 << 20
"""Stored bytes of which it takes longer to send them than to begin."""
COPIED = 2 << 20
"""Bytes that are copied in one go where memory can be saved by it: some ms."""
UNPACK_TOGETHER = 4
"""Chunks in one trip to a thread."""


@dataclass(frozen=True, slots=True)
class Located:
    """A segment and where to read it."""

    library: Library
    key: str
    entry: SegmentEntry


_Range = tuple[int, Buffer]
"""Where it lies in a segment, and its bytes."""
_Unpacked = dict[int, PlainChunk | TierproxyError]
"""By number: a chunk, or why there is none."""


class Chunks:
    """Reads indexes and chunks through caches of `memory` bytes, and no more at a time than `budget` lends."""

    def __init__(
        self,
        tasks: Tasks,
        memory: int,
        budget: ByteBudget,
        reads: Reads | None = None,
        small_segment: int = SMALL_SEGMENT,
    ) -> None:
        self._tasks = tasks
        self._small_segment = small_segment
        self._memory = memory
        self._stored = StoredChunks(memory)
        self.plain_capacity = memory * 2 // 8
        self._plain: ByteCache[ChunkId, PlainChunk] = ByteCache(self.plain_capacity, lambda chunk: chunk.memory)
        self._slabs = Slabs(self.plain_capacity + 16 * SLAB)
        self._index_capacity = memory // 8
        self._indexes: ByteCache[str, SegmentIndex] = ByteCache(self._index_capacity, _index_memory)
        self._index_flights: dict[str, asyncio.Task[SegmentIndex]] = {}
        self._stored_flights: dict[ChunkId, asyncio.Task[_Range]] = {}
        self._plain_flights: dict[ChunkId, asyncio.Task[_Unpacked]] = {}
        self._budget = budget
        self._coming = 0
        """Bytes that are being read."""
        self._promised = 0
        """Bytes that will be, for those who go on from where they begin."""
        self._reads = reads or DirectReads()
        self._read_seconds = 0.0  # how long a read takes, lately
        self._byte_seconds = 0.0  # and, of large ones, how long for a byte
        self._threads = background_threads(min(8, max(2, os.cpu_count() or 2)), "decompress")

    @property
    def stored_capacity(self) -> int:
        """All memory that plain chunks and indexes don't take at present: five eighths at the least."""
        return self._memory - self._plain.size - self._indexes.size

    @property
    def coming(self) -> int:
        """Bytes that are on their way, or about to be."""
        return self._coming + self._promised

    @property
    def crowded(self) -> bool:
        """Whether reads wait for their turn: reading ahead would only make those wait longer that are waited for."""
        return self._budget.crowded

    def measure(self) -> None:
        """Have the metrics show how full the caches are."""
        stored = self._stored.size, self.stored_capacity
        sizes = {"plain": (self._plain.size, self.plain_capacity), "stored": stored}
        for cache, (size, most) in (sizes | {"index": (self._indexes.size, self._index_capacity)}).items():
            MEMORY_CACHE_BYTES.labels(cache).set(size)
            MEMORY_CACHE_LIMIT.labels(cache).set(most)

    def read_seconds(self, size: int) -> float:
        """How long it takes to read so many bytes by one request: a store sends on one connection only so fast."""
        return max(self._read_seconds, size * self._byte_seconds)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @traced("unpack")
    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Do `work` off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    # -- indexes ----------------------------------------------------------------------------------------------------

    def cached_index(self, key: str) -> SegmentIndex | None:
        return self._indexes.get(key)

    def expects_index(self, key: str) -> bool:
        """Whether a segment's index is in memory or on its way, perhaps alone."""
        return key in self._indexes or key in self._index_flights

    async def index(self, segment: Located, whole: bool = False) -> SegmentIndex:
        """With `whole` all of the segment comes into memory, and of a small one anyhow.

        Raises StoreError, or FormatError when what is stored is no index.
        """
        index = self._indexes.get(segment.key)
        MEMORY_CACHE_READS.labels("index", "miss" if index is None else "hit").inc()
        if index is not None:
            return index
        task = self._index_flights.get(segment.key) or self._fly_index(segment, self._read_index(segment, whole))
        return await asyncio.shield(task)

    def _fly_index(self, segment: Located, coming: Coroutine[Any, Any, SegmentIndex]) -> "asyncio.Task[SegmentIndex]":
        task = self._tasks.spawn(coming, f"index of {segment.key}", awaited=True)
        self._index_flights[segment.key] = task
        task.add_done_callback(lambda _: self._index_flights.pop(segment.key, None))
        return task

    @traced("index")
    async def _read_index(self, segment: Located, whole: bool) -> SegmentIndex:
        end = segment.entry.stored_size
        start = 0 if whole or end <= self._small_segment else end - segment.entry.index_size
        data = await self._read(segment, start, end)
        try:
            index = read_index(data)
        except FormatError:  # it may have been damaged on the way
            DAMAGED_READS.labels("index").inc()
            await self._reads.drop(segment.library.store, segment.key, start, end)
            start = end - segment.entry.index_size
            data = await self._read(segment, start, end)
            index = read_index(data)
        self._indexes.put(segment.key, index)
        if start == 0:
            self._keep(segment.key, 0, index.chunks, memoryview(data)[: index.data_size])
        return index

    # -- plain chunks -----------------------------------------------------------------------------------------------

    def cached_plain(self, key: str, number: int) -> PlainChunk | None:
        return self._plain.get((key, number))

    def release(self, key: str, number: int) -> None:
        """A chunk was taken by the only one who reads there: its memory is of more use to the next ones."""
        self._plain.drop((key, number))
        self._stored.taken((key, number))

    async def plain(self, segment: Located, index: SegmentIndex, number: int) -> PlainChunk:
        """Raises StoreError, or FormatError when the stored bytes are damaged."""
        key = (segment.key, number)
        chunk = self._plain.get(key)
        MEMORY_CACHE_READS.labels("plain", "miss" if chunk is None else "hit").inc()
        if chunk is not None:
            return chunk
        task = self._plain_flights.get(key) or self._unpack(segment, index, number, number + 1)
        found = (await asyncio.shield(task))[number]
        if isinstance(found, TierproxyError):
            raise found
        return found

    def unpack(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> None:
        """Have chunks [first, stop) decompressed, and read before if need be; whoever waits for them joins in."""
        key = segment.key
        wanted = [n for n in range(first, stop) if (key, n) not in self._plain and (key, n) not in self._plain_flights]
        # Only what comes together is unpacked together: no chunk waits for one that is further away.
        for _, coming in groupby(wanted, lambda n: self._stored_flights.get((key, n), (key, n) in self._stored)):
            for run in _runs(list(coming), UNPACK_TOGETHER):
                self._unpack(segment, index, run.start, run.stop)

    def _unpack(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> "asyncio.Task[_Unpacked]":
        task = self._tasks.spawn(
            self._unpack_chunks(segment, index, first, stop), f"chunks {first}-{stop} of {segment.key}", awaited=True
        )
        keys = [(segment.key, number) for number in range(first, stop)]
        self._plain_flights.update(dict.fromkeys(keys, task))

        def landed(_: object) -> None:
            for key in keys:
                self._plain_flights.pop(key, None)

        task.add_done_callback(landed)
        return task

    async def _unpack_chunks(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> _Unpacked:
        """What is damaged is read once more before that is said, and never kept."""
        stored = [await self._stored_chunk(segment, index, number) for number in range(first, stop)]
        about = index.chunks[first:stop]
        slabs = [self._slabs.take(chunk.plain_size) for chunk in about]
        found: _Unpacked = {}
        results = await self.in_thread(_unpack_all, stored, about, slabs)
        for number, plain in enumerate(results, first):
            if isinstance(plain, FormatError):
                try:
                    plain = await self._unpack_anew(segment, index, number, slabs[number - first])
                except TierproxyError as error:  # it is no fault of the others
                    found[number] = error
                    continue
            found[number] = plain
            if slabs[number - first] is None and isinstance(plain.data.obj, bytearray):
                self._slabs.keep(plain.data.obj)
            self._plain.put((segment.key, number), plain)
        self._make_room()
        return found

    async def _unpack_anew(
        self, segment: Located, index: SegmentIndex, number: int, slab: bytearray | None
    ) -> PlainChunk:
        DAMAGED_READS.labels("chunk").inc()
        await self._forget(segment, index, number)
        again = await self._stored_chunk(segment, index, number)
        try:
            return await self.in_thread(unpacked, again, index.chunks[number], slab)
        except FormatError:
            await self._forget(segment, index, number)
            raise

    # -- before the index is known ----------------------------------------------------------------------------------

    async def index_and_guess(self, segment: Located, offset: int, onward: int = 0) -> SegmentIndex:
        """The index; and, where that has to be read, the chunk of `offset` comes at the same time, with some luck, and
        what follows it in the segment's first `onward` bytes."""
        small = segment.entry.stored_size <= self._small_segment
        if small or self.crowded or self.expects_index(segment.key):
            return await self.index(segment)
        if segment.entry.stored_size <= min(onward, 2 * self._small_segment):  # one request is hardly later than three
            task = self._fly_index(segment, self._read_index(segment, whole=True))
        else:
            task = self._fly_index(segment, self._read_index_and_guess(segment, offset, onward))
        self._promised += onward  # at once: all partitions of a fetch are begun in one turn of the loop
        task.add_done_callback(lambda _: self._keep_promise(onward))
        return await asyncio.shield(task)

    def _keep_promise(self, onward: int) -> None:
        self._promised -= onward

    async def _read_index_and_guess(self, segment: Located, offset: int, onward: int) -> SegmentIndex:
        """All who wait for the index find the chunks on their way, when they have it."""
        guesses = Guess.onward(segment.entry, offset, onward)
        readings = [
            self._tasks.spawn(
                self._read(segment, each.start, each.end), f"about {offset} of {segment.key}", awaited=True
            )
            for each in guesses
        ]
        index = await self._read_index(segment, whole=False)
        number = index.chunk_at(offset)
        if number is not None:
            for guess, reading in zip(guesses, readings, strict=True):
                found = guess.chunks(index, number)
                if found:
                    self._fly(segment, found, self._cut_out(segment, index, guess, found, reading))
                    number = found.stop
        return index

    async def _cut_out(
        self, segment: Located, index: SegmentIndex, guess: Guess, found: range, reading: "asyncio.Task[Buffer]"
    ) -> _Range:
        data = memoryview(await asyncio.shield(reading))
        chunks = index.chunks[found.start : found.stop]
        start, end = chunks[0].position, chunks[-1].position + chunks[-1].stored_size
        cut: Buffer = data[start - guess.start : end - guess.start]
        if 2 * len(cut) < len(data) or len(data) <= COPIED:
            cut = bytes(cut)  # a view keeps all that was read in memory
        self._keep(segment.key, found.start, chunks, cut)
        return start, cut

    # -- stored chunks ----------------------------------------------------------------------------------------------

    async def _stored_chunk(self, segment: Located, index: SegmentIndex, number: int) -> Buffer:
        key = (segment.key, number)
        stored = self._stored.get(key)
        MEMORY_CACHE_READS.labels("stored", "miss" if stored is None else "hit").inc()
        if stored is not None:
            return stored
        flight = self._stored_flights.get(key) or self.read(segment, index, number, number + 1)
        start, data = await asyncio.shield(flight)
        chunk = index.chunks[number]
        return memoryview(data)[chunk.position - start : chunk.position - start + chunk.stored_size]

    async def _forget(self, segment: Located, index: SegmentIndex, number: int) -> None:
        """A chunk came damaged."""
        self._stored.drop((segment.key, number))
        chunk = index.chunks[number]
        end = chunk.position + chunk.stored_size
        await self._reads.drop(segment.library.store, segment.key, chunk.position, end)

    def is_near(self, key: str, number: int) -> bool:
        """Whether a chunk is in memory or on its way."""
        chunk = (key, number)
        return chunk in self._plain or chunk in self._stored or chunk in self._stored_flights

    def read(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> "asyncio.Task[_Range]":
        """Read chunks [first, stop) by one request, into the cache."""
        return self._fly(segment, range(first, stop), self._read_chunks(segment, index, first, stop))

    def _fly(self, segment: Located, numbers: range, coming: Coroutine[Any, Any, _Range]) -> "asyncio.Task[_Range]":
        """Chunks are on their way: whoever wants them waits for that."""
        task = self._tasks.spawn(coming, f"reading {numbers} of {segment.key}", awaited=True)
        keys = [(segment.key, number) for number in numbers]
        self._stored_flights.update(dict.fromkeys(keys, task))

        def landed(_: object) -> None:
            for key in keys:
                if self._stored_flights.get(key) is task:  # a guess may bring the same chunk
                    del self._stored_flights[key]

        task.add_done_callback(landed)
        return task

    async def _read_chunks(self, segment: Located, index: SegmentIndex, first: int, stop: int) -> _Range:
        chunks = index.chunks[first:stop]
        data = await self._read(segment, chunks[0].position, chunks[-1].position + chunks[-1].stored_size)
        self._keep(segment.key, first, chunks, data)
        return chunks[0].position, data

    def _keep(self, key: str, first: int, chunks: tuple[Chunk, ...], data: Buffer) -> None:
        self._make_room()
        self._stored.put(key, first, chunks, data)

    def _make_room(self) -> None:
        """Also for what is on its way, but for three eighths that what has come may keep."""
        self._stored.fit(max(self._memory * 3 // 8, self.stored_capacity - self._coming))

    @traced("read")
    async def _read(self, segment: Located, start: int, end: int) -> Buffer:
        async with self._budget.lend(end - start):
            began = asyncio.get_running_loop().time()
            self._coming += end - start
            self._make_room()
            try:
                data = await self._reads.get_range(segment.library.store, segment.key, start, end)
            finally:
                self._coming -= end - start
            took = asyncio.get_running_loop().time() - began
        self._read_seconds += (took - self._read_seconds) / 4 if self._read_seconds else took
        if end - start >= LARGE_READ:
            each = took / (end - start)
            self._byte_seconds += (each - self._byte_seconds) / 4 if self._byte_seconds else each
        return data


def _index_memory(index: SegmentIndex) -> int:
    return INDEX_OVERHEAD + 256 * len(index.chunks) + 160 * len(index.aborted) + 128 * len(index.epochs)


def _runs(numbers: list[int], most: int) -> Iterator[range]:
    """Consecutive numbers as ranges of at most `most`."""
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1 or at - start == most:
            yield range(numbers[start], numbers[at - 1] + 1)
            start = at


def _unpack_all(
    stored: list[Buffer], about: tuple[Chunk, ...], slabs: list[bytearray | None]
) -> list[PlainChunk | FormatError]:
    found: list[PlainChunk | FormatError] = []
    for data, chunk, slab in zip(stored, about, slabs, strict=True):
        try:
            found.append(unpacked(data, chunk, slab))
        except FormatError as error:
            found.append(error)
    return found
