"""An archived partition to read from, in a real directory, behind a store that can be slow, broken, or counted."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.s3_faults import flipped
from tests.unit.tierproxy.cli.archives import CLUSTER, Archive, abort_marker, batch
from tierproxy.archive.library import Library
from tierproxy.archive.pages import Paging
from tierproxy.archive.store import StoredObject, Unavailable
from tierproxy.archive.store_file import FileStore
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.reader import ColdReader
from tierproxy.tasks import Tasks


class Gate(FileStore):
    """A directory store whose reads of ranges and of pages are counted, and wait or fail when told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False
        self.flips = 0
        """So many of the next reads come with one wrong bit."""
        self.manifests = asyncio.Event()
        """Cleared: whole objects are waited for, as manifests are read."""
        self.manifests.set()
        self.whole: list[str] = []
        """The keys of whole objects that were asked for."""

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        self.reads.append((key, start, end))
        await self.open.wait()
        if self.broken:
            raise Unavailable(f"{key}: the store is down")
        data = await super().get_range(key, start, end)
        if self.flips:
            self.flips -= 1
            return flipped(data)
        return data

    async def get(self, key: str) -> StoredObject:
        self.whole.append(key)
        if "/manifest/" in key:
            self.reads.append((key, 0, 0))
            await self.open.wait()
            if self.broken:
                raise Unavailable(f"{key}: the store is down")
        await self.manifests.wait()
        return await super().get(key)

    @contextmanager
    def closed(self) -> Iterator[None]:
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()


@dataclass
class Shelf:
    """The reader's parts over one archive."""

    archive: Archive
    memory: int = 1 << 20
    tasks: Tasks = field(default_factory=Tasks)
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(1 << 20))
    small_segment: int = 0

    async def __aenter__(self) -> "Shelf":
        self.store = Gate(self.archive.root)
        self.library = Library(self.store, CLUSTER, self.tasks)
        self.chunks = Chunks(self.tasks, self.memory, self.budget, small_segment=self.small_segment)
        self.reader = ColdReader(self.chunks, self.tasks)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        self.chunks.close()
        await self.store.close()

    async def read(self, offset: int, limit: int = 1 << 20, at_least_one: bool = True) -> tuple[bytes, int]:
        """Bytes and last offset of what one fetch at `offset` gets."""
        ready = await self.reader.fetch(self.library, self.archive.pid, self.archive.manifest, offset)
        taken = ready.take(limit, at_least_one)
        return (b"", -1) if taken is None else (b"".join(taken.records), taken.last_offset)

    async def quiet(self) -> None:
        """Wait until nothing is being read ahead."""
        while len(self.tasks):
            await asyncio.sleep(0)


BATCHES = [batch(n * 10, [b"v%d" % (n * 10 + i) * 20 for i in range(10)], epoch=n // 10) for n in range(30)]
"""30 batches of 10 records, offsets 0 to 299; leader epochs 0, 1 and 2."""


def three_segments(directory: Path) -> Archive:
    """Offsets 0 to 299 in three segments of ten chunks of one batch each."""
    archive = Archive(directory)
    for first in (0, 10, 20):
        archive.add(*BATCHES[first : first + 10])
    return archive.save()


def in_pages(directory: Path) -> Archive:
    """Offsets 0 to 299 in thirty segments: five pages of five and one of three, and two in the root."""
    archive = Archive(directory)
    for one in BATCHES:
        archive.add(one)
    return archive.save(paging=Paging(2, 2, 5))


def with_aborted_transactions(directory: Path) -> Archive:
    """Producer 7 aborts 10-19 by the marker at 30 and, one segment later, 40-49 by the marker at 60."""
    archive = Archive(directory)
    archive.add(
        batch(0, [b"plain"] * 10),
        batch(10, [b"aborted"] * 10, producer=7),
        batch(20, [b"plain"] * 10),
        abort_marker(30, 7),
        batch(31, [b"plain"] * 9),
        batch(40, [b"aborted"] * 10, producer=7),
        aborted=[(7, 10), (7, 40)],
    )
    archive.add(batch(50, [b"plain"] * 10), abort_marker(60, 7), batch(61, [b"plain"]), aborted=[(7, 40)])
    return archive.save()
