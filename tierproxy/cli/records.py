"""`tierproxy archive cat` and `export`: records straight from segments, without a broker."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from protocol.records import Record, decode_records
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.walk import Shown, Stretch, stretches


async def read_records(
    library: Library, manifest: Manifest, offset: int, *, committed: bool, end: int | None = None
) -> AsyncIterator[Record]:
    """Records from `offset` on, below `end`, in offset order; with `committed` those of aborted transactions are left
    out.

    Raises errors of the store and FormatError.
    """
    async for records, _ in record_runs(library, manifest, offset, committed=committed, end=end):
        for record in records:
            yield record


async def record_runs(
    library: Library, manifest: Manifest, offset: int, *, committed: bool, end: int | None = None
) -> AsyncIterator[tuple[list[Record], int]]:
    """As read_records, a list for each read, with the bytes of batches that were read for it."""
    stop = manifest.end_offset if end is None else end
    segment: str | None = None
    async for stretch in stretches(library, manifest, offset, stop):
        if segment != stretch.entry.key_name:
            segment, shown = stretch.entry.key_name, Shown(stretch.index, offset, committed=committed)
        yield await asyncio.to_thread(_pick, stretch, shown, offset, stop), stretch.plain_size


def _pick(stretch: Stretch, shown: Shown, start: int, end: int) -> list[Record]:
    picked: list[Record] = []
    for header, batch in stretch.batches():
        if shown.is_data(header, batch):
            picked += [record for record in decode_records(batch) if start <= record.offset < end]
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
