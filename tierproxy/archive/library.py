"""One cluster's archive in one store: manifests and segments by partition, not by key.

A manifest is asked for again and again, mostly unchanged. So what was read or written last is kept beside its version,
and long ones are read and written in a thread.

A manifest's older entries are in pages. Nobody else has to know: `segments` walks through all of them, `segment_at`
finds one, `save` moves those away that make the root too long, `replacing` puts some in the place of others.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tierproxy.archive.errors import ClusterMismatch, ContinuityError, FormatError
from tierproxy.archive.json_fields import Fields
from tierproxy.archive.manifest import Manifest, SegmentEntry, Sums
from tierproxy.archive.names import (
    MANIFEST_FILE,
    PartitionId,
    cluster_key,
    cluster_prefix,
    manifest_key,
    parse_key,
    parse_segment_name,
    partition_prefix,
)
from tierproxy.archive.page_files import PageFiles
from tierproxy.archive.pages import Page, PageRef, Paging
from tierproxy.archive.segment_index import SegmentIndex, SegmentInfo, read_index
from tierproxy.archive.store import Conflict, NotFound, ObjectInfo, Store
from tierproxy.byte_cache import ByteCache
from tierproxy.tasks import Tasks

log = logging.getLogger("tierproxy.archive")

CLUSTER_FORMAT = "tierproxy-cluster"
CLUSTER_VERSION = 1

LONG_BYTES = 64 * 1024
LONG_SEGMENTS = LONG_BYTES // 400
"""A manifest beyond these is not read and written on the event loop; a segment's line has some 350 bytes."""
PAGING = Paging()
KEPT_BYTES = 64 * 1024 * 1024
"""Stored bytes of all the manifests that are kept; in memory they take about twice as much."""


@dataclass(frozen=True, slots=True)
class _Kept:
    found: "VersionedManifest"
    size: int


@dataclass(frozen=True, slots=True)
class VersionedManifest:
    """A manifest as it is stored, and the version that save() must be given to replace it."""

    manifest: Manifest
    version: str


class Library:
    """The archive of the cluster that our configuration calls `cluster`. All methods may raise StoreError.

    `tasks` are those that read pages, and go on when whoever asked has given up.
    """

    def __init__(self, store: Store, cluster: str, tasks: Tasks | None = None, paging: Paging = PAGING) -> None:
        self.store = store
        self.cluster = cluster
        self._paging = paging
        self._pages = PageFiles(store, cluster, tasks or Tasks())
        self._kept: ByteCache[PartitionId, _Kept] = ByteCache(KEPT_BYTES, lambda kept: kept.size)

    async def claim(self, cluster_id: str) -> None:
        """Make sure that this archive is Kafka cluster `cluster_id`'s: the first claim is recorded for ever.

        ClusterMismatch if it is another's; FormatError if the record can't be read.
        """
        key = cluster_key(self.cluster)
        try:
            found = await self.store.get(key)
        except NotFound:
            try:
                await self.store.put_if(key, _cluster_record(self.cluster, cluster_id), None)
                return
            except Conflict:  # somebody else was quicker: the same cluster, as a rule
                found = await self.store.get(key)
        recorded = _read_cluster_id(key, found.data)
        if recorded != cluster_id:
            raise ClusterMismatch(
                f"the archive {self.cluster!r} is of Kafka cluster {recorded}, but the brokers are of {cluster_id}. "
                "Give this cluster another name (cluster.name) or another archive"
            )

    async def owner(self) -> str | None:
        """The Kafka cluster id that claim() recorded, None if nothing was claimed. FormatError if it can't be read."""
        key = cluster_key(self.cluster)
        try:
            found = await self.store.get(key)
        except NotFound:
            return None
        return _read_cluster_id(key, found.data)

    async def load(self, pid: PartitionId) -> VersionedManifest | None:
        """A partition's manifest; None if nothing is archived of it. FormatError if it can't be read."""
        key = manifest_key(self.cluster, pid)
        try:
            found = await self.store.get(key)
        except NotFound:
            return None
        kept = self._kept.get(pid)
        if kept is not None and kept.found.version == found.version:  # of the same bytes, as the store promises
            return kept.found
        try:
            if len(found.data) > LONG_BYTES:
                manifest = await asyncio.to_thread(Manifest.from_json, found.data)
            else:
                manifest = Manifest.from_json(found.data)
            self._check_owner(pid, manifest)
        except FormatError as error:
            raise type(error)(f"{key}: {error}") from error
        return self._keep(pid, VersionedManifest(manifest, found.version), len(found.data))

    async def save(self, pid: PartitionId, manifest: Manifest, version: str | None) -> VersionedManifest:
        """Replace the manifest of that version; None for the partition's first one.

        What was saved may differ from `manifest` in one thing: older entries may be in pages now. Go on with the
        saved one, as with the other they would be moved again.
        Conflict if somebody else was quicker, or if we were and the store's answer got lost: load and look.
        """
        self._check_owner(pid, manifest)
        manifest = await self._spilled(manifest)
        long = len(manifest.segments) + len(manifest.pages) > LONG_SEGMENTS
        data = await asyncio.to_thread(manifest.to_json) if long else manifest.to_json()
        stored = await self.store.put_if(manifest_key(self.cluster, pid), data, version)
        return self._keep(pid, VersionedManifest(manifest, stored), len(data))

    async def partitions(self) -> AsyncIterator[PartitionId]:
        """Every partition that has a manifest, or segments at least. Lists the whole archive: for tools only."""
        last: PartitionId | None = None
        async for found in self.store.list(cluster_prefix(self.cluster)):
            try:
                _, pid, name = parse_key(found.key)
                if name != MANIFEST_FILE:
                    parse_segment_name(name)
            except FormatError:  # somebody else's file, or a page
                continue
            if pid != last:  # a partition's keys follow each other
                last = pid
                yield pid

    async def objects(self, pid: PartitionId) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """Every object in a partition's folder, with its name there. For tools only."""
        folder = partition_prefix(self.cluster, pid)
        async for found in self.store.list(folder):
            yield found.key.removeprefix(folder), found

    async def left_behind(self, pid: PartitionId, offset: int) -> str | None:
        """Name of some segment of the partition that ends below `offset`; None if there is none.

        For where there is no manifest: if the broker's log begins at `offset`, such a segment says that the manifest is
        lost. Lists the partition's folder, in order, so it is the first segment that counts.
        """
        async for name, _ in self.objects(pid):
            with suppress(FormatError):
                return name if parse_segment_name(name).last_offset < offset else None
        return None

    # -- a manifest's entries, wherever they are ------------------------------------------------------------------

    async def segments(
        self, manifest: Manifest, from_offset: int = 0, *, since_ms: int | None = None
    ) -> AsyncIterator[SegmentEntry]:
        """The segments that hold `from_offset` or what follows, in order: the way to walk through all of them.

        With `since_ms` only those with a record of that time or later; pages without any are not read.
        FormatError, NotFound if a page is not what it should be.
        """
        first = max(from_offset, manifest.start_offset)
        for page in manifest.pages:
            if page.last_offset < first or (since_ms is not None and page.sums.max_timestamp < since_ms):
                continue
            entries = await self.page(manifest.pid, page)
            for entry in entries.walk(first, since_ms):
                yield entry
        for entry in manifest.segments:
            if entry.last_offset >= first and (since_ms is None or entry.max_timestamp >= since_ms):
                yield entry

    async def segment_at(self, manifest: Manifest, offset: int) -> SegmentEntry | None:
        """The segment that holds `offset`, or else the next; None: all end below. Reads a page at the most.

        FormatError, NotFound if the page is not what it should be.
        """
        offset = max(offset, manifest.start_offset)
        found = manifest.find(offset)
        if not isinstance(found, PageRef):
            return found
        entries = await self.page(manifest.pid, found)
        return entries[entries.place(offset)]

    def cached_segment_at(self, manifest: Manifest, offset: int) -> SegmentEntry | None:
        """segment_at() without waiting: also None if the page that says it is not in memory."""
        offset = max(offset, manifest.start_offset)
        found = manifest.find(offset)
        if not isinstance(found, PageRef):
            return found
        entries = self._pages.cached(manifest.pid, found)
        return entries[entries.place(offset)] if entries is not None else None

    async def page(self, pid: PartitionId, page: PageRef) -> Page:
        """All entries of one page, also those below the start. FormatError, NotFound if it is not what it should be."""
        return await self._pages.read(pid, page)

    async def sums(self, manifest: Manifest) -> Sums:
        """What all segments from the start on come to: Manifest.sums, but exact. Reads a page at the most."""
        if not manifest.pages or manifest.pages[0].base_offset >= manifest.start_offset:
            return manifest.sums
        first, *others = manifest.pages
        shown = await asyncio.to_thread(Sums.of, await self._shown(manifest, first))
        return sum((page.sums for page in others), shown + Sums.of(manifest.segments))

    async def replacing(self, manifest: Manifest, old: Sequence[SegmentEntry], new: Sequence[SegmentEntry]) -> Manifest:
        """The next manifest, with `new` in the place of `old`, some neighbouring entries, wherever those are.

        Pages that change are written anew, which is garbage unless the manifest is then saved. Offsets that `new`
        leaves out are the caller's to account for: start_offset, end_offset, epochs and gaps stay as they are.
        ContinuityError if `old` is not there as it is given, or `new` does not fit between its neighbours.
        """
        if not old:
            raise ValueError("nothing is to be replaced")
        first, last = old[0].base_offset, old[-1].last_offset
        pages = manifest.pages
        touched = [at for at, page in enumerate(pages) if page.last_offset >= first and page.base_offset <= last]
        start, stop = (touched[0], touched[-1] + 1) if touched else (len(pages), len(pages))
        paged = [entry for page in pages[start:stop] for entry in await self._shown(manifest, page)]
        entries = [*paged, *manifest.segments]
        at = next((at for at, entry in enumerate(entries) if entry.base_offset == first), len(entries))
        after = at + len(old)
        if entries[at:after] != list(old):
            raise ContinuityError(f"{manifest.pid}: the segments to be replaced are not in the manifest any more")
        end = entries[at - 1].last_offset if at else pages[start - 1].last_offset if start else -1
        for entry in (*new, *entries[after : after + 1]):
            if not end < entry.base_offset <= entry.last_offset:
                raise ContinuityError(f"{manifest.pid}: {entry.key_name} does not fit where it is to be put")
            end = entry.last_offset
        generation = manifest.generation + 1
        if not touched:
            return replace(manifest, segments=(*entries[:at], *new, *entries[after:]), generation=generation)
        rewritten = await self._write_pages(manifest, start, stop, [*paged[:at], *new, *paged[after:]])
        left = tuple(entries[max(after, len(paged)) :])
        return replace(manifest, pages=rewritten, segments=left, generation=generation)

    async def rebuilding(self, manifest: Manifest, page: PageRef, entries: Sequence[SegmentEntry]) -> Manifest:
        """The next manifest, with `entries` in the place of a page that can't be read; see replacing()."""
        at = manifest.pages.index(page)
        pages = await self._write_pages(manifest, at, at + 1, entries)
        return replace(manifest, pages=pages, generation=manifest.generation + 1)

    async def _spilled(self, manifest: Manifest) -> Manifest:
        """With the older ones of the root's entries in pages, if there are too many."""
        if len(manifest.segments) <= self._paging.root_most:
            return manifest
        keep = self._paging.root_keep
        moving, kept = manifest.segments[:-keep], manifest.segments[-keep:]
        end = len(manifest.pages)
        start, entries = end, list(moving)
        if manifest.pages and manifest.pages[-1].sums.segments < self._paging.page_most:
            try:
                entries[:0] = await self._shown(manifest, manifest.pages[-1])
                start = end - 1
            except (FormatError, NotFound) as error:
                log.error("%s: a page of its manifest is damaged, a new one is begun: %s", manifest.pid, error)
        return replace(manifest, pages=await self._write_pages(manifest, start, end, entries), segments=kept)

    async def _shown(self, manifest: Manifest, page: PageRef) -> Sequence[SegmentEntry]:
        """A page's entries from the start on."""
        entries = await self.page(manifest.pid, page)
        return await asyncio.to_thread(list, entries.walk(manifest.start_offset))

    async def _write_pages(
        self, manifest: Manifest, start: int, stop: int, entries: Sequence[SegmentEntry]
    ) -> tuple[PageRef, ...]:
        """The manifest's pages, with new ones of `entries` in the places [start, stop).

        The page before is taken in if both together fill no more than half a page, so that what shrinks does not
        leave many small ones.
        """
        most = self._paging.page_most
        if start and entries and stop - start and manifest.pages[start - 1].sums.segments + len(entries) <= most // 2:
            with suppress(FormatError, NotFound):  # what is damaged stays for itself
                entries = [*await self._shown(manifest, manifest.pages[start - 1]), *entries]
                start -= 1
        parts = [entries[at : at + most] for at in range(0, len(entries), most)]
        written = [await self._pages.write(manifest.pid, part) for part in parts]
        return (*manifest.pages[:start], *written, *manifest.pages[stop:])

    # -- segments -------------------------------------------------------------------------------------------------

    def segment_key(self, pid: PartitionId, entry: SegmentEntry) -> str:
        """Where a segment lies in the store."""
        return partition_prefix(self.cluster, pid) + entry.key_name

    async def load_index(self, pid: PartitionId, entry: SegmentEntry) -> SegmentIndex:
        """A segment's index, by one ranged read. NotFound; FormatError or Truncated if it is not what it should be."""
        key = self.segment_key(pid, entry)
        start = entry.stored_size - entry.index_size
        index = read_index(await self.store.get_range(key, start, entry.stored_size))
        about = SegmentInfo(self.cluster, pid.topic, pid.topic_id, pid.partition)
        if index.about != about or (index.base_offset, index.last_offset) != (entry.base_offset, entry.last_offset):
            found = f"{index.about.topic}-{index.about.partition}, offsets {index.base_offset} to {index.last_offset}"
            raise FormatError(f"{key} holds another segment: of {found}")
        return index

    def _keep(self, pid: PartitionId, found: VersionedManifest, size: int) -> VersionedManifest:
        self._kept.put(pid, _Kept(found, size))
        return found

    def _check_owner(self, pid: PartitionId, manifest: Manifest) -> None:
        if manifest.pid != pid or manifest.cluster != self.cluster:
            raise FormatError(
                f"the manifest is of {manifest.pid} in {manifest.cluster!r}, not of {pid} in {self.cluster!r}"
            )


def _cluster_record(cluster: str, cluster_id: str) -> bytes:
    record = {"format": CLUSTER_FORMAT, "version": CLUSTER_VERSION, "cluster": cluster, "cluster_id": cluster_id}
    return json.dumps(record, indent=2).encode() + b"\n"


def _read_cluster_id(key: str, data: bytes) -> str:
    fields = Fields.of_document(data, key, CLUSTER_FORMAT, CLUSTER_VERSION)
    fields.text("cluster")
    cluster_id = fields.text("cluster_id")
    fields.finish()
    return cluster_id
