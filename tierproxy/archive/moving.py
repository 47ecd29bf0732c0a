"""Bring a partition's archive from one store to another, while it is read and goes on growing.

At every moment one manifest is the truth, and whoever looks into either archive is led to it:

    step            in the old archive              in the new archive          the truth
    ──────────────────────────────────────────────────────────────────────────────────────────────
                    manifest                        nothing                     the old manifest
    1 announce      manifest                        "look into the old one"     the old manifest
    2 copy          manifest                        the same, and the objects   the old manifest
    3 hand over     "look into the new one", and    the same                    the one handed over
                    in it the manifest, fenced
    4 take over     the same                        manifest                    the new manifest
    5 let go        "look into the new one"         manifest                    the new manifest

Each step is one conditional write, so a crash leaves the state before it or after it, and whoever begins again goes on
from there. Step 3 is the one that decides: it replaces the very manifest all of whose objects are copied, or it
conflicts, because an archiver or a user has changed it meanwhile, and the rest is copied first. What is handed over is
behind a fence (Manifest.with_fence): an archiver's segment or a merged one may just have been put into the old archive,
and a commit that is repeated after its conflict would name it in the new one, where it is not. After it nobody waits
for step 4: the next one who writes (an archiver's commit, a user's deletion) replaces the announcement by a manifest,
as this does.

Announcement and handing over carry the name of the move. Without it, a partition that is moved back and forth could be
taken for one that has just been handed over.

Objects in the old archive stay: readers may still have its manifest in hand.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple, cast
from uuid import uuid4

from tierproxy.archive.errors import ArchiveError, FormatError
from tierproxy.archive.library import Library, VersionedManifest, VersionedMoved
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.moved import Moved
from tierproxy.archive.names import PartitionId, partition_prefix
from tierproxy.archive.store import Conflict, NotFound, Store, Truncated

log = logging.getLogger("tierproxy.archive")

PART_BYTES = 8 << 20
AT_ONCE = 4
"""Objects that are copied at the same time."""
IN_MEMORY = 16 << 20
"""Bytes of an object beyond which it is on its way in a file."""


class CantMove(ArchiveError):
    """The two archives are not such that a partition could be moved from the one to the other."""


class Move:
    """One partition on its way from `source` to `target`."""

    def __init__(
        self,
        source: Library,
        target: Library,
        pid: PartitionId,
        *,
        storage_class: str | None = None,
        spool: Path | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`storage_class` is of the segments in `target`, `spool` a directory for objects on their way.

        `progress` is told the bytes of each object that has arrived.
        """
        self._source = source
        self._target = target
        self._pid = pid
        self._storage_class = storage_class
        self._spool = str(spool) if spool is not None else None
        self._progress = progress
        self._there: set[str] = set()  # keys of objects that were seen whole in the target

    async def run(self) -> Manifest:
        """Do what is left to do. The manifest as it is in `target` afterwards.

        Raises CantMove, FormatError if what is to be copied is damaged, ClusterMismatch, StoreError.
        """
        while True:
            here, there = await self._source.look(self._pid), await self._target.look(self._pid)
            if isinstance(here, VersionedManifest):
                await self._target.claim(here.manifest.cluster_id)
                move = await self._announce(there)
                if not await self._copied(here):
                    continue
                handed = Moved(self._target.name, move, here.manifest.with_fence())
                try:
                    await self._source.put_moved(self._pid, handed, here.version)
                except Conflict:
                    log.info("%s has changed meanwhile; copying the rest", self._pid)
                continue
            if here is None or here.moved.to != self._target.name:
                elsewhere = f"it was moved to {here.moved.to!r}" if here is not None else "nothing of it is there"
                raise CantMove(f"{self._pid} can't be moved from {self._source.name!r}: {elsewhere}")
            if isinstance(there, VersionedMoved):
                there = await self._take_over(here.moved, there)
            if there is None:
                raise CantMove(f"{self._pid} was moved to {self._target.name!r}, but nothing is there any more")
            if here.moved.manifest is not None:
                await self._let_go(here)
            return there.manifest

    async def _announce(self, there: VersionedManifest | VersionedMoved | None) -> str:
        """Step 1: whoever looks into the new archive first is sent to the old one. The name of the move."""
        if isinstance(there, VersionedManifest):
            raise CantMove(
                f"{self._pid} is archived in {self._source.name!r} and in {self._target.name!r} as well: nobody can "
                "say which is the truth"
            )
        if there is not None and there.moved == Moved(self._source.name, there.moved.move) and there.moved.move:
            return there.moved.move  # what was begun before
        move = uuid4().hex
        announced = Moved(self._source.name, move)
        try:
            await self._target.put_moved(self._pid, announced, there.version if there is not None else None)
        except Conflict as error:
            raise CantMove(f"{self._pid}: somebody else moves it, or archives it in {self._target.name!r}") from error
        return move

    async def _take_over(self, handed: Moved, announced: VersionedMoved) -> VersionedManifest:
        """Step 4. Somebody else may do it as well, and go on from there."""
        if handed.manifest is None or announced.moved != Moved(self._source.name, handed.move):
            raise CantMove(f"{self._pid}: {self._source.name!r} and {self._target.name!r} point at each other")
        manifest = replace(handed.manifest, generation=handed.manifest.generation + 1)
        try:
            return await self._target.put_manifest(self._pid, manifest, announced.version)
        except Conflict:
            found = await self._target.look(self._pid)
            if not isinstance(found, VersionedManifest):
                raise CantMove(f"{self._pid}: somebody else moves it too") from None
            return found

    async def _let_go(self, here: VersionedMoved) -> None:
        """Step 5: without the manifest, which is only longer to read."""
        with suppress(Conflict):  # somebody else has done it
            await self._source.put_moved(self._pid, Moved(self._target.name, ""), here.version)

    # ---- objects -----------------------------------------------------------------------------------------------

    async def _copied(self, here: VersionedManifest) -> bool:
        """Step 2: have every object that the manifest names in the target, and see it there.

        False if some are gone because the manifest has changed.
        """
        try:
            await self._copy(here.manifest)
        except NotFound:
            now = await self._source.look(self._pid)
            if isinstance(now, VersionedManifest) and now.version == here.version:
                raise
            return False
        return True

    async def _copy(self, manifest: Manifest) -> None:
        missing = [each for each in await _objects(self._source, manifest) if each.name not in self._there]
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            results = await asyncio.gather(*(self._bring(each) for each in some), return_exceptions=True)
            for result in results:
                if result is not None:
                    raise result

    async def _bring(self, wanted: "_Object") -> None:
        key = partition_prefix(self._source.cluster, self._pid) + wanted.name
        if not await _holds(self._target.store, key, wanted):
            with cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY, dir=self._spool)) as file:  # the stubs say IO[bytes]
                if await _read(self._source.store, key, file) != wanted.sha256:
                    raise FormatError(f"{key} in archive {self._source.name!r} is damaged; nothing was changed")
                await asyncio.to_thread(file.seek, 0)
                await self._target.store.put(key, file, self._storage_class, wanted.sha256)
            if not await _holds(self._target.store, key, wanted):
                raise FormatError(f"{key} does not come back from archive {self._target.name!r} as it was written")
        self._there.add(wanted.name)
        self._progress(wanted.size)


class _Object(NamedTuple):
    """An object that a manifest names: its name below the partition's folder, SHA-256 in hex, bytes (0: few)."""

    name: str
    sha256: str
    size: int


async def _objects(library: Library, manifest: Manifest) -> list[_Object]:
    """All that a manifest names."""
    named = [entry async for entry in library.segments(manifest)]
    named += [entry for each in manifest.quarantined for entry in each.segments]
    objects = [_Object(entry.key_name, entry.sha256, entry.stored_size) for entry in named]
    return objects + [_Object(page.name, page.sha256, 0) for page in manifest.pages]


async def _holds(store: Store, key: str, wanted: _Object) -> bool:
    """Whether the object is there, byte by byte."""
    try:
        return await _read(store, key, None) == wanted.sha256
    except (NotFound, Truncated):
        return False


async def _read(store: Store, key: str, into: BinaryIO | None) -> str:
    """The SHA-256 of an object, in hex, and its bytes into a file."""
    digest = hashlib.sha256()
    size = await store.size(key)
    for start in range(0, size, PART_BYTES):
        part = await store.get_range(key, start, min(start + PART_BYTES, size))
        await asyncio.to_thread(digest.update, part)
        if into is not None:
            await asyncio.to_thread(into.write, part)
    return digest.hexdigest()
