"""Archived batches as a producer sends them: transactions resolved, nothing but data.

What is sent depends on the archive and the options alone, never on how far an earlier run came: so that whoever goes on
can tell from what lies in the target where that was. A batch is sent as it is, still compressed, where a broker would
take all of its records unchanged; else, and where a header is to be added, it is written anew with the same codec.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from protocol.batches import BatchHeader, walk
from protocol.rebatch import RawRecord, as_produced, build, keeps_its_records, raw_records, with_header
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.walk import Shown, stretches

ANEW_BYTES = 512 * 1024
"""Plain bytes of a batch that is written anew, unless one record has more: well below what brokers take by default."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A batch to send, not stamped yet; it holds `count` records, the archived ones in offsets [first, next_offset)."""

    batch: bytearray
    count: int
    first: int
    next_offset: int
    max_timestamp: int


@dataclass(frozen=True, slots=True)
class Part:
    """Offsets [first, stop) of a partition; with `offset_header` each record gets its old offset under this name."""

    first: int
    stop: int
    offset_header: str | None = None


async def outgoing(library: Library, manifest: Manifest, part: Part) -> AsyncIterator[list[Outgoing]]:
    """All batches of `part`, those of a chunk together. Raises errors of the store, FormatError, MalformedError."""
    segment: str | None = None
    async for stretch in stretches(library, manifest, part.first, part.stop):
        if segment != stretch.entry.key_name:
            segment, shown = stretch.entry.key_name, Shown(stretch.index, part.first, committed=True)
        chunks = stretch.plain()
        while (plain := await asyncio.to_thread(next, chunks, None)) is not None:
            yield await asyncio.to_thread(list, _prepared(plain, shown, part))


def _prepared(plain: bytes, shown: Shown, part: Part) -> Iterator[Outgoing]:
    for header, batch in walk(memoryview(plain)):
        if not shown.is_data(header, batch) or header.base_offset >= part.stop:
            continue
        inside = part.first <= header.base_offset and header.last_offset < part.stop
        if inside and part.offset_header is None and keeps_its_records(header):
            sent = as_produced(batch, header)
            yield Outgoing(sent, header.record_count, header.base_offset, header.next_offset, header.max_timestamp)
        else:
            yield from _anew(header, batch, part)


def _anew(header: BatchHeader, batch: memoryview, part: Part) -> Iterator[Outgoing]:
    run: list[RawRecord] = []
    size = 0
    for record in raw_records(batch):
        if not part.first <= record.offset < part.stop:
            continue
        if part.offset_header is not None:
            record = with_header(record, part.offset_header, str(record.offset).encode())
        if run and size + len(record.body) > ANEW_BYTES:
            yield _built(run, header.codec)
            run, size = [], 0
        run.append(record)
        size += len(record.body)
    if run:
        yield _built(run, header.codec)


def _built(run: list[RawRecord], codec: int) -> Outgoing:
    latest = max(record.timestamp for record in run)
    return Outgoing(build(run, codec), len(run), run[0].offset, run[-1].offset + 1, latest)
