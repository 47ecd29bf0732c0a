"""tierproxy.tiering.spool: which batches of an answer get into a segment, and which do not."""

import random
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import zstandard
from crc32c import crc32c

from protocol.fetch_response import FetchedPartition
from tests.unit.batch_maker import make_batch, patched, plain_records
from tierproxy.archive.segment_index import SegmentIndex, SegmentInfo, read_index
from tierproxy.tiering.memory import SHARE_LEAST, SHARE_MOST, SegmentMemory
from tierproxy.tiering.spool import CorruptBatch, OpenSegment, SpoolSettings, UnreadableBatch

ABOUT = SegmentInfo("c", "t", b"i" * 16, 0)


def batch(base: int, count: int = 10, epoch: int = 0, producer: int = -1) -> bytes:
    return make_batch(base, plain_records(count), leader_epoch=epoch, producer_id=producer, transactional=producer >= 0)


def answer(*batches: bytes, stable: int = 1_000_000, aborted: list[tuple[int, int]] | None = None) -> FetchedPartition:
    records = memoryview(b"".join(batches))
    return FetchedPartition("t", ABOUT.topic_id, 0, 0, stable, stable, 0, aborted, -1, records, b"")


_opened: list[OpenSegment] = []


@pytest.fixture(autouse=True)
def _discard() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().discard()


def segment(
    at: int = 0,
    epoch: int = -1,
    *,
    cut: bool = False,
    directory: Path | None = None,
    memory: SegmentMemory | None = None,
    press: Executor | None = None,
) -> OpenSegment:
    settings = SpoolSettings(directory, 3, memory or SegmentMemory(64 << 20), press)
    opened = OpenSegment(ABOUT, settings, at, epoch, first_is_cut=cut)
    _opened.append(opened)
    return opened


def finished(opened: OpenSegment) -> tuple[bytes, SegmentIndex]:
    """The plain log and the index of what was written."""
    entry, epochs = opened.finish("tag", 5)
    stored = opened.file().read()
    assert (len(stored), opened.plain_bytes) == (entry.stored_size, entry.plain_size)
    index = read_index(stored[-entry.index_size :])
    assert epochs == index.epochs
    reader = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True)
    return reader.read(), index


def test_keeps_the_brokers_bytes() -> None:
    opened = segment()
    opened.take(answer(batch(0), batch(10)))
    opened.take(answer(batch(20, epoch=2)))
    plain, index = finished(opened)
    assert plain == batch(0) + batch(10) + batch(20, epoch=2)
    assert (opened.next_offset, opened.last_epoch) == (30, 2)
    assert index.epochs == ((0, 0), (2, 20))


def test_leaves_out_a_batch_that_is_not_all_there() -> None:
    opened = segment()
    opened.take(answer(batch(0), batch(10)[:-1]))
    assert opened.next_offset == 10
    opened.take(answer(batch(10)))
    assert finished(opened)[0] == batch(0) + batch(10)


def test_takes_nothing_from_an_empty_answer() -> None:
    opened = segment(7)
    opened.take(answer())
    opened.take(answer(batch(7)[:30]))
    assert (opened.next_offset, opened.plain_bytes) == (7, 0)


def test_stops_before_an_open_transaction() -> None:
    opened = segment()
    opened.take(answer(batch(0), batch(10), stable=10))
    assert opened.next_offset == 10
    opened.take(answer(batch(10), batch(20), stable=29))
    assert opened.next_offset == 20


def test_skips_batches_that_it_has() -> None:
    opened = segment()
    opened.take(answer(batch(0), batch(10)))
    opened.take(answer(batch(0), batch(10), batch(20)))
    assert finished(opened)[0] == batch(0) + batch(10) + batch(20)


def test_a_log_may_begin_inside_its_first_batch() -> None:
    opened = segment(205, cut=True)
    opened.take(answer(batch(200), batch(210)))
    _, index = finished(opened)
    assert (index.base_offset, opened.next_offset) == (200, 220)


@pytest.mark.parametrize("cut", [False, True])
def test_nothing_may_overlap_what_is_archived(cut: bool) -> None:
    opened = segment(5, cut=cut)
    if cut:
        opened.take(answer(batch(5, 5)))
    with pytest.raises(UnreadableBatch, match="overlaps"):
        opened.take(answer(batch(opened.next_offset - 1)))


def test_offsets_may_be_missing_in_a_compacted_log() -> None:
    opened = segment(5)
    opened.take(answer(batch(8, 2), batch(15)))
    assert finished(opened)[1].base_offset == 8
    assert opened.next_offset == 25


def test_refuses_a_damaged_batch() -> None:
    opened = segment()
    damaged = patched(batch(0), 80, ">B", 0xEE)
    with pytest.raises(CorruptBatch, match="0-9"):
        opened.take(answer(damaged))
    assert (opened.next_offset, opened.plain_bytes) == (0, 0)


def test_keeps_what_came_before_a_damaged_batch() -> None:
    opened = segment()
    opened.take(answer(batch(0), patched(batch(10), 80, ">B", 0xEE), batch(20)))
    assert opened.next_offset == 10
    opened.take(answer(batch(10), batch(20)))
    assert finished(opened)[0] == batch(0) + batch(10) + batch(20)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (patched(batch(0), 16, ">b", 1), "message format 1"),
        (patched(batch(0), 8, ">i", 10), "batch of 22 bytes"),
    ],
)
def test_refuses_what_it_cannot_read(broken: bytes, words: str) -> None:
    with pytest.raises(UnreadableBatch, match=words):
        segment().take(answer(broken))


def test_refuses_a_leader_epoch_that_goes_back() -> None:
    opened = segment(0, epoch=5)
    with pytest.raises(UnreadableBatch, match="leader epoch 4"):
        opened.take(answer(batch(0, epoch=4)))
    opened.take(answer(batch(0, epoch=5), batch(10, epoch=4)))
    assert opened.next_offset == 10


def test_notes_aborted_transactions_of_answers_that_brought_something() -> None:
    opened = segment()
    opened.take(answer(aborted=[(9, 0)]))
    opened.take(answer(batch(0, producer=7), aborted=[(7, 0)]))
    opened.take(answer(make_batch(10, producer_id=7, control=0), aborted=[(7, 0)]))
    _, index = finished(opened)
    assert [(each.producer_id, each.first_offset, each.marker_offset) for each in index.aborted] == [(7, 0, 10)]


def noisy(base: int) -> bytes:
    """A batch of 256 KiB that does not compress."""
    value = random.Random(base).randbytes(1 << 18)
    return make_batch(base, [(0, 1000, None, value, ())])


def test_a_large_segment_leaves_memory_and_then_nothing_behind(tmp_path: Path) -> None:
    opened = segment(directory=tmp_path)
    for base in range(20):
        opened.take(answer(noisy(base)))
    assert opened.plain_bytes > 4 * SHARE_MOST // 2
    plain, _ = finished(opened)
    assert plain == b"".join(noisy(base) for base in range(20))
    opened.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    opened = segment(directory=tmp_path / "missing")
    opened.take(answer(noisy(0)))  # small: still in memory
    with pytest.raises(FileNotFoundError):
        opened.take(answer(*(noisy(base) for base in range(1, 20))))


def test_does_not_believe_the_header_of_a_damaged_batch() -> None:
    """Its last offset says that it was copied before: left out for that, it would be a hole, and then trimmed."""
    opened = segment(12, cut=True)
    damaged = patched(batch(10, 5), 23, ">i", 1)  # 10 to 11, it says
    with pytest.raises(CorruptBatch):
        opened.take(answer(damaged, batch(15)))
    assert (opened.next_offset, opened.plain_bytes) == (12, 0)


def test_an_impossible_header_is_damage_if_the_checksum_says_so() -> None:
    """Damage may be gone the next time; what is stored like that would stop the partition."""
    opened = segment()
    with pytest.raises(CorruptBatch, match="last offset delta -1, 10 records, and it does not match its checksum"):
        opened.take(answer(patched(batch(0), 23, ">i", -1)))
    impossible = patched(batch(0), 23, ">i", -1)
    with pytest.raises(UnreadableBatch, match="last offset delta -1"):
        opened.take(answer(patched(impossible, 17, ">I", crc32c(impossible[21:]))))
    opened.take(answer(batch(0), patched(batch(10), 23, ">i", -1)))
    assert opened.next_offset == 10


# ---- what is held in memory ----------------------------------------------------------------------------------


@pytest.fixture
def press() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.mark.parametrize("threads", [False, True])
def test_many_segments_together_hold_no_more_than_there_is_room_for(
    tmp_path: Path, press: Executor, threads: bool
) -> None:
    """Each gets random bytes many times its share, in turns; then some end, and all that is left is counted still."""
    room = 64 * SHARE_LEAST
    memory = SegmentMemory(room)
    all_of = [segment(directory=tmp_path, memory=memory, press=press if threads else None) for _ in range(20)]
    large = [noisy(base) for base in range(3)]
    for base, each in enumerate(large):
        for opened in all_of:
            opened.take(answer(each))
            assert memory.held <= room + len(large[base])  # whatever a batch is
    for opened in all_of[5:]:
        opened.discard()
        opened.discard()
    five = memory.held
    for opened in all_of[:5]:
        assert finished(opened)[0] == b"".join(large)
        opened.discard()
    assert five > 0
    assert memory.held == 0


def test_a_segment_alone_may_hold_much() -> None:
    memory = SegmentMemory(64 << 20)
    opened = segment(memory=memory)
    opened.take(answer(batch(0)))
    assert memory.held == opened.plain_bytes == len(batch(0))
    assert memory.share == SHARE_MOST


def test_what_is_being_compressed_is_held_until_it_is_written(press: Executor) -> None:
    memory, busy = SegmentMemory(64 << 20), Event()
    press.submit(busy.wait)
    opened = segment(memory=memory, press=press)
    opened.take(answer(*map(noisy, range(5))))  # a chunk has room for three of them
    assert memory.held == opened.plain_bytes == len(noisy(0)) * 5
    busy.set()
    assert finished(opened)[0] == b"".join(map(noisy, range(5)))


def test_a_thread_that_has_not_heard_of_the_end_holds_nothing() -> None:
    memory = SegmentMemory(1 << 20)
    place = memory.enter()
    place.leave()
    place.hold(1000)
    assert memory.held == 0
