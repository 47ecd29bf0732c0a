"""Extents as files: reading and writing them. Blocking: everything here works in threads.

Reading takes no lock and trusts nothing: what is in an object's folder is remembered, and looked at again when that is
not enough; a file that is gone was removed by somebody else; one that is damaged goes. Writing is to a temporary file
that gets its name when it is complete, and is not flushed to the disk: a crash may leave anything, and reading notices.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from errno import EIO
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from protocol.wire import Buffer
from tierproxy.byte_cache import ByteCache
from tierproxy.cold.disk_extents import (
    BLOCK,
    Damaged,
    Extent,
    Extents,
    Piece,
    check,
    extent_named,
    header_size,
    make_header,
    read_header,
)
from tierproxy.cold.disk_room import DiskRoom, taken
from tierproxy.telemetry import DISK_CACHE_DAMAGED

LARGEST_PART = 8
"""The largest extent is this part of the cache's size."""
TOUCH_SECONDS = 60.0
_TRIES = 4
_KNOWN_EXTENTS = 30_000


class _Known(NamedTuple):
    """What was in an object's folder when it was changed the last time."""

    mtime_ns: int
    extents: Extents


class DiskFolder:
    """Extents as files below `root`, of `size` bytes together. Any method may raise OSError."""

    def __init__(self, root: Path, size: int, now: Callable[[], float]) -> None:
        """`now` gives seconds that never go back."""
        self._root = root
        self._room = DiskRoom(root, size)
        self._now = now
        self.largest = size // LARGEST_PART
        """The largest extent that is taken, in bytes of the file."""
        self._guard = threading.Lock()  # of the two below, which several threads use
        self._known: ByteCache[str, _Known] = ByteCache(_KNOWN_EXTENTS, lambda known: 1 + len(known.extents))
        self._touched: ByteCache[str, float] = ByteCache(_KNOWN_EXTENTS, lambda _: 1)

    def close(self) -> None:
        """See DiskRoom."""
        self._room.close()

    def prepare(self) -> None:
        """See DiskRoom."""
        self._room.prepare()

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, key: str, start: int, end: int) -> bytes | None:
        """The object's bytes [start, end); None if some of them are not here. Damaged extents are removed."""
        folder, name = self._folder(key), key.encode()
        with self._guard:
            known = self._known.get(folder)
        fresh = known is None
        for _ in range(_TRIES):
            known = self._look(folder) if known is None else known
            pieces = known.extents.cover(start, end)
            if pieces is None and fresh:
                return None
            if pieces is not None:
                try:
                    found = [self._read(folder, name, piece) for piece in pieces]
                    return found[0] if len(found) == 1 else b"".join(found)
                except Damaged as error:
                    self._remove_damaged(str(error))
                except FileNotFoundError:  # another process has removed it
                    pass
                with self._guard:
                    self._known.drop(folder)
            known, fresh = None, True
        return None

    def drop(self, key: str, start: int, end: int) -> None:
        """Remove what has a byte of [start, end)."""
        folder = self._folder(key)
        for extent in self._look(folder).extents.touching(start, end):
            self._remove_damaged(f"{folder}/{extent.name}")
        with self._guard:
            self._known.drop(folder)

    def _read(self, folder: str, key: bytes, piece: Piece) -> bytes:
        """Raises Damaged, with the path; FileNotFoundError."""
        path = f"{folder}/{piece.extent.name}"
        handle = os.open(path, os.O_RDONLY)
        try:
            data = _read_checked(handle, key, piece)
            self._touch(path, handle)
            return data
        except (Damaged, OSError) as error:
            if isinstance(error, OSError) and error.errno != EIO:
                raise
            raise Damaged(path) from error
        finally:
            os.close(handle)

    def _touch(self, path: str, handle: int) -> None:
        """Say that the extent is of use. Not at each read: that would be a write for each of them."""
        now = self._now()
        with self._guard:
            at = self._touched.get(path)
            if at is not None and now - at < TOUCH_SECONDS:
                return
            self._touched.put(path, now)
        with suppress(OSError):  # a disk that can only be read is good enough for that
            os.utime(handle)

    def _remove_damaged(self, path: str) -> None:
        DISK_CACHE_DAMAGED.inc()
        with suppress(FileNotFoundError):
            os.unlink(path)

    def _look(self, folder: str) -> _Known:
        """What is there now. It is read anew if the folder has changed, as far as its time tells (to some ms).

        What that hides is read from the store once more than needed.
        """
        try:
            mtime_ns = os.stat(folder).st_mtime_ns
            with self._guard:
                known = self._known.get(folder)
            if known is not None and known.mtime_ns == mtime_ns:
                return known
            names = os.listdir(folder)
        except FileNotFoundError:
            mtime_ns, names = 0, []
        extents = Extents(extent for extent in map(extent_named, names) if extent is not None)
        return self._know(folder, _Known(mtime_ns, extents))

    def _know(self, folder: str, known: _Known) -> _Known:
        with self._guard:
            self._known.put(folder, known)
        return known

    def _folder(self, key: str) -> str:
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return f"{self._root}/{name[:2]}/{name[2:]}"

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, key: str, start: int, data: Buffer) -> int:
        """Keep the object's bytes from `start` on; how many were written, 0 if they are here or have no room."""
        folder, name, extent = self._folder(key), key.encode(), Extent(start, start + len(data))
        size = taken(header_size(name, extent) + len(data))
        if size > self.largest or self._look(folder).extents.cover(*extent) is not None:
            return 0
        reserved = self._room.reserve(size)
        if reserved is None:
            return 0
        handle, temporary = reserved
        try:
            for part in (make_header(name, extent, data), data):
                _write_all(handle, part)
            with self._room.locked():
                self._name(temporary, folder, extent)
        except BaseException:
            with suppress(OSError):
                self._room.give_back(temporary, size)
            raise
        finally:
            os.close(handle)
        return len(data)

    def _name(self, temporary: str, folder: str, extent: Extent) -> None:
        """Give a file its name. Nobody removes the folder or adds to it meanwhile.

        If there is one of this name, the count is too large until the next look at everything.
        """
        for path in (os.path.dirname(folder), folder):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        known, path = self._look(folder), f"{folder}/{extent.name}"
        os.rename(temporary, path)
        self._know(folder, _Known(os.stat(folder).st_mtime_ns, known.extents.adding(extent)))
        with self._guard:
            self._touched.put(path, self._now())


def _read_checked(handle: int, key: bytes, piece: Piece) -> bytes:
    """The piece's bytes, exactly: what is missing to whole blocks is read besides, to check them, and not kept."""
    extent, begin = piece.extent, header_size(key, piece.extent)
    sums = read_header(os.pread(handle, begin, 0), key, extent)
    start, end = piece.start - extent.start, piece.end - extent.start
    first = start // BLOCK
    last = min(-(-end // BLOCK) * BLOCK, extent.end - extent.start)
    data = os.pread(handle, end - start, begin + start)
    if len(data) != end - start:
        raise Damaged("the file is too short")
    before = os.pread(handle, start - first * BLOCK, begin + first * BLOCK) if start % BLOCK else b""
    after = os.pread(handle, last - end, begin + end) if last > end else b""
    check(sums, first, before, data, after)
    return data


def _write_all(handle: int, data: Buffer) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
