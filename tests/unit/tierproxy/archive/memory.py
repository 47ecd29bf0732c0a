"""A store in memory that counts what is asked of it: for properties that are tried on thousands of archives."""

from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.store import Conflict, NotFound, ObjectInfo, StoredObject, Truncated


class MemoryStore:
    """Objects by key. `reads` are the keys that were read, `writes` those that were written, in order."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.writes: list[str] = []
        self._versions: dict[str, int] = {}
        self._written = 0

    async def get(self, key: str) -> StoredObject:
        self.reads.append(key)
        if key not in self.objects:
            raise NotFound(key)
        return StoredObject(self.objects[key], str(self._versions[key]))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        data = (await self.get(key)).data
        if len(data) < end:
            raise Truncated(key)
        return data[start:end]

    async def size(self, key: str) -> int:
        return len((await self.get(key)).data)

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        self._write(key, body if isinstance(body, bytes) else body.read())

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        found = self._versions.get(key)
        if (str(found) if found is not None else None) != version:
            raise Conflict(key)
        return self._write(key, data)

    async def delete(self, key: str) -> None:
        self.objects.pop(key, None)
        self._versions.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield ObjectInfo(key, len(self.objects[key]), 0)

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def _write(self, key: str, data: bytes) -> str:
        self._written += 1
        self.objects[key], self._versions[key] = data, self._written
        self.writes.append(key)
        return str(self._written)


def with_merged(manifest: Manifest, run: Sequence[SegmentEntry], merged: SegmentEntry) -> Manifest:
    """Library.merging() of what is in the root: then nothing is waited for."""
    try:
        Library(MemoryStore(), manifest.cluster).merging(manifest, run, merged).send(None)
    except StopIteration as done:
        found: Manifest = done.value
        return found
    raise AssertionError("a page was asked for")
