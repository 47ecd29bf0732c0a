"""What a manifest says of one segment, and of a run of them."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from tierproxy.archive.errors import FormatError
from tierproxy.archive.json_fields import Fields
from tierproxy.archive.names import parse_segment_name

SHA256_TEXT = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment. Offsets are inclusive, sizes in bytes, times in ms since 1970 (-1: its records have none).

    `key_name` is its file name in the partition's folder. `stored_size` is that of the object, `plain_size`
    that of its batches, `index_size` that of its end (index and trailer frame): one read of so much gives
    read_index() what it needs. `sha256` is that of the whole object, in hex. min_timestamp is as in
    segment_index.Chunk.
    """

    key_name: str
    base_offset: int
    last_offset: int
    stored_size: int
    plain_size: int
    index_size: int
    records: int
    min_timestamp: int
    max_timestamp: int
    sha256: str
    created_ms: int

    @property
    def newest_ms(self) -> int:
        """The time that retention goes by: that of its newest record, or of archiving where that is earlier."""
        return min(self.max_timestamp, self.created_ms) if self.max_timestamp >= 0 else self.created_ms

    def to_row(self) -> dict[str, object]:
        """Its row in a manifest's JSON."""
        fields = asdict(self)
        return {"name": fields.pop("key_name"), **fields}

    @classmethod
    def from_row(cls, row: Fields) -> Self:
        """From its row; FormatError if it can't be right."""
        entry = cls(
            key_name=row.text("name"),
            base_offset=row.integer("base_offset"),
            last_offset=row.integer("last_offset"),
            stored_size=row.integer("stored_size", 1),
            plain_size=row.integer("plain_size", 1),
            index_size=row.integer("index_size", 1),
            records=row.integer("records"),
            min_timestamp=row.integer("min_timestamp", -1),
            max_timestamp=row.integer("max_timestamp", -1),
            sha256=row.text("sha256"),
            created_ms=row.integer("created_ms"),
        )
        name = parse_segment_name(entry.key_name)
        if (name.base_offset, name.last_offset) != (entry.base_offset, entry.last_offset):
            raise FormatError(f"{row.where}: {entry.key_name} is not what its offsets say")
        if entry.index_size > entry.stored_size or not SHA256_TEXT.fullmatch(entry.sha256):
            raise FormatError(f"{row.where}: sizes or checksum of {entry.key_name} can't be right")
        return entry


@dataclass(frozen=True, slots=True)
class Sums:
    """What some segments come to; `a + b` is that of both. Units as in SegmentEntry; times are -1 where there is none.

    `newest_ms` and `created_ms` are the highest of the segments'.
    """

    segments: int = 0
    stored_size: int = 0
    plain_size: int = 0
    records: int = 0
    min_timestamp: int = -1
    max_timestamp: int = -1
    newest_ms: int = -1
    created_ms: int = -1

    @classmethod
    def of(cls, entries: Iterable[SegmentEntry]) -> Self:
        segments = stored = plain = records = 0
        lowest = highest = newest = created = -1
        for entry in entries:
            segments += 1
            stored += entry.stored_size
            plain += entry.plain_size
            records += entry.records
            lowest = _lower(lowest, entry.min_timestamp)
            highest = max(highest, entry.max_timestamp)
            newest = max(newest, entry.newest_ms)
            created = max(created, entry.created_ms)
        return cls(segments, stored, plain, records, lowest, highest, newest, created)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.segments + other.segments,
            self.stored_size + other.stored_size,
            self.plain_size + other.plain_size,
            self.records + other.records,
            _lower(self.min_timestamp, other.min_timestamp),
            max(self.max_timestamp, other.max_timestamp),
            max(self.newest_ms, other.newest_ms),
            max(self.created_ms, other.created_ms),
        )


def _lower(one: int, other: int) -> int:
    """The lower of two times, of which either may be missing (-1)."""
    return min(one, other) if one >= 0 and other >= 0 else max(one, other)
