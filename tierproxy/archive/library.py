"""One cluster's archive in one store: manifests and segments by partition, not by key.

A manifest is asked for again and again, mostly unchanged. So what was read or written last is kept beside its version,
and long ones are read and written in a thread.

A manifest's older entries are in pages (`paged_manifests`); `save` moves those there that make the root too long.

A partition may lie in another archive than its policy says: it was moved, or the policy was changed first. load() finds
it there, save() writes there, and home() says whose store has its objects. `moving` says how it gets from one to
another.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TypeVar

from tierproxy.archive.errors import ArchiveError, ClusterMismatch, FormatError
from tierproxy.archive.json_fields import Fields, sealed
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.moved import Moved, read_manifest
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
from tierproxy.archive.paged_manifests import PAGING, PagedManifests
from tierproxy.archive.pages import Paging
from tierproxy.archive.segment_index import SegmentIndex, SegmentInfo, read_index
from tierproxy.archive.store import Conflict, NotFound, ObjectInfo, Store, StoreError, Truncated, Unavailable
from tierproxy.byte_cache import ByteCache
from tierproxy.tasks import Tasks
from tierproxy.telemetry import DAMAGED_READS

log = logging.getLogger("tierproxy.archive")
T = TypeVar("T")

CLUSTER_FORMAT = "tierproxy-cluster"
CLUSTER_VERSION = 1

READ_BACK_BYTES = 8 * 1024 * 1024

LONG_BYTES = 64 * 1024
LONG_SEGMENTS = LONG_BYTES // 400
"""A manifest beyond these is not read and written on the event loop; a segment's line has some 350 bytes."""
KEPT_BYTES = 64 * 1024 * 1024
"""Stored bytes of all the manifests that are kept; in memory they take about twice as much."""


TRIES = 3
"""How often a document is read that comes damaged, and written that does not come back: on the way it happens once."""


@dataclass(frozen=True, slots=True)
class _Kept:
    found: "VersionedManifest"
    size: int


@dataclass(frozen=True, slots=True)
class VersionedManifest:
    """A manifest as it is stored, and the version that save() must be given to replace it."""

    manifest: Manifest
    version: str


@dataclass(frozen=True, slots=True)
class VersionedMoved:
    """What lies in the manifest's place of a partition that lies elsewhere, and its version."""

    moved: Moved
    version: str


HOPS = 8
"""Archives to be led through before giving up; there is one more for each move that a policy has not followed."""


class Library(PagedManifests):
    """The archive of the cluster that our configuration calls `cluster`. All methods may raise StoreError.

    `tasks` are those that read pages, and go on when whoever asked has given up.
    """

    def __init__(self, store: Store, cluster: str, tasks: Tasks | None = None, paging: Paging = PAGING) -> None:
        self.store = store
        self.cluster = cluster
        super().__init__(paging)
        self._pages = PageFiles(store, cluster, tasks or Tasks())
        self._kept: ByteCache[PartitionId, _Kept] = ByteCache(KEPT_BYTES, lambda kept: kept.size)
        self.name = ""
        """The archive's, in the configuration."""
        self._all: Mapping[str, Library] = {}
        self._homes: dict[PartitionId, Library] = {}  # of partitions that lie elsewhere

    def stand_beside(self, name: str, libraries: Mapping[str, "Library"]) -> None:
        """Be the archive called `name` among all of the configuration's: partitions may lie in any of them."""
        self.name = name
        self._all = libraries

    @property
    def others(self) -> list["Library"]:
        """The configuration's other archives."""
        return [other for other in self._all.values() if other is not self]

    def _pages_of(self, pid: PartitionId) -> PageFiles:
        return self.home(pid)._pages

    def home(self, pid: PartitionId) -> "Library":
        """The archive where the partition lies, by what load() found last: segments are in its store."""
        return self._homes.get(pid, self)

    async def claim(self, cluster_id: str) -> None:
        """Make sure that this archive is Kafka cluster `cluster_id`'s: the first claim is recorded for ever.

        ClusterMismatch if it is another's; FormatError if the record can't be read.
        """
        recorded = await self.owner()
        if recorded is None:
            record = _cluster_record(self.cluster, cluster_id)
            try:
                await self._write(cluster_key(self.cluster), record, None)
                return
            except Conflict:  # somebody else was quicker: the same cluster, as a rule
                recorded = await self.owner()
        if recorded != cluster_id:
            raise ClusterMismatch(
                f"the archive {self.cluster!r} is of Kafka cluster {recorded}, but the brokers are of {cluster_id}. "
                "Give this cluster another name (cluster.name) or another archive"
            )

    async def owner(self) -> str | None:
        """The Kafka cluster id that claim() recorded, None if nothing was claimed. FormatError if it can't be read."""
        found = await self._read(cluster_key(self.cluster), _read_cluster_id)
        return found[0] if found is not None else None

    async def load(self, pid: PartitionId) -> VersionedManifest | None:
        """A partition's manifest, wherever it lies; None if nothing is archived of it. FormatError if it can't be read.

        What this archive has not may be in another one, so those must be reached before "nothing" is said.
        """
        home, found = await self._find(pid)
        if home is self:
            self._homes.pop(pid, None)
        else:
            self._homes[pid] = home
        return found

    async def _find(self, pid: PartitionId) -> tuple["Library", VersionedManifest | None]:
        here = self
        handed: Moved | None = None
        for _ in range(HOPS):
            found = await here.look(pid)
            if isinstance(found, VersionedManifest):
                return here, found
            if found is None and here is self:
                return await self._find_beside(pid)
            if found is None:
                raise FormatError(f"{pid} was moved to archive {here.name!r}, but nothing of it is there")
            if found.moved.manifest is not None:
                handed = found.moved
            elif handed is not None and handed.manifest is not None and handed.move == found.moved.move:
                return here, VersionedManifest(handed.manifest, found.version)  # for the next save() to replace
            here = here.beside(found.moved.to, pid)
        raise Unavailable(f"{pid} is being moved between archives, or they point at each other")

    async def _find_beside(self, pid: PartitionId) -> tuple["Library", VersionedManifest | None]:
        """In the other archives: its policy may have been changed without a move."""
        found = {other: await self._look_into(other, pid) for other in self.others}
        lying = [(other, each) for other, each in found.items() if isinstance(each, VersionedManifest)]
        if any(each != lying[0][1] for _, each in lying):
            names = " and in ".join(repr(other.name) for other, _ in lying)
            raise FormatError(f"{pid} is archived in {names}, and nothing says which counts")
        if lying:
            return lying[0]
        led = [other for other, each in found.items() if each is not None]
        return await led[0]._find(pid) if led else (self, None)

    async def _look_into(self, other: "Library", pid: PartitionId) -> VersionedManifest | VersionedMoved | None:
        try:
            return await other.look(pid)
        except StoreError as error:
            raise Unavailable(
                f"{pid} is not in archive {self.name!r}, and whether it is in {other.name!r} can't be seen: {error}. "
                f"If {other.name!r} is given up, take it out of the configuration"
            ) from error

    def beside(self, name: str, pid: PartitionId) -> "Library":
        """The archive of that name, into which `pid` was moved. ArchiveError if it isn't in the configuration."""
        if name not in self._all:
            raise ArchiveError(
                f"{pid} was moved to archive {name!r}, which is not in this configuration: add it under archives"
            )
        return self._all[name]

    async def look(self, pid: PartitionId) -> VersionedManifest | VersionedMoved | None:
        """What is in the place of a partition's manifest in this archive. FormatError if it can't be read."""
        kept = self._kept.get(pid)
        version = kept.found.version if kept is not None else None
        found = await self._read(manifest_key(self.cluster, pid), partial(self._manifest_of, pid), version)
        if found is None:
            return None
        manifest, version, size = found
        if manifest is None:
            assert kept is not None
            return kept.found
        if isinstance(manifest, Moved):
            return VersionedMoved(manifest, version)
        return self._keep(pid, VersionedManifest(manifest, version), size)

    async def save(self, pid: PartitionId, manifest: Manifest, version: str | None) -> VersionedManifest:
        """Replace the manifest of that version, where load() found it; None for the partition's first one.

        What was saved may differ from `manifest` in one thing: older entries may be in pages now. Go on with the
        saved one, as with the other they would be moved again.
        Conflict if somebody else was quicker, or if we were and the store's answer got lost: load and look.
        """
        return await self.home(pid).put_manifest(pid, manifest, version)

    async def put_manifest(self, pid: PartitionId, manifest: Manifest, version: str | None) -> VersionedManifest:
        """As save(), but into this archive, wherever the partition lies."""
        self._check_owner(pid, manifest)
        manifest = await self.spilled(manifest)
        long = len(manifest.segments) + len(manifest.pages) > LONG_SEGMENTS
        data = await asyncio.to_thread(manifest.to_json) if long else manifest.to_json()
        stored = await self._write(manifest_key(self.cluster, pid), data, version)
        return self._keep(pid, VersionedManifest(manifest, stored), len(data))

    async def put_moved(self, pid: PartitionId, moved: Moved, version: str | None) -> VersionedMoved:
        """Put that into the manifest's place in this archive, as put_manifest()."""
        long = moved.manifest is not None and len(moved.manifest.segments) > LONG_SEGMENTS
        data = await asyncio.to_thread(moved.to_json) if long else moved.to_json()
        return VersionedMoved(moved, await self._write(manifest_key(self.cluster, pid), data, version))

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

    # -- segments -------------------------------------------------------------------------------------------------

    async def referenced(self, manifest: Manifest) -> set[str]:
        """Names of all objects in the partition's folder that are needed: what is not among them is garbage."""
        return manifest.referenced() | {entry.key_name async for entry in self.segments(manifest)}

    def segment_key(self, pid: PartitionId, entry: SegmentEntry) -> str:
        """Where a segment lies in the store."""
        return partition_prefix(self.cluster, pid) + entry.key_name

    async def read_back(self, pid: PartitionId, entry: SegmentEntry) -> str | None:
        """Read a stored segment whole: None if it is what `entry` says, else what is wrong with it."""
        key = self.segment_key(pid, entry)
        digest = sha256()
        try:
            size = await self.home(pid).store.size(key)
            for start in range(0, entry.stored_size, READ_BACK_BYTES):
                end = min(start + READ_BACK_BYTES, entry.stored_size)
                part = await self.home(pid).store.get_range(key, start, end)
                await asyncio.to_thread(digest.update, part)
        except (NotFound, Truncated) as error:
            return f"it can't be read back: {error}"
        if size != entry.stored_size:
            return f"it has {size} bytes in the store, not {entry.stored_size}"
        return None if digest.hexdigest() == entry.sha256 else "the bytes read back are not those written"

    async def load_index(self, pid: PartitionId, entry: SegmentEntry) -> SegmentIndex:
        """A segment's index, by one ranged read. NotFound; FormatError or Truncated if it is not what it should be."""
        key = self.segment_key(pid, entry)
        start = entry.stored_size - entry.index_size
        index = read_index(await self.home(pid).store.get_range(key, start, entry.stored_size))
        about = SegmentInfo(self.cluster, pid.topic, pid.topic_id, pid.partition)
        if index.about != about or (index.base_offset, index.last_offset) != (entry.base_offset, entry.last_offset):
            found = f"{index.about.topic}-{index.about.partition}, offsets {index.base_offset} to {index.last_offset}"
            raise FormatError(f"{key} holds another segment: of {found}")
        return index

    async def _read(
        self, key: str, parse: Callable[[bytes], T], known: str | None = None
    ) -> tuple[T | None, str, int] | None:
        """A document, its version and size in bytes; None if it is not there, only its version if that is `known`.

        FormatError if it is damaged, again and again.
        """
        for last in (*[False] * (TRIES - 1), True):
            try:
                found = await self.store.get(key)
            except NotFound:
                return None
            if found.version == known:  # of the same bytes, as the store promises
                return None, found.version, len(found.data)
            try:
                long = len(found.data) > LONG_BYTES
                value = await asyncio.to_thread(parse, found.data) if long else parse(found.data)
            except FormatError as error:
                DAMAGED_READS.labels("document").inc()
                if last:
                    raise type(error)(f"{key}: {error}") from error
            else:
                return value, found.version, len(found.data)
        raise AssertionError("the last try returns or raises")

    async def _write(self, key: str, data: bytes, version: str | None) -> str:
        """put_if() and a look at what the store has now: not every store compares checksums."""
        for _ in range(TRIES):
            version = await self.store.put_if(key, data, version)
            found = await self.store.get(key)
            if found.data == data or found.version != version:  # of the next writer, who has read ours
                return version
            DAMAGED_READS.labels("document").inc()
        raise Unavailable(f"{key}: the store does not give back what is written to it")

    def _manifest_of(self, pid: PartitionId, data: bytes) -> Manifest | Moved:
        found = read_manifest(data)
        manifest = found.manifest if isinstance(found, Moved) else found
        if manifest is not None:
            self._check_owner(pid, manifest)
        return found

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
    return sealed(json.dumps(record, indent=2).encode() + b"\n")


def _read_cluster_id(data: bytes) -> str:
    fields = Fields.of_document(data, "the record of the cluster", CLUSTER_FORMAT, CLUSTER_VERSION)
    fields.text("cluster")
    cluster_id = fields.text("cluster_id")
    fields.finish()
    return cluster_id
