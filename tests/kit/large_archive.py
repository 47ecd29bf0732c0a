"""Archives of up to a million segments, made in seconds: their manifests are whole, but of the segments only few are
there."""

import io
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.batches import read_batch_header
from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, PID, TIME
from tierproxy.archive.manifest import Manifest, PageRef
from tierproxy.archive.names import PartitionId, manifest_key, partition_prefix
from tierproxy.archive.pages import Page, Paging
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_entry import SegmentEntry
from tierproxy.archive.segment_index import SegmentInfo

OFFSETS = 1000
"""Offsets from one segment's first record to the next one's."""
STEP_MS = 60_000
DEFAULT = Paging()


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


def segment(batches: Sequence[bytes], pid: PartitionId = PID) -> tuple[SegmentEntry, bytes]:
    """One that is there, with a chunk for each batch."""
    sink = io.BytesIO()
    writer = SegmentWriter(_about(pid), 3, sink, 1)
    for data in batches:
        header = read_batch_header(data)
        assert header is not None
        writer.append(memoryview(data), header)
    writer.finish()
    return writer.entry("real", TIME), sink.getvalue()


def build(
    root: Path,
    segments: int,
    real: Mapping[int, Sequence[bytes]],
    pid: PartitionId = PID,
    in_root: int = DEFAULT.root_most,
) -> Manifest:
    """An archive of so many segments as the archiver leaves it, of which only those in the places `real` are there.

    Their batches begin at OFFSETS times the place. `in_root` of the newest are in the manifest's root, others in pages.
    """
    folder = root / partition_prefix(CLUSTER, pid)
    (folder / "manifest").mkdir(parents=True)
    known: dict[int, SegmentEntry] = {}
    for place, batches in real.items():
        known[place], data = segment(batches, pid)
        (folder / known[place].key_name).write_bytes(data)

    def entries(first: int, count: int) -> Page:
        page = synthetic(first, count)
        found = {place: entry for place, entry in known.items() if first <= place < first + count}
        return Page.of([found.get(first + at, entry) for at, entry in enumerate(page)]) if found else page

    pages: list[PageRef] = []
    paged = max(0, segments - in_root)
    for first in range(0, paged, DEFAULT.page_most):
        page = entries(first, min(DEFAULT.page_most, paged - first))
        ref, data = page.encode(_about(pid), f"{len(pages):08x}")
        (folder / ref.name).write_bytes(data)
        pages.append(ref)
    manifest = Manifest(
        CLUSTER,
        CLUSTER_ID,
        pid.topic,
        pid.topic_id,
        pid.partition,
        start_offset=0,
        end_offset=segments * OFFSETS,
        segments=tuple(entries(paged, segments - paged)),
        epochs=((0, 0),),
        pages=tuple(pages),
        generation=segments,
    )
    (root / manifest_key(CLUSTER, pid)).write_bytes(manifest.to_json())
    return manifest


def _about(pid: PartitionId) -> SegmentInfo:
    return SegmentInfo(CLUSTER, pid.topic, pid.topic_id, pid.partition)
