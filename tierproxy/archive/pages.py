"""Pages: where a manifest's older entries are, so that its root stays small however many segments there are.

A page is an immutable object `manifest/<first offset>-<last offset>-<tag>.json.zst` in the partition's folder. The
root has a row for each (`PageRef`), enough to search by offset and by time and to add things up without reading any.
A page that must change is written anew under another name; the old one is garbage once no root names it.

Stored as zstd'd JSON, by columns: `zstd -dc PAGE | jq .base_offset` shows one. Rows would take ten times as long to
read, in a process that has clients to serve meanwhile:

    {
      "format": "tierproxy-manifest-page",
      "version": 1,
      "cluster": "prod",
      "topic": "flights",
      "topic_id": "7s9mFq3kQ1-wYzVtL2xAbg",
      "partition": 0,
      "tag": ["5f1c9a3e", ...],                       with the offsets: the segments' names
      "base_offset": [0, ...],                        then the other fields of SegmentEntry, one line each
      "last_offset": [183201, ...],
      ...
      "sha256": ["7691b866...", ...]
    }

Old pages stay readable for ever: a change to this is another version beside this one.
"""

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self, overload

import zstandard

from tierproxy.archive.errors import FormatError
from tierproxy.archive.json_fields import Fields
from tierproxy.archive.names import (
    is_tag,
    page_name,
    parse_page_name,
    parse_segment_name,
    parse_topic_id,
    segment_name,
    topic_id_text,
)
from tierproxy.archive.segment_entry import SHA256_TEXT, SegmentEntry, Sums
from tierproxy.archive.segment_index import SegmentInfo

FORMAT = "tierproxy-manifest-page"
VERSION = 1
LARGEST = 64 << 20
"""Plain bytes of a page; more is no page of ours."""

_LEVEL = 9
_NUMBERS = (
    ("base_offset", 0),
    ("last_offset", 0),
    ("stored_size", 1),
    ("plain_size", 1),
    ("index_size", 1),
    ("records", 0),
    ("min_timestamp", -1),
    ("max_timestamp", -1),
    ("created_ms", 0),
)
"""The columns of numbers, and the least that each may hold."""
_MAX_TIMESTAMP = [name for name, _ in _NUMBERS].index("max_timestamp")
_ENTRY_BYTES = 8 * len(_NUMBERS) + 32 + 64  # numbers, checksum, tag


@dataclass(frozen=True, slots=True)
class Paging:
    """How entries are spread: a root with more than `root_most` keeps `root_keep`, a page has at most `page_most`."""

    root_most: int = 128
    root_keep: int = 64
    page_most: int = 4096


@dataclass(frozen=True, slots=True)
class PageRef:
    """A page as the root knows it: its file name below the partition's folder, the offsets of its first and last
    record (inclusive), what its segments come to, SHA-256 of the object in hex."""

    name: str
    base_offset: int
    last_offset: int
    sums: Sums
    sha256: str

    def to_row(self) -> dict[str, object]:
        """Its row in a manifest's JSON."""
        sums = self.sums
        return {
            "name": self.name,
            "base_offset": self.base_offset,
            "last_offset": self.last_offset,
            "segments": sums.segments,
            "stored_size": sums.stored_size,
            "plain_size": sums.plain_size,
            "records": sums.records,
            "min_timestamp": sums.min_timestamp,
            "max_timestamp": sums.max_timestamp,
            "newest_ms": sums.newest_ms,
            "created_ms": sums.created_ms,
            "sha256": self.sha256,
        }

    @classmethod
    def from_row(cls, row: Fields) -> Self:
        """From its row; FormatError if it can't be right."""
        name = row.text("name")
        base, last = row.integer("base_offset"), row.integer("last_offset")
        sums = Sums(
            segments=row.integer("segments", 1),
            stored_size=row.integer("stored_size", 1),
            plain_size=row.integer("plain_size", 1),
            records=row.integer("records"),
            min_timestamp=row.integer("min_timestamp", -1),
            max_timestamp=row.integer("max_timestamp", -1),
            newest_ms=row.integer("newest_ms"),
            created_ms=row.integer("created_ms"),
        )
        digest = row.text("sha256")
        if parse_page_name(name)[:2] != (base, last) or not SHA256_TEXT.fullmatch(digest):
            raise FormatError(f"{row.where}: offsets or checksum of {name} can't be right")
        return cls(name, base, last, sums, digest)


class Page(Sequence[SegmentEntry]):
    """The entries of a page, in order. Kept as columns, which takes a quarter of the memory of SegmentEntry objects."""

    __slots__ = ("_digests", "_numbers", "_tags")

    def __init__(self, tags: tuple[str, ...], numbers: tuple["array[int]", ...], digests: bytes) -> None:
        self._tags = tags
        self._numbers = numbers
        self._digests = digests

    @classmethod
    def of(cls, entries: Sequence[SegmentEntry]) -> Self:
        """A page of these entries; there must be at least one."""
        tags = tuple(parse_segment_name(entry.key_name).tag for entry in entries)
        numbers = tuple(array("q", [getattr(entry, name) for entry in entries]) for name, _ in _NUMBERS)
        return cls(tags, numbers, bytes.fromhex("".join(entry.sha256 for entry in entries)))

    def __len__(self) -> int:
        return len(self._tags)

    @overload
    def __getitem__(self, at: int) -> SegmentEntry: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[SegmentEntry]: ...
    def __getitem__(self, at: int | slice) -> SegmentEntry | Sequence[SegmentEntry]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        base, last, stored, plain, index, records, lowest, highest, created = (column[at] for column in self._numbers)
        name = segment_name(base, last, self._tags[at])
        digest = self._digests[32 * at : 32 * at + 32].hex()
        return SegmentEntry(name, base, last, stored, plain, index, records, lowest, highest, digest, created)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Page) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((self._tags, self._digests))

    @property
    def memory(self) -> int:
        """Bytes that it takes up, more or less."""
        return _ENTRY_BYTES * len(self)

    @property
    def base_offset(self) -> int:
        return self._numbers[0][0]

    @property
    def last_offset(self) -> int:
        return self._numbers[1][-1]

    @property
    def sums(self) -> Sums:
        """What its entries come to: Sums.of(), but by columns, which is much quicker."""
        _, _, stored, plain, _, records, lowest, highest, created = self._numbers
        times = zip(highest, created, strict=True)
        return Sums(
            segments=len(self),
            stored_size=sum(stored),
            plain_size=sum(plain),
            records=sum(records),
            min_timestamp=min((time for time in lowest if time >= 0), default=-1),
            max_timestamp=max(highest),
            newest_ms=max(min(time, archived) if time >= 0 else archived for time, archived in times),
            created_ms=max(created),
        )

    def place(self, offset: int) -> int:
        """Place of the segment that holds `offset`, or else of the next; its length if all end below."""
        return bisect_left(self._numbers[1], offset)

    def walk(self, offset: int, since_ms: int | None = None) -> Iterator[SegmentEntry]:
        """Its entries from `place(offset)` on; with `since_ms` only those with a record of that time or later."""
        highest = self._numbers[_MAX_TIMESTAMP]
        for at in range(self.place(offset), len(self)):
            if since_ms is None or highest[at] >= since_ms:
                yield self[at]

    def encode(self, about: SegmentInfo, tag: str) -> tuple[PageRef, bytes]:
        """The object and the row that names it. Takes its time: call it in a thread."""
        fields: list[tuple[str, object]] = [
            ("format", FORMAT),
            ("version", VERSION),
            ("cluster", about.cluster),
            ("topic", about.topic),
            ("topic_id", topic_id_text(about.topic_id)),
            ("partition", about.partition),
            ("tag", self._tags),
        ]
        fields += [(name, column.tolist()) for (name, _), column in zip(_NUMBERS, self._numbers, strict=True)]
        fields.append(("sha256", [self._digests[at : at + 32].hex() for at in range(0, len(self._digests), 32)]))
        plain = ("{\n" + ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in fields) + "\n}\n").encode()
        data = zstandard.ZstdCompressor(_LEVEL, write_checksum=True).compress(plain)
        name = page_name(self.base_offset, self.last_offset, tag)
        return PageRef(name, self.base_offset, self.last_offset, self.sums, sha256(data).hexdigest()), data

    @classmethod
    def decode(cls, data: bytes, ref: PageRef, about: SegmentInfo) -> Self:
        """The page that `ref` names. FormatError, UnknownVersionError. Takes its time: call it in a thread."""
        if sha256(data).hexdigest() != ref.sha256:
            raise FormatError(f"{ref.name}: its SHA-256 is not what the manifest says: its bytes have changed")
        found, page = cls.read(data, ref.name)
        if found != about:
            raise FormatError(f"{ref.name} is of {found.topic}-{found.partition} in {found.cluster!r}")
        if (page.base_offset, page.last_offset, page.sums) != (ref.base_offset, ref.last_offset, ref.sums):
            raise FormatError(f"{ref.name}: it does not hold what the manifest says")
        return page

    @classmethod
    def read(cls, data: bytes, what: str) -> tuple[SegmentInfo, Self]:
        """Any page, by what it says of itself alone. FormatError, UnknownVersionError."""
        try:
            if zstandard.frame_content_size(data) > LARGEST:
                raise FormatError(f"{what} is too large to be a page")
            plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=LARGEST)
        except zstandard.ZstdError as error:
            raise FormatError(f"{what} is no page: {error}") from error
        fields = Fields.of_document(plain, what, FORMAT, VERSION)
        about = SegmentInfo(
            fields.text("cluster"),
            fields.text("topic"),
            parse_topic_id(fields.text("topic_id")),
            fields.integer("partition"),
        )
        tags = fields.texts("tag")
        numbers = tuple(fields.integers(name, least) for name, least in _NUMBERS)
        digests = fields.texts("sha256")
        fields.finish()
        if not tags or any(len(column) != len(tags) for column in (*numbers, digests)):
            raise FormatError(f"{what}: its columns are empty or not of one length")
        if not all(map(SHA256_TEXT.fullmatch, digests)):
            raise FormatError(f"{what}: a SHA-256 in it is none")
        page = cls(tags, numbers, bytes.fromhex("".join(digests)))
        page._check(what)
        return about, page

    def _check(self, what: str) -> None:
        bases, lasts, stored, _, index, *_ = self._numbers
        end = -1
        for at, (base, last) in enumerate(zip(bases, lasts, strict=True)):
            if not end < base <= last or index[at] > stored[at]:
                raise FormatError(f"{what}: its entry {at} can't be right")
            end = last
        if not all(map(is_tag, self._tags)):
            raise FormatError(f"{what}: a tag in it is none")

    def _parts(self) -> tuple[object, ...]:
        return self._tags, self._numbers, self._digests
