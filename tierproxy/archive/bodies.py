"""Files on their way into a store: read by each attempt at its own pace, and watched, so that a stop is noticed."""

import asyncio
import io
import os
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from errno import EIO
from hashlib import sha256
from typing import BinaryIO

PART_BYTES = 512 << 10


class FileSource:
    """What is left of a file, from its position when this was made to its end, to be read several times.

    A thread of an attempt that failed may still be reading when the next one begins. So nobody relies on the
    file's position: each read seeks, under a lock.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = file.tell()
        self.size = file.seek(0, io.SEEK_END) - self._start

    def read_at(self, position: int, size: int) -> bytes:
        """The bytes there, fewer than `size` only at the end. OSError if the file has become shorter."""
        wanted = max(0, min(size, self.size - position))
        with self._lock:
            self._file.seek(self._start + position)
            data = self._file.read(wanted)
        if len(data) < wanted:
            raise OSError(EIO, os.strerror(EIO))
        return data

    def parts(self) -> Iterator[bytes]:
        """All of it, in parts of PART_BYTES."""
        return (self.read_at(at, PART_BYTES) for at in range(0, self.size, PART_BYTES))

    def base64_sha256(self) -> str:
        return base64_sha256(self.parts())

    def must_have(self, digest: str) -> None:
        """OSError if its SHA-256, in base64, is another one: the disk has changed it."""
        if self.base64_sha256() != digest:
            raise OSError(EIO, "the file is not what was written into it")

    def open(self) -> "FileBody":
        return FileBody(self)


class FileBody:
    """One reading of a FileSource: to botocore a file, and to aiohttp, which reads files by 64 KiB and goes to a thread
    for each of them, what it shall send."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._position = 0
        self.fault: OSError | None = None
        """Why the file could not be read: libraries tell of it as of a store that is away."""

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._source.size if size is None or size < 0 else size
        try:
            data = self._source.read_at(self._position, wanted)
        except OSError as error:
            self.fault = error
            raise
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while part := await asyncio.to_thread(self.read, PART_BYTES):
            yield part


def base64_sha256(parts: Iterable[bytes]) -> str:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return b64encode(digest.digest()).decode("ascii")


@asynccontextmanager
async def while_it_moves(position: Callable[[], int], seconds: float) -> AsyncIterator[None]:
    """TimeoutError in what is done inside if `position()` is the same for `seconds`, or for twice as long at most."""
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    before = -1
    looking: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal before, looking
        if position() == before:
            limit.reschedule(loop.time())
            return
        before = position()
        looking = loop.call_later(seconds, look)

    looking = loop.call_later(seconds, look)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"no byte was taken for {seconds:g} s, after {before}") from None
        raise
    finally:
        looking.cancel()
