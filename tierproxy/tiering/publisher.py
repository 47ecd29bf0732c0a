"""The store's side of a partition's work: put a segment, read it back, and name it in the manifest.

The order makes a record safe: the object is durable, then its bytes were seen again, then the manifest names it by
compare-and-swap. A crash in between leaves an object that nobody names, which is garbage and harmless.

A write that failed may still have happened. An object is then simply written again. A manifest is not: the
second try conflicts with the first, and every conflict first looks whether our segment is in there already.
"""

import asyncio
import hashlib
import secrets

from tierproxy.archive.errors import ContinuityError, FormatError
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store import Conflict, NotFound, Truncated
from tierproxy.clock import Clock
from tierproxy.tiering.spool import OpenSegment
from tierproxy.tiering.steps import Commit, Committed, Conflicted, Damaged, Look, Looked, RecordGap, Uploaded, Verified

READ_BACK_BYTES = 8 * 1024 * 1024


class Publisher:
    """One partition's archive. Every method may raise StoreError: nothing is known then, try again."""

    def __init__(self, library: Library, cluster_id: str, pid: PartitionId, clock: Clock) -> None:
        self._library = library
        self._cluster_id = cluster_id
        self._pid = pid
        self._clock = clock
        self._version: str | None = None  # of the manifest as we know it
        self._entry: SegmentEntry | None = None
        self._epochs: tuple[tuple[int, int], ...] = ()
        self._fetched_at = -1  # the offset that was asked for when the uploaded segment began

    async def load(self) -> Manifest | None:
        """The manifest as it is now; what was begun before is forgotten."""
        self._entry = None
        return self._know(await self._library.load(self._pid))

    async def upload(self, segment: OpenSegment) -> Uploaded:
        """Close and store the segment. Raises OSError when its spool can't be written or read."""
        if self._entry is None:
            tag, now_ms = secrets.token_hex(4), self._clock.now_ms()
            self._entry, self._epochs = await asyncio.to_thread(segment.finish, tag, now_ms)
            self._fetched_at = segment.fetched_at
        await self._library.store.put(self._library.segment_key(self._pid, self._uploaded()), segment.file())
        return Uploaded()

    async def verify(self) -> Verified | Damaged:
        """Read the stored object and compare it with what was written."""
        entry = self._uploaded()
        key = self._library.segment_key(self._pid, entry)
        digest = hashlib.sha256()
        try:
            size = await self._library.store.size(key)
            for start in range(0, entry.stored_size, READ_BACK_BYTES):
                end = min(start + READ_BACK_BYTES, entry.stored_size)
                part = await self._library.store.get_range(key, start, end)
                await asyncio.to_thread(digest.update, part)
        except (NotFound, Truncated) as error:
            return self._damaged(f"it can't be read back: {error}")
        if size != entry.stored_size:
            return self._damaged(f"it has {size} bytes in the store, not {entry.stored_size}")
        if digest.hexdigest() != entry.sha256:
            return self._damaged("the bytes read back are not those written")
        return Verified()

    async def commit(self, action: Commit) -> Committed | Conflicted:
        """Name the verified segment in the manifest. Raises ContinuityError if it does not fit there, or if it would be
        the first although there must have been others."""
        entry = self._uploaded()
        base = action.manifest
        if base is None:
            await self._check_for_a_lost_one(action.start_offset)
            cluster = self._library.cluster
            base = Manifest.empty(cluster, self._cluster_id, self._pid, action.start_offset)
        manifest = base.with_segment(entry, self._epochs, fetched_at=self._fetched_at)
        try:
            saved = await self._library.save(self._pid, manifest, self._version)
        except Conflict:
            found = await self._library.load(self._pid)
            return self._committed(found) if await self._is_in(found, entry) else Conflicted()
        return self._committed(saved)

    async def record_gap(self, action: RecordGap, cause: str) -> Committed | Conflicted:
        """Write down what was lost before it was archived."""
        gap = Gap(action.start, action.end, self._clock.now_ms(), cause)
        try:
            saved = await self._library.save(self._pid, action.manifest.with_gap(gap), self._version)
        except Conflict:
            return Conflicted()
        return self._committed(saved)

    async def holds(self, offset: int) -> bool:
        """Whether the stored manifest, read afresh, still holds everything below `offset` that ours does."""
        found = await self._library.load(self._pid)
        return found is not None and found.manifest.end_offset >= offset

    async def look(self, action: Look) -> Looked | Conflicted:
        """Read a page of the manifest. FormatError if it is damaged or lost."""
        try:
            return Looked(action.page, await self._library.page(self._pid, action.page))
        except NotFound as error:
            found = await self._library.load(self._pid)
            if found is not None and action.page in found.manifest.pages:
                raise FormatError(f"a page of the manifest is lost: {error}") from error
            return Conflicted()  # somebody else has written it anew

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
        return found.manifest if found is not None else None

    async def _check_for_a_lost_one(self, start_offset: int) -> None:
        """A new manifest in the place of a lost one would make garbage of what nobody but the archive has."""
        name = await self._library.left_behind(self._pid, start_offset)
        if name is not None:
            raise ContinuityError(
                f"{self._pid} has no manifest, but segments of what the broker no longer has (below offset "
                f"{start_offset}), such as {name}: the manifest is lost. `tierproxy archive repair {self._pid.topic} "
                f"--partition {self._pid.partition}` makes it anew"
            )

    async def _is_in(self, found: VersionedManifest | None, entry: SegmentEntry) -> bool:
        return found is not None and await self._library.segment_at(found.manifest, entry.last_offset) == entry
