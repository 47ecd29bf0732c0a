"""An archive of a million segments: its manifest stays small, and a cold read is not more work than in a small one."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.kit.large_archive import OFFSETS, STEP_MS, build, segment
from tests.unit.tierproxy.cli.archives import CLUSTER, PID, TIME, batch
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import PageRef
from tierproxy.archive.names import partition_prefix
from tierproxy.archive.store_file import FileStore
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.reader import ColdReader
from tierproxy.routing.fetch import Facts, Verdict, judge
from tierproxy.tasks import Tasks

SEGMENTS = 1_000_000
FOLDER = partition_prefix(CLUSTER, PID)


class Counting(FileStore):
    """Notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int]] = []  # key and number of bytes

    async def get(self, key: str):  # type: ignore[no-untyped-def]
        found = await super().get(key)
        self.reads.append((key, len(found.data)))
        return found

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        self.reads.append((key, end - start))
        return await super().get_range(key, start, end)


def found_at(number: int) -> dict[int, list[bytes]]:
    """The one segment that is there, with three records."""
    return {number: [batch(offset, [b"found"]) for offset in range(number * OFFSETS, number * OFFSETS + 3)]}


@dataclass
class Gateway:
    """What reads cold records in a process that has just started."""

    root: Path
    tasks: Tasks = field(default_factory=Tasks)

    async def __aenter__(self) -> "Gateway":
        self.store = Counting(self.root)
        self.library = Library(self.store, CLUSTER, self.tasks)
        self.chunks = Chunks(self.tasks, 1 << 24, ByteBudget(1 << 24), small_segment=0)  # as of a full one
        self.reader = ColdReader(self.chunks, self.tasks)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.close()
        self.chunks.close()
        await self.store.close()

    async def read(self, offset: int) -> bytes:
        found = await self.library.load(PID)
        assert found is not None
        self.manifest = found.manifest
        assert judge(Facts(self.manifest.end_offset, -1, self.manifest, True), offset) is Verdict.COLD
        ready = await self.reader.fetch(self.library, PID, self.manifest, offset)
        records = ready.take(1, True)
        assert records is not None
        return b"".join(records.records)

    def read_again(self, offset: int) -> None:
        """The work of one more fetch, with everything in memory."""
        assert judge(Facts(self.manifest.end_offset, -1, self.manifest, True), offset) is Verdict.COLD
        assert self.manifest.gap_at(offset) is None
        ready = self.reader.ready(self.library, PID, self.manifest, offset)
        assert ready is not None
        assert ready.take(1, True) is not None


def calls(work: Callable[[], None]) -> int:
    """How many functions are called by it, Python's own included."""
    count = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


async def test_a_million_segments(tmp_path: Path) -> None:
    number = 543_210
    offset = number * OFFSETS + 1
    manifest = await asyncio.to_thread(build, tmp_path / "large", SEGMENTS, found_at(number))
    assert manifest.sums.segments == SEGMENTS
    async with Gateway(tmp_path / "large") as gateway:
        assert await gateway.read(offset) == batch(offset, [b"found"])
        keys = [key.removeprefix(FOLDER) for key, _ in gateway.store.reads]
        page = manifest.find(offset)
        assert isinstance(page, PageRef)
        there, _ = segment(found_at(number)[number])
        assert keys == ["manifest.json", page.name, there.key_name, there.key_name]
        root, page_bytes, *last = (size for _, size in gateway.store.reads)
        assert root < 160 << 10
        assert page_bytes < 512 << 10
        assert there.index_size in last, "the index, and at the same time where the chunk was guessed to be"
        assert max(last) < 1 << 10
        many = calls(lambda: gateway.read_again(offset))

        found = await gateway.library.segment_at(gateway.manifest, gateway.manifest.end_offset - 1)
        assert found == gateway.manifest.segments[-1]
        by_time = TIME + number * STEP_MS
        await anext(gateway.library.segments(gateway.manifest, since_ms=by_time))
        assert len(gateway.store.reads) == 4, "the hot end is in the root, and a time is found by the pages' rows"

    await asyncio.to_thread(build, tmp_path / "small", 1_000, found_at(543))
    async with Gateway(tmp_path / "small") as gateway:
        await gateway.read(543 * OFFSETS + 1)
        few = calls(lambda: gateway.read_again(543 * OFFSETS + 1))
    assert many <= few + 16, "looking something up takes a few steps more, the logarithm of the number of pages"
