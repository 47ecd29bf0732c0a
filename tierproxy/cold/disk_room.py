"""Whose the disk cache's directory is, what is in it, and that it is not too much. Blocking, as disk_folder.

    tierproxy-cache     says that the directory is ours, and the version of the format
    usage               how many bytes all the files take; whoever changes that holds its lock (flock)
    tmp/                extents that are being written; their names begin with the bytes that they may take
    3f/9a…e1/           an object, by a hash of its key: its extents

The bound holds for all processes together: under the lock room is made, the file appears in tmp/ and is counted, and
only then is it written. A file that is removed because it is damaged stays counted until the next look at everything;
so the count is never too small. Whoever writes holds a lock on the file itself: what a killed process has left in tmp/
has none, and goes. Readers take no lock: an extent that is removed while it is read is read to its end.

What is not counted: folders (4 KiB for an object, 1 MiB for the 256 that they are in), and what is removed while it is
still being read.
"""

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from crc32c import crc32c

from tierproxy.cold.disk_extents import PAGE, VERSION, extent_named
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import DISK_CACHE_BYTES, DISK_CACHE_EVICTED_BYTES

MARKER = "tierproxy-cache"
USAGE = "usage"
TEMPORARY = "tmp"
SPARE_PART, SPARE_BYTES = 16, 8 << 30
"""When the directory is full, this part of its size is freed at a time, but no more than so many bytes: others wait."""
LOCK_SECONDS = 5.0
PREPARE_SECONDS = 60.0
"""The first look at a large directory takes its time, and processes that start together look one after the other."""
_LOCK_PAUSE = 0.002
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
    """The count, while its lock is held."""

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


class DiskRoom:
    """`size` bytes below `root`. Any method may raise OSError."""

    def __init__(self, root: Path, size: int) -> None:
        self._root = root
        self._size = size
        self._closing = threading.Event()

    def close(self) -> None:
        """Who waits for the lock does so no longer."""
        self._closing.set()

    def prepare(self) -> None:
        """Make the directory ours, empty it if it is of another version, and shrink it to its size.

        Raises NotOurs.
        """
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise NotOurs(f"{self._root} is not a directory: let cache.disk.path name one") from None
        marker = self._root / MARKER
        if not is_ours(self._root):
            marker.touch(mode=0o600)
        (self._root / TEMPORARY).mkdir(mode=0o700, exist_ok=True)
        with self.locked(PREPARE_SECONDS) as usage:
            if marker.read_text(errors="replace") != _marker_text():
                self._shrink(usage, 0, 0)
                marker.write_text(_marker_text())
            self._shrink(usage, 0, self._size)
            for folder in _objects(self._root):
                with suppress(OSError):  # it is not empty
                    os.rmdir(folder)

    def reserve(self, size: int) -> tuple[int, str] | None:
        """A temporary file for `size` bytes, which are counted: its handle and path. None if there is no room.

        The file is in use for as long as the handle is open.
        """
        with self.locked() as usage:
            if not usage.known or usage.bytes + size > self._size:
                self._shrink(usage, size, self._size)
                if usage.bytes + size > self._size:
                    return None
            path = f"{self._root}/{TEMPORARY}/{size}-{uuid4().hex}"
            usage.set(usage.bytes + size)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle, path

    def give_back(self, path: str, size: int) -> None:
        """Remove a temporary file that came to nothing."""
        with self.locked() as usage:
            os.unlink(path)
            usage.set(usage.bytes - size)

    @contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[_Usage]:
        """Nobody else adds, counts or makes room meanwhile. TimeoutError if it takes longer to get the lock."""
        handle = os.open(f"{self._root}/{USAGE}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for _ in range(round(seconds / _LOCK_PAUSE)):
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if self._closing.wait(_LOCK_PAUSE):
                    raise TimeoutError("the cache is being closed")
            else:
                raise TimeoutError(f"{self._root}/{USAGE} has been locked by another process for {seconds:g} s")
            yield _Usage(handle)
        finally:
            os.close(handle)

    def _shrink(self, usage: _Usage, size: int, most: int) -> None:
        """Count anew, and remove what was not used for longest until there is room for `size` more within `most`."""
        files = sorted(_files(self._root), reverse=True)
        usage.set(self._being_written() + sum(file.size for file in files))
        spare = min(most // SPARE_PART, SPARE_BYTES)
        goal = most - size - spare if usage.bytes + size > most else usage.bytes
        while files and usage.bytes > goal:
            self._evict(usage, files.pop())

    def _evict(self, usage: _Usage, file: _File) -> None:
        with suppress(FileNotFoundError):
            os.unlink(file.path)
            DISK_CACHE_EVICTED_BYTES.inc(file.size)
        usage.set(usage.bytes - file.size)
        with suppress(OSError):  # it is not empty
            os.rmdir(os.path.dirname(file.path))

    def _being_written(self) -> int:
        """Bytes for which there must be room; what nobody writes any more is removed."""
        total = 0
        for name in os.listdir(self._root / TEMPORARY):
            named = _TEMPORARY.fullmatch(name)
            if named is not None and not _removed_if_left(self._root / TEMPORARY / name):
                total += int(named[1])
        return total


def is_ours(root: Path) -> bool:
    """Whether the directory is a disk cache already; if not, it is empty. Raises NotOurs, OSError."""
    names = set(os.listdir(root)) - _FOREIGN_BUT_HARMLESS
    if names and MARKER not in names:
        raise NotOurs(
            f"{root} holds files that are not a disk cache's ({min(names)}): "
            "let cache.disk.path name a directory of its own"
        )
    return bool(names)


def free_and_used(root: Path) -> tuple[int, int]:
    """Bytes that are free where the directory is or will be, and bytes that the cache has there. Changes nothing.

    Raises NotOurs, OSError.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir():
        raise NotOurs(f"{there} is not a directory: let cache.disk.path name one")
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(EACCES, os.strerror(EACCES), str(there))
    used = sum(file.size for file in _files(root)) if there == root and is_ours(root) else 0
    about = os.statvfs(there)
    return about.f_bavail * about.f_frsize, used


def taken(size: int) -> int:
    """What a file of this size takes on a disk."""
    return -(-size // PAGE) * PAGE


def _marker_text() -> str:
    return f"A cache of tierproxy's, which may be removed when none is running. Format {VERSION}\n"


def _files(root: Path) -> Iterator[_File]:
    """All extents. Whatever else lies here is left alone."""
    for folder in _objects(root):
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if extent_named(entry.name) is not None:
                    with suppress(FileNotFoundError):  # a reader found it damaged
                        about = entry.stat(follow_symlinks=False)
                        yield _File(about.st_mtime_ns, taken(about.st_size), entry.path)


def _objects(root: Path) -> Iterator[str]:
    for shard in _folders(str(root), _SHARD):
        yield from _folders(shard, _OBJECT)


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
