"""From a manifest and an offset to a chunk in a segment."""

from dataclasses import dataclass

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment_index import Chunk, SegmentIndex
from tierproxy.cold.chunks import Chunks, Located
from tierproxy.errors import TierproxyError


@dataclass(frozen=True, slots=True)
class Source:
    """An archived partition, by one manifest."""

    library: Library
    pid: PartitionId
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Place:
    """A chunk in a segment."""

    segment: Located
    index: SegmentIndex
    number: int

    @property
    def chunk(self) -> Chunk:
        return self.index.chunks[self.number]


class Places:
    """Finds places, by what is in memory or by reading pages and indexes."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    async def segment(self, source: Source, offset: int) -> Located:
        """The segment that holds `offset`, or else the next. Raises StoreError, ArchiveError."""
        entry = await source.library.segment_at(source.manifest, offset)
        if entry is None:
            raise TierproxyError(f"{source.pid}: nothing is archived at or after offset {offset}")
        return Located(source.library, source.library.segment_key(source.pid, entry), entry)

    async def within(self, segment: Located, offset: int, guess: bool = True, onward: int = 0) -> Place:
        """Where `offset` is in its segment, or else the next.

        With `guess` its chunk is read at once, with luck, and what follows in the first `onward` bytes. Raises
        StoreError, ArchiveError if it is damaged.
        """
        index = await (self._chunks.index_and_guess(segment, offset, onward) if guess else self._chunks.index(segment))
        number = index.chunk_at(offset)
        if number is None:
            raise TierproxyError(f"{segment.key}: its index ends before offset {offset}, its manifest entry doesn't")
        return Place(segment, index, number)

    def cached(self, source: Source, offset: int) -> Place | None:
        """The same without waiting; None where that can't be said from memory."""
        entry = source.library.cached_segment_at(source.manifest, offset)
        if entry is None:
            return None
        key = source.library.segment_key(source.pid, entry)
        index = self._chunks.cached_index(key)
        if index is None:
            return None
        number = index.chunk_at(offset)
        return None if number is None else Place(Located(source.library, key, entry), index, number)

    def cached_after(self, source: Source, place: Place) -> Place | None:
        """What follows without a gap, if that can be said from memory.

        A gap is never stepped over inside an answer: whether it may be is the policy's business.
        """
        if place.number + 1 < len(place.index.chunks):
            return Place(place.segment, place.index, place.number + 1)
        after = place.segment.entry.last_offset + 1
        manifest = source.manifest
        if after >= manifest.end_offset or manifest.gap_at(after) is not None:
            return None
        return self.cached(source, after)
