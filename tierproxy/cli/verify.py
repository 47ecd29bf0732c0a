"""`tierproxy archive verify`: read every byte of an archive and believe nothing that is not in it twice.

For each segment that a manifest names: the object's size and SHA-256, the index and its checksum, each chunk
as a zstd frame (which has a checksum of its own), every batch's CRC-32C, and that what index and manifest say
(offsets, times, counts, leader epochs, abort markers, SHA-256 of the batches) is what the batches say. Then
that the segments of a partition cover its offsets: nothing twice, nothing missing but recorded gaps. Objects that no
manifest names are listed, but are no problem.

`SegmentCheck` and `coverage` are pure; `verify_partition` does the reading.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from protocol.batches import CONTROL_ABORT, BatchHeader, control_kind, crc_ok, walk
from protocol.errors import MalformedError
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest, PageRef, SegmentEntry
from tierproxy.archive.names import GARBAGE_FILE, MANIFEST_FILE, PartitionId, parse_segment_name
from tierproxy.archive.segment_index import Chunk, SegmentIndex, decompress_chunk
from tierproxy.archive.store import Store
from tierproxy.errors import TierproxyError

READ_BYTES = 8 * 2**20
PROBLEMS_PER_SEGMENT = 20
"""A segment that is garbage must not fill the report."""

Range = tuple[int, int]
"""Offsets [start, end)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it must be; `segment` is its file name, None for the partition as a whole."""

    segment: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """An object in a partition's folder that its manifest does not name; size in bytes, age in ms."""

    name: str
    size: int
    age_ms: int


@dataclass
class PartitionCheck:
    """What reading a partition's archive came to."""

    pid: PartitionId
    segments: int = 0
    stored_bytes: int = 0
    plain_bytes: int = 0
    records: int = 0
    gaps: tuple[Gap, ...] = ()
    missing: list[Range] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    """No problem: what was merged away, has expired, lost a race or was begun and not finished."""


Block = tuple[int, int, Sequence[Chunk]]
"""Bytes [start, end) of a segment, and the chunks that are in it whole."""


class SegmentCheck:
    """One segment, fed block by block in order; `problems` is complete after `finish`."""

    def __init__(self, entry: SegmentEntry, index: SegmentIndex) -> None:
        self.entry = entry
        self.index = index
        self.problems: list[str] = []
        self.holes: list[Range] = []
        """Offsets between two batches that no batch has."""
        self._object = sha256()
        self._plain = sha256()
        self._plain_size = 0
        self._records = 0
        self._batches = 0
        self._codecs = 0
        self._epochs: list[tuple[int, int]] = []
        self._abort_markers: set[tuple[int, int]] = set()
        self._next: int | None = None

    @property
    def sha256(self) -> str:
        """Of the bytes fed so far, in hex."""
        return self._object.hexdigest()

    def blocks(self) -> Iterator[Block]:
        """What to read, in order: neighbouring chunks together, at last the index."""
        start, together = 0, list[Chunk]()
        for chunk in self.index.chunks:
            if together and chunk.position + chunk.stored_size - start > READ_BYTES:
                yield start, chunk.position, together
                start, together = chunk.position, []
            together.append(chunk)
        yield start, self.index.data_size, together
        yield self.index.data_size, self.entry.stored_size, ()

    def feed(self, data: bytes | bytearray, chunks: Sequence[Chunk]) -> None:
        """The bytes of the next block. Takes its time: call it in a thread."""
        self._object.update(data)
        if not chunks:
            return
        start = chunks[0].position
        for chunk in chunks:
            at = chunk.position - start
            try:
                plain = decompress_chunk(data[at : at + chunk.stored_size], chunk)
                self._chunk(chunk, plain)
            except (FormatError, MalformedError) as error:
                self._tell(f"chunk at byte {chunk.position}: {error}")
                self._next = chunk.last_offset + 1

    def finish(self) -> None:
        """Compare what was read with what index and manifest say."""
        entry, index = self.entry, self.index
        if self.sha256 != entry.sha256:
            self._tell("SHA-256 of the object is not what the manifest says: its bytes have changed")
        if self.problems:
            return  # sums over damaged chunks would only repeat it
        if self._plain.digest() != index.plain_sha256:
            self._tell("SHA-256 of the batches is not what the index says")
        facts = (
            ("plain bytes", self._plain_size, index.plain_size, entry.plain_size),
            ("records", self._records, index.record_count, entry.records),
            ("first offset", index.base_offset, index.base_offset, entry.base_offset),
            ("last offset", index.last_offset, index.last_offset, entry.last_offset),
            ("lowest timestamp", index.min_timestamp, index.min_timestamp, entry.min_timestamp),
            ("highest timestamp", index.max_timestamp, index.max_timestamp, entry.max_timestamp),
            ("batches", self._batches, index.batch_count, index.batch_count),
            ("codecs", self._codecs, index.batch_codecs, index.batch_codecs),
            ("leader epochs", self._epochs, list(index.epochs), list(index.epochs)),
        )
        for name, found, indexed, listed in facts:
            if found != indexed:
                self._tell(f"{name}: the index says {indexed}, the batches {found}")
            elif found != listed:
                self._tell(f"{name}: the manifest says {listed}, the segment {found}")
        for aborted in index.aborted:
            marker = aborted.marker_offset
            if marker is not None and (aborted.producer_id, marker) not in self._abort_markers:
                self._tell(f"the index has an abort of producer {aborted.producer_id} at {marker}: there is none")

    def _chunk(self, chunk: Chunk, plain: bytes) -> None:
        self._plain.update(plain)
        self._plain_size += len(plain)
        seen = 0
        lowest, highest, first, last = -1, -1, None, -1
        for header, batch in walk(memoryview(plain)):
            seen += header.size
            self._batch(header, batch)
            first = header.base_offset if first is None else first
            last = header.last_offset
            time = header.max_timestamp if header.is_log_append_time else header.base_timestamp
            if time >= 0 and (lowest < 0 or time < lowest):
                lowest = time
            highest = max(highest, header.max_timestamp)
        if seen != len(plain):
            self._tell(f"chunk at byte {chunk.position}: {len(plain) - seen} bytes behind its last whole batch")
        found = (first, last, lowest, highest)
        if found != (chunk.base_offset, chunk.last_offset, chunk.min_timestamp, chunk.max_timestamp):
            self._tell(f"chunk at byte {chunk.position}: offsets or times differ from the index's: {found}")

    def _batch(self, header: BatchHeader, batch: memoryview) -> None:
        offset = header.base_offset
        if not crc_ok(batch):
            self._tell(f"batch at offset {offset}: its CRC-32C is wrong")
        if self._next is not None and offset < self._next:
            self._tell(f"batch at offset {offset} lies before {self._next}, where the one before ended")
        elif self._next is not None and offset > self._next:
            self.holes.append((self._next, offset))
        self._next = header.next_offset
        last_epoch = self._epochs[-1][0] if self._epochs else -1
        if header.leader_epoch > last_epoch:
            self._epochs.append((header.leader_epoch, offset))
        elif 0 <= header.leader_epoch < last_epoch:
            self._tell(f"batch at offset {offset} has leader epoch {header.leader_epoch} after {last_epoch}")
        if header.is_control and control_kind(batch) == CONTROL_ABORT:
            self._abort_markers.add((header.producer_id, header.last_offset))
        self._batches += 1
        self._records += header.record_count
        self._codecs |= 1 << header.codec

    def _tell(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_PER_SEGMENT:
            self.problems.append(text)
        elif len(self.problems) == PROBLEMS_PER_SEGMENT:
            self.problems.append("… and more")


def coverage(
    manifest: Manifest, archived: Sequence[Range], holes: Sequence[Range] = ()
) -> tuple[list[str], list[Range]]:
    """What is wrong with a partition's offsets, and which of them are missing.

    `archived` are the segments, from the start on; `holes` are those found inside of segments. A gap may overlap the
    segment behind it: the broker's log may have started in the middle of a batch, which was archived whole.
    """
    problems: list[str] = []
    missing = list(holes)
    at, archived_to = manifest.start_offset, -1
    spans = [(start, end, False) for start, end in archived]
    spans += [(gap.start, gap.end, True) for gap in manifest.gaps]
    for start, end, is_gap in sorted(spans):
        if not is_gap:
            if start < archived_to:
                problems.append(f"offsets {start} to {min(end, archived_to) - 1} are there twice")
            archived_to = max(archived_to, end)
        if start > at:
            missing.append((at, start))
        at = max(at, end)
    if at != manifest.end_offset:
        problems.append(f"the manifest ends at {manifest.end_offset}, what it lists ends at {at}")
    return problems, sorted(missing)


async def verify_partition(
    library: Library, manifest: Manifest, *, allow_holes: bool, now_ms: int, progress: Callable[[int], None]
) -> PartitionCheck:
    """Read all segments of a partition. `progress` is told bytes read. Errors of the store are problems."""
    named = {MANIFEST_FILE, GARBAGE_FILE} | manifest.referenced()
    result = PartitionCheck(manifest.pid, gaps=manifest.gaps)
    holes: list[Range] = []
    archived: list[Range] = []
    damaged: dict[PageRef, TierproxyError] = {}
    async for entry in _readable(library, manifest, damaged):
        archived.append((entry.base_offset, entry.last_offset + 1))
        named.add(entry.key_name)
        result.segments += 1
        result.stored_bytes += entry.stored_size
        result.plain_bytes += entry.plain_size
        result.records += entry.records
        read = 0

        def advance(count: int) -> None:
            nonlocal read
            read += count
            progress(count)

        try:
            found, segment_holes = await _verify_segment(library, manifest, entry, advance)
        except TierproxyError as error:
            found, segment_holes = [str(error)], []
        progress(entry.stored_size - read)
        result.problems += [Problem(entry.key_name, text) for text in found]
        holes += segment_holes
    for page, trouble in damaged.items():  # its offsets count as archived: that they can't be found is enough to say
        archived.append((page.base_offset, page.last_offset + 1))
        text = f"the page is damaged or lost, so nobody can find its {page.sums.segments} segments: {trouble}"
        result.problems.append(Problem(page.name, text))
    for quarantine in manifest.quarantined:
        for entry in quarantine.segments:
            fault = await _quarantined_fault(library, manifest, entry)
            result.problems += [Problem(entry.key_name, fault)] if fault is not None else []
    problems, result.missing = coverage(manifest, archived, holes)
    if not allow_holes:
        problems += [
            f"offsets {start} to {end - 1} are in no batch and no recorded gap: lost, or compacted away by "
            "the broker before they were archived (--allow-holes accepts that)"
            for start, end in result.missing
        ]
    result.problems += [Problem(None, text) for text in problems]
    try:
        result.orphans = await _orphans(library, manifest.pid, named, damaged, now_ms)
    except TierproxyError as error:
        result.problems.append(Problem(None, f"its objects can't be listed: {error}"))
    return result


async def read_all(store: Store, key: str, check: SegmentCheck, progress: Callable[[int], None]) -> None:
    """Feed `check` with a whole segment, block by block. `progress` is told bytes read."""
    pending = list(check.blocks())
    data = await store.get_range(key, *pending[0][:2])
    for at, (start, end, chunks) in enumerate(pending):
        checking = asyncio.to_thread(check.feed, data, chunks)
        if at + 1 < len(pending):
            data, _ = await asyncio.gather(store.get_range(key, *pending[at + 1][:2]), checking)
        else:
            await checking
        progress(end - start)


async def _readable(
    library: Library, manifest: Manifest, damaged: dict[PageRef, TierproxyError]
) -> AsyncIterator[SegmentEntry]:
    """All segments but those of damaged pages, which are noted."""
    for page in manifest.pages:
        try:
            entries = await library.page(manifest.pid, page)
        except TierproxyError as error:
            damaged[page] = error
            continue
        for entry in entries.walk(manifest.start_offset):
            yield entry
    for entry in manifest.segments:
        yield entry


async def _orphans(
    library: Library, pid: PartitionId, named: set[str], damaged: Iterable[PageRef], now_ms: int
) -> list[Orphan]:
    """What lies in the folder and is not named; segments may be in damaged pages, so those are not counted."""

    def may_be_named(name: str) -> bool:
        try:
            base, last, _ = parse_segment_name(name)
        except FormatError:
            return name in named
        return name in named or any(page.base_offset <= base and last <= page.last_offset for page in damaged)

    return [
        Orphan(name, found.size, max(0, now_ms - found.modified_ms))
        async for name, found in library.objects(pid)
        if not may_be_named(name)
    ]


async def _quarantined_fault(library: Library, manifest: Manifest, entry: SegmentEntry) -> str | None:
    """What is wrong with an object that is kept for people only: it is not read, but must be there."""
    try:
        size = await library.store.size(library.segment_key(manifest.pid, entry))
    except TierproxyError as error:
        return f"quarantined, and gone: {error}"
    return None if size == entry.stored_size else f"quarantined, and has {size} bytes, not {entry.stored_size}"


async def _verify_segment(
    library: Library, manifest: Manifest, entry: SegmentEntry, progress: Callable[[int], None]
) -> tuple[list[str], list[Range]]:
    key = library.segment_key(manifest.pid, entry)
    store = library.store
    size = await store.size(key)
    if size != entry.stored_size:
        return [f"the object has {size} bytes, not {entry.stored_size} as the manifest says"], []
    index = await library.load_index(manifest.pid, entry)
    if index.data_size + entry.index_size != size:
        return [f"its index begins at {index.data_size}, not at {size - entry.index_size}"], []
    check = SegmentCheck(entry, index)
    await read_all(store, key, check, progress)
    check.finish()
    for epoch, start in index.epochs:
        if start >= manifest.start_offset and manifest.epoch_at(start) != epoch:
            listed = manifest.epoch_at(start)
            check.problems.append(f"leader epoch at offset {start}: the manifest says {listed}, not {epoch}")
    return check.problems, check.holes
