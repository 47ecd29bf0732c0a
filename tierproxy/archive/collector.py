"""Garbage collection: objects of a partition that no manifest names are removed, each after a grace time.

The order is what makes it safe:

    list the folder ─► load the manifest ─► what is not named, for long enough? ─► FENCE ─► remove

An archiver may sleep between having verified a segment and naming it, for longer than any grace time; and when it
wakes up, commit, and trim the broker, the segment must not be gone. So before anything is removed the manifest gets a
fence (Manifest.with_fence) by compare-and-swap. Whoever wrote an object that was listed has either named it before the
fence, and then it is not removed; or meets the fence, and starts again with another object.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.names import PartitionId, garbage_key, partition_prefix
from tierproxy.archive.store import Conflict, NotFound, ObjectInfo
from tierproxy.archive.upkeep import Sightings, sort_out

TURN = 1_000

log = logging.getLogger("tierproxy.archive")


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of it, in objects and bytes. `removed` are gone, `ripe` could have been removed, `waiting` not yet."""

    removed: int = 0
    removed_bytes: int = 0
    ripe: int = 0
    ripe_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(
            self.removed + other.removed,
            self.removed_bytes + other.removed_bytes,
            self.ripe + other.ripe,
            self.ripe_bytes + other.ripe_bytes,
            self.waiting + other.waiting,
            self.waiting_bytes + other.waiting_bytes,
        )


async def collect(
    library: Library, pid: PartitionId, now_ms: int, grace_ms: int, *, delete: bool = True, remember: bool = True
) -> Collected:
    """Look through a partition's folder once. A folder without a manifest is left alone, and so is that of a partition
    that lies, or was moved meanwhile, elsewhere: what is left there is for a person to remove.

    Without `delete` garbage is only counted; without `remember` not even written down as seen. Raises StoreError, and
    FormatError when the manifest can't be read.
    """
    prefix = partition_prefix(library.cluster, pid)
    listed: list[tuple[str, ObjectInfo]] = []
    async for each in library.store.list(prefix):
        listed.append((each.key[len(prefix) :], each))
        if len(listed) % TURN == 0:
            await asyncio.sleep(0)  # clients have their turn
    found = await library.load(pid)
    if found is None or library.home(pid) is not library:
        return Collected()
    seen, version = await _sightings(library, pid)
    named = await library.referenced(found.manifest)
    garbage = await asyncio.to_thread(sort_out, listed, named, seen, now_ms, grace_ms)
    ripe = garbage.ripe
    if remember and garbage.sightings != seen:
        version = await _remember(library, pid, garbage.sightings, version)
    if not ripe or not delete:
        return _count((), ripe, garbage.waiting)
    fenced = await _put_up_fence(library, pid, found)
    if fenced is None:
        return _count((), ripe, garbage.waiting)
    named = await library.referenced(fenced.manifest)
    removed = [each for each in ripe if each.key[len(prefix) :] not in named]
    for each in removed:
        await library.store.delete(each.key)
    gone = {each.key[len(prefix) :] for each in removed}
    if remember:
        left = {name: since for name, since in garbage.sightings.since.items() if name not in gone}
        await _remember(library, pid, Sightings(left), version)
    return _count(removed, (), garbage.waiting)


async def _put_up_fence(library: Library, pid: PartitionId, found: VersionedManifest) -> VersionedManifest | None:
    """The manifest with a fence that was put up now; None if it has gone away meanwhile, or elsewhere."""
    current: VersionedManifest | None = found
    while current is not None and library.home(pid) is library:
        try:
            return await library.save(pid, current.manifest.with_fence(), current.version)
        except Conflict:
            current = await library.load(pid)
    return None


async def _sightings(library: Library, pid: PartitionId) -> tuple[Sightings, str | None]:
    """The document, and its version for replacing it."""
    key = garbage_key(library.cluster, pid)
    try:
        found = await library.store.get(key)
    except NotFound:
        return Sightings(), None
    try:
        return Sightings.from_json(found.data), found.version
    except FormatError as error:
        log.warning("%s: %s; it is begun anew, which makes garbage wait for another grace time", key, error)
        return Sightings(), found.version


async def _remember(library: Library, pid: PartitionId, sightings: Sightings, version: str | None) -> str | None:
    """Write the document. Somebody else at it is no harm: what one of two doesn't remember waits a little longer."""
    try:
        data = await asyncio.to_thread(sightings.to_json)
        return await library.store.put_if(garbage_key(library.cluster, pid), data, version)
    except Conflict:
        return version


def _count(removed: Iterable[ObjectInfo], ripe: Iterable[ObjectInfo], waiting: Iterable[ObjectInfo]) -> Collected:
    gone, ready, later = list(removed), list(ripe), list(waiting)
    return Collected(
        len(gone),
        sum(each.size for each in gone),
        len(ready),
        sum(each.size for each in ready),
        len(later),
        sum(each.size for each in later),
    )
