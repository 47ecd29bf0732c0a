"""An archive of a million segments: its manifest stays small, and a cold read is not more work than in a small one."""

import asyncio
import io
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from protocol.batches import read_batch_header
from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, PID, TIME, batch
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, PageRef
from tierproxy.archive.names import manifest_key, partition_prefix
from tierproxy.archive.pages import Page, Paging
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_entry import SegmentEntry
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.archive.store_file import FileStore
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.reader import ColdReader
from tierproxy.routing.fetch import Facts, Verdict, judge
from tierproxy.tasks import Tasks

SEGMENTS = 1_000_000
OFFSETS = 1000
"""Offsets from one segment's first record to the next one's."""
STEP_MS = 60_000
DEFAULT = Paging()
ABOUT = SegmentInfo(CLUSTER, PID.topic, PID.topic_id, PID.partition)
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


def synthetic(first: int, count: int) -> Page:
    """Segments of 128 MiB whose objects are not there."""
    numbers = range(first, first + count)
    columns = (
        array("q", [n * OFFSETS for n in numbers]),
        array("q", [n * OFFSETS + OFFSETS - 1 for n in numbers]),
        array("q", [40_000_000 + n * 7919 % 1_000_000 for n in numbers]),
        array("q", [134_217_728 + n * 104_729 % 1_000_000 for n in numbers]),
        array("q", [7_000 + n % 500 for n in numbers]),
        array("q", [OFFSETS] * count),
        array("q", [TIME + n * STEP_MS for n in numbers]),
        array("q", [TIME + n * STEP_MS + STEP_MS - 1 for n in numbers]),
        array("q", [TIME + n * STEP_MS + STEP_MS for n in numbers]),
    )
    tags = tuple(f"{n * 2_654_435_761 % (1 << 32):08x}" for n in numbers)
    return Page(tags, columns, b"".join((n * 0x9E3779B97F4A7C15**3).to_bytes(40, "big")[-32:] for n in numbers))


def real(number: int) -> tuple[SegmentEntry, bytes]:
    """The segment in that place, with three records."""
    sink = io.BytesIO()
    writer = SegmentWriter(ABOUT, 3, sink, 1)
    for offset in range(number * OFFSETS, number * OFFSETS + 3):
        data = batch(offset, [b"found"])
        header = read_batch_header(data)
        assert header is not None
        writer.append(memoryview(data), header)
    writer.finish()
    return writer.entry("real", TIME), sink.getvalue()


def build(root: Path, segments: int, read: int) -> Manifest:
    """An archive of so many segments as the archiver leaves it, of which only the one in the place `read` is there."""
    entry, data = real(read)
    folder = root / FOLDER
    (folder / "manifest").mkdir(parents=True)
    (folder / entry.key_name).write_bytes(data)
    pages: list[PageRef] = []
    paged = segments - DEFAULT.root_most
    for first in range(0, paged, DEFAULT.page_most):
        page = synthetic(first, min(DEFAULT.page_most, paged - first))
        if first <= read < first + len(page):
            entries = list(page)
            entries[read - first] = entry
            page = Page.of(entries)
        ref, data = page.encode(ABOUT, f"{len(pages):08x}")
        (folder / ref.name).write_bytes(data)
        pages.append(ref)
    manifest = Manifest(
        CLUSTER,
        CLUSTER_ID,
        PID.topic,
        PID.topic_id,
        PID.partition,
        start_offset=0,
        end_offset=segments * OFFSETS,
        segments=tuple(synthetic(paged, DEFAULT.root_most)),
        epochs=((0, 0),),
        pages=tuple(pages),
        generation=segments,
    )
    (root / manifest_key(CLUSTER, PID)).write_bytes(manifest.to_json())
    return manifest


@dataclass
class Gateway:
    """What reads cold records in a process that has just started."""

    root: Path
    tasks: Tasks = field(default_factory=Tasks)

    async def __aenter__(self) -> "Gateway":
        self.store = Counting(self.root)
        self.library = Library(self.store, CLUSTER, self.tasks)
        self.chunks = Chunks(self.tasks, 1 << 24, ByteBudget(1 << 24))
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
    manifest = await asyncio.to_thread(build, tmp_path / "large", SEGMENTS, number)
    assert manifest.sums.segments == SEGMENTS
    async with Gateway(tmp_path / "large") as gateway:
        assert await gateway.read(offset) == batch(offset, [b"found"])
        keys = [key.removeprefix(FOLDER) for key, _ in gateway.store.reads]
        page = manifest.find(offset)
        assert isinstance(page, PageRef)
        segment, _ = real(number)
        assert keys == ["manifest.json", page.name, segment.key_name, segment.key_name]
        root, page_bytes, index, chunk = (size for _, size in gateway.store.reads)
        assert root < 160 << 10
        assert page_bytes < 512 << 10
        assert index == segment.index_size
        assert chunk < 1 << 10
        many = calls(lambda: gateway.read_again(offset))

        found = await gateway.library.segment_at(gateway.manifest, gateway.manifest.end_offset - 1)
        assert found == gateway.manifest.segments[-1]
        by_time = TIME + number * STEP_MS
        await anext(gateway.library.segments(gateway.manifest, since_ms=by_time))
        assert len(gateway.store.reads) == 4, "the hot end is in the root, and a time is found by the pages' rows"

    await asyncio.to_thread(build, tmp_path / "small", 1_000, 543)
    async with Gateway(tmp_path / "small") as gateway:
        await gateway.read(543 * OFFSETS + 1)
        few = calls(lambda: gateway.read_again(543 * OFFSETS + 1))
    assert many <= few + 16, "looking something up takes a few steps more, the logarithm of the number of pages"
