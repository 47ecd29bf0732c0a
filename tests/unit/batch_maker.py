"""Record batches of any shape, written out independently of the code that reads them."""

import gzip
import struct
from collections.abc import Sequence

import cramjam
import lz4.frame
import zstandard
from crc32c import crc32c

Headers = Sequence[tuple[str, bytes | None]]
MadeRecord = tuple[int, int, bytes | None, bytes | None, Headers]
"""Offset delta, timestamp, key, value, headers."""


def make_batch(
    base_offset: int,
    records: Sequence[MadeRecord] = ((0, 1_000, b"key", b"value", ()),),
    *,
    last_offset_delta: int | None = None,
    codec: int = 0,
    leader_epoch: int = 0,
    producer_id: int = -1,
    base_sequence: int = 0,
    transactional: bool = False,
    control: int | None = None,
    append_time: int | None = None,
) -> bytes:
    """One batch. `control` makes it a marker of that type; `append_time` is in ms, for log append time."""
    if control is not None:
        records = [(0, records[0][1], struct.pack(">hh", 0, control), struct.pack(">hi", 0, 0), ())]
    base_time = records[0][1] if records else -1
    body = b"".join(_record(record, base_time) for record in records)
    attributes = codec
    attributes |= 0x08 if append_time is not None else 0
    attributes |= 0x10 if transactional or control is not None else 0
    attributes |= 0x20 if control is not None else 0
    last = max((record[0] for record in records), default=0) if last_offset_delta is None else last_offset_delta
    max_time = max((record[1] for record in records), default=-1) if append_time is None else append_time
    summed = struct.pack(
        ">hiqqqhii",
        attributes,
        last,
        base_time,
        max_time,
        producer_id,
        0 if producer_id >= 0 else -1,
        base_sequence if producer_id >= 0 and control is None else -1,
        len(records),
    ) + _compressed(body, codec)
    head = struct.pack(">qiibI", base_offset, len(summed) + 9, leader_epoch, 2, crc32c(summed))
    return head + summed


def plain_records(count: int, *, time: int = 1_000, value: bytes = b"value") -> list[MadeRecord]:
    """`count` records one ms apart."""
    return [(i, time + i, b"key %d" % i, value, ()) for i in range(count)]


def patched(batch: bytes, at: int, layout: str, value: int) -> bytes:
    """The batch with one number written over, checksum and all else left alone."""
    changed = bytearray(batch)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def varint(value: int) -> bytes:
    """Zigzag varint of any size."""
    rest = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _record(record: MadeRecord, base_time: int) -> bytes:
    delta, time, key, value, headers = record
    body = b"\x00" + varint(time - base_time) + varint(delta) + _blob(key) + _blob(value) + varint(len(headers))
    for name, content in headers:
        body += _blob(name.encode()) + _blob(content)
    return varint(len(body)) + body


def _blob(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def _compressed(body: bytes, codec: int) -> bytes:
    match codec:
        case 1:
            return gzip.compress(body)
        case 2:
            return bytes(cramjam.snappy.compress_raw(body))
        case 3:
            compressed: bytes = lz4.frame.compress(body)
            return compressed
        case 4:
            return zstandard.ZstdCompressor(write_content_size=False).compress(body)
    return body
