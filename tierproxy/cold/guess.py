"""Reading where an offset must be, more or less, while the index is read that says where it is. Pure.

Whoever begins somewhere in an archive would wait for two trips to the store: for the segment's index and for the chunk.
Records are of much the same size mostly, so where an offset lies can be told from the segment's first and last.
"""

from dataclasses import dataclass

from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.segment_index import SegmentIndex

CHUNK = 1 << 20
"""Plain bytes of a full chunk."""
MARGIN = 768 << 10
"""Stored bytes by which a guess may be wrong, to both sides together."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Bytes [start, end) of a segment."""

    start: int
    end: int

    @classmethod
    def of(cls, entry: SegmentEntry, offset: int) -> "Guess":
        """Where the chunk is that holds `offset`: room for one chunk, and the margin."""
        size = entry.stored_size - entry.index_size
        width = min(size, MARGIN + size * CHUNK // max(CHUNK, entry.plain_size))
        share = (max(offset, entry.base_offset) - entry.base_offset) / (entry.last_offset + 1 - entry.base_offset)
        start = max(0, min(int(share * size) - width // 2, size - width))
        return cls(start, start + width)

    def chunks(self, index: SegmentIndex, number: int) -> range:
        """The whole chunks from `number` on that are within; none if that one isn't."""
        stop = number
        if index.chunks[number].position >= self.start:
            while stop < len(index.chunks) and _end(index, stop) <= self.end:
                stop += 1
        return range(number, stop)


def _end(index: SegmentIndex, number: int) -> int:
    return index.chunks[number].position + index.chunks[number].stored_size
