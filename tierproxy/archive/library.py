"""One cluster's archive in one store: manifests and segments by partition, not by key.

A manifest grows by a line for each segment and is asked for again and again, mostly unchanged. So what was read or
written last is kept beside its version, and long ones are read and written in a thread.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256

from tierproxy.archive.errors import ClusterMismatch, FormatError
from tierproxy.archive.json_fields import Fields
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import (
    MANIFEST_FILE,
    PartitionId,
    cluster_key,
    cluster_prefix,
    manifest_key,
    parse_key,
    partition_prefix,
)
from tierproxy.archive.segment_index import SegmentIndex, SegmentInfo, read_index
from tierproxy.archive.store import Conflict, NotFound, Store, Truncated

CLUSTER_FORMAT = "tierproxy-cluster"
CLUSTER_VERSION = 1

READ_BACK_BYTES = 8 * 1024 * 1024

LONG_BYTES = 64 * 1024
LONG_SEGMENTS = LONG_BYTES // 400
"""A manifest beyond these is not read and written on the event loop; a segment's line has some 350 bytes."""
KEPT_BYTES = 64 * 1024 * 1024
"""Stored bytes of all the manifests that are kept; in memory they take about twice as much."""


@dataclass(frozen=True, slots=True)
class VersionedManifest:
    """A manifest as it is stored, and the version that save() must be given to replace it."""

    manifest: Manifest
    version: str


class Library:
    """The archive of the cluster that our configuration calls `cluster`. All methods may raise StoreError."""

    def __init__(self, store: Store, cluster: str) -> None:
        self.store = store
        self.cluster = cluster
        self._kept: OrderedDict[PartitionId, tuple[VersionedManifest, int]] = OrderedDict()  # and its stored size
        self._kept_bytes = 0

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
        if kept is not None and kept[0].version == found.version:  # of the same bytes, as the store promises
            self._kept.move_to_end(pid)
            return kept[0]
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

        Conflict if somebody else was quicker, or if we were and the store's answer got lost: load and look.
        """
        self._check_owner(pid, manifest)
        long = len(manifest.segments) > LONG_SEGMENTS
        data = await asyncio.to_thread(manifest.to_json) if long else manifest.to_json()
        stored = await self.store.put_if(manifest_key(self.cluster, pid), data, version)
        return self._keep(pid, VersionedManifest(manifest, stored), len(data))

    async def partitions(self) -> AsyncIterator[PartitionId]:
        """Every partition that has a manifest. Lists the whole archive: for tools only."""
        async for found in self.store.list(cluster_prefix(self.cluster)):
            if found.key.endswith(f"/{MANIFEST_FILE}"):
                try:
                    _, pid, name = parse_key(found.key)
                except FormatError:  # somebody else's file
                    continue
                if name == MANIFEST_FILE:
                    yield pid

    async def segments(self, manifest: Manifest, from_offset: int = 0) -> AsyncIterator[SegmentEntry]:
        """The segments that hold `from_offset` or what follows, in order: the way to walk through all of them."""
        for entry in manifest.segments:
            if entry.last_offset >= from_offset:
                yield entry

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
            size = await self.store.size(key)
            for start in range(0, entry.stored_size, READ_BACK_BYTES):
                end = min(start + READ_BACK_BYTES, entry.stored_size)
                part = await self.store.get_range(key, start, end)
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
        index = read_index(await self.store.get_range(key, start, entry.stored_size))
        about = SegmentInfo(self.cluster, pid.topic, pid.topic_id, pid.partition)
        if index.about != about or (index.base_offset, index.last_offset) != (entry.base_offset, entry.last_offset):
            found = f"{index.about.topic}-{index.about.partition}, offsets {index.base_offset} to {index.last_offset}"
            raise FormatError(f"{key} holds another segment: of {found}")
        return index

    def _keep(self, pid: PartitionId, found: VersionedManifest, size: int) -> VersionedManifest:
        """Instead of what was kept of the partition; those not asked for the longest make room."""
        before = self._kept.pop(pid, None)
        self._kept_bytes += size - (before[1] if before is not None else 0)
        self._kept[pid] = found, size
        while self._kept_bytes > KEPT_BYTES:
            _, (_, gone) = self._kept.popitem(last=False)
            self._kept_bytes -= gone
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
