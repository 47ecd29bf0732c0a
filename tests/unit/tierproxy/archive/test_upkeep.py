"""tierproxy.archive.upkeep: what to merge, what is garbage, when to look."""

from collections.abc import Sequence
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tierproxy.archive.memory import with_merged
from tierproxy.archive.errors import FormatError
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.store import ObjectInfo
from tierproxy.archive.upkeep import (
    DAY_MS,
    GROWTH,
    LEAST_PARTS,
    MOST_PARTS,
    MergeRules,
    Sightings,
    next_collection_ms,
    plan_merge,
    sort_out,
)

PID = PartitionId("flights", bytes(16), 0)
FULL = 1000
RULES = MergeRules(FULL, settled_ms=100)


def entry(base: int, size: int = 10, *, offsets: int = 10, created: int = 0) -> SegmentEntry:
    last = base + offsets - 1
    return SegmentEntry(segment_name(base, last, "t"), base, last, 5, size, 2, offsets, 0, 0, "0" * 64, created)


def row(*sizes: int, first: int = 0) -> list[SegmentEntry]:
    """Neighbours of ten offsets each, archived one ms after the other."""
    return [entry(first + 10 * i, size, created=i) for i, size in enumerate(sizes)]


def planned(entries: Sequence[SegmentEntry], rules: MergeRules = RULES, gaps: Sequence[Gap] = ()) -> tuple[int, int]:
    """First and last number of the run, (-1, -1) for none."""
    run = plan_merge(entries, gaps, rules).run
    return (entries.index(run[0]), entries.index(run[-1])) if run else (-1, -1)


NOTHING = (-1, -1)


@pytest.mark.parametrize(
    ("sizes", "run"),
    [
        # many of about one size
        ([10] * 7, NOTHING),
        ([10] * 8, (0, 7)),
        ([10] * 20, (0, 19)),
        # one that is larger is not written again for the sake of a few small ones
        ([300] + [10] * 7, NOTHING),
        ([300] + [10] * 8, (1, 8)),
        ([80] + [10] * 8, (1, 8)),
        ([80] + [10] * 24, (0, 24)),
        # what fills a segment
        ([250, 250], (0, 1)),
        ([249, 250], NOTHING),
        ([400, 400], (0, 1)),
        ([400, 200], NOTHING),
        ([400, 200, 200], (0, 2)),
        ([400, 200, 500], NOTHING),
        ([250, 250, 250, 250], (0, 3)),
        ([250, 250, 250, 251], (0, 2)),
        # full ones stay
        ([1000, 1000, 501, 600], NOTHING),
        ([501, 501], NOTHING),
        ([501, 400, 400, 501], (1, 2)),
        ([501] + [10] * 7 + [501], NOTHING),
        ([501] + [10] * 8 + [501] + [10] * 9, (1, 8)),
        ([], NOTHING),
    ],
)
def test_what_is_merged(sizes: list[int], run: tuple[int, int]) -> None:
    assert planned([*row(*sizes), entry(10_000)]) == run


def test_the_newest_is_left_alone() -> None:
    assert planned(row(*[10] * 8)) == NOTHING


def test_what_was_archived_lately_is_left_alone() -> None:
    entries = [entry(10 * i, created=created) for i, created in enumerate([0] * 7 + [101] + [0] * 9)]
    assert planned(entries) == NOTHING
    entries = [entry(10 * i, created=created) for i, created in enumerate([0] * 7 + [100] + [101] * 9)]
    assert planned(entries) == (0, 7)


def test_what_brokers_still_hold_is_left_alone_where_it_is_asked_for() -> None:
    entries = row(*[10] * 20)
    assert planned(entries, MergeRules(FULL, 100, below=79)) == NOTHING
    assert planned(entries, MergeRules(FULL, 100, below=80)) == (0, 7)
    assert planned(entries, MergeRules(FULL, 100, below=-1)) == NOTHING


def test_a_merged_segment_does_not_span_more_time_than_asked_for() -> None:
    entries = [entry(10 * i, created=i) for i in range(50)]
    assert planned(entries, MergeRules(FULL, 100, most_span_ms=6)) == NOTHING
    assert planned(entries, MergeRules(FULL, 100, most_span_ms=9)) == (0, 9)


def test_neighbours_only() -> None:
    """Neither over offsets that are missing, nor over a gap, even one that a cut batch reaches into."""
    missing = [*row(*[10] * 7), *row(*[10] * 7, first=71), entry(10_000)]
    assert planned(missing) == NOTHING
    together = [*row(*[10] * 14), entry(10_000)]
    assert planned(together) == (0, 13)
    assert planned(together, gaps=[Gap(70, 75, 0, "lost")]) == NOTHING


def test_a_merge_has_an_end() -> None:
    many = [entry(10 * i, 1) for i in range(2 * MOST_PARTS + 1)]
    assert planned(many) == (0, MOST_PARTS - 1)


def test_the_next_look_begins_where_something_may_change() -> None:
    done = row(600, 600, 600)
    plan = plan_merge([*done, *row(10, 10, first=30), entry(50)], [], RULES)
    assert (plan.run, plan.look_from) == ((), 30)
    assert plan_merge([*done, entry(30)], [], RULES).look_from == 30
    assert plan_merge([], [], RULES).look_from == 0


@settings(deadline=None)
@given(
    st.lists(st.integers(1, FULL), min_size=1, max_size=150), st.sets(st.integers(1, 149), max_size=3), st.booleans()
)
def test_merging_keeps_everything_and_is_paid_for(sizes: list[int], holes: set[int], remember: bool) -> None:
    """Segments come in one after the other and are merged whenever it is worth it, wherever the last look ended."""
    manifest = Manifest.empty("prod", "id", PID, 0)
    rewritten: dict[int, int] = {}  # by offset
    look_from = 0
    gaps = 0
    for number, size in enumerate(sizes):
        if number in holes:
            manifest = manifest.with_gap(Gap(manifest.end_offset, manifest.end_offset + 5, 0, "lost"))
            gaps += 5
        manifest = manifest.with_segment(entry(manifest.end_offset, size, offsets=1), [])
        while True:
            seen = [e for e in manifest.segments if e.last_offset >= look_from]
            plan = plan_merge(seen, manifest.gaps, RULES)
            assert plan.run == plan_merge(manifest.segments, manifest.gaps, RULES).run, "nothing was overlooked"
            look_from = plan.look_from if remember else 0
            if not plan.run:
                break
            first, last = plan.run[0].base_offset, plan.run[-1].last_offset
            total = sum(e.plain_size for e in plan.run)
            assert total <= FULL
            merged = entry(first, total, offsets=last - first + 1)
            manifest = with_merged(manifest, plan.run, merged)
            for offset in range(first, last + 1):
                rewritten[offset] = rewritten.get(offset, 0) + 1
    assert manifest.sums.plain_size == sum(sizes)
    assert sum(e.last_offset - e.base_offset + 1 for e in manifest.segments) == len(sizes) == manifest.sums.records
    assert manifest.end_offset == len(sizes) + gaps
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert max(rewritten.values(), default=0) <= log(FULL / min(sizes), GROWTH) + 2


@given(st.integers(1, 20), st.integers(LEAST_PARTS, 2000))
@settings(deadline=None, max_examples=20)
def test_few_are_left(size: int, count: int) -> None:
    """As a quiet topic has them: of each size between the first and a full one only a few, or gathered full ones."""
    manifest = Manifest.empty("prod", "id", PID, 0)
    for _ in range(count):
        manifest = manifest.with_segment(entry(manifest.end_offset, size, offsets=1), [])
        while run := plan_merge(manifest.segments, (), RULES).run:
            merged = entry(
                run[0].base_offset, sum(e.plain_size for e in run), offsets=run[-1].last_offset - run[0].base_offset + 1
            )
            manifest = with_merged(manifest, run, merged)
    sizes = log(FULL / size, GROWTH) + 2
    assert len(manifest.segments) <= 2 * size * count / FULL + LEAST_PARTS * sizes + 1


# ---- garbage -------------------------------------------------------------------------------------------------

NAMES = [segment_name(i, i, "t") for i in range(4)]
GRACE = 100


def info(name: str, modified: int = 0) -> tuple[str, ObjectInfo]:
    return name, ObjectInfo(f"prod/t/{name}", 7, modified)


def test_what_is_needed_or_not_ours_is_no_garbage() -> None:
    listed = [info(NAMES[0]), info("manifest.json"), info("garbage.json"), info("notes.txt"), info("x/y")]
    found = sort_out(listed, {NAMES[0]}, Sightings({NAMES[0]: 0}), 10_000, GRACE)
    assert (found.ripe, found.waiting, found.sightings) == ((), (), Sightings())


@pytest.mark.parametrize(
    ("modified", "seen_since", "ripe", "remembered"),
    [
        (0, 900, True, 900),
        (0, 901, False, 901),
        (0, None, False, 1000),
        (900, None, False, 1000),
        (901, None, False, None),
        (901, 0, False, None),
        (0, 2000, False, 1000),  # a clock went back
        (5000, 0, False, None),
    ],
)
def test_garbage_waits_twice(modified: int, seen_since: int | None, ripe: bool, remembered: int | None) -> None:
    seen = Sightings({} if seen_since is None else {NAMES[0]: seen_since})
    found = sort_out([info(NAMES[0], modified)], set(), seen, 1000, GRACE)
    assert bool(found.ripe) is ripe
    assert bool(found.waiting) is not ripe
    assert dict(found.sightings.since) == ({} if remembered is None else {NAMES[0]: remembered})


def test_without_grace_it_goes_at_once() -> None:
    assert len(sort_out([info(NAMES[0], 1000)], set(), Sightings(), 1000, 0).ripe) == 1


def test_what_is_gone_or_needed_again_is_forgotten() -> None:
    seen = Sightings({NAMES[0]: 0, NAMES[1]: 0, NAMES[2]: 0})
    found = sort_out([info(NAMES[0]), info(NAMES[1])], {NAMES[1]}, seen, 1000, GRACE)
    assert dict(found.sightings.since) == {NAMES[0]: 0}


STORED = b"""{
  "format": "tierproxy-garbage",
  "version": 1,
  "objects": [
    {"name": "00000000000000000000-00000000000000000000-t.log.zst", "since_ms": 5},
    {"name": "00000000000000000001-00000000000000000001-t.log.zst", "since_ms": 7}
  ]
}
"""


def test_sightings_are_stored_like_this() -> None:
    seen = Sightings({NAMES[1]: 7, NAMES[0]: 5})
    assert seen.to_json() == STORED
    assert Sightings.from_json(STORED) == seen
    assert Sightings.from_json(Sightings().to_json()) == Sightings()
    with pytest.raises(FormatError):
        Sightings.from_json(b"{}")


@given(st.integers(0, 1 << 45), st.integers(0, 1000))
def test_each_partition_is_looked_at_once_a_day(now: int, partition: int) -> None:
    pid = PartitionId("t", bytes(16), partition)
    due = next_collection_ms(pid, now)
    assert now < due <= now + DAY_MS
    assert next_collection_ms(pid, due) == due + DAY_MS
    assert next_collection_ms(pid, due - 1) == due


def test_partitions_are_spread_over_the_day() -> None:
    hours = {next_collection_ms(PartitionId("t", bytes(16), n), 0) * 24 // DAY_MS for n in range(300)}
    assert len(hours) > 20
