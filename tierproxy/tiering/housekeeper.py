"""Upkeep of the partitions that this process archives: what expired goes, small segments are merged, garbage removed.

What is to be done is decided in `archive.retention` and `archive.upkeep`; here it is carried out, one partition after
the other, so gently that copying doesn't notice: one merge at a time, and after each a rest of several times what it
took. Every change is one compare-and-swap of the manifest, the object goes later, and whoever loses a race looks again.

The copiers of this process and others go on meanwhile: to them a manifest whose older part has changed is no trouble
(`Manifest.continues_like`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tierproxy import telemetry
from tierproxy.archive.collector import collect
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId
from tierproxy.archive.retention import Expiry
from tierproxy.archive.store import Conflict, Refused
from tierproxy.archive.upkeep import MergePlan, MergeRules, next_collection_ms, plan_merge
from tierproxy.clock import Clock
from tierproxy.config import ArchiverConfig, TopicPolicy
from tierproxy.config.settings import Settings
from tierproxy.config.units import format_size
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.around import ArchiveObserver, partition_troubles
from tierproxy.tiering.merger import join

log = logging.getLogger("tierproxy.upkeep")

REST = 4
REST_MOST = 300.0
"""How many times as long as a merge took nothing is merged afterwards, and at most how many seconds."""
MERGES_IN_A_ROW = 16
"""Of one partition, before the others have their turn."""
MERGE_AGAIN = 3_600.0
"""Seconds until a merge that failed is tried again."""
LOOKED_AT = 5_000
"""Entries of a manifest in memory at a time."""
COMMIT_TRIES = 10
SHARE = 10
"""A merged segment is at most this part of what `keep_in_archive` keeps: it expires as a whole."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A partition to look after. `log_start` is where its leader's log begins, as last heard; -1: not known."""

    pid: PartitionId
    policy: TopicPolicy
    archive: str
    library: Library
    log_start: int


class Housekeeper:
    """`run` it as a task. `charges` says each time which partitions are ours to look after."""

    def __init__(
        self,
        charges: Callable[[], Sequence[Charge]],
        settings: Settings,
        clock: Clock,
        observer: ArchiveObserver,
        troubles: OncePerChange,
    ) -> None:
        self._charges = charges
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._troubles = troubles
        self._look_from: dict[PartitionId, tuple[TopicPolicy, int]] = {}  # nothing below can be merged, by this policy
        self._merge_not_before: dict[PartitionId, float] = {}
        self._collect_at: dict[PartitionId, int] = {}  # ms since 1970

    async def run(self) -> None:
        """Look after all of them again and again, for ever."""
        while True:
            again = False
            charges = self._charges()
            self._forget_all_but({charge.pid for charge in charges})
            for charge in charges:
                merges = 0
                while merges < MERGES_IN_A_ROW and await self.visit(charge):
                    merges += 1
                again |= merges == MERGES_IN_A_ROW
            await asyncio.sleep(0 if again else self._rules.upkeep_interval_ms / 1000)

    async def visit(self, charge: Charge) -> bool:
        """Look after one partition once; whether there may be more to merge right away."""
        key = f"upkeep {charge.archive}"
        try:
            found = await charge.library.load(charge.pid)
            charge = replace(charge, library=charge.library.home(charge.pid))  # it may have been moved
            if found is not None:
                found = await self._expire(charge, found)
            merged = found is not None and await self._merge(charge, found)
            await self._collect(charge)
        except TierproxyError as error:
            self._troubles.began(key, f"archive {charge.archive} can't be kept in order: {error}; trying again")
            return False
        self._troubles.ended(key, f"archive {charge.archive} is kept in order again")
        return merged

    @property
    def _rules(self) -> ArchiverConfig:
        return self._settings.now.archiver

    # ---- expiry --------------------------------------------------------------------------------------------

    async def _expire(self, charge: Charge, found: VersionedManifest) -> VersionedManifest | None:
        """Raise the archive's start to what `keep_in_archive` keeps; the manifest as it is afterwards."""
        pid, library, keep = charge.pid, charge.library, charge.policy.keep_in_archive
        current: VersionedManifest | None = found
        while current is not None and (keep.time_ms is not None or keep.bytes is not None):
            manifest = current.manifest
            expiry = Expiry(manifest, keep.time_ms, keep.bytes, self._clock.now_ms(), charge.log_start)
            async for entry in library.segments(manifest):
                if not expiry.goes(entry):
                    break
            if expiry.point <= manifest.start_offset:
                break
            try:
                current = await library.save(pid, manifest.with_start(expiry.point), current.version)
            except Conflict:
                current = await library.load(pid)
                continue
            telemetry.SEGMENTS_EXPIRED.inc(expiry.segments)
            telemetry.EXPIRED_BYTES.inc(expiry.plain_bytes)
            log.info(
                "%s: %d segments with %s of log have expired; the archive starts at %d now",
                pid,
                expiry.segments,
                format_size(expiry.plain_bytes),
                expiry.point,
            )
            self._observer.committed(pid, current.manifest)
            break
        return current

    # ---- merging -------------------------------------------------------------------------------------------

    async def _merge(self, charge: Charge, found: VersionedManifest) -> bool:
        """Merge once, if there is something to merge; whether it was done."""
        pid, library, began = charge.pid, charge.library, self._clock.monotonic()
        if not self._rules.merge or began < self._merge_not_before.get(pid, began):
            return False
        plan = await self._plan(charge, found.manifest)
        if not plan.run:
            return False
        trouble = partition_troubles(pid) + "merge"
        try:
            merged = await join(
                library,
                pid,
                plan.run,
                charge.policy.compression,
                self._rules.spool,
                charge.policy.storage_class,
                recompress=charge.policy.recompress,
            )
        except (TierproxyError, OSError) as error:
            self._merge_not_before[pid] = began + MERGE_AGAIN
            self._troubles.began(trouble, f"{pid}: segments can't be merged: {error}; they stay as they are")
            return False
        self._troubles.ended(trouble, f"{pid}: segments are merged again")
        if await self._name_merged(charge, found, plan.run, merged):
            telemetry.SEGMENTS_MERGED.inc(len(plan.run))
            telemetry.MERGED_BYTES.inc(merged.plain_size)
            log.info(
                "%s: merged %d segments, offsets %d to %d, %s as %s",
                pid,
                len(plan.run),
                merged.base_offset,
                merged.last_offset,
                format_size(merged.plain_size),
                format_size(merged.stored_size),
            )
        await asyncio.sleep(min(REST * (self._clock.monotonic() - began), REST_MOST))
        return True

    async def _plan(self, charge: Charge, manifest: Manifest) -> MergePlan:
        """Some thousand segments at a time, as there may be a million."""
        while True:
            policy, look_from = self._look_from.get(charge.pid, (charge.policy, 0))
            if policy != charge.policy:
                look_from = 0
            entries: list[SegmentEntry] = []
            async for entry in charge.library.segments(manifest, look_from):
                entries.append(entry)
                if len(entries) == LOOKED_AT:
                    break
            plan = await asyncio.to_thread(plan_merge, entries, manifest.gaps, self._merge_rules(charge))
            self._look_from[charge.pid] = charge.policy, plan.look_from
            if plan.run or len(entries) < LOOKED_AT or plan.look_from <= look_from:
                return plan

    def _merge_rules(self, charge: Charge) -> MergeRules:
        policy, keep = charge.policy, charge.policy.keep_in_archive
        # A segment is trimmed as a whole: what the brokers shall keep for a time is not made coarser before it is gone.
        by_time = policy.trim == "delete-records" and policy.keep_on_broker.time_ms is not None
        return MergeRules(
            most_bytes=min(
                policy.segment.bytes, keep.bytes // SHARE if keep.bytes is not None else policy.segment.bytes
            ),
            settled_ms=self._clock.now_ms() - self._rules.merge_after_ms,
            below=charge.log_start if by_time else None,
            most_span_ms=keep.time_ms // SHARE if keep.time_ms is not None else None,
        )

    async def _name_merged(
        self, charge: Charge, found: VersionedManifest, run: Sequence[SegmentEntry], merged: SegmentEntry
    ) -> bool:
        """Put the merged segment in the place of its parts; False if it can't be any more, and is garbage."""
        pid, library, fence = charge.pid, charge.library, found.manifest.fence
        current: VersionedManifest | None = found
        for _ in range(COMMIT_TRIES):
            if current is None or current.manifest.fence != fence:  # perhaps it has been removed already
                return False
            if library.home(pid) is not library:  # it was moved, and the merged segment is not where it lies now
                return False
            try:
                saved = await library.save(pid, await library.merging(current.manifest, run, merged), current.version)
            except ContinuityError:  # expired or deleted meanwhile; or ours, and the store's answer got lost
                return merged.key_name in await library.referenced(current.manifest)
            except Conflict:
                current = await library.load(pid)
                continue
            self._observer.committed(pid, saved.manifest)
            return True
        return False

    # ---- garbage -------------------------------------------------------------------------------------------

    async def _collect(self, charge: Charge) -> None:
        """Look for garbage, if it is time."""
        pid, now_ms = charge.pid, self._clock.now_ms()
        due = self._collect_at.setdefault(pid, next_collection_ms(pid, now_ms))
        if now_ms < due:
            return
        self._collect_at[pid] = next_collection_ms(pid, now_ms)
        rules, trouble = self._rules.garbage, f"garbage {charge.archive}"
        try:
            found = await collect(charge.library, pid, now_ms, rules.grace_ms, delete=rules.delete)
        except Refused as error:
            self._troubles.began(
                trouble,
                f"garbage can't be removed from archive {charge.archive}: {error}. Let tierproxy delete there, or set "
                "archiver.garbage.delete to false",
            )
            return
        if found.removed:
            self._troubles.ended(trouble, f"garbage can be removed from archive {charge.archive} again")
        telemetry.GARBAGE_FOUND.inc(found.removed + found.ripe)
        telemetry.GARBAGE_REMOVED.inc(found.removed)
        telemetry.GARBAGE_REMOVED_BYTES.inc(found.removed_bytes)
        if found.removed:
            log.info(
                "%s: removed %d objects that nothing needs, %s", pid, found.removed, format_size(found.removed_bytes)
            )
        if found.ripe:
            log.info(
                "%s: %d objects of %s are not needed by anything and stay, as archiver.garbage.delete is false",
                pid,
                found.ripe,
                format_size(found.ripe_bytes),
            )

    def _forget_all_but(self, ours: set[PartitionId]) -> None:
        known: dict[PartitionId, Any]
        for known in (self._look_from, self._merge_not_before, self._collect_at):
            for pid in [pid for pid in known if pid not in ours]:
                del known[pid]
