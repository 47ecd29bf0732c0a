"""The archiver's life played by seed: a broker, a store, two archivers and everything that goes wrong.

The machine, the manifest and the rules of retention are the real ones. Broker and store are models in memory:
a log of batches with leader epochs, a manifest behind compare-and-swap, a dictionary of objects. An *archiver*
here does what `worker` and `publisher` do with each action, one action a turn, and may be killed before it,
after it, or between a write's effect and its answer; a new one then starts from nothing but broker and store.
Two of them work at the same time and don't know of each other, as after a botched failover.

What must hold after every turn:
- nothing is trimmed that the manifest does not hold in objects which exist and are, record by record, what the
  broker had at that moment;
- what was trimmed stays in the archive;
- the manifest covers its offsets once: no hole but recorded gaps, nothing twice;
- a partition whose history was rewritten below its archive's end is never trimmed again.
And when the trouble ends and nothing was rewritten: everything gets archived, and trimmed.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from tierproxy.archive.manifest import Gap, Manifest, PageRef, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.pages import Page
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.tiering import steps
from tierproxy.tiering.fsm import Machine, disagreement

PID = PartitionId("t", b"i" * 16, 0)
T0 = 1_700_000_000_000


class Died(Exception):
    """The archiver was killed."""


class Down(Exception):
    """The broker or the store did not answer."""


@dataclass(frozen=True)
class Batch:
    base: int
    last: int
    epoch: int
    tokens: tuple[int, ...]  # one for each record, unique in the whole play


@dataclass
class Broker:
    chance: random.Random
    log: list[Batch] = field(default_factory=list)
    start: int = 0
    epoch: int = 0
    rewritten_from: int | None = None  # the lowest offset whose record was replaced
    written: int = 0

    @property
    def end(self) -> int:
        return self.log[-1].last + 1 if self.log else self.start

    def produce(self) -> None:
        count, base = self.chance.randint(1, 5), self.end
        tokens = tuple(range(self.written, self.written + count))
        self.written += count
        self.log.append(Batch(base, base + count - 1, self.epoch, tokens))

    def delete(self, offset: int) -> None:
        """DeleteRecords, or the broker's own retention; may fall inside a batch."""
        self.start = max(self.start, min(offset, self.end))
        last = self.log[-1:]
        self.log = [batch for batch in self.log if batch.last >= self.start] or last  # remember where the log ends

    def crash(self) -> None:
        """kill -9: the log start falls back to the base of its first batch; a new epoch begins."""
        if self.log and self.log[0].last >= self.start:
            self.start = min(self.start, self.log[0].base)
        self.epoch += 1

    def elect_uncleanly(self) -> None:
        """A replica that lacks the newest batches becomes leader."""
        lost = self.chance.randint(0, min(3, max(0, len(self.log) - 1)))
        if lost:
            cut = self.log[-lost].base
            if cut < self.start:
                return
            self.log = self.log[:-lost]
            self.rewritten_from = min(cut, self.rewritten_from if self.rewritten_from is not None else cut)
        self.epoch += 1

    def end_of_epoch(self, epoch: int) -> int:
        """As OffsetForLeaderEpoch: where the largest known epoch up to this one ends."""
        if epoch > self.epoch:
            return -1
        return next((max(batch.base, self.start) for batch in self.log if batch.epoch > epoch), self.end)

    def fetch(self, offset: int, last_epoch: int) -> "list[Batch] | steps.OutOfRange | steps.Diverged":
        if last_epoch >= 0 and self.start <= offset:
            end = self.end_of_epoch(last_epoch)
            if end < offset:
                return steps.Diverged(max(end, 0))
        if not self.start <= offset <= self.end:
            return steps.OutOfRange(self.start, self.end)
        batches = [batch for batch in self.log if batch.last >= offset]
        return batches[: self.chance.randint(0, 4)]

    def tokens(self, first: int, end: int) -> dict[int, int]:
        """{offset: token} of what can be read in [first, end)."""
        return {
            offset: token
            for batch in self.log
            for offset, token in zip(range(batch.base, batch.last + 1), batch.tokens, strict=True)
            if max(first, self.start) <= offset < end
        }


@dataclass
class Store:
    """Objects and one manifest. `trouble` is the chance that an operation fails or lies."""

    chance: random.Random
    objects: dict[str, tuple[Batch, ...]] = field(default_factory=dict)
    manifest: Manifest | None = None
    pages: dict[PageRef, Page] = field(default_factory=dict)
    trouble: float = 0.0

    def fail_sometimes(self) -> None:
        if self.chance.random() < self.trouble:
            raise Down

    def put(self, name: str, batches: tuple[Batch, ...]) -> None:
        self.fail_sometimes()
        self.objects[name] = batches[:-1] if self.chance.random() < self.trouble / 4 else batches  # a lying store
        self.fail_sometimes()

    def load(self) -> Manifest | None:
        self.fail_sometimes()
        return self.manifest

    def save(self, manifest: Manifest, version: int | None) -> bool:
        self.fail_sometimes()
        if version != (self.manifest.generation if self.manifest is not None else None):
            return False
        self.manifest = self.spilled(manifest)
        self.fail_sometimes()
        return True

    def spilled(self, manifest: Manifest) -> Manifest:
        """As the library does it, but with two entries in the root and three in a page."""
        while len(manifest.segments) > 2:
            last, kept = list[SegmentEntry](), manifest.pages
            if kept and len(self.pages[kept[-1]]) < 3:
                last, kept = list(self.pages[kept[-1]]), kept[:-1]
            page = Page.of([*last, manifest.segments[0]])
            ref, _ = page.encode(SegmentInfo("c", PID.topic, PID.topic_id, 0), f"p{len(self.pages)}")
            self.pages[ref] = page
            manifest = replace(manifest, pages=(*kept, ref), segments=manifest.segments[1:])
        return manifest

    def entries(self, manifest: Manifest) -> list[SegmentEntry]:
        return [*(entry for page in manifest.pages for entry in self.pages[page]), *manifest.segments]


class Archiver:
    """`worker` and `publisher`, without waiting. `killed` says at each moment whether it dies there."""

    def __init__(self, play: "Play", number: int) -> None:
        self.play, self.broker, self.store, self.number = play, play.broker, play.store, number
        self.machine = Machine(play.rules)
        self.action = self.machine.begin()
        self.segment: list[Batch] = []
        self.fetched_at = -1  # the segment's first batch
        self.entry: SegmentEntry | None = None
        self.version: int | None = None

    def turn(self) -> None:
        if isinstance(self.action, steps.Stop):
            return
        if not isinstance(self.action, steps.Look | steps.Trim) and self.action.not_before > self.play.now.monotonic:
            return
        self.play.may_die()
        try:
            event = self.carry_out(self.action)
        except Down:
            event = steps.Failed("down")
        self.play.may_die()
        self.action = self.machine.on(event, self.play.now)

    def carry_out(self, action: steps.Action) -> steps.Event:
        match action:
            case steps.Load():
                self.segment, self.entry = [], None
                manifest = self.store.load()
                self.version = manifest.generation if manifest is not None else None
                return self.compare(manifest)
            case steps.Copy():
                return self.copy(action)
            case steps.Upload():
                if self.entry is None:
                    self.entry = self.close_segment()
                self.store.put(self.entry.key_name, tuple(self.segment))
                return steps.Uploaded()
            case steps.Verify():
                assert self.entry is not None
                self.store.fail_sometimes()
                if self.store.objects.get(self.entry.key_name) != tuple(self.segment):
                    self.entry = None
                    return steps.Damaged("?")
                return steps.Verified()
            case steps.Commit():
                return self.commit(action)
            case steps.RecordGap():
                gap = Gap(action.start, action.end, self.play.now.ms, "?")
                if not self.store.save(action.manifest.with_gap(gap), self.version):
                    return steps.Conflicted()
                self.play.gaps += 1
                return self.committed(self.store.manifest)
            case steps.Look(page):
                self.store.fail_sometimes()
                self.play.looks += 1
                return steps.Looked(page, self.store.pages[page])
            case steps.Trim():
                manifest = self.store.load()
                if manifest is None or manifest.end_offset < action.offset:
                    return steps.Conflicted()
                reason = disagreement(self.compare(self.machine.manifest))
                if reason is not None:
                    return steps.Hopeless(reason)
                self.play.trim(action.offset)
                self.play.may_die()
                return steps.Trimmed(self.broker.start)
            case steps.Stop():
                raise AssertionError(action)

    def compare(self, manifest: Manifest | None) -> steps.Loaded:
        epoch_end = None
        if manifest is not None and manifest.resume_epoch >= 0:
            epoch_end = self.broker.end_of_epoch(manifest.resume_epoch)
        return steps.Loaded(manifest, self.broker.start, self.broker.end, self.broker.epoch, epoch_end)

    def copy(self, action: steps.Copy) -> steps.Event:
        if self.play.chance.random() < self.play.broker_trouble:
            raise Down
        answer = self.broker.fetch(action.offset, action.last_epoch)
        if not isinstance(answer, list):
            return answer
        if not answer:
            # A long poll: whichever comes first, its end or the moment to wake up.
            return steps.Due() if action.wake_at <= self.play.now.monotonic else self.copied(action)
        if self.segment:
            assert answer[0].base == self.segment[-1].last + 1, "fetched with a hole"
        else:
            self.fetched_at = action.offset
        self.segment += answer
        return self.copied(action)

    def copied(self, action: steps.Copy) -> steps.Copied:
        if not self.segment:
            return steps.Copied(action.offset, action.last_epoch, 0, self.broker.start)
        last = self.segment[-1]
        size = 100 * len(self.segment)
        return steps.Copied(last.last + 1, last.epoch, size, self.broker.start)

    def close_segment(self) -> SegmentEntry:
        base, last = self.segment[0].base, self.segment[-1].last
        self.play.names += 1
        name = segment_name(base, last, f"{self.play.names}")
        size, now = 100 * len(self.segment), self.play.now.ms
        return SegmentEntry(name, base, last, size, size, 10, last - base + 1, now, now, "0" * 64, now)

    def commit(self, action: steps.Commit) -> steps.Event:
        entry = self.entry
        assert entry is not None
        epochs: list[tuple[int, int]] = []
        for batch in self.segment:
            if not epochs or epochs[-1][0] != batch.epoch:
                epochs.append((batch.epoch, batch.base))
        base = action.manifest or Manifest.empty("c", "id", PID, action.start_offset)
        manifest = base.with_segment(entry, epochs, fetched_at=self.fetched_at)
        if not self.store.save(manifest, self.version):
            found = self.named(entry)
            return self.committed(found) if found is not None else steps.Conflicted()
        return self.committed(self.store.manifest)

    def named(self, entry: SegmentEntry) -> Manifest | None:
        manifest = self.store.load()
        if manifest is not None and entry in self.store.entries(manifest):
            return manifest
        return None

    def committed(self, manifest: Manifest | None) -> steps.Committed:
        assert manifest is not None
        self.play.may_die()
        self.segment, self.entry, self.version = [], None, manifest.generation
        return steps.Committed(manifest)


class Play:
    """One seed's story. `harsh` allows elections that rewrite history."""

    def __init__(self, seed: int, *, harsh: bool) -> None:
        self.chance = random.Random(seed)
        self.broker, self.store = Broker(self.chance), Store(self.chance)
        self.rules = steps.Rules(
            segment_bytes=self.chance.choice([100, 300, 1000]),
            segment_age=self.chance.choice([1.0, 20.0]),
            keep_time_ms=self.chance.choice([None, 0, 5_000]),
            keep_bytes=self.chance.choice([None, 0, 500]),
            trim=True,
        )
        self.now = steps.Now(0.0, T0)
        self.harsh = harsh
        self.killing = 0.0
        self.broker_trouble = 0.0
        self.trimmed: dict[int, int] = {}
        self.names = self.gaps = self.trims = self.deaths = self.looks = 0
        for _ in range(self.chance.randint(0, 3)):
            self.broker.produce()
        self.broker.delete(self.chance.randint(0, 2))  # the archive may begin inside a batch
        self.archivers = [Archiver(self, 0), Archiver(self, 1)]

    def may_die(self) -> None:
        if self.chance.random() < self.killing:
            raise Died

    def run(self) -> None:
        for _ in range(4):
            self.killing, self.broker_trouble = self.chance.choice([0.0, 0.05, 0.2]), self.chance.choice([0.0, 0.1])
            self.store.trouble = self.chance.choice([0.0, 0.05, 0.3])
            for _ in range(60):
                self.world()
                for _ in range(4):
                    self.everyone()
        self.killing = self.broker_trouble = self.store.trouble = 0.0
        for _ in range(4000):
            self.pass_time(1.0)
            self.everyone()
            if self.at_rest():
                break
        for _ in range(50):  # nothing more may come of it
            self.pass_time(10.0)
            self.everyone()

    def at_rest(self) -> bool:
        if all(isinstance(archiver.action, steps.Stop) for archiver in self.archivers):
            return True
        everything_goes = 0 in (self.rules.keep_time_ms, self.rules.keep_bytes)
        archived_to = self.store.manifest.end_offset if self.store.manifest is not None else self.broker.start
        return archived_to == self.broker.end and (not everything_goes or self.broker.start == self.broker.end)

    def world(self) -> None:
        self.pass_time(self.chance.choice([0.0, 0.1, 2.0, 40.0]))
        dice = self.chance.random()
        if dice < 0.4:
            self.broker.produce()
        elif dice < 0.45:
            self.broker.delete(self.broker.start + self.chance.randint(0, 12))  # its own retention
        elif dice < 0.48:
            self.broker.crash()
        elif dice < 0.50 and self.harsh:
            self.broker.elect_uncleanly()

    def everyone(self) -> None:
        archiver = self.chance.choice(self.archivers)
        try:
            archiver.turn()
        except Died:
            self.deaths += 1
            self.archivers[archiver.number] = Archiver(self, archiver.number)
        self.check_manifest()

    def pass_time(self, seconds: float) -> None:
        self.now = steps.Now(self.now.monotonic + seconds, self.now.ms + round(seconds * 1000))

    # ---- what must hold ------------------------------------------------------------------------------------

    def trim(self, offset: int) -> None:
        """DeleteRecords by an archiver: the moment of truth."""
        assert offset <= self.broker.end
        archived = dict(self.archived())
        for at, token in self.broker.tokens(self.broker.start, offset).items():
            assert archived.get(at) == token, f"offset {at} is trimmed but not archived"
            self.trimmed[at] = token
        self.broker.delete(offset)
        self.trims += 1

    def archived(self) -> Iterator[tuple[int, int]]:
        for entry in self.store.entries(self.store.manifest) if self.store.manifest is not None else ():
            for batch in self.store.objects[entry.key_name]:
                yield from zip(range(batch.base, batch.last + 1), batch.tokens, strict=True)

    def check_manifest(self) -> None:
        manifest = self.store.manifest
        if manifest is None:
            return
        rows = list(self.archived())
        offsets = dict(rows)
        assert len(offsets) == len(rows), "an offset is archived twice"
        assert self.trimmed.items() <= offsets.items(), "what was trimmed is not in the archive any more"
        lost = {offset for gap in manifest.gaps for offset in range(gap.start, gap.end)}
        missing = set(range(manifest.start_offset, manifest.end_offset)) - set(offsets) - lost
        assert not missing, f"offsets {sorted(missing)} are neither archived nor recorded as lost"


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_and_nothing_is_twice(seed: int) -> None:
    play = Play(seed, harsh=False)
    play.run()
    manifest = play.store.manifest
    assert not any(isinstance(archiver.action, steps.Stop) for archiver in play.archivers)
    assert play.broker.written == 0 or manifest is not None
    if manifest is not None:
        assert manifest.end_offset == play.broker.end
        archived = dict(play.archived())
        for offset, token in play.broker.tokens(play.broker.start, play.broker.end).items():
            assert archived[offset] == token
        if 0 in (play.rules.keep_time_ms, play.rules.keep_bytes):
            assert play.broker.start == play.broker.end


@pytest.mark.parametrize("seed", range(60))
def test_rewritten_history_is_never_trimmed(seed: int) -> None:
    play = Play(1_000_000 + seed, harsh=True)
    play.run()  # `trim` compares record by record what the broker has with what is archived
    manifest, rewritten_from = play.store.manifest, play.broker.rewritten_from
    if rewritten_from is None:
        assert not any(isinstance(archiver.action, steps.Stop) for archiver in play.archivers)
    elif manifest is not None and all(isinstance(archiver.action, steps.Stop) for archiver in play.archivers):
        assert rewritten_from < manifest.end_offset, "stopped though nothing archived was rewritten"


def test_the_plays_are_worth_watching() -> None:
    """The seeds above do meet gaps, deaths, trims, looks into pages, rewritten history and archivers that stop."""
    gaps = deaths = trims = looks = rewritten = stopped = 0
    for seed in range(60):
        play = Play(1_000_000 + seed, harsh=True)
        play.run()
        gaps, deaths, trims = gaps + play.gaps, deaths + play.deaths, trims + play.trims
        looks += play.looks
        rewritten += play.broker.rewritten_from is not None
        stopped += any(isinstance(archiver.action, steps.Stop) for archiver in play.archivers)
    assert min(gaps, deaths, trims, looks, rewritten, stopped) >= 10


def test_a_seed_plays_the_same_twice() -> None:
    first, second = Play(7, harsh=True), Play(7, harsh=True)
    first.run()
    second.run()
    assert first.store.manifest == second.store.manifest
    assert (first.broker.log, first.now, first.deaths) == (second.broker.log, second.now, second.deaths)
