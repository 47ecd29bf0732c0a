"""Archived bytes on a local disk, in front of the store: may be missing, late or full, but never wrong.

Everything that a disk can do to us ends here. What can't be read, or not within two seconds, is not there; a disk that
fails is left alone for half a minute, one that hangs until it has answered; what can't be written soon enough is not
written. Each is counted, and said once when it begins and once when it ends.
"""

import asyncio
from collections.abc import Callable
from errno import EACCES, EDQUOT, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Literal, TypeVar

from protocol.wire import Buffer
from tierproxy.archive.store import Store
from tierproxy.clock import Clock
from tierproxy.cold.disk_folder import DiskFolder
from tierproxy.cold.disk_room import NotOurs
from tierproxy.cold.disk_threads import DiskThreads
from tierproxy.cold.meter import came_from
from tierproxy.telemetry import (
    DISK_CACHE_DECLINED,
    DISK_CACHE_ERRORS,
    DISK_CACHE_READ_BYTES,
    DISK_CACHE_READS,
    DISK_CACHE_WRITTEN_BYTES,
    OncePerChange,
)

T = TypeVar("T")
Operation = Literal["read", "write"]
log = getLogger("tierproxy.disk_cache")

READERS = 4
QUEUED_BYTES = 64 << 20
"""What may wait to be written. More is declined: a slow disk must not fill the memory."""
ANSWER_SECONDS = 2.0
START_SECONDS = 10.0
PAUSE_SECONDS = 30.0


class DiskCache:
    """Ranges of objects that never change, in the directory `path`, of `size` bytes together.

    Several processes may share the directory. Whoever reads gets the bytes that were put, or None.
    """

    def __init__(self, path: Path, size: int, clock: Clock, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        """`answer_seconds` is how long a get() may take."""
        self._path = path
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._folder = DiskFolder(path, size, clock.monotonic)
        self._prepared = False  # the writing thread's
        self._readers = DiskThreads(READERS, "disk-cache-read")
        self._writer = DiskThreads(1, "disk-cache-write")
        self._queued = 0
        self._off_until: dict[Operation, float] = {}
        self._troubles = OncePerChange(log)
        self._closed = False

    async def start(self) -> None:
        """Make the directory ready. A disk that fails is no error, but a directory that is not ours is: NotOurs."""
        try:
            await self._writer.answer(self._prepare, START_SECONDS)
        except OSError as error:
            self._failed("write", error)

    async def close(self) -> None:
        """Let go of the threads. What waits to be written is not written any more."""
        self._closed = True
        self._folder.close()
        self._readers.close()
        self._writer.close()

    # -- reading ----------------------------------------------------------------------------------------------------

    async def get(self, key: str, start: int, end: int) -> Buffer | None:
        """The object's bytes [start, end), or None. `key` must tell objects of different archives apart."""
        if start >= end:
            return b""
        if not self._usable("read"):
            DISK_CACHE_READS.labels("off").inc()
            return None
        found = await self._ask(partial(self._folder.read, key, start, end))
        DISK_CACHE_READS.labels("miss" if found is None else "hit").inc()
        DISK_CACHE_READ_BYTES.inc(0 if found is None else end - start)
        return found

    async def drop(self, key: str, start: int, end: int) -> None:
        """Have what has a byte of [start, end) gone: it was damaged before it was put here."""
        if self._usable("read"):
            await self._ask(partial(self._folder.drop, key, start, end))

    async def _ask(self, work: Callable[[], T | None]) -> T | None:
        try:
            found = await self._readers.answer(work, self._answer_seconds)
        except OSError as error:
            self._failed("read", error)
            return None
        self._succeeded("read")
        return found

    # -- writing ----------------------------------------------------------------------------------------------------

    async def put(self, key: str, start: int, data: Buffer) -> None:
        """Keep the object's bytes from `start` on, or don't. Returns when that is done; `data` must not change."""
        done = asyncio.Event()
        if self._queue(key, start, data, done.set):
            await done.wait()

    def offer(self, key: str, start: int, data: Buffer) -> None:
        """put() without waiting for it."""
        self._queue(key, start, data, lambda: None)

    def _queue(self, key: str, start: int, data: Buffer, done: Callable[[], None]) -> bool:
        size = len(data)
        if not size or self._closed:
            return False
        if not self._usable("write") or size > self._folder.largest or self._queued + size > QUEUED_BYTES:
            DISK_CACHE_DECLINED.inc()
            return False

        def written(outcome: int | Exception) -> None:
            self._queued -= size
            self._written(outcome)
            done()

        self._queued += size
        self._writer.submit(partial(self._write, key, start, data), written)
        return True

    def _written(self, outcome: int | Exception) -> None:
        if isinstance(outcome, int):
            DISK_CACHE_WRITTEN_BYTES.inc(outcome)
            self._succeeded("write")
        elif isinstance(outcome, OSError | NotOurs):
            self._failed("write", outcome)
        else:
            log.error("an extent could not be written", exc_info=outcome)

    def _write(self, key: str, start: int, data: Buffer) -> int:
        if not self._prepared:
            self._prepare()
        try:
            return self._folder.write(key, start, data)
        except OSError:
            self._prepared = False  # the directory may be gone, or another disk in its place
            raise

    def _prepare(self) -> None:
        self._folder.prepare()
        self._prepared = True

    # -- trouble ----------------------------------------------------------------------------------------------------

    def _usable(self, operation: Operation) -> bool:
        if self._closed or self._readers.hanging or self._writer.hanging:
            return False
        off_until = self._off_until.get(operation)
        return off_until is None or self._clock.monotonic() >= off_until

    def _failed(self, operation: Operation, error: Exception) -> None:
        if self._closed:
            return
        DISK_CACHE_ERRORS.labels("late" if isinstance(error, TimeoutError) else operation).inc()
        self._off_until[operation] = self._clock.monotonic() + PAUSE_SECONDS
        what = "read" if operation == "read" else "written to"
        text = f"the disk cache in {self._path} can't be {what}: {_advice(error)}"
        self._troubles.began(operation, f"{text}; archived records come from their store meanwhile")

    def _succeeded(self, operation: Operation) -> None:
        if self._off_until.pop(operation, None) is not None:
            self._troubles.ended(operation, f"the disk cache in {self._path} works again")


class CachedReads:
    """Ranges of archived objects, from the disk cache where they are, else from the store."""

    def __init__(self, cache: DiskCache, place_of: Callable[[Store], str | None]) -> None:
        """`place_of` names a store: the same name for the same place at any time, in any process. None: a store that is
        as near as the cache."""
        self._cache = cache
        self._place_of = place_of

    async def get_range(self, store: Store, key: str, start: int, end: int) -> Buffer:
        """See Store.get_range. What the store gives is put into the cache, which the caller doesn't wait for."""
        here = self._name(store, key)
        found = await self._cache.get(here, start, end) if here is not None else None
        if found is not None:
            came_from("disk", len(found))
            return found
        data = await store.get_range(key, start, end)
        came_from("store", len(data))
        if here is not None:
            self._cache.offer(here, start, data)
        return data

    async def drop(self, store: Store, key: str, start: int, end: int) -> None:
        """What get_range() gave is damaged, though not by this disk: let it come from the store the next time."""
        here = self._name(store, key)
        if here is not None:
            await self._cache.drop(here, start, end)

    def _name(self, store: Store, key: str) -> str | None:
        place = self._place_of(store)
        return None if place is None else f"{place}/{key}"


def _advice(error: Exception) -> str:
    """What is wrong, and what to do."""
    if not isinstance(error, OSError):
        return str(error)
    what = error.strerror or str(error)
    if error.errno in (ENOSPC, EDQUOT):
        return f"{what}. Make room there, or make cache.disk.size smaller"
    if error.errno in (EACCES, EPERM, EROFS):
        return f"{what}. Let tierproxy's user read and write there, or leave cache.disk out"
    if error.errno in (ENOENT, ENOTDIR):
        return f"{what}. Somebody has removed what is in it, or its disk is not mounted"
    return f"{what}. Look at this disk, or leave cache.disk out"
