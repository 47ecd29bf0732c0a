"""Joining small segments into one: read, written anew batch by batch, stored, and read back.

Nothing is changed but where the batches lie. The new object has a name of its own, and nobody knows it until the
manifest names it in the place of its parts; so wherever this ends, there is at most one more piece of garbage.

Aborted transactions. Every entry of every part is noted, and markers are seen in passing, as when the parts were
written. That gives what a broker would list, because each entry was open where its part begins, or begins in it: no
marker of its producer lies between the entry's first offset and its own marker, wherever the border of a part was. An
entry without a marker in its part finds it now, if it is in a later one.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from protocol.batches import walk
from protocol.errors import MalformedError
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import READ_BACK_BYTES, Library
from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import Chunk, SegmentIndex, SegmentInfo, decompress_chunk

READ_BYTES = READ_BACK_BYTES
MEMORY_BYTES = 2 * 1024 * 1024
"""What is larger is written to a file on its way."""


async def join(
    library: Library,
    pid: PartitionId,
    run: Sequence[SegmentEntry],
    level: int,
    spool: Path | None = None,
    storage_class: str | None = None,
    *,
    recompress: bool = False,
) -> SegmentEntry:
    """Store one segment that holds what those of `run` hold; its entry, which no manifest names yet.

    `level` is zstd's, `recompress` as SegmentWriter has it; `spool` a directory for a file meanwhile, None the system's
    own for such. `storage_class` is of the new segment, None the archive's. It counts as archived when the newest of
    its parts was. Raises StoreError, OSError when the spool can't be written, and FormatError when a
    part is damaged, or the new object can't be read back.
    """
    directory = str(spool) if spool is not None else None
    with SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=directory) as written:
        file = cast(BinaryIO, written)
        about = SegmentInfo(library.cluster, pid.topic, pid.topic_id, pid.partition)
        writer = SegmentWriter(about, level, file, recompress=recompress)
        for part in run:
            await _append(library, pid, part, writer)
        await asyncio.to_thread(writer.finish)
        merged = writer.entry(secrets.token_hex(4), max(part.created_ms for part in run))
        file.seek(0)
        await library.store.put(library.segment_key(pid, merged), file, storage_class, merged.sha256)
    damage = await library.read_back(pid, merged)
    if damage is not None:
        raise FormatError(f"segment {merged.key_name}: {damage}")
    return merged


async def _append(library: Library, pid: PartitionId, part: SegmentEntry, writer: SegmentWriter) -> None:
    index = await library.load_index(pid, part)
    for each in index.aborted:
        writer.note_aborted(each.producer_id, each.first_offset)
    key, digest = library.segment_key(pid, part), sha256()

    def append(chunk: Chunk, stored: memoryview) -> None:
        plain = decompress_chunk(stored, chunk)
        digest.update(plain)
        batches, at = list(walk(memoryview(plain))), 0
        while at < len(batches):
            at = writer.extend(batches, at)

    for chunks in _blocks(index):
        start, end = chunks[0].position, chunks[-1].position + chunks[-1].stored_size
        data = memoryview(await library.store.get_range(key, start, end))
        for chunk in chunks:  # a thread's turn for each, so that others get theirs
            at = chunk.position - start
            try:
                await asyncio.to_thread(append, chunk, data[at : at + chunk.stored_size])
            except MalformedError as error:
                raise FormatError(f"{key} holds what is no batch: {error}") from error
    if digest.digest() != index.plain_sha256:
        raise FormatError(f"{key} is damaged: SHA-256 of its batches is not what its index says")


def _blocks(index: SegmentIndex) -> Iterator[list[Chunk]]:
    """Neighbouring chunks that are read by one request."""
    block: list[Chunk] = []
    for chunk in index.chunks:
        if block and chunk.position + chunk.stored_size - block[0].position > READ_BYTES:
            yield block
            block = []
        block.append(chunk)
    yield block
