"""Chunks as they are stored, in memory: kept as they came, several by one read, and dropped as they came."""

from dataclasses import dataclass

from protocol.wire import Buffer
from tierproxy.archive.segment_index import Chunk
from tierproxy.byte_cache import ByteCache

ChunkId = tuple[str, int]
"""A segment's key, and the number of the chunk."""


@dataclass(frozen=True, slots=True, eq=False)
class _Extent:
    """Neighbouring chunks of a segment: the ones from `first` on, one behind the other in `data`."""

    key: str
    first: int
    chunks: tuple[Chunk, ...]
    data: memoryview


class StoredChunks:
    """At most `capacity` bytes. Nothing is copied: who takes one chunk out of a large read has a view of it."""

    def __init__(self, capacity: int) -> None:
        self._extents: ByteCache[ChunkId, _Extent] = ByteCache(
            capacity, lambda extent: memoryview(extent.data.obj).nbytes, self._forgotten
        )
        self._of_chunk: dict[ChunkId, _Extent] = {}

    def fit(self, capacity: int) -> None:
        """From now on it is `capacity`."""
        self._extents.fit(capacity)

    @property
    def size(self) -> int:
        return self._extents.size

    def __contains__(self, chunk: ChunkId) -> bool:
        return chunk in self._of_chunk

    def get(self, chunk: ChunkId) -> memoryview | None:
        extent = self._of_chunk.get(chunk)
        if extent is None:
            return None
        self._extents.get((extent.key, extent.first))  # it was of use
        return extent.data[_place(extent, chunk[1])]

    def put(self, key: str, first: int, chunks: tuple[Chunk, ...], data: Buffer) -> None:
        """`data` is what a segment has at its `chunks`, of which the first has the number `first`."""
        extent = _Extent(key, first, chunks, memoryview(data))
        self._extents.put((key, first), extent)
        for number in range(first, first + len(chunks)):
            self._of_chunk[key, number] = extent

    def taken(self, chunk: ChunkId) -> None:
        """Nobody is known who will want `chunk`: what was read with it goes first, if it is the last one of that."""
        extent = self._of_chunk.get(chunk)
        if extent is not None and chunk[1] == extent.first + len(extent.chunks) - 1:
            self._extents.demote((extent.key, extent.first))

    def drop(self, chunk: ChunkId) -> None:
        """Forget what was read together with `chunk`."""
        extent = self._of_chunk.get(chunk)
        if extent is not None:
            self._extents.drop((extent.key, extent.first))

    def _forgotten(self, extent: _Extent) -> None:
        for number in range(extent.first, extent.first + len(extent.chunks)):
            if self._of_chunk.get((extent.key, number)) is extent:  # or a later read has brought it as well
                del self._of_chunk[extent.key, number]


def _place(extent: _Extent, number: int) -> slice:
    chunk = extent.chunks[number - extent.first]
    start = chunk.position - extent.chunks[0].position
    return slice(start, start + chunk.stored_size)
