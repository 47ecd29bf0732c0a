"""The segment that is being written: batches as they come from a broker, checked, into a file on this machine.

Small segments stay in memory, larger ones go to a temporary file without a name, which the system removes with
the process, however that ends; what is small depends on how much all segments have in memory (`memory`). Everything
here is synchronous and takes time; callers run it in a thread.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from protocol.batches import HEADER_SIZE, LENGTH_FROM, MAGIC_AT, BatchHeader, crc_ok, walk
from protocol.errors import MalformedError
from protocol.fetch_response import FetchedPartition
from tierproxy.archive.manifest import SegmentEntry
from tierproxy.archive.segment import CHUNK_BYTES, SegmentWriter
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.errors import TierproxyError
from tierproxy.tiering.memory import SHARE_MOST, SegmentMemory


class CorruptBatch(TierproxyError):
    """A batch came damaged from the broker. It may be better the next time."""


class UnreadableBatch(TierproxyError):
    """The broker's log holds something that can't be archived; asking again gives the same."""


class OtherHistory(UnreadableBatch):
    """A batch does not follow the one before: it overlaps that, or has an older leader epoch.

    `begins` is set where the first batch that was fetched overlaps what is archived: its base offset.
    """

    def __init__(self, what: str, begins: int | None = None) -> None:
        super().__init__(what)
        self.begins = begins


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """`directory` None: the system's own for temporary files. `level`: zstd's. `press`: threads that compress, which
    then goes on while the next answer is on its way. `recompress`: see SegmentWriter."""

    directory: Path | None
    level: int
    memory: SegmentMemory
    press: Executor | None = None
    recompress: bool = False


class OpenSegment:
    """One segment from its first batch until it is committed.

    `fetched_at` is the offset that its first fetch asked for, `next_offset` the one to ask for next, `last_epoch`
    the leader epoch of its last batch (`last_epoch` of the archive while it is empty).
    """

    def __init__(
        self, about: SegmentInfo, settings: SpoolSettings, fetched_at: int, last_epoch: int, first_is_cut: bool
    ) -> None:
        """`first_is_cut`: the log may begin inside the first batch, which then starts below `fetched_at`."""
        self.fetched_at = self.next_offset = fetched_at
        self.last_epoch = last_epoch
        self.oldest_ms = -1
        """The time of its first batch, the highest of its records; -1 while it is empty, or if there is none."""
        self._first_is_cut = first_is_cut
        directory = str(settings.directory) if settings.directory is not None else None
        self._spool = SpooledTemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as this
        self._file = cast(BinaryIO, self._spool)  # which it is since Python 3.11; the stubs say IO[bytes]
        self._writer = SegmentWriter(
            about, settings.level, self._file, recompress=settings.recompress, press=settings.press
        )
        self._in_memory = True  # the spool is
        self._memory = settings.memory.enter()

    @property
    def plain_bytes(self) -> int:
        return self._writer.plain_bytes

    def take(self, answer: FetchedPartition) -> None:
        """Append the whole batches of one answer that lie at or above `next_offset` and below the LSO.

        A damaged batch, or one that can't be read, ends it: what came before is kept, and when nothing did
        CorruptBatch or UnreadableBatch is raised. The segment is whole in either case. After an OSError (the disk
        is full) it is not: discard it.
        """
        batches, fault = self._accept(answer)
        if not batches and fault is not None:
            raise fault
        for producer_id, first_offset in answer.aborted or () if batches else ():
            self._writer.note_aborted(producer_id, first_offset)
        self._settle()  # others may hold more by now
        try:
            if batches and self._writer.base_offset < 0:
                self.oldest_ms = batches[0][0].max_timestamp
            at = 0
            while at < len(batches):
                at = self._writer.extend(batches, at)
                last = batches[at - 1][0]
                self.next_offset, self.last_epoch = last.next_offset, last.leader_epoch
                self._settle()
        except MalformedError as error:
            raise UnreadableBatch(str(error)) from error
        finally:
            self._settle()

    def finish(self, tag: str, now_ms: int) -> tuple[SegmentEntry, tuple[tuple[int, int], ...]]:
        """Close the segment: its entry for the manifest, and its leader epochs. May be called again."""
        self._writer.settle()
        self._settle()
        index = self._writer.finish()
        return self._writer.entry(tag, now_ms), index.epochs

    def file(self) -> BinaryIO:
        """The finished object, from its first byte."""
        self._file.seek(0)
        return self._file

    def discard(self) -> None:
        self._writer.drop()
        self._file.close()
        self._memory.leave()

    def _settle(self) -> None:
        """Go to a file if there is too much in memory, and tell what there still is.

        What is being compressed comes on top of a segment's share, so it is not left behind when memory is short.
        """
        if self._memory.share < SHARE_MOST:
            self._writer.settle()
        if self._in_memory and self._writer.stored_bytes > self._memory.share // 2:
            self._spool.rollover()
            self._in_memory = False
        self._memory.hold(self._writer.open_bytes + (self._writer.stored_bytes if self._in_memory else 0))
        self._writer.chunk_bytes = min(CHUNK_BYTES, self._memory.share // 2)

    def _accept(self, answer: FetchedPartition) -> tuple[list[tuple[BatchHeader, memoryview]], TierproxyError | None]:
        accepted: list[tuple[BatchHeader, memoryview]] = []
        expected, epoch = self.next_offset, self.last_epoch
        records, at = answer.records if answer.records is not None else memoryview(b""), 0
        try:
            for header, batch in walk(records):
                if not crc_ok(batch):  # before its header is believed: a wrong last offset would have it skipped
                    return accepted, CorruptBatch(
                        f"the batch {header.base_offset}-{header.last_offset} does not match its checksum"
                    )
                at += len(batch)
                if header.next_offset <= expected:
                    continue  # the broker begins at the batch that holds the offset, never before; be safe
                if 0 <= answer.last_stable_offset < header.next_offset:
                    break  # a transaction is open there: not decided yet
                first = not accepted and self._writer.base_offset < 0
                if header.base_offset < expected and not (first and self._first_is_cut):
                    what = (
                        f"the batch {header.base_offset}-{header.last_offset} overlaps what was copied up to {expected}"
                    )
                    return accepted, OtherHistory(what, header.base_offset if first else None)
                if header.leader_epoch < epoch:
                    return accepted, OtherHistory(
                        f"the batch at {header.base_offset} has leader epoch {header.leader_epoch}, the one "
                        f"before it {epoch}"
                    )
                accepted.append((header, batch))
                expected, epoch = header.next_offset, header.leader_epoch
        except MalformedError as error:
            return accepted, _fault(records[at:], str(error))
        return accepted, None


def _fault(rest: memoryview, what: str) -> CorruptBatch | UnreadableBatch:
    """Of a batch with an impossible header: damaged on its way, if the checksum says so; else the broker has it so."""
    size = LENGTH_FROM + int.from_bytes(rest[LENGTH_FROM - 4 : LENGTH_FROM], "big", signed=True)
    if rest[MAGIC_AT] == 2 and HEADER_SIZE <= size <= len(rest) and not crc_ok(rest[:size]):
        return CorruptBatch(f"{what}, and it does not match its checksum")
    return UnreadableBatch(what)
