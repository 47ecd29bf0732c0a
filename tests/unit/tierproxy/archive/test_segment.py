import io
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.batches import control_kind, walk
from protocol.errors import MalformedError
from tests.unit.batch_maker import make_batch, patched, plain_records
from tests.unit.tierproxy.archive.test_segment_index import INDEX
from tests.unit.vectors import SEGMENT_FILE, SEGMENT_LOG
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.names import parse_segment_name
from tierproxy.archive.segment import PRESSING, SegmentWriter
from tierproxy.archive.segment_index import Aborted, SegmentIndex, SegmentInfo, decompress_chunk, read_index

ABOUT = SegmentInfo("prod", "flights", bytes(range(16)), 3)
PRODUCER = 7
LZ4 = 3


def write(
    *batches: bytes,
    aborted: Iterable[tuple[int, int]] = (),
    level: int = 3,
    chunk_bytes: int = 1 << 20,
    recompress: bool = False,
) -> bytes:
    sink = io.BytesIO()
    writer = SegmentWriter(ABOUT, level, sink, chunk_bytes, recompress=recompress)
    fill(writer, *batches)
    for entry in aborted:
        writer.note_aborted(*entry)
    writer.finish()
    return sink.getvalue()


def fill(writer: SegmentWriter, *batches: bytes) -> None:
    for header, batch in walk(memoryview(b"".join(batches))):
        writer.append(batch, header)


def plain(segment: bytes) -> bytes:
    chunks = read_index(segment).chunks
    return b"".join(decompress_chunk(segment[c.position : c.position + c.stored_size], c) for c in chunks)


def index_of(*batches: bytes, aborted: Iterable[tuple[int, int]] = ()) -> SegmentIndex:
    return read_index(write(*batches, aborted=aborted))


def data(offset: int, *, producer: int = PRODUCER, count: int = 1) -> bytes:
    return make_batch(offset, plain_records(count), producer_id=producer, transactional=True)


def abort(offset: int, *, producer: int = PRODUCER) -> bytes:
    return make_batch(offset, producer_id=producer, control=0)


def commit(offset: int, *, producer: int = PRODUCER) -> bytes:
    return make_batch(offset, producer_id=producer, control=1)


def test_a_real_log_makes_the_index_of_the_stored_segment() -> None:
    sink = io.BytesIO()
    writer = SegmentWriter(INDEX.about, 3, sink, 600, writer="tierproxy 0.1.0")
    fill(writer, SEGMENT_LOG)
    writer.note_aborted(1, 30)
    writer.note_aborted(1, 34)
    index = writer.finish()
    # How well zstd compresses is zstd's affair; all else is fixed.
    assert [c.base_offset for c in index.chunks] == [c.base_offset for c in INDEX.chunks]
    assert [c.plain_size for c in index.chunks] == [c.plain_size for c in INDEX.chunks]
    assert index.aborted == INDEX.aborted
    assert (index.plain_sha256, index.record_count, index.batch_count) == (INDEX.plain_sha256, 35, 11)
    assert read_index(sink.getvalue()) == index
    assert plain(sink.getvalue()) == SEGMENT_LOG


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not on this machine")
def test_the_zstd_program_gives_the_plain_log(tmp_path: Path) -> None:
    (tmp_path / "new.zst").write_bytes(write(SEGMENT_LOG, chunk_bytes=300))
    for segment in (SEGMENT_FILE, tmp_path / "new.zst"):
        done = subprocess.run(["zstd", "-d", "-c", segment], capture_output=True, check=True)
        assert done.stdout == SEGMENT_LOG


def test_what_the_writer_and_the_manifest_s_entry_say() -> None:
    sink = io.BytesIO()
    writer = SegmentWriter(ABOUT, 3, sink)
    assert (writer.base_offset, writer.last_offset, writer.plain_bytes, writer.min_timestamp) == (-1, -1, 0, -1)
    first, second = (
        make_batch(5, plain_records(3, time=50)),
        make_batch(10, plain_records(2, time=40), last_offset_delta=9),
    )
    fill(writer, first)
    assert (writer.base_offset, writer.last_offset, writer.record_count) == (5, 7, 3)
    fill(writer, second)
    assert (writer.min_timestamp, writer.max_timestamp) == (40, 52)
    index = writer.finish()
    entry = writer.entry("ab12", 999)
    stored = sink.getvalue()
    assert parse_segment_name(entry.key_name) == (5, 19, "ab12")
    assert (entry.base_offset, entry.last_offset, entry.records, entry.created_ms) == (5, 19, 5, 999)
    assert (entry.min_timestamp, entry.max_timestamp) == (40, 52)
    assert entry.plain_size == len(first + second) == index.plain_size
    assert entry.stored_size == len(stored)
    assert entry.sha256 == sha256(stored).hexdigest()
    assert read_index(stored[-entry.index_size :]) == index
    assert entry.stored_size - entry.index_size == index.data_size
    assert index.plain_sha256 == sha256(first + second).digest()


def test_chunks_are_filled_up_to_their_size_and_never_split_a_batch() -> None:
    batches = [make_batch(i, [(0, 1, None, bytes(100), ())]) for i in range(7)]
    size = len(batches[0])
    large = make_batch(7, [(0, 1, None, bytes(5 * size), ())])
    index = read_index(write(*batches, large, make_batch(8), chunk_bytes=3 * size))
    assert [(c.base_offset, c.last_offset) for c in index.chunks] == [(0, 2), (3, 5), (6, 6), (7, 7), (8, 8)]
    assert [c.plain_size for c in index.chunks] == [3 * size, 3 * size, size, len(large), len(make_batch(8))]


def test_times_of_chunks() -> None:
    batches = [
        make_batch(0, [(0, 300, None, b"", ()), (1, 100, None, b"", ())]),
        make_batch(2, plain_records(2, time=200)),
        make_batch(4, plain_records(1, time=5), append_time=777),
        make_batch(5, [(0, -1, None, b"", ())]),
    ]
    chunks = read_index(write(*batches, chunk_bytes=1)).chunks
    assert [(c.min_timestamp, c.max_timestamp) for c in chunks] == [(300, 300), (200, 201), (777, 777), (-1, -1)]
    (chunk,) = read_index(write(*batches)).chunks
    assert (chunk.min_timestamp, chunk.max_timestamp) == (200, 777)


def test_leader_epochs_by_their_first_batch() -> None:
    epochs = [-1, 0, 0, 3, 3, 4]
    index = index_of(*(make_batch(10 * i, leader_epoch=epoch) for i, epoch in enumerate(epochs)))
    assert index.epochs == ((0, 10), (3, 30), (4, 50))


def test_codecs_of_batches() -> None:
    assert index_of(make_batch(0)).batch_codecs == 0b1
    assert index_of(make_batch(0, codec=4), make_batch(1, codec=1)).batch_codecs == 0b10010


@pytest.mark.parametrize("offset", [0, 4, 5])
def test_a_batch_that_is_not_behind_the_last_one_is_refused(offset: int) -> None:
    writer = SegmentWriter(ABOUT, 3, io.BytesIO())
    fill(writer, make_batch(0, plain_records(6)))
    with pytest.raises(ContinuityError, match="flights-3"):
        fill(writer, make_batch(offset))
    fill(writer, make_batch(6))
    assert writer.last_offset == 6


def test_a_leader_epoch_that_goes_back_is_refused() -> None:
    writer = SegmentWriter(ABOUT, 3, io.BytesIO())
    fill(writer, make_batch(0, leader_epoch=5))
    with pytest.raises(ContinuityError, match="leader epoch 4"):
        fill(writer, make_batch(1, leader_epoch=4))


def test_misuse_is_noticed() -> None:
    writer = SegmentWriter(ABOUT, 3, io.BytesIO())
    with pytest.raises(ValueError, match="without batches"):
        writer.finish()
    with pytest.raises(ValueError, match="not finished"):
        writer.entry("a", 0)
    ((header, batch),) = walk(memoryview(make_batch(0)))
    with pytest.raises(ValueError, match="bytes, not"):
        writer.append(batch[:-1], header)
    writer.append(batch, header)
    assert writer.finish() is writer.finish()
    with pytest.raises(ValueError, match="is finished"):
        fill(writer, make_batch(1))


# -- aborted transactions -----------------------------------------------------------------------------------------


def test_the_marker_is_filled_in_whether_the_entry_comes_before_or_after_it() -> None:
    for early in (True, False):
        writer = SegmentWriter(ABOUT, 3, io.BytesIO())
        if early:
            writer.note_aborted(PRODUCER, 0)
        fill(writer, data(0, count=5), abort(5))
        writer.note_aborted(PRODUCER, 0)
        assert writer.finish().aborted == (Aborted(PRODUCER, 0, 5),)


def test_several_transactions_of_one_producer_get_their_own_markers() -> None:
    log = [data(0), abort(1), data(2), commit(3), data(4), data(5), abort(6), data(7)]
    index = index_of(*log, aborted=[(PRODUCER, 7), (PRODUCER, 4), (PRODUCER, 0)])
    assert index.aborted == (Aborted(PRODUCER, 0, 1), Aborted(PRODUCER, 4, 6), Aborted(PRODUCER, 7, None))


def test_markers_of_other_producers_and_of_commits_are_not_taken() -> None:
    index = index_of(
        data(0), data(1, producer=8), abort(2, producer=8), commit(3, producer=9), aborted=[(PRODUCER, 0), (8, 1)]
    )
    assert index.aborted == (Aborted(PRODUCER, 0, None), Aborted(8, 1, 2))


def test_a_transaction_whose_marker_lies_beyond_the_last_stable_offset() -> None:
    # T1 is at 0-4 and aborted by a marker at 10, but T2, open at 5, holds the last stable offset back: the broker
    # gives 0-4 and the entry (kafka-protocol.md 5.8).
    index = index_of(data(0, count=5), aborted=[(PRODUCER, 0)])
    assert index.aborted == (Aborted(PRODUCER, 0, None),)
    assert index.aborted_between(4, 4) == [(PRODUCER, 0)]


def test_a_transaction_that_began_in_an_earlier_segment() -> None:
    index = index_of(data(100), abort(101), data(102), commit(103), aborted=[(PRODUCER, 90)])
    assert index.aborted == (Aborted(PRODUCER, 90, 101),)
    assert index.aborted_between(100, 103) == [(PRODUCER, 90)]
    assert index.aborted_between(102, 103) == []


def test_entries_that_begin_behind_the_segment_are_left_out() -> None:
    # Ordinary: the broker lists by its own index of offsets, beyond the data that it returns.
    assert index_of(data(0), aborted=[(PRODUCER, 0), (8, 1), (9, 50)]).aborted == (Aborted(PRODUCER, 0, None),)


def test_a_marker_that_cannot_be_read_stops_the_segment() -> None:
    with pytest.raises(MalformedError):
        write(patched(abort(0), 65, ">B", 1))


@st.composite
def transactional_logs(draw: st.DrawFn) -> list[bytes]:
    """A log of transactions of three producers: each step is data or ends a transaction one way or the other."""
    log: list[bytes] = []
    is_open: set[int] = set()
    for offset in range(draw(st.integers(1, 25))):
        producer = draw(st.integers(1, 3))
        step = draw(st.sampled_from(["data", "abort", "commit"])) if producer in is_open else "data"
        is_open = is_open | {producer} if step == "data" else is_open - {producer}
        log.append({"data": data, "abort": abort, "commit": commit}[step](offset, producer=producer))
    return log


@given(transactional_logs(), st.data())
def test_split_anywhere_the_lists_are_those_of_a_broker(log: list[bytes], choose: st.DataObject) -> None:
    """The law of transactions: for every fetch, the segments' entries hide exactly what was aborted."""
    cuts = sorted(choose.draw(st.sets(st.integers(1, len(log)), max_size=4)) | {0, len(log)})
    indexes = []
    for start, end in pairwise(cuts):
        writer = SegmentWriter(ABOUT, 1, io.BytesIO())
        # A segment is one answer or several, and begins with one.
        answers = sorted(choose.draw(st.sets(st.integers(start, end - 1), max_size=3)) | {start})
        for fetched, last in pairwise([*answers, end]):
            for entry in broker_list(log, fetched, len(log) - 1):
                writer.note_aborted(*entry)
            fill(writer, *log[fetched:last])
        indexes.append(writer.finish())
    for index in indexes:
        for fetch_offset in range(index.base_offset, index.last_offset + 1):
            last = choose.draw(st.integers(fetch_offset, index.last_offset))
            expected = broker_list(log, fetch_offset, last)
            found = index.aborted_between(fetch_offset, last)
            assert set(found) >= {entry for entry in expected if has_data(log, entry, fetch_offset, last)}
            assert set(found) <= set(expected)
            assert found == sorted(found, key=lambda entry: entry[1])


def broker_list(log: list[bytes], fetch_offset: int, last_offset: int) -> list[tuple[int, int]]:
    """What TransactionIndex holds: (producer, first offset) of aborted transactions, by the rule of 5.8."""
    entries, began = [], dict[int, int]()
    for offset, batch in enumerate(log):
        ((header, _),) = walk(memoryview(batch))
        if not header.is_control:
            began.setdefault(header.producer_id, offset)
            continue
        first = began.pop(header.producer_id)
        if control_kind(batch) == 0 and offset >= fetch_offset and first <= last_offset:
            entries.append((header.producer_id, first))
    return entries


def has_data(log: list[bytes], entry: tuple[int, int], first: int, last: int) -> bool:
    """Whether records of that aborted transaction are in the batches from `first` to `last`."""
    producer, begin = entry
    for offset in range(begin, last + 1):
        ((header, _),) = walk(memoryview(log[offset]))
        if header.producer_id == producer and header.is_control:
            return False
        if header.producer_id == producer and offset >= first:
            return True
    return False


# -- compression ---------------------------------------------------------------------------------------------------


def test_what_shrinks_is_compressed_at_the_asked_level() -> None:
    text = [make_batch(i, [(0, 1, None, b"%d the quick brown fox %d" % (i % 7, i * i) * 20, ())]) for i in range(200)]
    assert len(write(*text, level=12)) < len(write(*text, level=1))
    assert plain(write(*text, level=12)) == b"".join(text)


@pytest.mark.parametrize("codec", [0, 4])
def test_what_does_not_shrink_stays_about_its_size(codec: int) -> None:
    noise = random.Random(5)
    batches = [make_batch(i, [(0, 1, None, noise.randbytes(5000), ())], codec=codec) for i in range(80)]
    segment = write(*batches, level=19, chunk_bytes=20_000)
    assert plain(segment) == b"".join(batches)
    assert len(segment) < 1.02 * len(b"".join(batches))


def test_what_producers_have_compressed_stays_as_it_is_unless_it_is_to_be_made_smaller() -> None:
    """As lz4 leaves it: without repetitions, and with fewer kinds of bytes than there are."""
    noise = random.Random(5)
    batches = [make_batch(i, [(0, 1, None, noise.randbytes(2000).hex().encode(), ())], codec=LZ4) for i in range(100)]
    log = b"".join(batches)
    as_it_is, smaller = write(*batches, level=9), write(*batches, level=9, recompress=True)
    assert plain(as_it_is) == plain(smaller) == log
    assert len(as_it_is) > 0.95 * len(log) > 0.8 * len(log) > len(smaller)


def test_after_data_that_does_not_shrink_compression_is_tried_again() -> None:
    noise = random.Random(5)
    batches = [make_batch(0, [(0, 1, None, noise.randbytes(3000), ())])]
    words = [b"alpha", b"beta", b"gamma", b"delta", b"epsilon"]
    for i in range(1, 40):
        batches.append(make_batch(i, [(0, 1, None, b" ".join(noise.choices(words, k=600)), ())]))
    index = read_index(write(*batches, level=15, chunk_bytes=1))
    ratios = [chunk.stored_size / chunk.plain_size for chunk in index.chunks]
    assert ratios[0] > 0.95
    assert max(ratios[16:]) < min(ratios[1:16])  # quick for fifteen chunks, then at full level


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 400))
def test_any_log_there_and_back(counts: list[int], chunk_bytes: int) -> None:
    batches, offset = [], 0
    for count in counts:
        batches.append(make_batch(offset, plain_records(count), codec=count % 5))
        offset += count
    segment = write(*batches, chunk_bytes=chunk_bytes)
    assert plain(segment) == b"".join(batches)
    index = read_index(segment)
    assert (index.base_offset, index.last_offset, index.record_count) == (0, offset - 1, offset)
    largest = max(len(batch) for batch in batches)
    assert all(chunk.plain_size <= max(chunk_bytes, largest) for chunk in index.chunks)


def test_times_before_1970_are_none() -> None:
    early = [(0, -5, None, b"value", ())]
    index = read_index(write(make_batch(0, early), make_batch(1, early)))
    assert (index.chunks[0].min_timestamp, index.min_timestamp) == (-1, -1)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(-1, 40), st.booleans(), st.integers(0, 2)), min_size=1),
    st.integers(1, 2000),
    st.data(),
)
def test_many_at_once_make_the_segment_that_one_by_one_make(
    drafts: list[tuple[int, int, bool, int]], chunk_bytes: int, choose: st.DataObject
) -> None:
    made, offset, epoch = [], 0, -1
    for count, time, by_broker, step in drafts:
        epoch += step
        records = [(delta, max(time, 0) + delta, None, b"value", ()) for delta in range(count)]
        append_time = time if by_broker else None
        made.append(make_batch(offset, records, codec=count % 5, leader_epoch=epoch, append_time=append_time))
        offset += count
    batches = [(header, batch) for header, batch in walk(memoryview(b"".join(made)))]
    sink = io.BytesIO()
    writer = SegmentWriter(ABOUT, 3, sink, chunk_bytes)
    while batches:
        portion = batches[: choose.draw(st.integers(1, len(batches)))]
        batches = batches[writer.extend(portion) :]
    writer.finish()
    assert sink.getvalue() == write(*made, chunk_bytes=chunk_bytes)


def test_what_comes_before_a_batch_that_can_not_be_added_is_kept() -> None:
    batches = [make_batch(at, plain_records(10), leader_epoch=epoch) for at, epoch in ((0, 5), (10, 5), (20, 4))]
    found = list(walk(memoryview(b"".join(batches))))
    writer = SegmentWriter(ABOUT, 3, io.BytesIO())
    assert writer.extend(found) == 2
    assert (writer.last_offset, writer.record_count, writer.plain_bytes) == (19, 20, len(batches[0] + batches[1]))
    with pytest.raises(ContinuityError, match="leader epoch 4"):
        writer.extend(found, 2)
    assert writer.finish().epochs == ((5, 0),)


# -- compressing in other threads ----------------------------------------------------------------------------------


class Press(Executor):
    """Does nothing until it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, partial(fn, *args, **kwargs)))
        return future

    def work(self) -> None:
        """The newest first."""
        while self.waiting:
            future, work = self.waiting.pop()
            future.set_result(work())


def texts(count: int) -> list[bytes]:
    return [make_batch(i, [(0, 1, None, b"%d lazy dogs %d" % (i, i * i) * 20, ())]) for i in range(count)]


def test_threads_make_the_same_segment() -> None:
    sink = io.BytesIO()
    with ThreadPoolExecutor(3) as press:
        writer = SegmentWriter(ABOUT, 3, sink, 1000, press=press)
        fill(writer, *texts(100))
        writer.finish()
    assert sink.getvalue() == write(*texts(100), chunk_bytes=1000)


def test_chunks_are_written_in_their_order_whenever_they_are_ready() -> None:
    sink, press, batches = io.BytesIO(), Press(), texts(PRESSING)
    writer = SegmentWriter(ABOUT, 3, sink, 1, press=press)
    fill(writer, *batches)
    assert (len(press.waiting), writer.stored_bytes) == (PRESSING, 0)
    assert writer.open_bytes == len(b"".join(batches))
    press.work()
    writer.settle()
    assert (writer.stored_bytes, writer.open_bytes) == (len(sink.getvalue()), 0)
    writer.finish()
    assert sink.getvalue() == write(*batches, chunk_bytes=1)


def test_no_more_than_a_few_chunks_are_on_their_way() -> None:
    sink = io.BytesIO()
    with ThreadPoolExecutor(1) as press:
        writer = SegmentWriter(ABOUT, 3, sink, 1, press=press)
        for batch in texts(20):
            fill(writer, batch)
            assert writer.open_bytes <= PRESSING * (len(batch) + 10)


def test_a_large_batch_is_not_left_behind() -> None:
    with ThreadPoolExecutor(1) as press:
        writer = SegmentWriter(ABOUT, 3, io.BytesIO(), press=press)
        fill(writer, make_batch(0, [(0, 1, None, random.Random(1).randbytes(PRESSING << 20), ())]))
        assert writer.open_bytes == 0


def test_of_a_segment_that_is_dropped_nothing_more_is_compressed() -> None:
    press = Press()
    writer = SegmentWriter(ABOUT, 3, io.BytesIO(), 1, press=press)
    fill(writer, *texts(PRESSING))
    writer.drop()
    assert all(future.cancelled() for future, _ in press.waiting)
