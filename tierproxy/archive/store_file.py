"""A directory as a store: the embedded default, for one machine or a few that share a POSIX file system.

Objects are files under their keys. A write goes to a temporary file in the same directory, is flushed to
disk, and takes its name by rename; then the directory is flushed, so that the name survives a crash too.
put_if() is told apart from others by a lock on a file in the directory (flock), which all processes of a
machine see, and which the system lets go of when a process dies. The version of an object is the SHA-256 of
its bytes. Names that begin with a dot are this module's own (".lock", ".tmp-...") and are no keys; what a
killed process left of them is garbage.

Every call works in one of a few threads of its own, so a disk that hangs holds up the archive and nothing
else; and whoever waits for it is told after a while. The thread that hangs can't be helped, and may yet write.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from errno import EDQUOT, ENOSPC, EROFS
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar
from uuid import uuid4

from tierproxy.archive.bodies import FileSource
from tierproxy.archive.meter import counted
from tierproxy.archive.store import (
    Conflict,
    NotFound,
    ObjectInfo,
    Refused,
    StoredObject,
    Truncated,
    Unavailable,
    check_key,
    check_prefix,
    prove_conditions,
)
from tierproxy.ranges import ByteRange

T = TypeVar("T")
_Listing: TypeAlias = list[ObjectInfo | str]
"""Files, and directories by their names."""

_THREADS = 4
SLOWEST = 1 << 20
"""Bytes a second that a disk must move at the least."""
_LOCK_FILE = ".lock"
_LOCK_PAUSE_SECONDS = 0.01


class FileStore:
    """Objects as files in a directory, which is made when it is first written to."""

    def __init__(self, root: Path, *, lock_seconds: float = 10, answer_seconds: float = 60) -> None:
        """`lock_seconds` is how long put_if() waits while somebody else writes in the same directory.

        `answer_seconds` is how long anything may take; writing and reading many bytes gets more, as of SLOWEST.
        """
        self._root = root
        self._answer_seconds = answer_seconds
        self._lock_tries = max(1, round(lock_seconds / _LOCK_PAUSE_SECONDS))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="archive-files")

    async def get(self, key: str) -> StoredObject:
        """See Store."""
        return await self._run("get", key, partial(_read_object, self._path(key)))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """See Store."""
        path, wanted = self._path(key), ByteRange(start, end)
        if not wanted.size:
            return b""
        data = await self._run("get_range", key, partial(_read_range, path, wanted), wanted.size)
        if len(data) != wanted.size:
            raise Truncated(f"{path}: {len(data)} bytes instead of {wanted}")
        return data

    async def size(self, key: str) -> int:
        """See Store."""
        return (await self._run("size", key, partial(_stat_file, self._path(key)))).st_size

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        """See Store."""
        path = self._path(key)
        try:
            if isinstance(body, bytes):
                await self._run("put", key, partial(self._write, path, [body]), len(body))
            else:
                source = await asyncio.to_thread(FileSource, body)
                await self._run("put", key, partial(self._write_file, path, source), source.size)
        except NotFound as error:
            raise Unavailable(f"{self._path(key)}: its directory went away or is a file") from error

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        """See Store. Unavailable if another process holds the directory's lock for long."""
        attempt = partial(self._write_if, self._path(key), data, version)
        for _ in range(self._lock_tries):
            try:
                if await self._run("put_if", key, attempt):
                    return _version(data)
            except NotFound as error:
                if version is None:
                    raise Unavailable(f"{self._path(key)}: its directory can't be made, or went away") from error
                raise Conflict(f"{self._path(key)} went away") from error
            await asyncio.sleep(_LOCK_PAUSE_SECONDS)
        raise Unavailable(f"{self._path(key).parent / _LOCK_FILE} has been locked by somebody else for long")

    async def delete(self, key: str) -> None:
        """See Store."""
        with suppress(NotFound):
            await self._run("delete", key, partial(_remove, self._path(key)))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See Store."""
        check_prefix(prefix)
        folder, _, beginning = prefix.rpartition("/")
        # Directories still to be listed and files to be given out, in order of their keys, the next one last.
        left = await self._list_folder(folder, beginning)
        while left:
            following = left.pop()
            if isinstance(following, ObjectInfo):
                yield following
            else:
                left += await self._list_folder(following, "")

    async def check(self) -> None:
        """See Store."""
        await prove_conditions(self)

    async def close(self) -> None:
        """See Store."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    async def _run(self, operation: str, key: str, work: Callable[[], T], size: int = 0) -> T:
        seconds = self._answer_seconds + size / SLOWEST
        with counted(operation), _mapped(str(self._root / key)):
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except TimeoutError:
                raise TimeoutError(f"the disk has not done it within {seconds:.0f} s") from None

    async def _list_folder(self, folder: str, beginning: str) -> _Listing:
        try:
            return await self._run("list", folder, partial(_scan, self._root, folder, beginning))
        except NotFound:
            return []

    def _write_file(self, path: Path, source: FileSource) -> None:
        self._write(path, source.parts())

    def _write(self, path: Path, parts: Iterable[bytes]) -> None:
        self._make_folder(path.parent)
        temporary = path.parent / f".tmp-{uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)

    def _write_if(self, path: Path, data: bytes, version: str | None) -> bool:
        """False if somebody else is writing in this directory right now."""
        self._make_folder(path.parent)
        with (path.parent / _LOCK_FILE).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            found = _version(path.read_bytes()) if path.exists() else None
            if found != version:
                raise Conflict(f"{path} has version {found}, {version} was expected")
            self._write(path, [data])
            return True

    def _make_folder(self, folder: Path) -> None:
        """Make a directory and those it lies in, so that their names survive a crash."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _version(data: bytes) -> str:
    return sha256(data).hexdigest()


def _read_object(path: Path) -> StoredObject:
    data = path.read_bytes()
    return StoredObject(data, _version(data))


def _read_range(path: Path, wanted: ByteRange) -> bytes:
    with path.open("rb") as file:
        file.seek(wanted.start)
        return file.read(wanted.size)


def _stat_file(path: Path) -> os.stat_result:
    if path.is_dir():
        raise IsADirectoryError(path)
    return path.stat()


def _remove(path: Path) -> None:
    path.unlink()
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _scan(root: Path, folder: str, beginning: str) -> _Listing:
    """What lies in a directory, in falling order of the keys that it makes: files, and names of directories."""
    found: list[tuple[str, ObjectInfo | str]] = []
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.startswith(beginning):
                continue
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                found.append((f"{key}/", key))  # where its files stand in the order of keys
                continue
            try:
                about = entry.stat()
            except FileNotFoundError:  # deleted since
                continue
            found.append((key, ObjectInfo(key, about.st_size, about.st_mtime_ns // 1_000_000)))
    return [item for _, item in sorted(found, key=lambda pair: pair[0], reverse=True)]


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """The operating system's errors as the store's: the only place that knows both."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"{what} is not there") from error
    except PermissionError as error:
        raise Refused(f"{what}: {error.strerror}. Let tierproxy's user read and write there") from error
    except OSError as error:
        if error.errno == EROFS:
            raise Refused(f"{what}: {error.strerror}. Archives need a place that can be written") from error
        if error.errno in (ENOSPC, EDQUOT):
            raise Unavailable(f"{what}: {error.strerror}. Make room there") from error
        raise Unavailable(f"{what}: {error.strerror or error}") from error
