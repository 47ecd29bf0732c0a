"""`tierproxy archive export`: a topic's archive as plain Kafka log files, or as JSON lines.

An export is of one moment: the first run writes down which offsets it is of (`<topic>.export.json`), and every other
run with the same directory goes on with those, whatever the archive has got meanwhile. A file is there when it is
finished, and is then not written again.

A log file is a slice of a segment's plain bytes, so that whole batches come out as they went in; at the borders of the
range those batches are taken that hold a record of it.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from protocol.batches import walk
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import topic_id_text
from tierproxy.archive.segment_index import SegmentIndex, decompress_chunk
from tierproxy.archive.walk import stretches
from tierproxy.cli.places import Place, offsets_between
from tierproxy.cli.records import record_json, record_runs
from tierproxy.cli.shelves import Shelf
from tierproxy.durable import UNFINISHED, written_whole
from tierproxy.errors import TierproxyError

LOG = "log"
JSON_LINES = "jsonl"

Progress = Callable[[int], None]
"""Told the bytes of batches that are done with."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be exported, and how."""

    topic: str
    directory: Path
    format: str
    isolation: str
    start: Place | None
    end: Place | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes [start, stop) of a segment's plain log, which begin with the batch at `base_offset`."""

    entry: SegmentEntry
    base_offset: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def file_name(self) -> str:
        """As Kafka names a segment's file."""
        return f"{self.base_offset:020d}.log"


@dataclass(frozen=True, slots=True)
class Exported:
    """One partition: offsets [first, stop), what was written now and what was there already."""

    partition: int
    first: int
    stop: int
    written: list[Path]
    kept: list[Path]

    def as_json(self) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "from": self.first,
            "to": self.stop,
            "written": [str(file) for file in self.written],
            "already_there": [str(file) for file in self.kept],
        }


async def agreed_ranges(asked: Asked, shelves: list[Shelf]) -> dict[int, tuple[int, int]]:
    """Offsets [first, stop) by partition: those that the directory's export was begun with, or else those asked for.

    Raises TierproxyError where the directory holds another export.
    """
    for shelf in shelves:
        if shelf.manifest is None:
            raise TierproxyError(f"{shelf.pid}: {shelf.problem}")
    note = asked.directory / f"{asked.topic}.export.json"
    about: dict[str, Any] = {
        "topic": asked.topic,
        "topic_id": topic_id_text(shelves[0].pid.topic_id),
        "format": asked.format,
        "isolation": asked.isolation if asked.format == JSON_LINES else None,
        "asked": [_text(asked.start), _text(asked.end), sorted(shelf.pid.partition for shelf in shelves)],
    }
    if note.exists():
        try:
            begun = json.loads(note.read_bytes())
            ranges = {int(partition): (int(first), int(stop)) for partition, (first, stop) in begun["ranges"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TierproxyError(f"{note} can't be read; export into another directory") from error
        differing = [name for name in about if begun.get(name) != about[name]]
        if differing:
            raise TierproxyError(
                f"{asked.directory} holds another export of {asked.topic}: its {differing[0]} is "
                f"{begun.get(differing[0])}, not {about[differing[0]]}; export into another directory"
            )
        return ranges
    ranges = {}
    for shelf in shelves:
        assert shelf.manifest is not None
        ranges[shelf.pid.partition] = await offsets_between(shelf.library, shelf.manifest, asked.start, asked.end)
    with written_whole(note) as out:
        out.write(json.dumps(about | {"ranges": ranges}, indent=2).encode() + b"\n")
    return ranges


async def export_partition(
    asked: Asked, shelf: Shelf, manifest: Manifest, span: tuple[int, int], progress: Progress
) -> Exported:
    """Write what isn't there yet. Raises CantWrite, errors of the store, FormatError."""
    name = f"{asked.topic}-{shelf.pid.partition}"
    result = Exported(shelf.pid.partition, *span, [], [])
    if asked.format == JSON_LINES:
        file = asked.directory / f"{name}.jsonl"
        if file.exists():
            result.kept.append(file)
        else:
            await _json_lines(asked, shelf.library, manifest, span, file, progress)
            result.written.append(file)
        return result
    folder = asked.directory / name
    slices = await log_slices(shelf.library, manifest, *span)
    _refuse_strangers(folder, {each.file_name for each in slices})
    for each in slices:
        file = folder / each.file_name
        if file.exists() and file.stat().st_size == each.size:
            result.kept.append(file)
            progress(each.size)
            continue
        await _log_file(shelf.library, manifest, each, file, progress)
        result.written.append(file)
    return result


async def log_slices(library: Library, manifest: Manifest, first: int, stop: int) -> list[Slice]:
    """What to write of each segment with offsets in [first, stop)."""
    slices = []
    async for entry in library.segments(manifest, first):
        if entry.base_offset >= stop:
            break
        if first <= entry.base_offset and entry.last_offset < stop:
            slices.append(Slice(entry, entry.base_offset, 0, entry.plain_size))
            continue
        index = await library.load_index(manifest.pid, entry)
        base_offset, start, _ = await _batch_at(library, manifest, entry, index, first)
        end = entry.plain_size
        if entry.last_offset >= stop:
            next_base, end, size = await _batch_at(library, manifest, entry, index, stop)
            end += size if next_base < stop else 0
        if start < end:
            slices.append(Slice(entry, base_offset, start, end))
    return slices


async def _batch_at(
    library: Library, manifest: Manifest, entry: SegmentEntry, index: SegmentIndex, offset: int
) -> tuple[int, int, int]:
    """Base offset, place in the segment's plain bytes and size of the batch that holds `offset`, or of the next."""
    number = index.chunk_at(offset)
    assert number is not None, "the segment ends behind the offset"
    chunk = index.chunks[number]
    key, end = library.segment_key(manifest.pid, entry), chunk.position + chunk.stored_size
    plain = await asyncio.to_thread(decompress_chunk, await library.store.get_range(key, chunk.position, end), chunk)
    place = sum(each.plain_size for each in index.chunks[:number])
    for header, _ in walk(memoryview(plain)):
        if header.last_offset >= offset:
            return header.base_offset, place, header.size
        place += header.size
    raise FormatError(f"{key}: the chunk at offset {chunk.base_offset} ends before its index says")


async def _log_file(library: Library, manifest: Manifest, wanted: Slice, file: Path, progress: Progress) -> None:
    entry = wanted.entry
    digest = sha256()
    at = 0  # in the segment's plain bytes
    with written_whole(file) as out:
        async for stretch in stretches(library, manifest, entry.base_offset, entry.last_offset + 1):
            if not at:  # those before the archive's start, or the range's, are not read
                at = sum(each.plain_size for each in stretch.index.chunks if each.position < stretch.chunks[0].position)
            if at >= wanted.stop:
                break
            pieces = await asyncio.to_thread(list, stretch.plain())
            for plain in pieces:
                piece = memoryview(plain)[max(0, wanted.start - at) : max(0, wanted.stop - at)]
                digest.update(piece)
                out.write(piece)
                progress(len(piece))
                at += len(plain)
        if wanted.size == entry.plain_size and digest.digest() != stretch.index.plain_sha256:
            raise FormatError(f"{entry.key_name} of {manifest.pid}: SHA-256 of its batches is not what its index says")


async def _json_lines(
    asked: Asked, library: Library, manifest: Manifest, span: tuple[int, int], file: Path, progress: Progress
) -> None:
    first, stop = span
    committed = asked.isolation == "read_committed"
    with written_whole(file) as out:
        async for records, size in record_runs(library, manifest, first, committed=committed, end=stop):
            lines = (
                json.dumps(record_json(asked.topic, manifest.partition, each), ensure_ascii=False) for each in records
            )
            out.write("".join(f"{line}\n" for line in lines).encode())
            progress(size)


def _refuse_strangers(folder: Path, ours: set[str]) -> None:
    """Of files with overlapping offsets nobody could tell which to believe."""
    if not folder.is_dir():
        return
    there = (file.name for file in folder.iterdir() if not file.name.endswith(UNFINISHED))
    strange = sorted(name for name in there if name not in ours)
    if strange:
        raise TierproxyError(
            f"{folder} holds {strange[0]}, which is not of this export (the archive's segments may have been merged "
            "since it was begun); export into an empty directory"
        )


def _text(place: Place | None) -> str | None:
    return None if place is None else str(place)
