"""Record batches (magic 2) as a broker stores and ships them: headers and borders, without looking inside.

A batch is 61 bytes of header, then its records, compressed as one blob or plain (Kafka: DefaultRecordBatch):

     0  i64  base offset
     8  i32  length of everything behind this field
    12  i32  partition leader epoch
    16  i8   magic, always 2 here
    17  u32  CRC-32C of everything from byte 21 on
    21  i16  attributes: bits 0-2 codec, 3 log append time, 4 transactional, 5 control
    23  i32  last offset delta
    27  i64  base timestamp (ms, of the first record as produced)
    35  i64  max timestamp (ms)
    43  i64  producer id
    51  i16  producer epoch
    53  i32  base sequence
    57  i32  count of records

Offsets come from the header alone: base offset and last offset delta survive compaction, the count of
records does not. The CRC leaves out base offset, length, leader epoch and magic, because brokers set them
after the producer computed it; who stores batches for long needs a checksum of their own over those.

Logs written before Kafka 0.11 hold messages of magic 0 and 1. They are refused rather than skipped: a message
that is silently left out is a lost record.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from crc32c import crc32c

from protocol.errors import MalformedError
from protocol.wire import Buffer, Cursor

HEADER_SIZE = 61
CRC_FROM = 21
"""The first byte that the CRC covers."""

_HEADER = Struct(">qiibIhiqqqhii")
_CRC = Struct(">I")
_BORDER = Struct(">qi4xb6xi")  # base offset, length, magic, last offset delta
LENGTH_FROM = 12
MAGIC_AT = 16
_MAX_OFFSET = (1 << 63) - 1

CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
"""Names of the codecs 0 to 4."""

CODEC = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
"""The bits of a batch's attributes."""

CONTROL_ABORT = 0
CONTROL_COMMIT = 1


@dataclass(slots=True)
class BatchHeader:
    """The header of one batch. `size` is that of the whole batch, header included; times are in ms."""

    base_offset: int
    size: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        """Offset of the last record that the batch had when it was written (inclusive)."""
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The offset after this batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are not defined."""
        return self.attributes & CODEC

    @property
    def is_log_append_time(self) -> bool:
        """The broker set the time: max_timestamp is every record's timestamp."""
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def is_transactional(self) -> bool:
        """The records belong to a transaction of producer_id."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        """The batch is a marker that brokers wrote, not data."""
        return bool(self.attributes & CONTROL)


def read_batch_header(buf: Buffer, pos: int = 0) -> BatchHeader | None:
    """The header at byte `pos`; None if the buffer ends within it.

    MalformedError for another magic (as soon as its byte is there) and for values that no broker writes.
    """
    left = len(buf) - pos
    if left > MAGIC_AT and buf[pos + MAGIC_AT] != 2:
        magic = buf[pos + MAGIC_AT]
        raise MalformedError(f"message format {magic} at byte {pos}: only magic 2 (Kafka 0.11 and later) is known")
    if left < HEADER_SIZE:
        return None
    base, length, *rest = _HEADER.unpack_from(buf, pos)
    header = BatchHeader(base, length + LENGTH_FROM, *rest)
    if header.size < HEADER_SIZE:
        raise MalformedError(f"batch of {header.size} bytes at byte {pos}: its header has {HEADER_SIZE}")
    if base < 0 or header.last_offset_delta < 0 or header.record_count < 0 or header.last_offset >= _MAX_OFFSET:
        raise MalformedError(
            f"batch at byte {pos} has base offset {base}, last offset delta {header.last_offset_delta}, "
            f"{header.record_count} records"
        )
    return header


def walk(buf: memoryview) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Each whole batch in `buf`, in order, as (header, all its bytes); nothing is copied.

    Brokers fill a fetch to its limit with a partial batch: one at the end is left out. MalformedError as in
    read_batch_header(); the batches before the fault have been given out by then.
    """
    pos, end = 0, len(buf)
    while (header := read_batch_header(buf, pos)) is not None:
        stop = pos + header.size
        if stop > end:
            return
        yield header, buf[pos:stop]
        pos = stop


def borders(buf: Buffer) -> tuple[list[int], list[int]]:
    """Of batches one behind the other, all of them whole: each one's last offset, and where in `buf` it ends.

    For bytes that are known to be good, as it looks at four fields only: a third of what walk() takes. MalformedError
    if they are no batches all the same, or if the last one is not whole.
    """
    lasts: list[int] = []
    ends: list[int] = []
    at, end = 0, len(buf)
    border = _BORDER.unpack_from
    while end - at >= HEADER_SIZE:
        base, length, magic, delta = border(buf, at)
        if magic != 2 or length < HEADER_SIZE - LENGTH_FROM or base < 0 or delta < 0:
            raise MalformedError(f"no batch at byte {at}: magic {magic}, {length} bytes, offsets {base} + {delta}")
        at += length + LENGTH_FROM
        lasts.append(base + delta)
        ends.append(at)
    if at != end:
        raise MalformedError(f"batches end at byte {at}, not at {end}")
    return lasts, ends


def crc_ok(batch: Buffer) -> bool:
    """Whether the CRC-32C in the header is that of the bytes. `batch` is one whole batch."""
    return (crc32c(memoryview(batch)[CRC_FROM:]),) == _CRC.unpack_from(batch, CRC_FROM - 4)


def control_kind(batch: Buffer) -> int | None:
    """What a control batch says: 0 the transaction was aborted, 1 committed (Kafka: ControlRecordType).

    Other kinds are given as they are. None for a batch of data, and for a control batch that compaction has
    emptied. MalformedError if the marker cannot be read.
    """
    header = read_batch_header(batch)
    if header is None:
        raise MalformedError(f"{len(batch)} bytes are no batch")
    if not header.is_control or header.record_count == 0:
        return None
    if header.codec:
        raise MalformedError(f"control batch at offset {header.base_offset} is compressed")
    record = Cursor(batch, HEADER_SIZE)
    record.varint()  # length of the record
    record.i8()  # attributes
    record.varlong()  # timestamp delta
    record.varint()  # offset delta
    if record.varint() < 4:
        raise MalformedError(f"control batch at offset {header.base_offset} has no type")
    record.i16()  # version of the key
    return record.i16()
