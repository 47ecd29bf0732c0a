"""Records inside a batch (magic 2), decompressed if need be: for tools, lookups by time and tests.

Nothing here is on the path of ordinary fetches, which hand batches on as bytes. A record is (Kafka:
DefaultRecord)

    varint  length of what follows
    i8      attributes, unused
    varlong timestamp minus the batch's base timestamp
    varint  offset minus the batch's base offset
    varint  length of the key, -1 for null; the key
    varint  length of the value, -1 for null; the value
    varint  number of headers; each: varint length and key (UTF-8), varint length (-1 for null) and value

Compressed sizes say nothing about plain ones, so decompressing stops at a limit.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import cramjam
import lz4.frame
import zstandard

from protocol.batches import CODEC_NAMES, HEADER_SIZE, BatchHeader, read_batch_header
from protocol.errors import MalformedError
from protocol.wire import Buffer, Cursor

MAX_PLAIN_BYTES = 256 << 20
"""Records of one batch that decompress to more are refused. Kafka's own limit for a message is 1 MiB by default."""

_GZIP = 16 + zlib.MAX_WBITS
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16
_LEAST_RECORD = 7
_STEP = 1 << 20


@dataclass(slots=True)
class Record:
    """One record: offset, timestamp in ms, key and value (None for null), headers in their order."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)


def decode_records(batch: Buffer, max_bytes: int = MAX_PLAIN_BYTES) -> list[Record]:
    """Every record of one whole batch, control records included; MalformedError.

    Headers' keys that are no UTF-8 get replacement characters, as Kafka's own client gives them.
    """
    header, plain = open_records(batch, max_bytes)
    cursor = Cursor(plain)
    records = []
    for end, timestamp, offset in walk_records(cursor, header):
        key = _blob(cursor)
        value = _blob(cursor)
        record = Record(offset, timestamp, key, value)
        for _ in range(_count(cursor)):
            name = cursor.raw(cursor.varint())
            record.headers.append((name.decode("utf-8", "replace"), _blob(cursor)))
        if cursor.pos != end:
            raise MalformedError(f"the record at offset {offset} has another length than it says")
        records.append(record)
    return records


def first_record_at(
    batch: Buffer, timestamp: int, min_offset: int = 0, max_bytes: int = MAX_PLAIN_BYTES
) -> tuple[int, int] | None:
    """Offset and timestamp of the first record, by offset, from `min_offset` on that is not older than
    `timestamp`.

    None if there is none; MalformedError. With log append time every record has the batch's max_timestamp.
    """
    header, plain = open_records(batch, max_bytes)
    cursor = Cursor(plain)
    for end, time, offset in walk_records(cursor, header):
        if offset >= min_offset and time >= timestamp:
            return offset, time
        cursor.pos = end
    return None


def open_records(batch: Buffer, max_bytes: int = MAX_PLAIN_BYTES) -> tuple[BatchHeader, bytes | memoryview]:
    """The header of one whole batch and its records' bytes, decompressed; MalformedError."""
    header = read_batch_header(batch)
    if header is None or header.size != len(batch):
        raise MalformedError(f"{len(batch)} bytes are not one whole batch")
    body = memoryview(batch)[HEADER_SIZE:]
    if header.codec == 0:
        return header, body
    if header.codec >= len(CODEC_NAMES):
        raise MalformedError(f"the batch at offset {header.base_offset} has an unknown codec, {header.codec}")
    try:
        plain = _DECOMPRESSORS[header.codec](body, max_bytes)
    except (zlib.error, cramjam.DecompressionError, RuntimeError, EOFError, zstandard.ZstdError) as error:
        name = CODEC_NAMES[header.codec]
        raise MalformedError(f"the batch at offset {header.base_offset} is no good {name}: {error}") from error
    return header, plain


def walk_records(cursor: Cursor, header: BatchHeader) -> Iterator[tuple[int, int, int]]:
    """For each record (where it ends, timestamp, offset). The cursor stands at its key; move it to the end."""
    if header.record_count * _LEAST_RECORD > cursor.end:
        raise MalformedError(f"{header.record_count} records can't be in {cursor.end} bytes")
    for _ in range(header.record_count):
        size = cursor.varint()
        end = cursor.pos + size
        if size < 0 or end > cursor.end:
            raise MalformedError(f"a record of {size} bytes at byte {cursor.pos} of {cursor.end}")
        cursor.i8()
        timestamp = header.base_timestamp + cursor.varlong()
        offset = header.base_offset + cursor.varint()
        yield end, header.max_timestamp if header.is_log_append_time else timestamp, offset
    cursor.finish()


def _blob(cursor: Cursor) -> bytes | None:
    size = cursor.varint()
    return None if size == -1 else cursor.raw(size)


def _count(cursor: Cursor) -> int:
    count = cursor.varint()
    if not 0 <= count <= cursor.end - cursor.pos:
        raise MalformedError(f"{count} headers at byte {cursor.pos}")
    return count


def _gunzip(body: memoryview, limit: int) -> bytes:
    plain = bytearray()
    rest: Buffer = body
    while rest:  # several members count as one, as in Java's GZIPInputStream
        unzip = zlib.decompressobj(_GZIP)
        plain += unzip.decompress(rest, limit + 1 - len(plain))
        if len(plain) > limit:
            raise _too_large(limit)
        if not unzip.eof:
            raise EOFError("it ends too early")
        rest = unzip.unused_data
    return bytes(plain)


def _unsnappy(body: memoryview, limit: int) -> bytes:
    """Raw snappy, or the blocks of the xerial library that Java clients use: i32 length and raw snappy each."""
    if bytes(body[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _unsnappy_block(body, limit)
    cursor = Cursor(body, _XERIAL_HEADER)
    plain = bytearray()
    while cursor.pos < cursor.end:
        plain += _unsnappy_block(cursor.raw(cursor.i32()), limit - len(plain))
    return bytes(plain)


def _unsnappy_block(block: Buffer, limit: int) -> bytes:
    if Cursor(block).uvarint() > limit:  # raw snappy begins with its plain size
        raise _too_large(limit)
    return bytes(cramjam.snappy.decompress_raw(block))


def _unlz4(body: memoryview, limit: int) -> bytes:
    frame = lz4.frame.LZ4FrameDecompressor()
    plain = bytearray(frame.decompress(body, max_length=_STEP))
    while not frame.eof:
        if len(plain) > limit:
            raise _too_large(limit)
        if frame.needs_input:
            raise EOFError("it ends too early")
        plain += frame.decompress(b"", max_length=_STEP)
    return _within(plain, limit)


def _unzstd(body: memoryview, limit: int) -> bytes:
    plain = bytearray()
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        while len(plain) <= limit and (piece := reader.read(_STEP)):
            plain += piece
    return _within(plain, limit)


def _within(plain: bytearray, limit: int) -> bytes:
    if len(plain) > limit:
        raise _too_large(limit)
    return bytes(plain)


def _too_large(limit: int) -> MalformedError:
    return MalformedError(f"a batch decompresses to more than {limit} bytes")


_DECOMPRESSORS = {1: _gunzip, 2: _unsnappy, 3: _unlz4, 4: _unzstd}
