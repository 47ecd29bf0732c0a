"""What a partition's manifest must have said, told from its segments alone.

Not every segment in a folder is part of the archive: two archivers may have raced, small ones may have been merged
into a larger one, some may have expired, and none of those need be collected yet. Where a leader epoch is seen at or
behind the beginning of a higher one, history was rewritten, and the lower epoch's is disowned: quarantined, as it had
been in the manifest that is lost (see `rewound`), or was about to be. Of the others those are chosen that
do not overlap and whose leader epochs do not go back, and of all such choices the one that covers most offsets; then
the one with the fewest breaks, the most records, the fewest segments (a merged one wins over its parts). What nobody
covers is recorded as lost, as nothing tells any more what became of it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tierproxy.archive.manifest import NO_EPOCH, Gap, Manifest, Quarantine
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment_entry import SegmentEntry

Range = tuple[int, int]
"""Offsets [start, end)."""

CAUSE = "no segment had it when the manifest was rebuilt: lost, or compacted away by the broker before it was archived"

REWRITTEN = "its history was rewritten, by its leader epochs: told when the manifest was rebuilt"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A segment that may be part of the archive, and the leader epochs in it."""

    entry: SegmentEntry
    epochs: tuple[tuple[int, int], ...]

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1][0] if self.epochs else NO_EPOCH

    def epoch_at(self, offset: int) -> int:
        """The leader epoch of its batch at `offset`, -1 if not known."""
        return max((epoch for epoch, start in self.epochs if start <= offset), default=NO_EPOCH)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The best choice that ends with one segment. Of two the one with the larger `worth` is better."""

    candidate: Candidate
    before: "_Chain | None"
    worth: tuple[int, int, int, int]  # offsets covered, -breaks, records, -segments
    epoch: int

    @classmethod
    def of(cls, candidate: Candidate, before: "_Chain | None") -> "_Chain":
        entry = candidate.entry
        covered, whole, records, fewer = before.worth if before is not None else (0, 0, 0, 0)
        covered += entry.last_offset + 1 - entry.base_offset
        whole -= before is not None and before.candidate.entry.last_offset + 1 != entry.base_offset
        epoch = candidate.last_epoch if candidate.epochs or before is None else before.epoch
        return cls(candidate, before, (covered, whole, records + entry.records, fewer - 1), epoch)


class _BestUpTo:
    """The best of the chains added so far whose epoch is not above a given one: a Fenwick tree over the epochs."""

    def __init__(self, epochs: Sequence[int]) -> None:
        self._epochs = epochs
        self._tree: list[_Chain | None] = [None] * (len(epochs) + 1)

    def add(self, chain: _Chain) -> None:
        at = bisect_right(self._epochs, chain.epoch)
        while at < len(self._tree):
            self._tree[at] = _better(self._tree[at], chain)
            at += at & -at

    def get(self, epoch: int) -> _Chain | None:
        at = bisect_right(self._epochs, epoch)
        best: _Chain | None = None
        while at:
            best = _better(best, self._tree[at])
            at -= at & -at
        return best


def _better(one: _Chain | None, other: _Chain | None) -> _Chain | None:
    """The one where they are equal: whoever came first stays."""
    if one is None or other is None:
        return one or other
    return other if other.worth > one.worth else one


def disowned(candidates: Iterable[Candidate]) -> set[str]:
    """Names of those that hold a history which was rewritten: another one has a higher epoch at an offset of theirs, or
    before, where the new history parted from theirs.
    """
    known = list(candidates)
    first: dict[int, int] = {}  # epoch → the lowest offset that it is seen at
    for each in known:
        for epoch, start in each.epochs:
            first[epoch] = min(start, first.get(epoch, start))
    parted: dict[int, int] = {}  # epoch → where a higher one begins
    lowest = 1 << 63
    for epoch in sorted(first, reverse=True):
        parted[epoch] = lowest
        lowest = min(lowest, first[epoch])
    names: set[str] = set()
    for each in known:
        ends = [start - 1 for _, start in each.epochs[1:]] + [each.entry.last_offset]
        for (epoch, _), end in zip(each.epochs, ends, strict=False):
            if epoch != NO_EPOCH and end >= parted[epoch]:
                names.add(each.entry.key_name)
    return names


def choose(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The segments to name, in order; the same ones in whatever order they are given. n log n steps."""
    ordered = sorted(candidates, key=lambda each: (each.entry.base_offset, each.entry.key_name))
    by_end = sorted(range(len(ordered)), key=lambda at: ordered[at].entry.last_offset)
    ended = _BestUpTo(sorted({NO_EPOCH, *(each.last_epoch for each in ordered)}))
    ends: dict[int, list[_Chain]] = {}
    chains: list[_Chain] = []
    best: _Chain | None = None
    after = 0
    for each in ordered:
        base = each.entry.base_offset
        while after < len(by_end) and ordered[by_end[after]].entry.last_offset < base:
            ended.add(chains[by_end[after]])
            after += 1
        highest = each.epochs[0][0] if each.epochs else 1 << 63
        neighbours = [chain for chain in ends.get(base - 1, ()) if chain.epoch <= highest]
        chain: _Chain | None = None
        for before in (*neighbours, ended.get(highest)):
            chain = _better(chain, _Chain.of(each, before))
        assert chain is not None
        chains.append(chain)
        ends.setdefault(each.entry.last_offset, []).append(chain)
        best = _better(best, chain)
    chosen: list[Candidate] = []
    while best is not None:
        chosen.append(best.candidate)
        best = best.before
    return chosen[::-1]


def covered(chosen: Sequence[Candidate]) -> int:
    """How many offsets they cover."""
    return sum(each.entry.last_offset + 1 - each.entry.base_offset for each in chosen)


def uncovered(chosen: Sequence[Candidate], start: int, end: int, known: Sequence[Gap] = ()) -> list[Range]:
    """What of [start, end) is neither in a segment nor in a gap that is known of."""
    spans = [(each.entry.base_offset, each.entry.last_offset + 1) for each in chosen]
    missing: list[Range] = []
    for first, stop in sorted([*spans, *((gap.start, gap.end) for gap in known), (end, end)]):
        if start < min(first, end):
            missing.append((start, min(first, end)))
        start = max(start, stop)
    return missing


def rebuilt(
    cluster: str,
    cluster_id: str,
    pid: PartitionId,
    chosen: Sequence[Candidate],
    now_ms: int,
    rewritten: Sequence[Candidate] = (),
) -> Manifest:
    """A manifest that names `chosen`, of which there must be at least one, and has `rewritten` in quarantine.

    It begins with the first segment, whatever had been deleted or expired. Its generation is the time, which is above
    what any manifest before has counted to.
    """
    start, end = chosen[0].entry.base_offset, chosen[-1].entry.last_offset + 1
    epochs: list[tuple[int, int]] = []
    for each in chosen:
        epochs += [row for row in each.epochs if not epochs or row[0] > epochs[-1][0]]
    gaps = tuple(Gap(first, stop, now_ms, CAUSE) for first, stop in uncovered(chosen, start, end))
    return replace(
        Manifest.empty(cluster, cluster_id, pid, start),
        quarantined=(_quarantine(rewritten, now_ms),) if rewritten else (),
        end_offset=end,
        segments=tuple(each.entry for each in chosen),
        epochs=tuple(epochs),
        gaps=gaps,
        generation=now_ms,
    )


def _quarantine(rewritten: Sequence[Candidate], now_ms: int) -> Quarantine:
    entries = sorted((each.entry for each in rewritten), key=lambda entry: (entry.base_offset, entry.key_name))
    start, end = entries[0].base_offset, max(entry.last_offset for entry in entries) + 1
    return Quarantine(start, end, now_ms, REWRITTEN, (), (), tuple(entries))
