"""A store whose large writes wait for their turn in a limit of bytes per second; all else passes at once.

An object is sent as fast as the inner store sends it, and the next one waits until the average is kept. Documents are
small and others wait for them: they count, but they don't wait.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import BinaryIO

from tierproxy import telemetry
from tierproxy.archive.store import ObjectInfo, Store, StoredObject
from tierproxy.clock import Clock
from tierproxy.rates import TokenBucket


class PacedStore:
    """`inner`, written to no faster than `bucket` allows; several stores may share a bucket."""

    def __init__(self, inner: Store, bucket: TokenBucket, clock: Clock) -> None:
        self._inner = inner
        self._bucket = bucket
        self._clock = clock

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        """See Store."""
        size = len(body) if isinstance(body, bytes) else await asyncio.to_thread(_left, body)
        wait = self._bucket.take(size, self._clock.monotonic())
        if wait > 0:
            telemetry.RATE_WAITS.labels("write").inc(wait)
            await asyncio.sleep(wait)
        await self._inner.put(key, body, storage_class, sha256)
        telemetry.ARCHIVER_WRITTEN_BYTES.inc(size)

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        """See Store."""
        self._bucket.spend(len(data), self._clock.monotonic())
        stored = await self._inner.put_if(key, data, version)
        telemetry.ARCHIVER_WRITTEN_BYTES.inc(len(data))
        return stored

    async def get(self, key: str) -> StoredObject:
        """See Store."""
        return await self._inner.get(key)

    async def get_range(self, key: str, start: int, end: int) -> bytes | bytearray:
        """See Store."""
        return await self._inner.get_range(key, start, end)

    async def size(self, key: str) -> int:
        """See Store."""
        return await self._inner.size(key)

    async def delete(self, key: str) -> None:
        """See Store."""
        await self._inner.delete(key)

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See Store."""
        return self._inner.list(prefix)

    async def check(self) -> None:
        """See Store."""
        await self._inner.check()

    async def close(self) -> None:
        """See Store."""
        await self._inner.close()


def _left(file: BinaryIO) -> int:
    """Bytes from the file's position to its end; the position stays."""
    at = file.tell()
    size = file.seek(0, io.SEEK_END) - at
    file.seek(at)
    return size
