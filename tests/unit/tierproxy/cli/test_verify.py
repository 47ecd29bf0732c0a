"""The pure half of `archive verify`: what a writer with a defect would have claimed, and the offsets of a partition."""

import io
from dataclasses import replace
from typing import Any

import pytest

from protocol.batches import read_batch_header
from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, CREATED, PID, abort_marker, batch
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import Aborted, Chunk, SegmentInfo
from tierproxy.cli.verify import PROBLEMS_PER_SEGMENT, SegmentCheck, coverage


class Written:
    """A segment in memory: two epochs, an aborted transaction, a chunk for each batch."""

    def __init__(self) -> None:
        sink = io.BytesIO()
        writer = SegmentWriter(SegmentInfo(CLUSTER, PID.topic, PID.topic_id, PID.partition), 3, sink, 1)
        for data in (
            batch(0, [b"a"], producer=5),
            abort_marker(1, 5),
            batch(2, [b"b", b"c"], epoch=1),
            batch(4, [b"d" * 200], epoch=3, codec=1),
        ):
            header = read_batch_header(data)
            assert header is not None
            writer.append(memoryview(data), header)
        writer.note_aborted(5, 0)
        self.index = writer.finish()
        self.entry = writer.entry("t", CREATED)
        self.data = sink.getvalue()

    def check(self, **claims: Any) -> list[str]:
        """What is found if the index claims something else of the same bytes."""
        check = SegmentCheck(self.entry, replace(self.index, **claims))
        for start, end, chunks in list(check.blocks()):
            check.feed(self.data[start:end], chunks)
        check.finish()
        return check.problems


@pytest.fixture
def written() -> Written:
    return Written()


def test_blocks_are_every_byte_once(written: Written) -> None:
    check = SegmentCheck(written.entry, written.index)
    blocks = list(check.blocks())
    assert [start for start, _, _ in blocks] == [0, *(end for _, end, _ in blocks[:-1])]
    assert blocks[-1][1] == len(written.data)
    assert [chunk for _, _, chunks in blocks for chunk in chunks] == list(written.index.chunks)


def test_an_honest_index_passes(written: Written) -> None:
    assert written.check() == []


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"batch_count": 5}, "batches: the index says 5, the batches 4"),
        ({"record_count": 9}, "records: the index says 9, the batches 5"),
        ({"plain_size": 9}, "plain bytes: the index says 9, the batches"),
        ({"batch_codecs": 1}, "codecs: the index says 1, the batches 3"),
        ({"plain_sha256": bytes(32)}, "SHA-256 of the batches is not what the index says"),
        (
            {"epochs": ((0, 0), (3, 4))},
            "leader epochs: the index says [(0, 0), (3, 4)], the batches [(0, 0), (1, 2)",
        ),
        ({"aborted": (Aborted(5, 0, 3),)}, "the index has an abort of producer 5 at 3: there is none"),
        ({"aborted": (Aborted(6, 0, 1),)}, "the index has an abort of producer 6 at 1: there is none"),
    ],
)
def test_an_index_that_claims_something_else_is_told(written: Written, claims: dict[str, object], told: str) -> None:
    (problem,) = written.check(**claims)
    assert problem.startswith(told)


def test_an_abort_beyond_the_segment_is_nothing_to_find_here(written: Written) -> None:
    assert written.check(aborted=(Aborted(5, 0, 1), Aborted(6, 0, None))) == []


@pytest.mark.parametrize("field", ["base_offset", "last_offset", "min_timestamp", "max_timestamp"])
def test_a_chunk_that_claims_something_else_is_told(written: Written, field: str) -> None:
    chunks = list(written.index.chunks)
    changed: dict[str, Any] = {field: getattr(chunks[2], field) + 1}
    chunks[2] = replace(chunks[2], **changed)
    problems = written.check(chunks=tuple(chunks))
    assert problems[0].startswith(f"chunk at byte {chunks[2].position}: offsets or times differ")


def test_batches_out_of_order_are_told(written: Written) -> None:
    """Chunks swapped: each is whole, the log is not."""
    one, two = written.index.chunks[2:4]
    first, second = written.data[one.position : two.position], written.data[two.position : written.index.data_size]
    written.data = written.data[: one.position] + second + first + written.data[written.index.data_size :]
    moved: list[Chunk] = [
        replace(two, position=one.position),
        replace(one, position=one.position + two.stored_size),
    ]
    problems = written.check(chunks=(*written.index.chunks[:2], *moved))
    assert "batch at offset 2 lies before 5, where the one before ended" in problems
    assert "batch at offset 2 has leader epoch 1 after 3" in problems


def test_garbage_does_not_fill_the_report(written: Written) -> None:
    chunks = [written.index.chunks[0]] * (PROBLEMS_PER_SEGMENT * 2)
    check = SegmentCheck(written.entry, replace(written.index, chunks=tuple(chunks)))
    for chunk in chunks:
        check.feed(bytes(chunk.stored_size), [chunk])
    check.finish()
    assert len(check.problems) == PROBLEMS_PER_SEGMENT + 1
    assert check.problems[-1] == "… and more"


def entry(base: int, last: int) -> SegmentEntry:
    return SegmentEntry(f"{base}", base, last, 1, 1, 1, 1, -1, -1, "", 0)


def gap(start: int, end: int) -> Gap:
    return Gap(start, end, 0, "")


TWICE = "offsets {} to {} are there twice"
ENDS = "the manifest ends at {}, what it lists ends at {}"


@pytest.mark.parametrize(
    ("bounds", "spans", "gaps", "holes", "told", "missing"),
    [
        ((0, 0), [], [], [], [], []),
        ((5, 5), [], [], [], [], []),
        ((0, 10), [(0, 9)], [], [], [], []),
        ((0, 10), [(0, 4), (5, 9)], [], [], [], []),
        ((3, 10), [(0, 4), (5, 9)], [], [], [], []),
        ((0, 10), [(0, 4), (7, 9)], [], [], [], [(5, 7)]),
        ((0, 10), [(0, 4), (7, 9)], [(5, 7)], [], [], []),
        ((0, 10), [(0, 4), (6, 9)], [(5, 7)], [], [], []),
        ((0, 10), [(0, 4)], [(5, 10)], [], [], []),
        ((0, 10), [], [(0, 10)], [], [], []),
        ((0, 10), [(2, 9)], [], [], [], [(0, 2)]),
        ((0, 10), [(0, 9)], [], [(4, 6)], [], [(4, 6)]),
        ((0, 10), [(0, 5), (5, 9)], [], [], [TWICE.format(5, 5)], []),
        ((0, 10), [(0, 9), (2, 3)], [], [], [TWICE.format(2, 3)], []),
        ((0, 12), [(0, 9)], [], [], [ENDS.format(12, 10)], []),
        ((0, 8), [(0, 9)], [], [], [ENDS.format(8, 10)], []),
        ((0, 20), [(0, 4), (6, 9)], [(12, 20)], [], [], [(5, 6), (10, 12)]),
    ],
)
def test_coverage(
    bounds: tuple[int, int],
    spans: list[tuple[int, int]],
    gaps: list[tuple[int, int]],
    holes: list[tuple[int, int]],
    told: list[str],
    missing: list[tuple[int, int]],
) -> None:
    manifest = replace(
        Manifest.empty(CLUSTER, CLUSTER_ID, PID, bounds[0]),
        end_offset=bounds[1],
        segments=tuple(entry(*span) for span in spans),
        gaps=tuple(gap(*span) for span in gaps),
    )
    assert coverage(manifest, [(base, last + 1) for base, last in spans], holes) == (told, missing)
