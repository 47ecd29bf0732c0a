"""tierproxy.tiering.publisher over a real directory store, whose files are damaged behind its back."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from protocol.fetch_response import FetchedPartition
from tests.unit.batch_maker import make_batch, plain_records
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.archive.store import Unavailable
from tierproxy.archive.store_file import FileStore
from tierproxy.clock import ManualClock
from tierproxy.tiering.memory import SegmentMemory
from tierproxy.tiering.publisher import Publisher
from tierproxy.tiering.spool import OpenSegment, SpoolSettings
from tierproxy.tiering.steps import Commit, Committed, Conflicted, Damaged, RecordGap, Uploaded, Verified

PID = PartitionId("t", b"i" * 16, 0)


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    store = FileStore(tmp_path)
    yield Library(store, "c")
    await store.close()


@pytest.fixture
def publisher(library: Library) -> Publisher:
    return Publisher(library, "cluster-id", PID, ManualClock())


_opened: list[OpenSegment] = []


@pytest.fixture(autouse=True)
def _discard() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().discard()


def segment(base: int, count: int = 10, fetched_at: int | None = None) -> OpenSegment:
    about = SegmentInfo("c", "t", PID.topic_id, 0)
    asked = base if fetched_at is None else fetched_at
    opened = OpenSegment(about, SpoolSettings(None, 3, SegmentMemory(64 << 20)), asked, -1, first_is_cut=False)
    _opened.append(opened)
    records = memoryview(make_batch(base, plain_records(count)))
    opened.take(FetchedPartition("t", PID.topic_id, 0, 0, base + count, base + count, 0, None, -1, records, b""))
    return opened


def stored_segments(root: Path) -> list[Path]:
    return sorted(root.rglob("*.log.zst"))


async def archive(publisher: Publisher, manifest: Manifest | None, base: int) -> Manifest:
    assert await publisher.upload(segment(base)) == Uploaded()
    assert await publisher.verify() == Verified()
    event = await publisher.commit(Commit(manifest, start_offset=base))
    assert isinstance(event, Committed)
    return event.manifest


async def test_segments_are_stored_read_back_and_named(publisher: Publisher, library: Library, tmp_path: Path) -> None:
    assert await publisher.load() is None
    first = await archive(publisher, None, 5)
    second = await archive(publisher, first, 15)
    found = await library.load(PID)
    assert found is not None
    assert found.manifest == second
    assert (second.start_offset, second.end_offset, second.cluster_id) == (5, 25, "cluster-id")
    assert [file.name for file in stored_segments(tmp_path)] == [entry.key_name for entry in second.segments]


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer", "changed"])
async def test_a_damaged_segment_is_noticed_and_stored_under_another_name(
    publisher: Publisher, tmp_path: Path, damage: str
) -> None:
    opened = segment(0)
    await publisher.upload(opened)
    (file,) = stored_segments(tmp_path)
    data = file.read_bytes()
    file.chmod(0o644)
    match damage:
        case "gone":
            file.unlink()
        case "shorter":
            file.write_bytes(data[:-1])
        case "longer":
            file.write_bytes(data + b"\x00")
        case "changed":
            file.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    assert isinstance(await publisher.verify(), Damaged)
    await publisher.upload(opened)
    assert await publisher.verify() == Verified()
    event = await publisher.commit(Commit(None, 0))
    assert isinstance(event, Committed)
    assert event.manifest.segments[0].key_name != file.name


async def test_an_upload_that_is_repeated_leaves_one_object(publisher: Publisher, tmp_path: Path) -> None:
    opened = segment(0)
    await publisher.upload(opened)
    await publisher.upload(opened)
    assert len(stored_segments(tmp_path)) == 1


async def test_of_two_archivers_one_loses_cleanly(publisher: Publisher, library: Library) -> None:
    other = Publisher(library, "cluster-id", PID, ManualClock())
    assert await publisher.load() is None
    assert await other.load() is None
    await archive(other, None, 0)
    await publisher.upload(segment(0))
    await publisher.verify()
    assert await publisher.commit(Commit(None, 0)) == Conflicted()
    manifest = await publisher.load()
    assert manifest is not None
    assert manifest.end_offset == 10
    await archive(publisher, manifest, 10)
    assert await other.record_gap(RecordGap(manifest, 10, 20), "?") == Conflicted()


class LosesAnswers(FileStore):
    """A directory whose first conditional write happens, but is reported as not having happened."""

    lost = 0

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        written = await super().put_if(key, data, version)
        if not self.lost:
            self.lost += 1
            raise Unavailable("the answer was lost")
        return written


async def test_a_commit_whose_answer_was_lost_is_found(tmp_path: Path) -> None:
    store = LosesAnswers(tmp_path)
    publisher = Publisher(Library(store, "c"), "cluster-id", PID, ManualClock())
    await publisher.load()
    await publisher.upload(segment(0))
    await publisher.verify()
    with pytest.raises(Unavailable):
        await publisher.commit(Commit(None, 0))
    event = await publisher.commit(Commit(None, 0))
    assert isinstance(event, Committed)
    assert [(entry.base_offset, entry.last_offset) for entry in event.manifest.segments] == [(0, 9)]
    await archive(publisher, event.manifest, 10)
    await store.close()


async def test_a_gap_is_written_down(publisher: Publisher, library: Library) -> None:
    await publisher.load()
    manifest = await archive(publisher, None, 0)
    event = await publisher.record_gap(RecordGap(manifest, 10, 25), "lost")
    assert isinstance(event, Committed)
    gap = event.manifest.gaps[0]
    assert (gap.start, gap.end, gap.cause, gap.at_ms) == (10, 25, "lost", ManualClock().now_ms())
    assert (await archive(publisher, event.manifest, 25)).end_offset == 35


@pytest.mark.parametrize("base", [5, 15])
async def test_a_segment_that_was_fetched_elsewhere_is_refused(publisher: Publisher, base: int) -> None:
    manifest = await archive(publisher, None, 0)
    await publisher.upload(segment(base))
    with pytest.raises(ContinuityError, match=f"fetched at {base}, does not continue what ends at 10"):
        await publisher.commit(Commit(manifest, 0))


async def test_a_segment_may_begin_above_where_it_was_fetched(publisher: Publisher) -> None:
    """The offsets between were compacted away before the topic was made an ordinary one."""
    manifest = await archive(publisher, None, 0)
    await publisher.upload(segment(15, fetched_at=10))
    event = await publisher.commit(Commit(manifest, 0))
    assert isinstance(event, Committed)
    assert (event.manifest.segments[-1].base_offset, event.manifest.end_offset, event.manifest.gaps) == (15, 25, ())


async def test_holds_what_the_stored_manifest_holds(publisher: Publisher, library: Library) -> None:
    assert not await publisher.holds(0)
    await archive(publisher, None, 0)
    assert await publisher.holds(10)
    assert not await publisher.holds(11)
