"""The disk cache's directory, which all processes of a machine may share. Blocking: everything here works in threads.

    tierproxy-cache     says that the directory is ours, and the version of the format
    usage               how many bytes all the files take; whoever changes that holds its lock (flock)
    tmp/                extents that are being written, with the bytes that they may take in their names
    3f/9a…e1/           an object, by a hash of its key: its extents

The bound holds for all processes together: under the lock room is made, the file appears in tmp/ and is counted, and
only then is it written. A file that is removed because it is damaged stays counted until the next look at everything;
so the count is never too small. Whoever writes holds a lock on the file itself: what a killed process has left in tmp/
has none, and goes. Readers take no lock: an extent that is removed while it is read is read to its end.

What is not counted: folders, of 4 KiB for an object and 1 MiB in all, and what is removed while it is still being read.
"""

import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EIO
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from crc32c import crc32c

from protocol.wire import Buffer
from tierproxy.byte_cache import ByteCache
from tierproxy.cold.disk_extents import (
    BLOCK,
    PAGE,
    VERSION,
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
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import DISK_CACHE_BYTES, DISK_CACHE_DAMAGED, DISK_CACHE_EVICTED_BYTES

MARKER = "tierproxy-cache"
USAGE = "usage"
TEMPORARY = "tmp"
LARGEST_PART, SPARE_PART = 8, 16
"""The largest extent is an eighth of the size; when it is full, a sixteenth is freed at a time."""
TOUCH_SECONDS = 60.0
LOCK_SECONDS = 5.0
_LOCK_PAUSE = 0.002
_TRIES = 4
_KNOWN_EXTENTS = 30_000
_FOREIGN_BUT_HARMLESS = {"lost+found"}
_SHARD, _OBJECT = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{30}")
_TEMPORARY = re.compile(r"(\d{1,18})-[0-9a-f]{32}", re.ASCII)


class NotOurs(TierproxyError):
    """The directory holds something else than a disk cache."""


class _File(NamedTuple):
    mtime_ns: int
    size: int
    path: str


class _Usage:
    """The count, while its lock is held. None: nobody knows."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        stored = os.pread(handle, 12, 0)
        self.bytes = int.from_bytes(stored[:8], "little")
        self.known = len(stored) == 12 and crc32c(stored[:8]) == int.from_bytes(stored[8:], "little")

    def set(self, value: int) -> None:
        self.bytes, self.known = max(value, 0), True
        stored = self.bytes.to_bytes(8, "little")
        os.pwrite(self._handle, stored + crc32c(stored).to_bytes(4, "little"), 0)
        DISK_CACHE_BYTES.set(self.bytes)


class DiskFolder:
    """Extents as files below `root`, of `size` bytes together. Any method may raise OSError."""

    def __init__(self, root: Path, size: int, now: Callable[[], float]) -> None:
        """`now` gives seconds that never go back."""
        self._root = root
        self._size = size
        self._now = now
        self._closing = threading.Event()
        self._guard = threading.Lock()  # of the two below, which several threads use
        self._known: ByteCache[str, Extents] = ByteCache(_KNOWN_EXTENTS, lambda extents: 1 + len(extents))
        self._touched: ByteCache[str, float] = ByteCache(_KNOWN_EXTENTS, lambda _: 1)

    @property
    def largest(self) -> int:
        """The largest extent that is taken, in bytes of the file."""
        return self._size // LARGEST_PART

    def close(self) -> None:
        """Who waits for the lock does so no longer."""
        self._closing.set()

    def prepare(self) -> None:
        """Make the directory ours, empty it if it is of another version, and shrink it to its size.

        Raises NotOurs.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = self._root / MARKER
        if not is_ours(self._root):
            marker.touch(mode=0o600)
        (self._root / TEMPORARY).mkdir(mode=0o700, exist_ok=True)
        with self._locked() as usage:
            if marker.read_text(errors="replace") != _marker_text():
                self._make_room(usage, 0, most=0)
                marker.write_text(_marker_text())
            self._make_room(usage, 0, most=self._size)

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, key: str, start: int, end: int) -> bytes | None:
        """The object's bytes [start, end); None if some of them are not here. Damaged extents are removed."""
        folder, name = self._folder(key), key.encode()
        with self._guard:
            extents = self._known.get(folder)
        fresh = extents is None
        for _ in range(_TRIES):
            extents = self._list(folder) if extents is None else extents
            pieces = extents.cover(start, end)
            if pieces is None and fresh:
                return None
            if pieces is not None:
                with suppress(FileNotFoundError):  # another process has removed it
                    found = [self._read(folder, name, piece) for piece in pieces]
                    if None not in found:
                        return found[0] if len(found) == 1 else b"".join(part for part in found if part)
            extents, fresh = None, True
        return None

    def drop(self, key: str, start: int, end: int) -> None:
        """Remove what has a byte of [start, end)."""
        folder = self._folder(key)
        for extent in self._list(folder).touching(start, end):
            self._remove_damaged(f"{folder}/{extent.name}")

    def _read(self, folder: str, key: bytes, piece: Piece) -> bytes | None:
        """None if the extent was damaged, and is gone."""
        path = f"{folder}/{piece.extent.name}"
        handle = os.open(path, os.O_RDONLY)
        try:
            data = _read_checked(handle, key, piece)
            self._touch(path, handle)
            return data
        except (Damaged, OSError) as error:
            if isinstance(error, OSError) and error.errno != EIO:
                raise
            self._remove_damaged(path)
            return None
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

    def _list(self, folder: str) -> Extents:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            names = []
        extents = Extents(extent for extent in map(extent_named, names) if extent is not None)
        with self._guard:
            self._known.put(folder, extents)
        return extents

    def _folder(self, key: str) -> str:
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return f"{self._root}/{name[:2]}/{name[2:]}"

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, key: str, start: int, data: Buffer) -> int:
        """Keep the object's bytes from `start` on; how many were written, 0 if they are here or have no room."""
        folder, name, extent = self._folder(key), key.encode(), Extent(start, start + len(data))
        size = _taken(header_size(name, extent) + len(data))
        if size > self.largest or self._list(folder).cover(*extent) is not None:
            return 0
        temporary = self._root / TEMPORARY / f"{size}-{uuid4().hex}"
        with self._locked() as usage:
            if not self._make_room(usage, size, most=self._size):
                return 0
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            usage.set(usage.bytes + size)
        try:
            for part in (make_header(name, extent, data), data):
                _write_all(handle, part)
            with self._locked():  # nobody removes the folder meanwhile
                for path in (os.path.dirname(folder), folder):
                    with suppress(FileExistsError):
                        os.mkdir(path, 0o700)
                # If somebody has put the same there, the count is too large until the next look, as after a drop.
                os.rename(temporary, f"{folder}/{extent.name}")
        except BaseException:
            with suppress(OSError), self._locked() as usage:
                temporary.unlink()
                usage.set(usage.bytes - size)
            raise
        finally:
            os.close(handle)
        self._written(folder, extent)
        return len(data)

    def _written(self, folder: str, extent: Extent) -> None:
        with self._guard:
            self._known.drop(folder)  # to be listed again
            self._touched.put(f"{folder}/{extent.name}", self._now())

    # -- the bound --------------------------------------------------------------------------------------------------

    def _make_room(self, usage: _Usage, size: int, most: int) -> bool:
        """Remove what was not used for longest until there is room for `size` more bytes within `most`; or False.

        At size 0 everything is counted anew.
        """
        if size and usage.known and usage.bytes + size <= most:
            return True
        files = sorted(self._files(), reverse=True)
        usage.set(self._being_written() + sum(file.size for file in files))
        if usage.bytes + size > most:
            goal = max(0, most - size - most // SPARE_PART)
            while files and usage.bytes > goal:
                self._evict(usage, files.pop())
        return usage.bytes + size <= most

    def _evict(self, usage: _Usage, file: _File) -> None:
        with suppress(FileNotFoundError):
            os.unlink(file.path)
            DISK_CACHE_EVICTED_BYTES.inc(file.size)
        usage.set(usage.bytes - file.size)
        with suppress(OSError):  # it is not empty
            os.rmdir(os.path.dirname(file.path))

    def _files(self) -> Iterator[_File]:
        """All extents. Whatever else lies here is left alone."""
        for shard in _folders(str(self._root), _SHARD):
            for folder in _folders(shard, _OBJECT):
                with suppress(OSError):  # it is not empty
                    os.rmdir(folder)
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if extent_named(entry.name) is not None:
                            with suppress(FileNotFoundError):  # a reader found it damaged
                                about = entry.stat(follow_symlinks=False)
                                yield _File(about.st_mtime_ns, _taken(about.st_size), entry.path)

    def _being_written(self) -> int:
        """Bytes for which there must be room; what nobody writes any more is removed."""
        total = 0
        for name in os.listdir(self._root / TEMPORARY):
            named = _TEMPORARY.fullmatch(name)
            path = self._root / TEMPORARY / name
            if named is not None and not _removed_if_left(path):
                total += int(named[1])
        return total

    @contextmanager
    def _locked(self) -> Iterator[_Usage]:
        handle = os.open(self._root / USAGE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for _ in range(round(LOCK_SECONDS / _LOCK_PAUSE)):
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if self._closing.wait(_LOCK_PAUSE):
                    raise TimeoutError("the cache is being closed")
            else:
                raise TimeoutError(f"{self._root / USAGE} has been locked by another process for {LOCK_SECONDS:g} s")
            yield _Usage(handle)
        finally:
            os.close(handle)


def is_ours(root: Path) -> bool:
    """Whether the directory is a disk cache already; if not, it is empty. Raises NotOurs, OSError."""
    names = set(os.listdir(root)) - _FOREIGN_BUT_HARMLESS
    if names and MARKER not in names:
        raise NotOurs(
            f"{root} holds files that are not a disk cache's ({min(names)}): "
            "let cache.disk.path name a directory of its own"
        )
    return bool(names)


def _marker_text() -> str:
    return f"A cache of tierproxy's, which may be removed when none is running. Format {VERSION}\n"


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


def _taken(size: int) -> int:
    """What a file of this size takes on a disk."""
    return -(-size // PAGE) * PAGE


def _folders(path: str, name: re.Pattern[str]) -> list[str]:
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        return [e.path for e in entries if name.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    return []


def _removed_if_left(path: Path) -> bool:
    """Remove a temporary file whose writer is dead; whether it is gone."""
    try:
        handle = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
