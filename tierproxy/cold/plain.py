"""A chunk decompressed: its batches, and where each ends."""

import threading
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import zstandard

from protocol.batches import borders
from protocol.wire import Buffer
from tierproxy.archive.errors import FormatError
from tierproxy.archive.segment_index import Chunk
from tierproxy.cold.slabs import new_slab


@dataclass(slots=True)
class PlainChunk:
    """`lasts[i]` is batch i's last offset, `ends[i]` its end in `data`."""

    data: memoryview
    lasts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, data: Buffer) -> "PlainChunk":
        view = memoryview(data)
        return cls(view, *borders(view))

    @property
    def memory(self) -> int:
        """Bytes that it keeps: the whole slab it is in, and 80 for each batch's two numbers."""
        return memoryview(self.data.obj).nbytes + 80 * len(self.lasts)

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


_RUN = 1
"""The type of a block that is one byte, many times."""

_own = threading.local()
"""Each thread's decompressor: a new one for each chunk would cost a tenth of the work."""


def unpacked(stored: Buffer, chunk: Chunk, slab: bytearray | None) -> PlainChunk:
    """Decompress `stored` into `slab`, or a new one. FormatError if a single bit is wrong.

    For threads: it lets go of the interpreter's lock.
    """
    if len(stored) != chunk.stored_size:
        raise FormatError(f"the chunk at {chunk.base_offset} has {len(stored)} bytes, not {chunk.stored_size}")
    target = memoryview(slab if slab is not None else new_slab(chunk.plain_size))[: chunk.plain_size]
    try:
        # With the size in the frame's head, and room for it, the library decompresses in one go, straight into `slab`.
        if zstandard.frame_content_size(stored) != chunk.plain_size or _frame_size(stored) != len(stored):
            raise FormatError(f"the chunk at offset {chunk.base_offset} has another size than the index says")
        try:
            decompressor: zstandard.ZstdDecompressor = _own.decompressor
        except AttributeError:
            decompressor = _own.decompressor = zstandard.ZstdDecompressor()
        with decompressor.stream_reader(stored, closefd=False) as reader:
            size = reader.readinto(target)
    except zstandard.ZstdError as error:
        raise FormatError(f"the chunk at offset {chunk.base_offset} is damaged: {error}") from error
    if size != chunk.plain_size:
        raise FormatError(f"the chunk at offset {chunk.base_offset} is damaged: {size} bytes of {chunk.plain_size}")
    return PlainChunk.of(target)


def _frame_size(stored: Buffer) -> int | None:
    """Where the frame ends by its blocks' heads (RFC 8878, 3.1.1); None if that is behind the end, or unchecked.

    A reader that has given all bytes of the content is content, and would not miss a checksum that was cut off.
    """
    if not zstandard.get_frame_parameters(stored).has_checksum:
        return None
    at = zstandard.frame_header_size(stored)
    while at + 3 <= len(stored):
        head = int.from_bytes(stored[at : at + 3], "little")
        at += 3 + (1 if (head >> 1) & 3 == _RUN else head >> 3)
        if head & 1:
            return at + 4
    return None
