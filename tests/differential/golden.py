"""What the broker stored, batch by batch, before anything was archived or trimmed: the truth both sides are held to."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from kafka.record import MemoryRecords

from protocol.batches import BatchHeader, control_kind, walk

ABORT = 0


@dataclass(frozen=True)
class Batch:
    """One whole batch as stored."""

    header: BatchHeader
    data: bytes

    @property
    def base(self) -> int:
        return self.header.base_offset

    @property
    def last(self) -> int:
        return self.header.last_offset

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def times(self) -> dict[int, int]:
        """Offset → timestamp of each record, as kafka-python reads them."""
        records = MemoryRecords(self.data)
        batch = records.next_batch()
        assert batch is not None
        if self.header.is_control:
            return {self.base: self.header.max_timestamp}
        return {record.offset: record.timestamp for record in batch}

    @cached_property
    def content(self) -> list[tuple[int, object, object, object]]:
        """Offset, key, value and headers of each record, as kafka-python reads them."""
        batch = MemoryRecords(self.data).next_batch()
        assert batch is not None
        return [(record.offset, record.key, record.value, tuple(record.headers)) for record in batch]

    @property
    def aborts(self) -> bool:
        return self.header.is_control and control_kind(self.data) == ABORT


@dataclass(frozen=True, slots=True)
class AbortedTransaction:
    producer_id: int
    first: int
    marker: int

    def has(self, batch: Batch) -> bool:
        return batch.header.producer_id == self.producer_id and self.first <= batch.base < self.marker


@dataclass
class Golden:
    """One partition of one side. `start`, `stable` and `end`: log start, last stable offset, high watermark."""

    batches: list[Batch]
    start: int
    stable: int
    end: int
    _lasts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._lasts = [batch.last for batch in self.batches]

    def append(self, batches: Iterable[Batch], end: int) -> None:
        for batch in batches:
            self.batches.append(batch)
            self._lasts.append(batch.last)
        self.end = self.stable = end

    def first_at(self, offset: int) -> int:
        """Number of the batch which holds `offset`, or of the next one; their count if there is none."""
        return bisect_left(self._lasts, offset)

    def at_base(self, base: int) -> Batch | None:
        number = self.first_at(base)
        if number == len(self.batches) or self.batches[number].base != base:
            return None
        return self.batches[number]

    def since(self, offset: int, before: int) -> Iterator[Batch]:
        """The batches a fetch at `offset` is given from, if it may see what lies below `before`."""
        for number in range(self.first_at(offset), len(self.batches)):
            if self.batches[number].base >= before:
                return
            yield self.batches[number]

    def is_batch_at(self, offset: int, size: int) -> bool:
        """Whether the batch which a fetch at `offset` begins with has this size."""
        number = self.first_at(offset)
        return number < len(self.batches) and self.batches[number].size == size

    def visible(self, batches: Iterable[Batch], offset: int, *, committed: bool) -> list[int]:
        """Offsets of the records in `batches` that a reader from `offset` on has to be given."""
        aborted = self.aborted if committed else []
        shown = [batch for batch in batches if not batch.header.is_control and not any(t.has(batch) for t in aborted)]
        return [at for batch in shown for at in batch.times if at >= offset]

    def time_of(self, offset: int) -> int | None:
        """The timestamp of the record at `offset`; None if there is no such record."""
        number = self.first_at(offset)
        return None if number == len(self.batches) else self.batches[number].times.get(offset)

    def first_since(self, time: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record, by offset, that isn't older than `time`."""
        for batch in self.batches:
            for offset, at in batch.times.items():
                if offset >= self.start and at >= time:
                    return offset, at
        return None

    @cached_property
    def aborted(self) -> list[AbortedTransaction]:
        """Aborted transactions that have data here, in the order of their markers. Nothing is added to such a log."""
        open_since: dict[int, int] = {}
        found = []
        for batch in self.batches:
            pid = batch.header.producer_id
            if batch.header.is_control:
                first = open_since.pop(pid, None)
                if first is not None and batch.aborts:
                    found.append(AbortedTransaction(pid, first, batch.base))
            elif batch.header.is_transactional:
                open_since.setdefault(pid, batch.base)
        return found


def split(records: bytes) -> tuple[list[Batch], bytes]:
    """A fetched blob as whole batches and the bytes of a partial one at its end. MalformedError for other bytes."""
    batches = [Batch(header, bytes(data)) for header, data in walk(memoryview(records))]
    return batches, records[sum(batch.size for batch in batches) :]
