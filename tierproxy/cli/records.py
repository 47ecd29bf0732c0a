"""`tierproxy archive cat`: records straight from segments, without a broker."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from protocol.batches import CONTROL_ABORT, control_kind, walk
from protocol.records import Record, decode_records
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.segment_index import Chunk, SegmentIndex, decompress_chunk


async def read_records(library: Library, manifest: Manifest, offset: int, *, committed: bool) -> AsyncIterator[Record]:
    """Records from `offset` on in offset order; with `committed` those of aborted transactions are left out.

    Raises errors of the store and FormatError.
    """
    at = max(offset, manifest.start_offset)
    async for entry in library.segments(manifest, at):
        key = library.segment_key(manifest.pid, entry)
        index = await library.load_index(manifest.pid, entry)
        picker = _Picker(index, at, committed)
        first_chunk = index.chunk_at(at)
        for chunk in index.chunks[first_chunk:] if first_chunk is not None else ():
            end = chunk.position + chunk.stored_size
            stored = await library.store.get_range(key, chunk.position, end)
            for record in await asyncio.to_thread(picker.pick, stored, chunk):
                yield record


class _Picker:
    """Leaves out what a consumer would: control batches, aborted transactions, records below the start.

    Aborted transactions are followed as Kafka's consumer does it (CompletedFetch.nextFetchedRecord): a
    producer counts as aborted from its listed first offset to its abort marker.
    """

    def __init__(self, index: SegmentIndex, offset: int, committed: bool) -> None:
        self._offset = offset
        listed = index.aborted_between(offset, index.last_offset) if committed else []
        self._upcoming = sorted((first, producer) for producer, first in listed)
        self._aborting: set[int] = set()

    def pick(self, stored: bytes, chunk: Chunk) -> list[Record]:
        picked: list[Record] = []
        for header, batch in walk(memoryview(decompress_chunk(stored, chunk))):
            while self._upcoming and self._upcoming[0][0] <= header.last_offset:
                self._aborting.add(self._upcoming.pop(0)[1])
            if header.is_control:
                if control_kind(batch) == CONTROL_ABORT:
                    self._aborting.discard(header.producer_id)
            elif header.last_offset >= self._offset and not (
                header.is_transactional and header.producer_id in self._aborting
            ):
                picked += [record for record in decode_records(batch) if record.offset >= self._offset]
        return picked


def record_json(topic: str, partition: int, record: Record) -> dict[str, Any]:
    """For `--json`. Bytes that are not UTF-8 are given as `<name>_base64` in place of `<name>`."""
    headers: list[dict[str, str | None]] = [
        {"name": name, **_bytes_json("value", value)} for name, value in record.headers
    ]
    return {
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        **_bytes_json("key", record.key),
        **_bytes_json("value", record.value),
        "headers": headers,
    }


def record_line(partition: int, record: Record) -> str:
    """For people: partition:offset, time, key, value, headers, separated by tabs; - for null."""
    fields = [f"{partition}:{record.offset}", time_text(record.timestamp)]
    fields += [_bytes_text(record.key), _bytes_text(record.value)]
    fields += [f"{_bytes_text(name.encode())}={_bytes_text(value)}" for name, value in record.headers]
    return "\t".join(fields)


def time_text(timestamp_ms: int) -> str:
    """`2026-01-31T12:00:00.123Z`; - where there is no time, the bare number where no calendar has it."""
    if timestamp_ms < 0:
        return "-"
    try:
        moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{timestamp_ms % 1000:03d}Z"


def _bytes_json(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _bytes_text(value: bytes | None) -> str:
    """Printable, on one line, and harmless to a terminal."""
    if value is None:
        return "-"
    text = value.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
