"""tierproxy.tiering.merger on a real directory: nothing is changed but where the batches lie."""

import random
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.batches import CONTROL_ABORT, control_kind, read_batch_header
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.archive.memory import with_merged
from tests.unit.tierproxy.cli.archives import CREATED, PID, Archive, batch
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.segment_index import SegmentIndex, decompress_chunk, encode_tail
from tierproxy.archive.store import NotFound, Truncated
from tierproxy.cli.verify import verify_partition
from tierproxy.tiering import merger
from tierproxy.tiering.merger import join

LEVEL = 3


def merge(archive: Archive, run: tuple[SegmentEntry, ...] | None = None) -> tuple[SegmentEntry, SegmentIndex]:
    """Join a run of segments, all of them by default, and put the new one in their place in the saved manifest."""
    run = run or archive.manifest.segments

    async def work(library: Library) -> tuple[SegmentEntry, SegmentIndex]:
        merged = await join(library, archive.pid, run, LEVEL)
        return merged, await library.load_index(archive.pid, merged)

    merged, index = archive.do(work)
    archive.save(with_merged(archive.manifest, run, merged))
    return merged, index


@pytest.mark.parametrize("recompress", [False, True])
def test_what_producers_have_compressed_is_made_smaller_if_asked_to(tmp_path: Path, recompress: bool) -> None:
    archive = Archive(tmp_path)
    noise = random.Random(5)
    made = [make_batch(i, [(0, 1, None, noise.randbytes(20_000).hex().encode(), ())], codec=3) for i in range(2)]
    run = archive.add(made[0]).add(made[1]).manifest.segments
    merged = archive.do(lambda library: join(library, archive.pid, run, LEVEL, recompress=recompress))
    share = (merged.stored_size - merged.index_size) / sum(map(len, made))
    assert share < 0.8 if recompress else share > 0.95


def log_of(archive: Archive, manifest: Manifest | None = None) -> bytes:
    """All archived batches."""

    async def read(library: Library) -> bytes:
        plain = b""
        async for entry in library.segments(manifest or archive.manifest):
            index = await library.load_index(archive.pid, entry)
            for chunk in index.chunks:
                end = chunk.position + chunk.stored_size
                stored = await library.store.get_range(library.segment_key(archive.pid, entry), chunk.position, end)
                plain += decompress_chunk(stored, chunk)
        return plain

    return archive.do(read)


def problems(archive: Archive) -> list[str]:
    async def verify(library: Library) -> list[str]:
        found = await verify_partition(library, archive.manifest, allow_holes=False, now_ms=0, progress=lambda _: None)
        return [problem.text for problem in found.problems]

    return archive.do(verify)


def test_segments_are_joined_to_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for number in range(5):
        epoch = number // 2
        archive.add(
            batch(4 * number, [b"a", b"b"], epoch=epoch), batch(4 * number + 2, [b"c", None], epoch=epoch, codec=1)
        )
    archive.add(batch(20, [b"the newest"], epoch=2)).save()
    before, parts = log_of(archive), archive.manifest.segments[:5]
    merged, index = merge(archive, parts)
    assert (merged.base_offset, merged.last_offset, merged.records, merged.created_ms) == (0, 19, 20, CREATED)
    assert index.epochs == ((0, 0), (1, 8), (2, 16))
    assert len(index.chunks) == 1, "small chunks become large ones, which compress better"
    assert len(archive.manifest.segments) == 2
    assert log_of(archive) == before
    assert problems(archive) == []


def test_parts_are_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merger, "READ_BYTES", 200)  # some chunks each
    archive = Archive(tmp_path)
    for number in range(3):
        archive.add(*(batch(30 * number + 3 * i, [b"x" * 20] * 3) for i in range(10)))
    archive.save()
    before = log_of(archive)
    merge(archive)
    assert log_of(archive) == before
    assert problems(archive) == []


@pytest.mark.parametrize("damage", ["chunk", "index", "gone", "short"])
def test_a_damaged_part_is_left_alone(tmp_path: Path, damage: str) -> None:
    archive = Archive(tmp_path)
    archive.add(batch(0, [b"a" * 50])).add(batch(1, [b"b" * 50])).save()
    file = archive.segment_file(1)
    whole = file.read_bytes()
    file.chmod(0o644)
    match damage:
        case "chunk":
            file.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
        case "index":
            file.write_bytes(whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:])
        case "gone":
            file.unlink()
        case "short":
            file.write_bytes(whole[:-10])
    files = sorted(archive.folder.iterdir())
    with pytest.raises((FormatError, NotFound, Truncated)):
        merge(archive)
    assert sorted(archive.folder.iterdir()) == files


def test_a_part_that_holds_no_batches_is_left_alone(tmp_path: Path) -> None:
    """All its checksums are right: whoever wrote it had a defect."""
    archive = Archive(tmp_path)
    archive.add(batch(0, [b"a"])).add(batch(1, [b"b"])).save()
    index = archive.do(lambda library: library.load_index(PID, archive.manifest.segments[1]))
    nonsense = b"\x01" * 100
    stored = zstandard.ZstdCompressor().compress(nonsense)
    chunk = replace(index.chunks[0], stored_size=len(stored), plain_size=len(nonsense))
    index = replace(index, chunks=(chunk,), plain_size=len(nonsense), plain_sha256=sha256(nonsense).digest())
    tail = encode_tail(index)
    entry = replace(
        archive.manifest.segments[1],
        stored_size=len(stored) + len(tail),
        index_size=len(tail),
        plain_size=len(nonsense),
        sha256=sha256(stored + tail).hexdigest(),
    )
    file = archive.segment_file(1)
    file.chmod(0o644)
    file.write_bytes(stored + tail)
    archive.save(replace(archive.manifest, segments=(archive.manifest.segments[0], entry)))
    with pytest.raises(FormatError, match="holds what is no batch"):
        merge(archive)


# ---- transactions --------------------------------------------------------------------------------------------


@st.composite
def transactional_logs(draw: st.DrawFn) -> list[bytes]:
    """A log of transactions of three producers, an offset a batch: each step is data or ends a transaction."""
    log: list[bytes] = []
    is_open: set[int] = set()
    for offset in range(draw(st.integers(2, 25))):
        producer = draw(st.integers(1, 3))
        step = draw(st.sampled_from(["data", "data", "abort", "abort", "commit"])) if producer in is_open else "data"
        is_open = is_open | {producer} if step == "data" else is_open - {producer}
        if step == "data":
            log.append(make_batch(offset, plain_records(1), producer_id=producer, transactional=True))
        else:
            log.append(make_batch(offset, producer_id=producer, control=0 if step == "abort" else 1))
    return log


def broker_list(log: list[bytes], fetch_offset: int, last_offset: int) -> list[tuple[int, int]]:
    """(producer, first offset) of aborted transactions, as a broker lists them with data in these offsets.

    By Kafka's TransactionIndex: the marker is not below the fetch, the first offset not above the data.
    """
    entries, began = [], dict[int, int]()
    for offset, one in enumerate(log):
        header = read_batch_header(one)
        assert header is not None
        if not header.is_control:
            began.setdefault(header.producer_id, offset)
            continue
        first = began.pop(header.producer_id)
        if control_kind(memoryview(one)) == CONTROL_ABORT and offset >= fetch_offset and first <= last_offset:
            entries.append((header.producer_id, first))
    return sorted(entries, key=lambda entry: entry[1])


@settings(deadline=None, max_examples=60)
@given(transactional_logs(), st.data())
def test_the_joined_list_is_a_broker_s(log: list[bytes], choose: st.DataObject) -> None:
    """Wherever a log was cut into segments, and into answers within them: for every fetch in the merged one."""
    cuts = sorted(choose.draw(st.sets(st.integers(1, len(log) - 1), min_size=1, max_size=5)) | {0, len(log)})
    with TemporaryDirectory() as directory:
        archive = Archive(Path(directory))
        for start, end in pairwise(cuts):
            answers = sorted(choose.draw(st.sets(st.integers(start, end - 1), max_size=3)) | {start})
            noted = [
                entry for fetched, stop in pairwise([*answers, end]) for entry in broker_list(log, fetched, stop - 1)
            ]
            archive.add(*log[start:end], aborted=noted)
        archive.save()
        number = len(archive.manifest.segments)
        first = choose.draw(st.integers(0, number - 2))
        run = archive.manifest.segments[first : choose.draw(st.integers(first + 2, number))]
        merged, index = merge(archive, run)
        assert problems(archive) == []
        assert log_of(archive) == b"".join(log)
    for fetch_offset in range(merged.base_offset, merged.last_offset + 1):
        for last in range(fetch_offset, merged.last_offset + 1):
            assert index.aborted_between(fetch_offset, last) == broker_list(log, fetch_offset, last)


def test_a_transaction_that_is_open_in_one_part_finds_its_marker_in_the_next(tmp_path: Path) -> None:
    data = [make_batch(i, plain_records(1), producer_id=7, transactional=True) for i in range(3)]
    archive = Archive(tmp_path)
    archive.add(data[0], aborted=[(7, 0)]).add(data[1], aborted=[(7, 0)])
    archive.add(make_batch(2, producer_id=7, control=0), aborted=[(7, 0)])
    archive.add(make_batch(3, plain_records(1), producer_id=7, transactional=True))
    archive.save()
    assert (
        archive.do(lambda library: library.load_index(PID, archive.manifest.segments[0])).aborted[0].marker_offset
        is None
    )
    _, index = merge(archive)
    assert [(a.producer_id, a.first_offset, a.marker_offset) for a in index.aborted] == [(7, 0, 2)]
    assert index.aborted_between(3, 3) == [], "which would hide a committed record of the same producer"
