"""What the disk cache's files look like, and which of them make up a range. Pure.

An extent is a run of bytes of one object that never changes, in a file named by its range, `8388608-12582912`:

    magic, version, length of the key, start, end           32 bytes, little-endian
    key                                                     UTF-8
    CRC32C of each block of the object's bytes              4 bytes each
    CRC32C of all that is before                            4 bytes
    zeros up to a multiple of 4 KiB
    the object's bytes [start, end)                         blocks of 64 KiB counted from `start`, the last one shorter

So a part of an extent is checked by the blocks that it touches. Files are not flushed to the disk: what a crash leaves
(nothing, zeros, half of it) doesn't match its checksums, and neither does what a disk has forgotten since.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from crc32c import crc32c

from protocol.wire import Buffer

BLOCK = 64 << 10
PAGE = 4096
VERSION = 1
"""Of the format: extents of another one are not read. The cache's marker holds it too, see disk_folder."""

_MAGIC = b"TPEXTENT"
_FIXED = struct.Struct("<8sHHIQQ")
_HOLD_BYTES = 1 << 20
_HOLD, _RELEASE = 0, 1


class Damaged(Exception):
    """A file is not the extent that it should be, or no longer."""


class Extent(NamedTuple):
    """A file with the object's bytes [start, end)."""

    start: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.start}-{self.end}"


def extent_named(name: str) -> Extent | None:
    """None if it is not the name of an extent."""
    start, _, end = name.partition("-")
    if not (start.isdecimal() and end.isdecimal() and len(name) < 40):
        return None
    extent = Extent(int(start), int(end))
    return extent if extent.start < extent.end and extent.name == name else None


class Piece(NamedTuple):
    """The bytes [start, end) of the object, which are to be read from `extent`."""

    extent: Extent
    start: int
    end: int


class Extents:
    """Those of one object; they may overlap."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self._sorted = sorted(extents)
        self._furthest = list(accumulate(self._sorted, _further))

    def adding(self, extent: Extent) -> "Extents":
        """These and one more."""
        return Extents([*self._sorted, extent])

    def __len__(self) -> int:
        return len(self._sorted)

    def cover(self, start: int, end: int) -> list[Piece] | None:
        """As few pieces as make up [start, end); None if some of it is in no extent."""
        pieces: list[Piece] = []
        while start < end:
            before = bisect_right(self._sorted, start, key=lambda extent: extent.start)
            extent = self._furthest[before - 1] if before else None
            if extent is None or extent.end <= start:
                return None
            pieces.append(Piece(extent, start, min(extent.end, end)))
            start = extent.end
        return pieces

    def touching(self, start: int, end: int) -> list[Extent]:
        """All that have a byte of [start, end)."""
        return [extent for extent in self._sorted if extent.start < end and start < extent.end]


def header_size(key: bytes, extent: Extent) -> int:
    """Where the object's bytes begin in the file."""
    return -(-(_summed_size(key, extent) + 4) // PAGE) * PAGE


def make_header(key: bytes, extent: Extent, data: Buffer) -> bytes:
    """What stands before `data` in the file."""
    view = memoryview(data)
    sums = [crc32c(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK)]
    summed = _fixed(key, extent) + key + struct.pack(f"<{len(sums)}I", *sums)
    return (summed + crc32c(summed).to_bytes(4, "little")).ljust(header_size(key, extent), b"\0")


def read_header(header: bytes, key: bytes, extent: Extent) -> Sequence[int]:
    """The checksums of the blocks. Damaged if this is not the header of that extent."""
    size = _summed_size(key, extent)
    if len(header) < size + 4 or not header.startswith(_fixed(key, extent) + key):
        raise Damaged("the header is of another extent")
    if crc32c(header[:size]) != int.from_bytes(header[size : size + 4], "little"):
        raise Damaged("the header does not match its checksum")
    count = _blocks(extent)
    return struct.unpack_from(f"<{count}I", header, size - 4 * count)


def check(sums: Sequence[int], first: int, before: bytes, data: bytes, after: bytes) -> None:
    """Damaged unless `before`, `data` and `after` together are whole blocks, from number `first` on, and sound.

    There is `data`; the others are what is missing to whole blocks, so each is shorter than one.
    """
    # To let go of the interpreter lock for each block costs more than it gives where little is checked: somebody
    # else takes it, for up to 5 ms.
    mode = _HOLD if len(data) <= _HOLD_BYTES else _RELEASE
    view = memoryview(data)
    block, sum_, at, stop = first, crc32c(before), 0, BLOCK - len(before)
    while at < len(view):
        sum_ = crc32c(view[at:stop], sum_, mode)
        if stop >= len(view):
            sum_ = crc32c(after, sum_)
        if sum_ != sums[block]:
            raise Damaged(f"block {block} does not match its checksum")
        block, sum_, at, stop = block + 1, 0, stop, stop + BLOCK


def _further(one: Extent, other: Extent) -> Extent:
    return other if other.end > one.end else one


def _fixed(key: bytes, extent: Extent) -> bytes:
    return _FIXED.pack(_MAGIC, VERSION, 0, len(key), extent.start, extent.end)


def _blocks(extent: Extent) -> int:
    return -(-(extent.end - extent.start) // BLOCK)


def _summed_size(key: bytes, extent: Extent) -> int:
    return _FIXED.size + len(key) + 4 * _blocks(extent)
