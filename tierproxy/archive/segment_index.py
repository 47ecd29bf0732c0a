"""The index of a segment: what is in it and where, how that is written, and how one chunk is read back.

A segment is a file that `zstd -d` turns into a plain Kafka log. Layout, version 1; numbers are little-endian
as in zstd itself, `text` is a u16 length and UTF-8:

    chunk frames     zstd frames, one behind the other from byte 0. Each holds whole record batches, about
                     1 MiB of them, its content size and a content checksum, and can be read alone.
    index frame      a zstd skippable frame: u32 0x184D2A5A, u32 size of the payload, payload:
                       u8    layout version, 1
                       u8    codec of the chunks: 1 = zstd
                       u8    codecs of the batches: bit n is set if some batch has Kafka's codec n
                       u8    0
                       text  cluster (the name in our configuration)
                       text  topic
                       16    topic id
                       u32   partition
                       text  writer: program and version
                       u64   records, by the batches' own counts
                       u64   batches
                       u64   plain size: bytes of all batches
                       32    SHA-256 of all batches
                       u32   number of chunks; each 48 bytes:
                               i64 base offset, i64 last offset, u64 position, u32 stored size,
                               u32 plain size, i64 min timestamp, i64 max timestamp
                       u32   number of leader epochs; each 12 bytes:
                               i32 epoch, i64 offset of its first batch in this segment
                       u32   number of aborted transactions; each 24 bytes:
                               i64 producer id, i64 first offset,
                               i64 offset of the marker, -1 = beyond this segment
                       u32   CRC-32C of the payload so far
    trailer frame    40 bytes, a zstd skippable frame: u32 0x184D2A5B, u32 32, payload:
                       u64   position of the index frame
                       u32   size of the index frame, its 8 bytes of head included
                       u32   the CRC-32C at the end of the index
                       u16   layout version, 1
                       u16   0
                       u32   CRC-32C of the 20 bytes before
                       8     "TIERSEG1"

Old segments stay readable for ever: a change to this layout is a new version beside this one, and the literal
vectors in tests/vectors stay as they are.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct

import zstandard
from crc32c import crc32c

from protocol.wire import Buffer
from tierproxy.archive.errors import FormatError, UnknownVersionError

VERSION = 1
CODEC_ZSTD = 1
TRAILER_SIZE = 40
"""Size of the trailer frame: the last bytes of every segment."""

_INDEX_MAGIC = 0x184D2A5A
_TRAILER_MAGIC = 0x184D2A5B
_TRAILER_MARK = b"TIERSEG1"
_FRAME_HEAD = Struct("<II")
_TRAILER = Struct("<QIIHHI8s")
_TRAILER_SUMMED = 20
_START = Struct("<BBBB")
_TEXT = Struct("<H")
_PARTITION = Struct("<16sI")
_TOTALS = Struct("<QQQ32s")
_COUNT = Struct("<I")
_CHUNK = Struct("<qqQIIqq")
_EPOCH = Struct("<iq")
_ABORTED = Struct("<qqq")


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """Whose log a segment is part of. `cluster` is our configuration's name, `topic_id` Kafka's 16 bytes."""

    cluster: str
    topic: str
    topic_id: bytes
    partition: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One zstd frame: offsets of its first and last record (inclusive), place and size in bytes, times in ms.

    max_timestamp is the highest of its records. min_timestamp is the lowest of its batches' base timestamps:
    batch headers say no more, so single records may be older. Both are -1 where batches carry no time.
    """

    base_offset: int
    last_offset: int
    position: int
    stored_size: int
    plain_size: int
    min_timestamp: int
    max_timestamp: int


@dataclass(frozen=True, slots=True)
class Aborted:
    """An aborted transaction. `marker_offset` is None if its marker lies beyond the segment."""

    producer_id: int
    first_offset: int
    marker_offset: int | None


@dataclass(frozen=True, slots=True)
class IndexLocation:
    """Where the index frame lies in a segment, in bytes, and the checksum that it must have."""

    position: int
    size: int
    checksum: int


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """What a segment says of itself. There is at least one chunk; chunks, epochs and offsets ascend.

    `epochs` are (leader epoch, offset of the first batch with it in this segment). `aborted` is sorted by
    first_offset. `batch_codecs` has bit n set if some batch is compressed with Kafka's codec n.
    """

    about: SegmentInfo
    writer: str
    batch_codecs: int
    record_count: int
    batch_count: int
    plain_size: int
    plain_sha256: bytes
    chunks: tuple[Chunk, ...]
    epochs: tuple[tuple[int, int], ...]
    aborted: tuple[Aborted, ...]
    codec: int = CODEC_ZSTD

    @property
    def base_offset(self) -> int:
        """Offset of the first record."""
        return self.chunks[0].base_offset

    @property
    def last_offset(self) -> int:
        """Offset of the last record (inclusive)."""
        return self.chunks[-1].last_offset

    @property
    def min_timestamp(self) -> int:
        """As Chunk.min_timestamp, over all chunks that have one."""
        return min((chunk.min_timestamp for chunk in self.chunks if chunk.min_timestamp >= 0), default=-1)

    @property
    def max_timestamp(self) -> int:
        """The highest timestamp of any record, in ms; -1 if there is none."""
        return max(chunk.max_timestamp for chunk in self.chunks)

    @property
    def data_size(self) -> int:
        """Bytes of all chunks as stored: where the index frame begins."""
        return self.chunks[-1].position + self.chunks[-1].stored_size

    def chunk_at(self, offset: int) -> int | None:
        """Place in `chunks` of the one that holds `offset`, or else of the next; None: all end below."""
        found = bisect_left(self.chunks, offset, key=_last_offset)
        return found if found < len(self.chunks) else None

    def aborted_between(self, fetch_offset: int, last_offset: int) -> list[tuple[int, int]]:
        """The aborted transactions to list with data from `fetch_offset` to `last_offset` (inclusive).

        (producer id, first offset), sorted by first offset, chosen as a broker does (Kafka:
        TransactionIndex): the marker is not below fetch_offset, the first offset not above the data. One too
        many makes clients drop committed records, one too few makes them deliver aborted ones.
        """
        return [
            (entry.producer_id, entry.first_offset)
            for entry in self.aborted
            if entry.first_offset <= last_offset
            and (entry.marker_offset is None or entry.marker_offset >= fetch_offset)
        ]


def _last_offset(chunk: Chunk) -> int:
    return chunk.last_offset


def encode_tail(index: SegmentIndex) -> bytes:
    """The end of a segment: index frame and trailer frame, to be written behind the last chunk."""
    about = index.about
    rows = [
        _START.pack(VERSION, index.codec, index.batch_codecs, 0),
        _text(about.cluster),
        _text(about.topic),
        _PARTITION.pack(about.topic_id, about.partition),
        _text(index.writer),
        _TOTALS.pack(index.record_count, index.batch_count, index.plain_size, index.plain_sha256),
        _COUNT.pack(len(index.chunks)),
    ]
    rows += [
        _CHUNK.pack(
            c.base_offset,
            c.last_offset,
            c.position,
            c.stored_size,
            c.plain_size,
            c.min_timestamp,
            c.max_timestamp,
        )
        for c in index.chunks
    ]
    rows.append(_COUNT.pack(len(index.epochs)))
    rows += [_EPOCH.pack(*row) for row in index.epochs]
    rows.append(_COUNT.pack(len(index.aborted)))
    rows += [
        _ABORTED.pack(a.producer_id, a.first_offset, -1 if a.marker_offset is None else a.marker_offset)
        for a in index.aborted
    ]
    payload = b"".join(rows)
    checksum = crc32c(payload)
    frame = _FRAME_HEAD.pack(_INDEX_MAGIC, len(payload) + 4) + payload + _COUNT.pack(checksum)
    return frame + _encode_trailer(IndexLocation(index.data_size, len(frame), checksum))


def _text(text: str) -> bytes:
    data = text.encode()
    return _TEXT.pack(len(data)) + data


def _encode_trailer(location: IndexLocation) -> bytes:
    summed = _TRAILER.pack(location.position, location.size, location.checksum, VERSION, 0, 0, _TRAILER_MARK)
    checksum = crc32c(summed[:_TRAILER_SUMMED])
    head = _FRAME_HEAD.pack(_TRAILER_MAGIC, _TRAILER.size)
    return head + _TRAILER.pack(
        location.position, location.size, location.checksum, VERSION, 0, checksum, _TRAILER_MARK
    )


def read_trailer(tail: Buffer) -> IndexLocation:
    """Where the index lies, from the last TRAILER_SIZE bytes of a segment or more; FormatError."""
    trailer = memoryview(tail)[-TRAILER_SIZE:]
    if len(trailer) < TRAILER_SIZE or trailer[-8:] != _TRAILER_MARK:
        raise FormatError("this is no segment of ours: it has no trailer, or not all of it is there")
    if _FRAME_HEAD.unpack_from(trailer) != (_TRAILER_MAGIC, _TRAILER.size):
        raise FormatError("the segment's trailer is damaged: its frame has another head")
    position, size, checksum, version, _, own, _ = _TRAILER.unpack_from(trailer, _FRAME_HEAD.size)
    payload = trailer[_FRAME_HEAD.size :]
    if crc32c(payload[:_TRAILER_SUMMED]) != own:
        raise FormatError("the segment's trailer is damaged: its checksum differs")
    _known(version)
    return IndexLocation(position, size, checksum)


def read_index(tail: Buffer) -> SegmentIndex:
    """The index, from the end of a segment: at least its index frame and its trailer frame.

    The manifest knows how many bytes that are (SegmentEntry.index_size). FormatError if they are damaged.
    """
    location = read_trailer(tail)
    view = memoryview(tail)
    start = len(view) - TRAILER_SIZE - location.size
    if start < 0:
        raise FormatError(f"the index has {location.size} bytes, only {start + location.size} of them are here")
    index = decode_index(view[start:-TRAILER_SIZE])
    if _checksum(view[:-TRAILER_SIZE]) != location.checksum or index.data_size != location.position:
        raise FormatError("the segment's trailer belongs to another index")
    return index


def decode_index(frame: Buffer) -> SegmentIndex:
    """The index from its whole frame, head included; FormatError if a single bit is wrong."""
    view = memoryview(frame)
    if len(view) < _FRAME_HEAD.size + _START.size + 4:
        raise FormatError("the segment's index is cut short")
    magic, size = _FRAME_HEAD.unpack_from(view)
    if magic != _INDEX_MAGIC or size != len(view) - _FRAME_HEAD.size:
        raise FormatError("the segment's index is damaged: its frame has another head")
    payload = view[_FRAME_HEAD.size : -4]
    if crc32c(payload) != _checksum(view):
        raise FormatError("the segment's index is damaged: its checksum differs")
    _known(payload[0])
    # What follows was written by us and has not changed since. It is still read with care: a defect of a
    # writer must show as a clear error here, not as wrong offsets in an answer.
    try:
        return _checked(_IndexReader(payload).read())
    except (ValueError, IndexError) as error:
        raise FormatError(f"the segment's index makes no sense: {error}") from error


def _checksum(view: memoryview) -> int:
    return int.from_bytes(view[-4:], "little")


def _known(version: int) -> None:
    if version != VERSION:
        raise UnknownVersionError(f"the segment has layout version {version}, this tierproxy knows only {VERSION}")


class _IndexReader:
    """Reads the index's payload from front to back; ValueError where bytes are missing or left over."""

    def __init__(self, payload: memoryview) -> None:
        self._left = payload

    def read(self) -> SegmentIndex:
        _, codec, batch_codecs, _ = _START.unpack(self._take(_START.size))
        cluster, topic = self._text(), self._text()
        topic_id, partition = _PARTITION.unpack(self._take(_PARTITION.size))
        writer = self._text()
        records, batches, plain_size, digest = _TOTALS.unpack(self._take(_TOTALS.size))
        chunks = tuple(Chunk(*row) for row in _CHUNK.iter_unpack(self._rows(_CHUNK)))
        epochs = tuple((epoch, start) for epoch, start in _EPOCH.iter_unpack(self._rows(_EPOCH)))
        aborted = tuple(
            Aborted(producer, first, None if marker < 0 else marker)
            for producer, first, marker in _ABORTED.iter_unpack(self._rows(_ABORTED))
        )
        if self._left:
            raise ValueError(f"{len(self._left)} bytes are left over")
        about = SegmentInfo(cluster, topic, topic_id, partition)
        return SegmentIndex(
            about, writer, batch_codecs, records, batches, plain_size, digest, chunks, epochs, aborted, codec
        )

    def _take(self, size: int) -> memoryview:
        if size > len(self._left):
            raise ValueError(f"{size} bytes expected, {len(self._left)} are left")
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def _rows(self, row: Struct) -> memoryview:
        (count,) = _COUNT.unpack(self._take(_COUNT.size))
        return self._take(count * row.size)

    def _text(self) -> str:
        (size,) = _TEXT.unpack(self._take(_TEXT.size))
        return str(self._take(size), "utf-8")


def _checked(index: SegmentIndex) -> SegmentIndex:
    """The index itself if its parts agree with each other; ValueError if not."""
    if index.codec != CODEC_ZSTD:
        raise ValueError(f"chunks have codec {index.codec}, only {CODEC_ZSTD} (zstd) is known")
    if not index.chunks:
        raise ValueError("there are no chunks")
    position, after = 0, 0
    for chunk in index.chunks:
        if chunk.position != position or not chunk.stored_size or not chunk.plain_size:
            raise ValueError(f"the chunk at offset {chunk.base_offset} does not lie behind the one before")
        if not after <= chunk.base_offset <= chunk.last_offset:
            raise ValueError(f"the chunk at offset {chunk.base_offset} does not continue the one before")
        position, after = position + chunk.stored_size, chunk.last_offset + 1
    if sum(chunk.plain_size for chunk in index.chunks) != index.plain_size:
        raise ValueError("the chunks' sizes do not add up")
    for (epoch, start), (next_epoch, next_start) in pairwise(index.epochs):
        if next_epoch <= epoch or next_start <= start:
            raise ValueError("leader epochs do not ascend")
    return index


def decompress_chunk(stored: Buffer, chunk: Chunk) -> bytes:
    """The record batches of one chunk from its bytes in the segment; FormatError if a single bit is wrong.

    Releases the interpreter's lock while it works: call it from a thread for parallel work.
    """
    if len(stored) != chunk.stored_size:
        raise FormatError(f"the chunk at {chunk.base_offset} has {len(stored)} bytes, not {chunk.stored_size}")
    try:
        # Checked first: the library would allocate whatever size a damaged frame claims.
        if zstandard.frame_content_size(stored) != chunk.plain_size:
            raise FormatError(f"the chunk at offset {chunk.base_offset} has another size than the index says")
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"the chunk at offset {chunk.base_offset} is damaged: {error}") from error
