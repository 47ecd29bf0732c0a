"""One partition's log as a leader keeps it: what is in it, where it begins and ends, and what a read gets.

After Kafka's UnifiedLog, LocalLog, LogSegment, LeaderEpochFileCache and TransactionIndex (4.3). Trimming moves `start`
only; the batches below it stay until `clean`, and some answers are wrong in exactly the broker's way until then
(kafka-protocol.md 6, traps a and b). Offsets are half-open: `end` is the next record's.

Not done: time and size based rolling (call `roll`), the time and offset indexes (every batch is an index entry, and
the upper bound of a read's aborted transactions is the segment's end), compaction, idempotence.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from struct import pack_into

from protocol.batches import CONTROL_ABORT, BatchHeader, control_kind, read_batch_header, walk
from protocol.records import decode_records, first_record_at

NO_EPOCH = (-1, -1)


class OutOfRange(Exception):
    """The offset is below `start` or above `end`."""


@dataclass(slots=True)
class Segment:
    """Batches that are deleted together."""

    base_offset: int
    batches: list[tuple[BatchHeader, bytes]] = field(default_factory=list)

    @property
    def max_timestamp(self) -> int:
        return max((header.max_timestamp for header, _ in self.batches), default=-1)


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    producer_id: int
    first_offset: int
    marker_offset: int


@dataclass(frozen=True, slots=True)
class FoundRecord:
    offset: int
    timestamp: int
    epoch: int


@dataclass(slots=True)
class Read:
    """What one read got. `old_segment`: it stands in a segment that is not the active one."""

    records: bytes
    aborted: list[tuple[int, int]]
    first_batch_incomplete: bool = False
    old_segment: bool = False


class PartitionLog:
    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.segments = [Segment(0)]
        self.epochs: list[tuple[int, int]] = []
        """(leader epoch, offset of its first record), ascending."""
        self.aborted: list[AbortedTransaction] = []
        """In the order of their markers, as in the segments' transaction indexes."""
        self.replicated: int | None = None
        """What all replicas have, when a test holds them back; None: everything."""
        self._open: dict[int, int] = {}  # producer id → first offset of its open transaction
        self._ended: list[tuple[int, int]] = []  # (first offset, marker) of those that not all replicas know to be over

    # -- bounds -----------------------------------------------------------------------------------------------------

    @property
    def high_watermark(self) -> int:
        return self.end if self.replicated is None else min(self.replicated, self.end)

    @property
    def last_stable(self) -> int:
        """A transaction whose marker is above the high watermark may still be open, after an election."""
        mark = self.high_watermark
        self._ended = [each for each in self._ended if each[1] >= mark]
        return max(self.start, min([mark, *self._open.values(), *(first for first, _ in self._ended)]))

    def bound(self, committed: bool) -> int:
        """Up to where (exclusive) a consumer may read."""
        return self.last_stable if committed else self.high_watermark

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, data: bytes, epoch: int) -> int:
        """Take whole batches as a producer sends them; the offset of the first record."""
        first = self.end
        if not self.epochs or epoch > self.epochs[-1][0]:
            self.begin_epoch(epoch)
        for _, batch in walk(memoryview(data)):
            placed = bytearray(batch)
            pack_into(">q", placed, 0, self.end)  # the CRC leaves these two out
            pack_into(">i", placed, 12, epoch)
            header = read_batch_header(placed)
            assert header is not None
            self.segments[-1].batches.append((header, bytes(placed)))
            self.end = header.next_offset
            self._note_transaction(header, placed)
        return first

    def _note_transaction(self, header: BatchHeader, batch: bytearray) -> None:
        if not header.is_transactional:
            return
        kind = control_kind(batch)
        if kind is None:
            self._open.setdefault(header.producer_id, header.base_offset)
            return
        first = self._open.pop(header.producer_id, None)
        if first is not None:
            self._ended.append((first, header.base_offset))
        if kind == CONTROL_ABORT and first is not None:
            self.aborted.append(AbortedTransaction(header.producer_id, first, header.base_offset))

    def begin_epoch(self, epoch: int) -> None:
        """A leader begins its epoch here; one that never wrote leaves no trace when the next begins at its start."""
        self.epochs = [entry for entry in self.epochs if entry[1] < self.end]
        self.epochs.append((epoch, self.end))

    def roll(self) -> None:
        """Later batches go to a new segment."""
        if self.segments[-1].batches:
            self.segments.append(Segment(self.end))

    def truncate(self, offset: int) -> None:
        """Forget everything from `offset` on, as a replica does that has never seen it."""
        for segment in self.segments:
            segment.batches = [each for each in segment.batches if each[0].base_offset < offset]
        self.segments = [s for s in self.segments if s.batches] or [Segment(offset)]
        self.end = offset
        self.start = min(self.start, offset)
        self.epochs = [entry for entry in self.epochs if entry[1] < offset]
        self.aborted = [each for each in self.aborted if each.marker_offset < offset]
        self._open = {producer: first for producer, first in self._open.items() if first < offset}
        self._ended = [each for each in self._ended if each[1] < offset]

    # -- deleting ---------------------------------------------------------------------------------------------------

    def trim(self, offset: int) -> None:
        """DeleteRecords: at once, to the record; the bytes stay for now."""
        if offset <= self.start:
            return
        self.start = offset
        kept = bisect_right(self.epochs, offset, key=lambda entry: entry[1]) - 1
        if kept >= 0:
            self.epochs = [(self.epochs[kept][0], offset), *self.epochs[kept + 1 :]]

    def clean(self) -> None:
        """The retention check: segments go of which the next begins at or below `start`; the active one stays."""
        while len(self.segments) > 1 and self.segments[1].base_offset <= self.start:
            gone = self.segments.pop(0)
            above = self.segments[0].base_offset
            self.aborted = [each for each in self.aborted if not gone.base_offset <= each.marker_offset < above]

    def crash(self) -> None:
        """kill -9 soon after a trim: the log start is forgotten, back to what is still on disk."""
        self.start = self.segments[0].base_offset

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int, *, at_least_one: bool, committed: bool) -> Read:
        """As Kafka reads: from the batch that holds `offset`, or the next, to the end of its segment at most.

        A partial batch at the end is normal. Raises OutOfRange.
        """
        if not self.start <= offset <= self.end:
            raise OutOfRange
        bound = self.bound(committed)
        if offset >= bound:
            return Read(b"", [])
        for segment, after in zip(self.segments, [*self.segments[1:], None], strict=True):
            found = [each for each in segment.batches if each[0].last_offset >= offset]
            if not found:
                continue
            aborted = self._aborted_between(offset, self.end if after is None else after.base_offset)
            first = found[0][0].size
            size = max(size, first) if at_least_one else size
            readable = b"".join(data for header, data in found if header.base_offset < bound)
            return Read(readable[:size], aborted, first_batch_incomplete=size < first, old_segment=after is not None)
        return Read(b"", [])

    def _aborted_between(self, offset: int, upper: int) -> list[tuple[int, int]]:
        return [
            (each.producer_id, each.first_offset)
            for each in self.aborted
            if each.marker_offset >= offset and each.first_offset < upper
        ]

    def batches(self) -> Iterator[tuple[BatchHeader, bytes]]:
        for segment in self.segments:
            yield from segment.batches

    # -- looking up -------------------------------------------------------------------------------------------------

    def first_at(self, timestamp: int) -> FoundRecord | None:
        """The first record that is not older, in the first *segment* that has one: trimmed ones count (trap a)."""
        for segment in self.segments:
            if segment.max_timestamp < timestamp:
                continue
            for header, data in segment.batches:
                found = first_record_at(data, timestamp, self.start)
                if found is not None:
                    return FoundRecord(*found, header.leader_epoch)
            return None
        return None

    def latest_time(self) -> FoundRecord | None:
        """The record with the highest timestamp, the first of several; one below `start` too (trap b)."""
        best: FoundRecord | None = None
        for header, data in self.batches():
            if best is not None and header.max_timestamp <= best.timestamp:
                continue
            for record in decode_records(data):
                if best is None or record.timestamp > best.timestamp:
                    best = FoundRecord(record.offset, record.timestamp, header.leader_epoch)
        return best

    def epoch_at_start(self) -> int:
        """The epoch of the record at `start`; -1 where the cache doesn't reach that far."""
        return self.epochs[0][0] if self.epochs and self.epochs[0][1] <= self.start else -1

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        """(largest known epoch not above `epoch`, where it ends), as OffsetForLeaderEpoch tells it (KIP-320)."""
        if not self.epochs or epoch < 0 or epoch > self.epochs[-1][0]:
            return NO_EPOCH
        if epoch == self.epochs[-1][0]:
            return epoch, self.end
        if epoch < self.epochs[0][0]:
            return epoch, self.epochs[0][1]
        for (known, _), (above, start) in pairwise(self.epochs):
            if known <= epoch < above:
                return known, start
        raise AssertionError("epochs ascend")
