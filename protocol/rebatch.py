"""Batches made of other batches' records, for a producer of our own: nothing of a record is read that need not be.

What a producer sends differs from what a broker keeps in the header alone: base offset 0, no leader epoch, and its own
producer id, epoch and sequence. A batch that is to be sent whole keeps its records as they are, compressed or not. Only
where some records are left out, or get a header more, or got their time from the broker, is it written anew; of each
record the bytes from its key on are then copied.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

import cramjam
import lz4.frame
import zstandard
from crc32c import crc32c

from protocol.batches import CRC_FROM, HEADER_SIZE, BatchHeader
from protocol.errors import MalformedError
from protocol.records import open_records, walk_records
from protocol.wire import Buffer, Cursor

_FROM_CRC = Struct(">hiqqqhii")
_PRODUCER = Struct(">qhi")
_PRODUCER_AT = 43
_BEFORE_CRC = Struct(">qiib")
_BEFORE_LENGTH = 12
_CODEC = 0x07
_DELETE_HORIZON = 0x40  # the base timestamp is something else then: only compaction sets it (KAFKA-8522)
_XERIAL_HEADER = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"

SEQUENCES = 1 << 31
"""Sequence numbers begin again at 0 after so many."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record whose key, value and headers nobody has looked at: `body` is its bytes from the key on."""

    offset: int
    timestamp: int
    body: bytes


def keeps_its_records(header: BatchHeader) -> bool:
    """Whether a broker would take this batch as a producer's, all of its records unchanged.

    Not where compaction took records out of it, and not where the time of its records is the broker's.
    """
    whole = header.record_count == header.last_offset_delta + 1
    return whole and not header.is_log_append_time and not header.attributes & _DELETE_HORIZON


def as_produced(batch: Buffer, header: BatchHeader) -> bytearray:
    """One whole batch as a producer without transaction or idempotence would have sent it: see `stamp`."""
    sent = bytearray(batch)
    _BEFORE_CRC.pack_into(sent, 0, 0, header.size - _BEFORE_LENGTH, -1, 2)
    sent[CRC_FROM : CRC_FROM + 2] = (header.attributes & _CODEC).to_bytes(2, "big")
    stamp(sent, -1, -1, -1)
    return sent


def stamp(batch: bytearray, producer_id: int, epoch: int, sequence: int) -> None:
    """Write a producer's id, epoch and the first record's sequence number into a batch, and the CRC over it all."""
    _PRODUCER.pack_into(batch, _PRODUCER_AT, producer_id, epoch, sequence)
    batch[CRC_FROM - 4 : CRC_FROM] = crc32c(memoryview(batch)[CRC_FROM:]).to_bytes(4, "big")


def raw_records(batch: Buffer) -> Iterator[RawRecord]:
    """The records of one whole batch; MalformedError."""
    header, plain = open_records(batch)
    cursor = Cursor(plain)
    for end, timestamp, offset in walk_records(cursor, header):
        start, cursor.pos = cursor.pos, end
        yield RawRecord(offset, timestamp, bytes(plain[start:end]))


def with_header(record: RawRecord, name: str, value: bytes) -> RawRecord:
    """The record with one more header behind its own; MalformedError."""
    cursor = Cursor(record.body)
    for _ in ("key", "value"):
        size = cursor.varint()
        cursor.skip(max(0, size))
    before = cursor.pos
    count = cursor.varint()
    if count < 0:
        raise MalformedError(f"the record at offset {record.offset} has {count} headers")
    key = name.encode()
    more = put_varint(len(key)) + key + put_varint(len(value)) + value
    body = record.body[:before] + put_varint(count + 1) + record.body[cursor.pos :] + more
    return RawRecord(record.offset, record.timestamp, body)


def build(records: Iterable[RawRecord], codec: int) -> bytearray:
    """A batch of these records as a producer sends it, compressed with Kafka's `codec`; ValueError if there is none."""
    plain = bytearray()
    base = highest = count = 0
    for count, record in enumerate(records, 1):
        if count == 1:
            base = highest = record.timestamp
        highest = max(highest, record.timestamp)
        content = b"\x00" + put_varint(record.timestamp - base) + put_varint(count - 1) + record.body
        plain += put_varint(len(content)) + content
    if count == 0:
        raise ValueError("a batch without records")
    packed = _COMPRESSORS[codec](bytes(plain))
    size = HEADER_SIZE + len(packed)
    head = _BEFORE_CRC.pack(0, size - _BEFORE_LENGTH, -1, 2) + bytes(4)
    batch = bytearray(head + _FROM_CRC.pack(codec, count - 1, base, highest, -1, -1, -1, count))
    batch += packed
    stamp(batch, -1, -1, -1)
    return batch


def put_varint(n: int) -> bytes:
    """`n` as signed varint of up to 64 bits (zigzag)."""
    left = (n << 1) ^ (n >> 63)
    out = bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _gzip(plain: bytes) -> bytes:
    zipper = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    return zipper.compress(plain) + zipper.flush()


def _snappy(plain: bytes) -> bytes:
    """In the framing of Java's clients, which is what all clients read."""
    block = bytes(cramjam.snappy.compress_raw(plain))
    return _XERIAL_HEADER + len(block).to_bytes(4, "big") + block


def _lz4(plain: bytes) -> bytes:
    return bytes(lz4.frame.compress(plain, block_linked=False, store_size=False))  # Java reads no linked blocks


def _zstd(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


_COMPRESSORS: dict[int, Callable[[bytes], bytes]] = {0: bytes, 1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
