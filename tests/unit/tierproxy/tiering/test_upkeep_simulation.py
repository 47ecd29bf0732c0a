"""The plays of test_fsm_simulation with a housekeeper in them, who merges, expires and collects garbage without any
grace, while archivers copy, die, and sleep between any two of their steps.

What must hold is the same, but for what has expired: every object that the manifest names is there and is what it was.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.unit.tierproxy.tiering.test_fsm_simulation import PID, Archiver, Died, Down, Play
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import segment_name
from tierproxy.archive.retention import Expiry
from tierproxy.tiering import steps


class FollowingArchiver(Archiver):
    """Its commits follow changes of what lies before, as the publisher's do."""

    def commit(self, action: steps.Commit) -> steps.Event:
        known = action.manifest or Manifest.empty("c", "id", PID, action.start_offset)
        own = self.version
        try:
            while isinstance(event := super().commit(action), steps.Conflicted):
                found = self.store.load()
                if found is None or found.generation == self.version or not found.continues_like(known):
                    return event
                self.play.followed += 1  # type: ignore[attr-defined]
                action, self.version = steps.Commit(found, action.start_offset), found.generation
        except Down:
            self.version = own  # of the manifest that the machine knows, and builds the next try on
            raise
        return event


class KeptPlay(Play):
    """One more turn now and then: the housekeeper's next step."""

    def __init__(self, seed: int, *, harsh: bool) -> None:
        super().__init__(seed, harsh=harsh)
        self.archivers = [FollowingArchiver(self, 0), FollowingArchiver(self, 1)]
        self.followed = self.merged = self.expired = self.removed = 0
        self.upkeep = self.keep_house()

    def everyone(self) -> None:
        if self.chance.random() < 0.2:
            next(self.upkeep)
            self.check_manifest()
            return
        archiver = self.chance.choice(self.archivers)
        try:
            archiver.turn()
        except Died:
            self.deaths += 1
            self.archivers[archiver.number] = FollowingArchiver(self, archiver.number)
        self.check_manifest()

    def keep_house(self) -> Iterator[None]:
        while True:
            work = self.chance.choice([self.merge, self.expire, self.collect])
            with suppress(Down):
                yield from work()
            yield

    def merge(self) -> Iterator[None]:
        known = self.store.load()
        if known is None or len(entries := self.entries(known)) < 3:
            return
        first = self.chance.randrange(len(entries) - 2)
        run = entries[first : first + 2]
        if run[0].last_offset + 1 != run[1].base_offset or known.gap_at(run[1].base_offset) is not None:
            return
        yield
        self.names += 1
        name = segment_name(run[0].base_offset, run[1].last_offset, f"m{self.names}")
        batches = self.store.objects[run[0].key_name] + self.store.objects[run[1].key_name]
        self.store.put(name, batches)
        yield
        if self.store.objects[name] != batches:
            return
        merged = joined(name, run)
        while (current := self.store.load()) is not None and current.fence == known.fence:
            yield
            try:
                if self.store.save(self.merging(current, run, merged), current.generation):
                    self.merged += 1
                    return
            except ContinuityError:
                return

    def expire(self) -> Iterator[None]:
        log_start = self.broker.start  # as last heard: it may be another one soon
        yield
        manifest = self.store.load()
        if manifest is None:
            return
        expiry = Expiry(manifest, self.chance.choice([0, 20_000]), None, self.now.ms, log_start)
        for entry in self.entries(manifest):
            if not expiry.goes(entry):
                break
        yield
        if expiry.point > manifest.start_offset:
            self.expired += self.store.save(manifest.with_start(expiry.point), manifest.generation)

    def collect(self) -> Iterator[None]:
        listed = set(self.store.objects)
        yield
        known = self.store.load()
        if known is None or not listed - self.needed(known):
            return
        yield
        while not self.store.save(known.with_fence(), known.generation):
            yield
            found = self.store.load()
            assert found is not None
            known = found
        # What was listed before the fence, and is not named behind it.
        assert self.store.manifest is not None
        for name in listed - self.needed(self.store.manifest):
            self.removed += self.store.objects.pop(name, None) is not None
            yield

    def entries(self, manifest: Manifest) -> tuple[SegmentEntry, ...]:
        """As Library.segments()."""
        return tuple(entry for entry in self.store.entries(manifest) if entry.last_offset >= manifest.start_offset)

    def needed(self, manifest: Manifest) -> set[str]:
        return manifest.referenced() | {entry.key_name for entry in self.store.entries(manifest)}

    def merging(self, manifest: Manifest, run: tuple[SegmentEntry, ...], merged: SegmentEntry) -> Manifest:
        """As Library.merging()."""
        entries = self.entries(manifest)
        at = next((at for at, entry in enumerate(entries) if entry == run[0]), len(entries))
        if entries[at : at + len(run)] != run:
            raise ContinuityError("they are not there any more")
        there = (*entries[:at], merged, *entries[at + len(run) :])
        return replace(manifest, pages=(), segments=there, generation=manifest.generation + 1)

    # ---- what must hold ------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        return self.store.manifest.start_offset if self.store.manifest is not None else 0

    def trim(self, offset: int) -> None:
        archived = dict(self.archived())
        for at, token in self.broker.tokens(self.broker.start, offset).items():
            if at >= self.start:
                assert archived.get(at) == token, f"offset {at} is trimmed but not archived"
                self.trimmed.add((at, token))
        self.broker.delete(offset)
        self.trims += 1

    def check_manifest(self) -> None:
        self.trimmed = {(offset, token) for offset, token in self.trimmed if offset >= self.start}
        super().check_manifest()


def joined(name: str, run: tuple[SegmentEntry, ...]) -> SegmentEntry:
    size = sum(part.plain_size for part in run)
    return SegmentEntry(
        key_name=name,
        base_offset=run[0].base_offset,
        last_offset=run[-1].last_offset,
        stored_size=size,
        plain_size=size,
        index_size=10,
        records=sum(part.records for part in run),
        min_timestamp=min(part.min_timestamp for part in run),
        max_timestamp=max(part.max_timestamp for part in run),
        sha256="0" * 64,
        created_ms=max(part.created_ms for part in run),
    )


@pytest.mark.parametrize("seed", range(300))
def test_upkeep_loses_nothing(seed: int) -> None:
    play = KeptPlay(2_000_000 + seed, harsh=False)
    play.run()
    assert not any(isinstance(archiver.action, steps.Stop) for archiver in play.archivers)
    manifest = play.store.manifest
    if manifest is not None:
        assert manifest.end_offset == play.broker.end
        archived = dict(play.archived())
        for offset, token in play.broker.tokens(max(play.broker.start, play.start), play.broker.end).items():
            assert archived[offset] == token


@pytest.mark.parametrize("seed", range(300))
def test_upkeep_of_rewritten_history_loses_nothing(seed: int) -> None:
    KeptPlay(3_000_000 + seed, harsh=True).run()


def test_the_plays_are_worth_watching() -> None:
    """The seeds above do meet merges, expiry, garbage, and commits that follow them."""
    merged = expired = removed = followed = 0
    for seed in range(60):
        play = KeptPlay(2_000_000 + seed, harsh=False)
        play.run()
        merged, expired = merged + play.merged, expired + play.expired
        removed, followed = removed + play.removed, followed + play.followed
    assert min(merged, expired, removed, followed) >= 30
