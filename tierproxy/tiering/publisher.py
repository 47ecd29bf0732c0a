"""The store's side of a partition's work: put a segment, read it back, and name it in the manifest.

The order makes a record safe: the object is durable, then its bytes were seen again, then the manifest names it by
compare-and-swap. A crash in between leaves an object that nobody names, which is garbage and harmless.

A partition's first manifest is empty, and written before the first object. So objects without a manifest mean that it
was lost, and never that an archiver died before its first commit. It says nothing else: whoever finds it still bare
begins the archive where the broker's log begins by then.

A write that failed may still have happened. An object is then simply written again. A manifest is not: the
second try conflicts with the first, and every conflict first looks whether our segment is in there already.

A commit may also meet changes to what lies before: something expired, was merged, or was deleted by a user. They don't
concern the new segment, which then follows the manifest as it is now. Anything else, a fence above all (see
Manifest.with_fence), means that the segment is forgotten and copied again. So does a move to another archive: the
manifest there looks the same, but the segment is not in its store.
"""

import asyncio
import secrets
from bisect import bisect_left
from dataclasses import replace
from tempfile import TemporaryFile

from tierproxy.archive.cut import batches_of, copy_below, cut_point
from tierproxy.archive.errors import ContinuityError, FormatError
from tierproxy.archive.library import READ_BACK_BYTES, Library, VersionedManifest
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId
from tierproxy.archive.rewound import rewound
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.store import Conflict, NotFound, Store
from tierproxy.clock import Clock
from tierproxy.tiering.history import continues
from tierproxy.tiering.spool import OpenSegment, SpoolSettings
from tierproxy.tiering.steps import (
    Commit,
    Committed,
    Conflicted,
    Damaged,
    Failed,
    Look,
    Looked,
    RecordGap,
    Rewind,
    Uploaded,
    Verified,
)

COMMIT_TRIES = 10
"""Changes of the manifest that one commit may meet and follow: each of them is somebody else's success."""


class Publisher:
    """One partition's archive. Every method may raise StoreError: nothing is known then, try again."""

    def __init__(
        self, library: Library, cluster_id: str, pid: PartitionId, clock: Clock, storage_class: str | None = None
    ) -> None:
        """`storage_class` is of its segments; None: the archive's."""
        self._library = library
        self._cluster_id = cluster_id
        self._pid = pid
        self._clock = clock
        self.storage_class = storage_class
        self._version: str | None = None  # of the manifest as we know it
        self._bare: Manifest | None = None  # the stored one, while nothing was ever archived
        self._entry: SegmentEntry | None = None
        self._stored_in: Library | None = None  # whose store has the entry's object
        self._epochs: tuple[tuple[int, int], ...] = ()
        self._fetched_at = -1  # the offset that was asked for when the uploaded segment began

    async def load(self) -> Manifest | None:
        """The manifest as it is now, None while nothing was ever archived; what was begun before is forgotten."""
        self._entry = None
        return self._know(await self._library.load(self._pid))

    async def upload(self, segment: OpenSegment) -> Uploaded | Conflicted:
        """Close and store the segment, behind a first manifest if there is none. Raises OSError when its spool can't be
        written or read, ContinuityError if there must have been a manifest already."""
        if self._version is None and not await self._begin(segment.fetched_at):
            return Conflicted()
        if self._entry is None:
            tag, now_ms = secrets.token_hex(4), self._clock.now_ms()
            self._entry, self._epochs = await asyncio.to_thread(segment.finish, tag, now_ms)
            self._fetched_at = segment.fetched_at
        entry = self._uploaded()
        key = self._library.segment_key(self._pid, entry)
        self._stored_in = self._library.home(self._pid)
        await self._store.put(key, segment.file(), self.storage_class, entry.sha256)
        return Uploaded()

    async def verify(self) -> Verified | Damaged:
        """Read the stored object and compare it with what was written."""
        damage = await self._library.read_back(self._pid, self._uploaded())
        return Verified() if damage is None else self._damaged(damage)

    async def commit(self, action: Commit) -> Committed | Conflicted:
        """Name the verified segment in the manifest. Raises ContinuityError if it does not fit there."""
        entry = self._uploaded()
        base = action.manifest or self._beginning(action.start_offset)
        version = self._version
        for _ in range(COMMIT_TRIES):
            if self._moved_away:
                break
            if self._fetched_at == base.end_offset and not continues(base, entry, self._epochs):
                return Conflicted("what was copied is of another history than what is archived")
            manifest = base.with_segment(entry, self._epochs, fetched_at=self._fetched_at)
            try:
                return self._committed(await self._library.save(self._pid, manifest, version))
            except Conflict:
                found = await self._library.load(self._pid)
            if await self._is_in(found, entry):
                return self._committed(found)
            if found is None or not found.manifest.continues_like(base):
                break
            base, version = found.manifest, found.version
        if self._moved_away:
            return Conflicted("it was moved to another archive, which does not have the new segment")
        return Conflicted()

    async def record_gap(self, action: RecordGap, cause: str) -> Committed | Conflicted:
        """Write down what was lost before it was archived."""
        gap = Gap(action.start, action.end, self._clock.now_ms(), cause)
        try:
            saved = await self._library.save(self._pid, action.manifest.with_gap(gap), self._version)
        except Conflict:
            return Conflicted()
        return self._committed(saved)

    async def rewind(self, action: Rewind, spool: SpoolSettings) -> Committed | Conflicted | Failed:
        """Cut the archive at the action's offset and quarantine the rest. Raises OSError if the spool can't be used.

        Whatever dies on the way: the manifest is replaced last, and objects that it does not name are garbage.
        """
        manifest = await self._library.unfolded(action.manifest, action.offset)
        at = bisect_left(manifest.segments, action.offset, key=_base_offset) - 1
        offset, cut = action.offset, None
        if at >= 0:
            offset, cut = await self._cut(action, manifest.segments[at], spool)
            if cut is not None and (fault := await self._library.read_back(self._pid, cut)) is not None:
                return Failed(f"segment {cut.key_name}: {fault}")
        shorter = rewound(manifest, offset, action.log_start, self._clock.now_ms(), action.reason, cut)
        try:
            saved = await self._library.save(self._pid, shorter, self._version)
        except Conflict:
            return Conflicted()
        return self._committed(saved)

    async def _cut(self, action: Rewind, entry: SegmentEntry, spool: SpoolSettings) -> tuple[int, SegmentEntry | None]:
        """Where to cut, at the action's offset or before, and the stored beginning of `entry` if it is cut there."""
        index = await self._library.load_index(self._pid, entry)
        key = self._library.segment_key(self._pid, entry)
        with TemporaryFile(dir=spool.directory) as whole, TemporaryFile(dir=spool.directory) as part:
            for start in range(0, index.data_size, READ_BACK_BYTES):
                data = await self._store.get_range(key, start, min(start + READ_BACK_BYTES, index.data_size))
                await asyncio.to_thread(whole.write, data)
            offset = await asyncio.to_thread(cut_point, batches_of(whole, index), action.offset, action.log_start)
            if not entry.base_offset < offset <= entry.last_offset:
                return offset, None
            writer = SegmentWriter(index.about, spool.level, part, recompress=spool.recompress)
            await asyncio.to_thread(copy_below, whole, index, offset, writer)
            if not writer.plain_bytes:  # the cut lies in the first batch
                return offset, None
            await asyncio.to_thread(writer.finish)
            cut = writer.entry(secrets.token_hex(4), entry.created_ms)
            part.seek(0)
            await self._store.put(self._library.segment_key(self._pid, cut), part, self.storage_class, cut.sha256)
        return offset, cut

    async def holds(self, offset: int, ours: Manifest) -> bool:
        """Whether the stored manifest, read afresh, still holds all below `offset` that `ours` does.

        After a rewind by somebody else it holds another history there.
        """
        found = await self._library.load(self._pid)
        if found is None or found.manifest.quarantined != ours.quarantined:
            return False
        return found.manifest.end_offset >= offset

    async def look(self, action: Look) -> Looked | Conflicted:
        """Read a page of the manifest. FormatError if it is damaged or lost."""
        try:
            return Looked(action.page, await self._library.page(self._pid, action.page))
        except NotFound as error:
            found = await self._library.load(self._pid)
            if found is not None and action.page in found.manifest.pages:
                raise FormatError(f"a page of the manifest is lost: {error}") from error
            return Conflicted()  # somebody else has written it anew

    @property
    def _store(self) -> Store:
        """Where the partition lies now. If that changes before a commit, what was stored must not be named."""
        return self._library.home(self._pid).store

    @property
    def _moved_away(self) -> bool:
        """Whether the partition lies elsewhere than where its new segment was stored."""
        return self._library.home(self._pid) is not self._stored_in

    def _uploaded(self) -> SegmentEntry:
        assert self._entry is not None, "nothing was uploaded"
        return self._entry

    def _damaged(self, reason: str) -> Damaged:
        name = self._uploaded().key_name
        self._entry = None  # the next try is another object
        return Damaged(f"segment {name}: {reason}")

    def _committed(self, found: VersionedManifest | None) -> Committed:
        assert found is not None
        self._entry = None
        self._know(found)
        return Committed(found.manifest)

    def _know(self, found: VersionedManifest | None) -> Manifest | None:
        self._version = found.version if found is not None else None
        self._bare = found.manifest if found is not None and found.manifest.is_bare else None
        return found.manifest if found is not None and self._bare is None else None

    async def _begin(self, start_offset: int) -> bool:
        """Write the first manifest; whether it was still missing.

        ContinuityError if it is lost: a new one would make garbage of what nobody but the archive has.
        """
        stray = await self._library.left_behind(self._pid, start_offset)
        if stray is not None:
            if await self._library.load(self._pid) is not None:
                return False
            raise ContinuityError(
                f"{self._pid} has no manifest, but segments of what the broker no longer has (below offset "
                f"{start_offset}), such as {stray}: the manifest is lost. `tierproxy archive repair {self._pid.topic} "
                f"--partition {self._pid.partition}` makes it anew"
            )
        try:
            self._know(await self._library.save(self._pid, self._beginning(start_offset), None))
        except Conflict:
            return False
        return True

    def _beginning(self, start_offset: int) -> Manifest:
        if self._bare is not None:
            return replace(self._bare, start_offset=start_offset, end_offset=start_offset)
        return Manifest.empty(self._library.cluster, self._cluster_id, self._pid, start_offset)

    async def _is_in(self, found: VersionedManifest | None, entry: SegmentEntry) -> bool:
        return found is not None and await self._library.segment_at(found.manifest, entry.last_offset) == entry


def _base_offset(entry: SegmentEntry) -> int:
    return entry.base_offset
