"""tierproxy.tiering.publisher over a real directory store, whose files are damaged behind its back."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from protocol.batches import walk
from protocol.fetch_response import FetchedPartition
from tests.kit.s3 import S3Server
from tests.kit.s3_faults import relay
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.archive.memory import with_merged
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.moving import Move
from tierproxy.archive.names import PartitionId, manifest_key, segment_name
from tierproxy.archive.pages import Paging
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.archive.store import Unavailable
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.store_s3 import S3Store
from tierproxy.cli.verify import verify_partition
from tierproxy.clock import ManualClock
from tierproxy.tiering.memory import SegmentMemory
from tierproxy.tiering.publisher import Publisher
from tierproxy.tiering.spool import OpenSegment, SpoolSettings
from tierproxy.tiering.steps import (
    Commit,
    Committed,
    Conflicted,
    Damaged,
    RecordGap,
    Rewind,
    Uploaded,
    Verified,
)

PID = PartitionId("t", b"i" * 16, 0)
SPOOL = SpoolSettings(None, 3, SegmentMemory(64 << 20))


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


async def test_segments_are_put_with_the_policys_storage_class_and_the_manifest_without(
    s3: S3Server,
) -> None:
    s3.make_bucket("classes")
    async with relay(s3.endpoint_url) as way:
        place = S3Place("classes", "", "us-east-1", way.endpoint_url, "kit", "secret", storage_class="ONEZONE_IA")
        store = S3Store(place)
        publisher = Publisher(Library(store, "c"), "cluster-id", PID, ManualClock(), "STANDARD_IA")
        await publisher.load()
        await publisher.upload(segment(0))
        assert await publisher.verify() == Verified()
        assert isinstance(await publisher.commit(Commit(None, 0)), Committed)
        classes = [h.get("x-amz-storage-class") for m, h in zip(way.requests, way.headers, strict=True) if m == "PUT"]
        assert classes == [None, "STANDARD_IA", None]
        await store.close()


def stored_segments(root: Path) -> list[Path]:
    return sorted(root.rglob("*.log.zst"))


async def archive(publisher: Publisher, manifest: Manifest | None, base: int) -> Manifest:
    assert await publisher.upload(segment(base)) == Uploaded()
    assert await publisher.verify() == Verified()
    event = await publisher.commit(Commit(manifest, start_offset=base))
    assert isinstance(event, Committed)
    return event.manifest


async def test_a_lost_manifest_is_not_taken_for_a_new_archive(
    publisher: Publisher, library: Library, tmp_path: Path
) -> None:
    first = await archive(publisher, None, 5)
    await archive(publisher, first, 15)
    (tmp_path / manifest_key("c", PID)).unlink()
    assert await publisher.load() is None
    for base, stray in ((25, "00005-00000000000000000014"), (15, "00005-00000000000000000014")):
        with pytest.raises(ContinuityError, match=rf"{stray}.*archive repair t --partition 0"):
            await archive(publisher, None, base)
        await publisher.load()
    assert await library.load(PID) is None
    # Whatever the broker still has can be archived again: a crash may have left it, right before the first manifest.
    assert (await archive(publisher, None, 14)).start_offset == 14


async def test_a_segment_that_was_never_committed_is_not_what_a_lost_manifest_has_left(
    publisher: Publisher, library: Library
) -> None:
    await publisher.load()
    await publisher.upload(segment(5))  # and here its archiver dies, and retention deletes what it had read
    successor = Publisher(library, "cluster-id", PID, ManualClock())
    assert await successor.load() is None
    manifest = await archive(successor, None, 25)
    assert (manifest.start_offset, manifest.end_offset, manifest.gaps, manifest.generation) == (25, 35, (), 2)
    await publisher.verify()
    assert await publisher.commit(Commit(None, 5)) == Conflicted()


async def test_what_another_archiver_has_begun_and_trimmed_is_not_what_a_lost_manifest_has_left(
    publisher: Publisher, library: Library
) -> None:
    await publisher.load()
    other = Publisher(library, "cluster-id", PID, ManualClock())
    await other.load()
    await archive(other, None, 5)
    assert await publisher.upload(segment(15)) == Conflicted()


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
    await publisher.upload(segment(0))
    await publisher.verify()
    assert await other.upload(segment(0)) == Conflicted()
    assert await other.load() is None
    await archive(other, None, 0)
    assert await publisher.commit(Commit(None, 0)) == Conflicted()
    manifest = await publisher.load()
    assert manifest is not None
    assert manifest.end_offset == 10
    await archive(publisher, manifest, 10)
    assert await other.record_gap(RecordGap(manifest, 10, 20), "?") == Conflicted()


async def uploaded(publisher: Publisher, library: Library) -> Manifest:
    """[0, 10) and [10, 20) are archived, [20, 30) is uploaded and verified, not committed."""
    manifest = await archive(publisher, await archive(publisher, None, 0), 10)
    await publisher.upload(segment(20))
    assert await publisher.verify() == Verified()
    return manifest


async def change(library: Library, changed: Manifest) -> None:
    found = await library.load(PID)
    assert found is not None
    await library.save(PID, changed, found.version)


async def test_a_commit_follows_changes_of_what_lies_before(publisher: Publisher, library: Library) -> None:
    manifest = await uploaded(publisher, library)
    one, two = manifest.segments
    merged = replace(one, key_name=segment_name(0, 19, "m"), last_offset=19, plain_size=one.plain_size * 2, records=20)
    assert two.plain_size == one.plain_size
    await change(library, with_merged(manifest, (one, two), merged))
    event = await publisher.commit(Commit(manifest, 0))
    assert isinstance(event, Committed)
    assert [(e.base_offset, e.last_offset) for e in event.manifest.segments] == [(0, 19), (20, 29)]

    await publisher.upload(segment(30))
    await publisher.verify()
    await change(library, event.manifest.with_start(30))
    event = await publisher.commit(Commit(event.manifest, 0))
    assert isinstance(event, Committed)
    assert (event.manifest.start_offset, event.manifest.end_offset, len(event.manifest.segments)) == (30, 40, 1)
    assert (await archive(publisher, event.manifest, 40)).end_offset == 50


async def test_a_commit_does_not_follow_a_fence(publisher: Publisher, library: Library) -> None:
    manifest = await uploaded(publisher, library)
    await change(library, manifest.with_fence())
    assert await publisher.commit(Commit(manifest, 0)) == Conflicted()
    await change(library, manifest.with_fence().with_fence().with_start(5))
    again = await publisher.load()
    assert again is not None
    assert (await archive(publisher, again, 20)).end_offset == 30


async def test_a_commit_does_not_follow_a_move(publisher: Publisher, library: Library, tmp_path: Path) -> None:
    """The new archive has what was named when it was handed over: the uploaded segment is not there."""
    manifest = await uploaded(publisher, library)
    store = FileStore(tmp_path / "new")
    new = Library(store, "c")
    both = {"old": library, "new": new}
    for name, each in both.items():
        each.stand_beside(name, both)
    await Move(library, new, PID).run()
    why = "it was moved to another archive, which does not have the new segment"
    assert await publisher.commit(Commit(manifest, 0)) == Conflicted(why)
    again = await publisher.load()
    assert again is not None
    grown = await archive(publisher, again, 20)
    assert grown.end_offset == 30
    assert [await new.read_back(PID, entry) for entry in grown.segments] == [None] * 3
    await store.close()


class LosesAnswers(FileStore):
    """A directory whose next conditional write happens, but is reported as not having happened, when `lost` is 0."""

    lost = 1

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
    store.lost = 0
    with pytest.raises(Unavailable):
        await publisher.commit(Commit(None, 0))
    event = await publisher.commit(Commit(None, 0))
    assert isinstance(event, Committed)
    assert [(entry.base_offset, entry.last_offset) for entry in event.manifest.segments] == [(0, 9)]
    await archive(publisher, event.manifest, 10)
    await store.close()


async def test_a_first_manifest_whose_answer_was_lost_is_found(tmp_path: Path) -> None:
    store = LosesAnswers(tmp_path)
    publisher = Publisher(Library(store, "c"), "cluster-id", PID, ManualClock())
    await publisher.load()
    opened, store.lost = segment(0), 0
    with pytest.raises(Unavailable):
        await publisher.upload(opened)
    assert await publisher.upload(opened) == Conflicted()
    assert await publisher.load() is None
    await archive(publisher, None, 0)
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


async def test_a_segment_of_another_history_behind_a_gap_is_not_taken(publisher: Publisher) -> None:
    manifest = (await archive(publisher, None, 0)).with_gap(Gap(10, 15, 0, "?"))
    about = SegmentInfo("c", "t", PID.topic_id, 0)
    opened = OpenSegment(about, SPOOL, 15, -1, first_is_cut=True)
    _opened.append(opened)
    records = memoryview(make_batch(8, plain_records(10)))
    opened.take(FetchedPartition("t", PID.topic_id, 0, 0, 18, 18, 0, None, -1, records, b""))
    await publisher.upload(opened)  # from a leader whose batches are others
    assert isinstance(await publisher.commit(Commit(manifest, 0)), Conflicted)


async def test_holds_what_the_stored_manifest_holds(publisher: Publisher, library: Library) -> None:
    manifest = Manifest.empty("c", "cluster-id", PID, 0)
    assert not await publisher.holds(0, manifest)
    manifest = await archive(publisher, None, 0)
    assert await publisher.holds(10, manifest)
    assert not await publisher.holds(11, manifest)
    other = Publisher(library, "cluster-id", PID, ManualClock())
    await other.load()
    shorter = await cut(other, manifest, 5)
    await archive(other, shorter, 0)
    assert not await publisher.holds(10, manifest), "another history by now"


# ---- rewinding -----------------------------------------------------------------------------------------------

PRODUCER = 7
COMMIT, ABORT = 1, 0


def transaction(base: int, count: int) -> bytes:
    return make_batch(base, plain_records(count), transactional=True, producer_id=PRODUCER)


def marker(base: int, kind: int) -> bytes:
    return make_batch(base, control=kind, transactional=True, producer_id=PRODUCER)


def filled(*batches: bytes, aborted: list[tuple[int, int]] | None = None) -> OpenSegment:
    about = SegmentInfo("c", "t", PID.topic_id, 0)
    data = memoryview(b"".join(batches))
    headers = [header for header, _ in walk(data)]
    opened = OpenSegment(about, SPOOL, headers[0].base_offset, -1, first_is_cut=False)
    _opened.append(opened)
    end = headers[-1].next_offset
    opened.take(FetchedPartition("t", PID.topic_id, 0, 0, end, end, 0, aborted, -1, data, b""))
    return opened


async def stored(publisher: Publisher, manifest: Manifest | None, opened: OpenSegment) -> Manifest:
    await publisher.upload(opened)
    event = await publisher.commit(Commit(manifest, opened.fetched_at))
    assert isinstance(event, Committed)
    return event.manifest


async def cut(publisher: Publisher, manifest: Manifest, offset: int, log_start: int = 0) -> Manifest:
    event = await publisher.rewind(Rewind(manifest, offset, log_start, "elected"), SPOOL)
    assert isinstance(event, Committed)
    return event.manifest


def batches(count: int, each: int = 10) -> list[bytes]:
    return [make_batch(n * each, plain_records(each)) for n in range(count)]


async def test_a_segment_is_cut_at_a_batch_and_kept_as_it_was(
    publisher: Publisher, library: Library, tmp_path: Path
) -> None:
    data = batches(5)
    manifest = await stored(publisher, None, filled(*data))
    (original,) = stored_segments(tmp_path)
    before = original.read_bytes()
    shorter = await cut(publisher, manifest, 30)
    assert (shorter.end_offset, [entry.last_offset for entry in shorter.segments]) == (30, [29])
    assert [entry.key_name for entry in shorter.quarantined[0].segments] == [original.name]
    assert original.read_bytes() == before
    (check,) = [await verify_partition(library, shorter, allow_holes=False, now_ms=0, progress=lambda count: None)]
    assert check.problems == []
    key = library.segment_key(PID, shorter.segments[0])
    found = await library.store.get_range(key, 0, shorter.segments[0].stored_size)
    plain = zstandard.ZstdDecompressor().stream_reader(found, read_across_frames=True).read()
    assert plain == b"".join(data[:3])
    longer = await stored(publisher, shorter, filled(*[make_batch(30, plain_records(3))]))
    assert longer.end_offset == 33


async def test_a_cut_at_a_segments_border_writes_none(publisher: Publisher, tmp_path: Path) -> None:
    manifest = await archive(publisher, await archive(publisher, None, 0), 10)
    shorter = await cut(publisher, manifest, 10)
    assert (shorter.end_offset, len(shorter.segments), len(stored_segments(tmp_path))) == (10, 1, 2)


async def test_an_open_transaction_that_began_in_an_older_segment_counts_for_the_whole_new_one(
    publisher: Publisher, library: Library
) -> None:
    """Its marker is beyond the cut, so nobody knows of it any more: readers must leave its records out."""
    parts = [make_batch(10, plain_records(10)), transaction(20, 5), make_batch(25, plain_records(5)), marker(30, ABORT)]
    manifest = await archive(publisher, None, 0)
    manifest = await stored(publisher, manifest, filled(*parts, aborted=[(PRODUCER, 20)]))
    # Below the leader's log start nothing can be copied again, so it stays as it was decided.
    shorter = await cut(publisher, manifest, 30, log_start=30)
    assert shorter.end_offset == 30
    index = await library.load_index(PID, shorter.segments[-1])
    assert [(each.first_offset, each.marker_offset) for each in index.aborted] == [(20, None)]


@pytest.mark.parametrize("kind", [COMMIT, ABORT])
async def test_what_was_undecided_at_the_cut_is_to_be_archived_again(publisher: Publisher, kind: int) -> None:
    """A transaction whose marker the new leader doesn't have may end otherwise there."""
    parts = [make_batch(0, plain_records(20)), transaction(20, 5), make_batch(25, plain_records(5)), marker(30, kind)]
    aborted = [(PRODUCER, 20)] if kind == ABORT else []
    manifest = await stored(publisher, None, filled(*parts, aborted=aborted))
    assert (await cut(publisher, manifest, 30)).end_offset == 20


async def test_what_was_decided_below_the_cut_stays(publisher: Publisher) -> None:
    parts = [transaction(0, 5), marker(5, ABORT), *batches(5)[1:]]
    manifest = await stored(publisher, None, filled(*parts, aborted=[(PRODUCER, 0)]))
    assert (await cut(publisher, manifest, 30)).end_offset == 30


async def test_an_archive_that_the_leader_shares_nothing_with_begins_anew(publisher: Publisher, tmp_path: Path) -> None:
    manifest = await archive(publisher, None, 10)
    shorter = await cut(publisher, manifest, 5, log_start=2)
    assert (shorter.start_offset, shorter.end_offset, shorter.segments) == (2, 2, ())
    assert len(shorter.quarantined[0].segments) == 1


async def test_of_two_that_rewind_one_loses_cleanly(publisher: Publisher, library: Library) -> None:
    manifest = await stored(publisher, None, filled(*batches(5)))
    other = Publisher(library, "cluster-id", PID, ManualClock())
    await other.load()
    shorter = await cut(other, manifest, 30)
    assert await publisher.rewind(Rewind(manifest, 20, 0, "?"), SPOOL) == Conflicted()
    assert await publisher.load() == shorter


def seen(manifest: Manifest) -> tuple[object, ...]:
    quarantined = [
        (each.start, each.end, each.epochs, [(entry.base_offset, entry.last_offset) for entry in each.segments])
        for each in manifest.quarantined
    ]
    return manifest.start_offset, manifest.end_offset, manifest.epochs, manifest.gaps, quarantined


@pytest.mark.parametrize("offset", [0, 3, 10, 20, 25, 30, 40, 50, 60])
async def test_nobody_can_tell_from_a_cut_whether_there_are_pages(tmp_path: Path, offset: int) -> None:
    """Segments of two batches, and a transaction that is open at each border; pages of two segments."""
    found: list[object] = []
    for name, paging in (("paged", Paging(root_most=2, root_keep=1, page_most=2)), ("whole", Paging())):
        library = Library(FileStore(tmp_path / name), "c", paging=paging)
        publisher = Publisher(library, "cluster-id", PID, ManualClock())
        await publisher.load()
        manifest = None
        for base in range(0, 70, 10):
            parts = [marker(base, COMMIT), *batches_from(base + 1, 4), transaction(base + 5, 5)]
            manifest = await stored(publisher, manifest, filled(*parts))
        assert manifest is not None
        assert bool(manifest.pages) is (name == "paged")
        shorter = await cut(publisher, manifest, offset, log_start=2)
        again = await library.load(PID)
        assert again is not None
        assert again.manifest == shorter
        spans = [(each.base_offset, each.last_offset) async for each in library.segments(shorter)]
        found.append((seen(shorter), spans))
        quarantined = {entry.key_name for each in shorter.quarantined for entry in each.segments}
        assert quarantined <= await library.referenced(shorter)
        longer = await archive(publisher, shorter, shorter.end_offset)
        assert longer.end_offset == shorter.end_offset + 10
        await library.store.close()
    assert found[0] == found[1]


def batches_from(base: int, count: int) -> list[bytes]:
    return [make_batch(base, plain_records(count))]


# ---- where the partition lies ----------------------------------------------------------------------------------


async def test_a_segment_is_not_named_in_an_archive_that_does_not_have_it(tmp_path: Path) -> None:
    """The partition is moved after a segment was stored and read back: its manifest is as before, but elsewhere."""
    libraries = {name: Library(FileStore(tmp_path / name), "c") for name in ("a", "b")}
    for name, library in libraries.items():
        library.stand_beside(name, libraries)
    publisher = Publisher(libraries["a"], "cluster-id", PID, ManualClock())
    await publisher.load()
    first = await archive(publisher, None, 0)
    await publisher.upload(segment(10))
    assert await publisher.verify() == Verified()
    movers = {name: Library(FileStore(tmp_path / name), "c") for name in ("a", "b")}
    for name, library in movers.items():
        library.stand_beside(name, movers)
    await Move(movers["a"], movers["b"], PID).run()
    event = await publisher.commit(Commit(first, 0))
    assert isinstance(event, Conflicted)
    assert "moved" in event.reason
    again = await publisher.load()
    assert again is not None
    assert again.end_offset == 10
    longer = await archive(publisher, again, 10)
    assert longer.end_offset == 20
    for entry in longer.segments:
        assert await libraries["b"].read_back(PID, entry) is None
    for library in (*libraries.values(), *movers.values()):
        await library.store.close()
