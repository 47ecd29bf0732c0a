"""The beginning of a stored segment as a segment of its own, for when history was rewritten behind it.

Synchronous, over files: callers run it in a thread.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from protocol.batches import BatchHeader, walk
from protocol.errors import MalformedError
from tierproxy.archive.errors import FormatError
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import SegmentIndex, decompress_chunk


def batches_of(segment: BinaryIO, index: SegmentIndex) -> Iterator[tuple[BatchHeader, memoryview]]:
    """The batches of a segment, of which the file holds at least all chunks. FormatError where it is damaged."""
    for chunk in index.chunks:
        segment.seek(chunk.position)
        data = segment.read(chunk.stored_size)
        if len(data) < chunk.stored_size:
            raise FormatError(f"the segment ends in the chunk at {chunk.base_offset}")
        try:
            yield from walk(memoryview(decompress_chunk(data, chunk)))
        except MalformedError as error:
            raise FormatError(f"the chunk at {chunk.base_offset} holds no batches: {error}") from error


def cut_point(batches: Iterable[tuple[BatchHeader, memoryview]], below: int, log_start: int) -> int:
    """Where to cut so that what is kept lies below `below` and can't be seen otherwise by what follows.

    How a transaction ended is told by its marker. One whose marker was archived above `below` may end otherwise in the
    history that follows, so its records are to be archived again with that: the cut lies before them. But not below
    `log_start`, from where on the broker has them: what the archive alone holds is kept, as it was decided then.
    """
    bases: list[int] = []
    undecided: dict[int, int] = {}  # producer id → first offset of its open transaction
    for header, _ in batches:
        if header.next_offset > below:
            break
        bases.append(header.base_offset)
        if header.is_control:
            undecided.pop(header.producer_id, None)
        elif header.is_transactional:
            undecided.setdefault(header.producer_id, header.base_offset)
    if not undecided:
        return below
    least = max(min(undecided.values()), log_start)
    return next((base for base in bases if base >= least), below)


def copy_below(segment: BinaryIO, index: SegmentIndex, offset: int, writer: SegmentWriter) -> None:
    """Append the batches below `offset` to `writer`, and what is known of aborted transactions among them.

    Those whose marker is not below `offset` become open: they count for the whole new segment.
    """
    for aborted in index.aborted:
        writer.note_aborted(aborted.producer_id, aborted.first_offset)
    for header, batch in batches_of(segment, index):
        if header.next_offset > offset:
            break
        writer.append(batch, header)
