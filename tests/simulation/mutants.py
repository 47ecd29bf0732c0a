"""Wrong versions of tierproxy, one line wrong each: the simulation must find every one of them within some seeds.

`python -m tests.simulation --mutant NAME --seeds 50` shows how.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from tierproxy.archive.errors import ClusterMismatch
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId, manifest_key
from tierproxy.archive.store import Conflict
from tierproxy.tiering.fsm import Machine
from tierproxy.tiering.history import Same
from tierproxy.tiering.leader import Leader
from tierproxy.tiering.publisher import Publisher
from tierproxy.tiering.steps import Commit, Committed, Conflicted, Verified


@dataclass(frozen=True)
class Mutant:
    """`patches` are (what, by what is replaced); `broken` matches what the simulation then says.

    `first` is a seed to begin with, where it takes rare events to show.
    """

    name: str
    patches: tuple[tuple[str, Any], ...]
    broken: str
    first: int = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with ExitStack() as stack:
            for target, replacement in self.patches:
                stack.enter_context(patch(target, replacement))
            yield


async def _yes(self: Publisher, offset: int, ours: Manifest) -> bool:
    return True


async def _no_check(self: Leader) -> None:
    return None


_claim = Library.claim


async def _claim_anyway(self: Library, cluster_id: str) -> None:
    with suppress(ClusterMismatch):
        await _claim(self, cluster_id)


async def _verified(self: Publisher) -> Verified:
    return Verified()


async def _save_anyway(self: Library, pid: PartitionId, manifest: Manifest, version: str | None) -> VersionedManifest:
    key = manifest_key(self.cluster, pid)
    await self.store.put(key, manifest.to_json())
    return VersionedManifest(manifest, (await self.store.get(key)).version)


_commit = Publisher.commit


async def _commit_over_others(self: Publisher, action: Commit) -> Committed | Conflicted:
    entry, epochs, fetched_at = self._entry, self._epochs, self._fetched_at
    event = await _commit(self, action)
    if isinstance(event, Conflicted):
        self._entry, self._epochs, self._fetched_at = entry, epochs, fetched_at
        found = await self._library.load(self._pid)
        self._version = found.version if found is not None else None
        event = await _commit(self, action)
    return event


async def _take_conflict_for_success(self: Publisher, action: Commit) -> Committed | Conflicted:
    entry, cluster = self._uploaded(), self._library.cluster
    base = action.manifest or Manifest.empty(cluster, self._cluster_id, self._pid, action.start_offset)
    manifest = base.with_segment(entry, self._epochs, fetched_at=self._fetched_at)
    try:
        saved = await self._library.save(self._pid, manifest, self._version)
    except Conflict:
        self._entry = None
        return Committed(manifest)
    return self._committed(saved)


def _trims(point: Callable[[Machine], int]) -> Callable[[Machine, int], int]:
    return lambda machine, now_ms: point(machine) if machine.manifest is not None else -1


_MACHINE = "tierproxy.tiering.fsm.Machine"
_PUBLISHER = "tierproxy.tiering.publisher.Publisher"
_LEADER = "tierproxy.tiering.leader.Leader"
_LIBRARY = "tierproxy.archive.library.Library"
_EYES_SHUT = (f"{_PUBLISHER}.holds", _yes)

MUTANTS = (
    Mutant(
        "trims what is copied but not committed",
        ((f"{_MACHINE}._trim_point", _trims(lambda machine: machine._next_offset)), _EYES_SHUT),
        "trimmed but not archived",
    ),
    Mutant(
        "trims one record too many",
        ((f"{_MACHINE}._trim_point", _trims(lambda machine: machine.archived_to + 1)), _EYES_SHUT),
        "trimmed but not archived|beyond the last stable offset",
    ),
    Mutant("does not read back what it stored", ((f"{_PUBLISHER}.verify", _verified),), "is not (there|what was)"),
    Mutant("commits without a condition", ((f"{_LIBRARY}.save", _save_anyway),), "follows|is changed|can't be read"),
    Mutant("commits again over what somebody else wrote", ((f"{_PUBLISHER}.commit", _commit_over_others),), "follows"),
    Mutant(
        "takes a conflict for its own success, and trims without a look",
        ((f"{_PUBLISHER}.commit", _take_conflict_for_success), _EYES_SHUT),
        "trimmed but not archived|another record",
    ),
    Mutant(
        "trims by name without asking whose name it is",
        ((f"{_LEADER}.check_topic", _no_check),),
        "trimmed but not archived|written off|has stopped|beyond",
        first=150,
    ),
    Mutant(
        "never asks whether history was rewritten",
        (
            ("tierproxy.tiering.leader.judge", lambda facts: Same()),
            ("tierproxy.tiering.worker.judge", lambda facts: Same()),
            ("tierproxy.tiering.fsm.judge", lambda facts: Same()),
        ),
        "has another record there|trimmed but not archived|is archived up to|has stopped",
    ),
    Mutant("believes every checksum", (("tierproxy.tiering.spool.crc_ok", lambda batch: True),), "no broker ever had"),
    Mutant(
        "forgets aborted transactions",
        (("tierproxy.archive.segment.SegmentWriter.note_aborted", lambda self, producer, first: None),),
        "is not told of aborted",
    ),
    Mutant(
        "works in another cluster's archive",
        ((f"{_LIBRARY}.claim", _claim_anyway),),
        "another partition or cluster|no broker ever had|follows|not archived|has stopped|written off|never was",
    ),
)
