"""Archived batches as a producer sends them: transactions resolved, nothing but data.

What is sent depends on the archive and the options alone, never on how far an earlier run came: so that whoever goes on
can tell from what lies in the target where that was. A batch is sent as it is, still compressed, where a broker would
take all of its records unchanged; else, where a header is to be added, and where it is small, its records are written
into a new one with the same codec.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from protocol.batches import BatchHeader, walk
from protocol.rebatch import RawRecord, as_produced, build, keeps_its_records, raw_records, with_header
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.walk import Shown, stretches

ANEW_BYTES = 512 * 1024
"""Plain bytes of a batch that is written anew, unless one record has more: well below what brokers take by default."""
SMALL_BYTES = 8 * 1024
"""Batches below this are put together."""


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
    """All batches of `part`, in order. Raises errors of the store, FormatError, MalformedError."""
    segment: str | None = None
    maker = _Maker(part)
    async for stretch in stretches(library, manifest, part.first, part.stop):
        if segment != stretch.entry.key_name:
            segment, shown = stretch.entry.key_name, Shown(stretch.index, part.first, committed=True)
        chunks = stretch.plain()
        while (plain := await asyncio.to_thread(next, chunks, None)) is not None:
            yield await asyncio.to_thread(maker.made_of, plain, shown)
    yield maker.rest()


class _Maker:
    """Makes batches of batches. Small ones that follow each other become one: each costs a request of its own.

    Where one ends depends on the records since the last one's end and on nothing else, such as chunks: so who goes on
    at any batch's end makes the same ones.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._run: list[RawRecord] = []
        self._codec = 0
        self._size = 0
        self._as_it_was: Outgoing | None = None  # what the run would be if nothing more came

    def made_of(self, plain: bytes, shown: Shown) -> list[Outgoing]:
        """What is complete with one more chunk."""
        part, made = self._part, list[Outgoing]()
        for header, batch in walk(memoryview(plain)):
            if not shown.is_data(header, batch) or header.base_offset >= part.stop:
                continue
            small = header.size < SMALL_BYTES
            if not small or header.codec != self._codec:
                made += self.rest()
            inside = part.first <= header.base_offset and header.last_offset < part.stop
            whole = inside and part.offset_header is None and keeps_its_records(header)
            if whole and not small:
                made.append(_whole(header, batch))
                continue
            alone = not self._run
            self._codec = header.codec
            cut = self._add(batch)
            made += cut
            self._as_it_was = _whole(header, batch) if whole and alone and not cut else None
            if not small:
                made += self.rest()
        return made

    def _add(self, batch: memoryview) -> list[Outgoing]:
        part, made = self._part, list[Outgoing]()
        for record in raw_records(batch):
            if not part.first <= record.offset < part.stop:
                continue
            if part.offset_header is not None:
                record = with_header(record, part.offset_header, str(record.offset).encode())
            if self._run and self._size + len(record.body) > ANEW_BYTES:
                self._as_it_was = None
                made += self.rest()
            self._run.append(record)
            self._size += len(record.body)
        return made

    def rest(self) -> list[Outgoing]:
        """What is not complete yet, as it is."""
        run, self._run, self._size = self._run, [], 0
        as_it_was, self._as_it_was = self._as_it_was, None
        if not run:
            return []
        if as_it_was is not None:
            return [as_it_was]
        latest = max(record.timestamp for record in run)
        return [Outgoing(build(run, self._codec), len(run), run[0].offset, run[-1].offset + 1, latest)]


def _whole(header: BatchHeader, batch: memoryview) -> Outgoing:
    sent = as_produced(batch, header)
    return Outgoing(sent, header.record_count, header.base_offset, header.next_offset, header.max_timestamp)
