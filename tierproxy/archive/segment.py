"""Writing a segment: batches go in one after the other, chunks and at last the index go out to a file.

Pure but for the file that is handed in; compressing takes time, so callers run `append` and `finish` in a
thread, and may lend others: then a few chunks at a time are compressed while further batches come in, and go out in
their order. The layout is described in `segment_index`.

Aborted transactions. A broker lists them with a READ_COMMITTED fetch as (producer id, first offset),
without the marker's offset; the markers come along as control batches, perhaps much later. So entries are
noted from the broker's lists, markers are seen in passing, and both are put together at the end. An entry
whose marker has not been seen by then is open beyond this segment, and counts for all of it.

That is only safe while each noted entry is open where the segment begins. A list is true for the offset
that was fetched: were an answer split between two segments, an entry that is closed by a marker in the first
would be taken as open in the second, and readers would drop committed records of the same producer. So each
segment begins with a fetch of its own: what one leaves of an answer is fetched again.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from hashlib import sha256
from itertools import islice
from typing import BinaryIO

import zstandard

from protocol.batches import CODEC, CONTROL, CONTROL_ABORT, LOG_APPEND_TIME, BatchHeader, control_kind
from protocol.errors import MalformedError
from tierproxy import __version__
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.names import segment_name
from tierproxy.archive.segment_index import Aborted, Chunk, SegmentIndex, SegmentInfo, encode_tail

CHUNK_BYTES = 1 << 20
"""Plain bytes of a chunk: enough to compress well, little enough to read one for one record."""

PRESSING = 2
"""Most chunks of one segment that are left behind to be compressed; of such as have one large batch, fewer."""

_HARDLY_SMALLER = 0.95
_QUICK_CHUNKS = 15
_QUICK_LEVEL = 1
_FAST_LEVEL = -5
"""zstd's without entropy coding: what is compressed stays nearly as it is, for a third of the CPU to read it back."""


class SegmentWriter:
    """One segment being written. Offsets are Kafka's, sizes in bytes, times in ms."""

    def __init__(
        self,
        about: SegmentInfo,
        level: int,
        sink: BinaryIO,
        chunk_bytes: int = CHUNK_BYTES,
        *,
        recompress: bool = False,
        writer: str = f"tierproxy {__version__}",
        press: Executor | None = None,
    ) -> None:
        """Writes to `sink` from its current position on, which must be the start of the object.

        `level` is zstd's; with `recompress` what producers have compressed is made smaller as well, if it can be.
        `press` has the threads that compress; without it the caller's does.
        """
        self.about = about
        self._name = f"{about.topic}-{about.partition}"
        self._sink = sink
        self.chunk_bytes = chunk_bytes
        """As it was given; may be changed between two batches."""
        self._writer = writer
        self._levels = _Levels(level, recompress)
        self._press = press
        self._pressed: deque[tuple[_OpenChunk, int, Future[bytes]]] = deque()  # with zstd's level
        self._noted: set[tuple[int, int]] = set()
        self._abort_markers: dict[int, list[int]] = {}
        self._epochs: list[tuple[int, int]] = []
        self._epoch = -1  # the last of them
        self._chunks: list[Chunk] = []
        self._open = _OpenChunk()
        self._plain_digest = sha256()
        self._stored_digest = sha256()
        self._batch_codecs = 0
        self._batch_count = 0
        self._index: SegmentIndex | None = None
        self.base_offset = -1
        """Offset of the first record, -1 while there is none."""
        self.last_offset = -1
        """Offset of the last record (inclusive), -1 while there is none."""
        self.min_timestamp = -1
        """As SegmentIndex.min_timestamp."""
        self.max_timestamp = -1
        """The highest timestamp, -1 if there is none."""
        self.record_count = 0
        """Records so far, by the batches' own counts."""
        self.plain_bytes = 0
        """Bytes of all batches so far."""
        self.stored_bytes = 0
        """Bytes written to the sink so far; after finish() the size of the object."""
        self.index_size = 0
        """Bytes of the index and trailer frames, known after finish()."""

    def append(self, batch: memoryview, header: BatchHeader) -> None:
        """Add one whole batch, as `extend` does."""
        self.extend([(header, batch)])

    def extend(self, batches: Sequence[tuple[BatchHeader, memoryview]], first: int = 0) -> int:
        """Add whole batches, from number `first` on, up to one that closes a chunk; the number to go on with.

        They are copied. Stops before one that can't be added, and raises for it if it is the first: ContinuityError if
        it does not lie behind the last one, MalformedError for a marker that can't be read.
        """
        if self._index is not None:
            raise ValueError("the segment is finished")
        most = self.chunk_bytes
        if self._open.plain and len(self._open.plain) + batches[first][0].size > most:
            self._close_chunk()
        chunk = self._open
        # Producers' batches are often small, and most of their cost is what is done for each: hence so many locals.
        size, last, low, high = len(chunk.plain), self.last_offset, chunk.min_timestamp, chunk.max_timestamp
        compressed = records = codecs = 0
        added: list[memoryview] = []
        for header, batch in islice(batches, first, None):
            if added and size + header.size > most:
                break
            try:
                self._look_at(header, batch, last)
            except (ContinuityError, MalformedError):
                if not added:
                    raise
                break
            attributes, newest = header.attributes, header.max_timestamp
            oldest = newest if attributes & LOG_APPEND_TIME else header.base_timestamp  # else that is the producer's
            if oldest >= 0 and (low < 0 or oldest < low):
                low = oldest
            if newest > high:
                high = newest
            codec = attributes & CODEC
            if codec:
                compressed += header.size
            codecs |= 1 << codec
            records += header.record_count
            size += header.size
            last = header.last_offset
            added.append(batch)
            if size >= most:
                break
        if added:
            base = batches[first][0].base_offset
            if self.base_offset < 0:
                self.base_offset = base
            self.last_offset = last
            self.record_count += records
            self.plain_bytes += size - len(chunk.plain)
            self.min_timestamp = _lower(self.min_timestamp, low)
            self.max_timestamp = max(self.max_timestamp, high)
            self._batch_count += len(added)
            self._batch_codecs |= codecs
            chunk.add(added, base, last, low, high, compressed)
        if size >= most:  # nothing more fits, and it may be long until something comes
            self._close_chunk()
        return first + len(added)

    @property
    def open_bytes(self) -> int:
        """Plain bytes that are in memory: of the chunk that is being filled, and of those that are not written yet."""
        return len(self._open.plain) + self._pressed_bytes

    @property
    def _pressed_bytes(self) -> int:
        return sum(len(chunk.plain) for chunk, _, _ in self._pressed)

    def note_aborted(self, producer_id: int, first_offset: int) -> None:
        """Take down an entry of the list of aborted transactions that came with an answer.

        To be called for every entry of an answer's list, before or after its batches; the same entry may come many
        times. Entries that begin behind the segment are left out.
        """
        self._noted.add((producer_id, first_offset))

    def settle(self) -> None:
        """Write all chunks that are full."""
        while self._pressed:
            self._write_first()

    def drop(self) -> None:
        """Nothing will come of this segment. A thread that is still at work on it is told so by CancelledError."""
        for _, _, stored in list(self._pressed):
            stored.cancel()

    def finish(self) -> SegmentIndex:
        """Write what is left and the index; what the segment now says of itself. The sink is not closed."""
        if self._index is not None:
            return self._index
        if self._batch_count == 0:
            raise ValueError("a segment without batches can't be written")
        if self._open.plain:
            self._close_chunk()
        self.settle()
        self._index = SegmentIndex(
            about=self.about,
            writer=self._writer,
            batch_codecs=self._batch_codecs,
            record_count=self.record_count,
            batch_count=self._batch_count,
            plain_size=self.plain_bytes,
            plain_sha256=self._plain_digest.digest(),
            chunks=tuple(self._chunks),
            epochs=tuple(self._epochs),
            aborted=self._aborted(),
        )
        tail = encode_tail(self._index)
        self.index_size = len(tail)
        self._write(tail)
        return self._index

    def entry(self, tag: str, created_ms: int) -> SegmentEntry:
        """What a manifest says of this segment, once it is finished. `tag` makes its name unique."""
        if self._index is None:
            raise ValueError("the segment is not finished")
        return SegmentEntry(
            key_name=segment_name(self.base_offset, self.last_offset, tag),
            base_offset=self.base_offset,
            last_offset=self.last_offset,
            stored_size=self.stored_bytes,
            plain_size=self.plain_bytes,
            index_size=self.index_size,
            records=self.record_count,
            min_timestamp=self.min_timestamp,
            max_timestamp=self.max_timestamp,
            sha256=self._stored_digest.hexdigest(),
            created_ms=created_ms,
        )

    def _look_at(self, header: BatchHeader, batch: memoryview, last: int) -> None:
        """Whether a batch may follow offset `last`, and what else is to be known of it."""
        if len(batch) != header.size:
            raise ValueError(f"the batch at {header.base_offset} has {len(batch)} bytes, not {header.size}")
        if header.base_offset <= last:
            raise ContinuityError(f"{self._name}: a batch at {header.base_offset} comes after offset {last}")
        epoch = header.leader_epoch
        if 0 <= epoch < self._epoch:
            raise ContinuityError(
                f"{self._name}: the batch at {header.base_offset} has leader epoch {epoch}, one before it {self._epoch}"
            )
        if header.attributes & CONTROL and control_kind(batch) == CONTROL_ABORT:
            self._abort_markers.setdefault(header.producer_id, []).append(header.last_offset)
        if epoch > self._epoch:  # -1: written before Kafka knew leader epochs
            self._epochs.append((epoch, header.base_offset))
            self._epoch = epoch

    def _close_chunk(self) -> None:
        chunk, self._open = self._open, _OpenChunk()
        level = self._levels.choose(len(chunk.plain), chunk.compressed_bytes)
        if self._press is None:
            self._write_chunk(chunk, level, _compressed(chunk.plain, level))
            self._plain_digest.update(chunk.plain)
            return
        self._pressed.append((chunk, level, self._press.submit(_compressed, chunk.plain, level)))
        self._plain_digest.update(chunk.plain)
        while self._pressed and (len(self._pressed) > PRESSING or self._pressed_bytes > PRESSING * CHUNK_BYTES):
            self._write_first()

    def _write_first(self) -> None:
        """Of the chunks that are being compressed."""
        chunk, level, stored = self._pressed[0]
        self._write_chunk(chunk, level, stored.result())
        self._pressed.popleft()

    def _write_chunk(self, chunk: "_OpenChunk", level: int, stored: bytes) -> None:
        self._levels.learn(level, len(chunk.plain), len(stored))
        self._chunks.append(
            Chunk(
                base_offset=chunk.base_offset,
                last_offset=chunk.last_offset,
                position=self.stored_bytes,
                stored_size=len(stored),
                plain_size=len(chunk.plain),
                min_timestamp=chunk.min_timestamp,
                max_timestamp=chunk.max_timestamp,
            )
        )
        self._write(stored)

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._stored_digest.update(data)
        self.stored_bytes += len(data)

    def _marker(self, entry: tuple[int, int]) -> int | None:
        """The marker that ended a transaction: the first abort of its producer behind its first offset."""
        producer_id, first_offset = entry
        markers = self._abort_markers.get(producer_id, [])
        found = bisect_right(markers, first_offset)
        return markers[found] if found < len(markers) else None

    def _aborted(self) -> tuple[Aborted, ...]:
        noted = sorted((first, producer) for producer, first in self._noted)
        return tuple(
            Aborted(producer, first, self._marker((producer, first)))
            for first, producer in noted
            if first <= self.last_offset
        )


class _OpenChunk:
    """The batches of the chunk that is being filled."""

    def __init__(self) -> None:
        self.plain = bytearray()
        self.compressed_bytes = 0
        self.base_offset = -1
        self.last_offset = -1
        self.min_timestamp = -1
        self.max_timestamp = -1

    def add(self, batches: list[memoryview], base: int, last: int, oldest: int, newest: int, compressed: int) -> None:
        """Batches with offsets from `base` to `last`; the times are the chunk's with them."""
        if not self.plain:
            self.base_offset = base
        self.last_offset = last
        self.min_timestamp, self.max_timestamp = oldest, newest
        self.compressed_bytes += compressed
        self.plain += b"".join(batches)


class _Levels:
    """Spends time only where it pays.

    Batches that a producer compressed hardly shrink again, nor does data that is compressed or encrypted
    inside of them. Chunks that are mostly the former get a level without entropy coding at once: that alone would make
    those of lz4 and snappy a fifth smaller, and reading them three times as dear. The latter shows only in the result:
    then the next few chunks get zstd's quickest ordinary level, before the asked one is tried once more.
    """

    def __init__(self, level: int, recompress: bool) -> None:
        self._full = level
        self._quick = min(level, _QUICK_LEVEL)
        self._again = self._quick if recompress else _FAST_LEVEL
        self._quick_chunks = 0

    def choose(self, size: int, compressed_bytes: int) -> int:
        """For a chunk of `size` bytes, of which `compressed_bytes` are in batches that have a codec."""
        if 2 * compressed_bytes > size:
            return self._again
        if self._quick_chunks:
            self._quick_chunks -= 1
            return self._quick
        return self._full

    def learn(self, level: int, size: int, stored: int) -> None:
        """What became of a chunk."""
        if level == self._full and stored > _HARDLY_SMALLER * size:
            self._quick_chunks = _QUICK_CHUNKS


_resting: dict[int, list[zstandard.ZstdCompressor]] = {}
"""By level, zstd's compressors that nobody uses now. Each keeps some MiB: so there are as many as threads at work, not
as many as segments. Taking one out of a list and putting it back are atomic."""


def _compressed(plain: bytearray, level: int) -> bytes:
    """One zstd frame."""
    resting = _resting.setdefault(level, [])
    try:
        zstd = resting.pop()
    except IndexError:
        zstd = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    stored = zstd.compress(plain)
    resting.append(zstd)
    return stored


def _lower(one: int, other: int) -> int:
    """The lower of two times, where -1 means none."""
    if one < 0 or other < 0:
        return max(one, other)
    return min(one, other)
