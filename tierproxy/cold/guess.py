"""Reading where an offset must be, more or less, while the index is read that says where it is. Pure.

Whoever begins somewhere in an archive would wait for two trips to the store: for the segment's index and for the chunk.
Records are of much the same size mostly, so where an offset lies can be told from the segment's first and last.

Who begins at the archive's beginning will mostly want all of it. For such a reader more is read at the same time, by
several requests: the first one brings little and soon, and each of the others about when what came before is used up.
"""

from dataclasses import dataclass

from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.segment_index import SegmentIndex

CHUNK = 1 << 20
"""Plain bytes of a full chunk."""
MARGIN = 768 << 10
"""Stored bytes by which a guess may be wrong, to both sides together."""
GROWTH = 4
"""How many times as much each request brings as the one before."""


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

    @classmethod
    def onward(cls, entry: SegmentEntry, offset: int, most: int) -> "list[Guess]":
        """The same, and what follows it up to byte `most` of the segment.

        Two neighbours have a chunk and a half in common, so that hardly any chunk is in neither of them as a whole, nor
        the one that begins before `most`.
        """
        guesses = [cls.of(entry, offset)]
        size = entry.stored_size - entry.index_size
        common = size * CHUNK * 3 // (2 * max(CHUNK, entry.plain_size))
        most = min(most + common, size) if most else 0
        while (end := guesses[-1].end) < most:
            width = GROWTH * (end - guesses[-1].start)
            # What would be left for one more is not worth a request.
            guesses.append(cls(max(0, end - common), end + width if end + 2 * width < most else most))
        return guesses

    def chunks(self, index: SegmentIndex, number: int) -> range:
        """The whole chunks from `number` on that are within."""
        while number < len(index.chunks) and index.chunks[number].position < self.start:
            number += 1
        stop = number
        while stop < len(index.chunks) and _end(index, stop) <= self.end:
            stop += 1
        return range(number, stop)


def _end(index: SegmentIndex, number: int) -> int:
    return index.chunks[number].position + index.chunks[number].stored_size
