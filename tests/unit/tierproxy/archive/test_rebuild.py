import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, parse_segment_name, segment_name
from tierproxy.archive.rebuild import Candidate, choose, covered, disowned, rebuilt, uncovered

PID = PartitionId("flights", bytes(range(16)), 0)


def segment(base: int, last: int, *epochs: tuple[int, int], tag: str = "a", records: int | None = None) -> Candidate:
    count = last + 1 - base if records is None else records
    entry = SegmentEntry(segment_name(base, last, tag), base, last, 9, 9, 5, count, 1, 2, "0" * 64, 3)
    return Candidate(entry, epochs or ((0, base),))


def names(chosen: list[Candidate]) -> list[str]:
    """As "0-9a"."""
    parsed = [parse_segment_name(each.entry.key_name) for each in chosen]
    return [f"{base}-{last}{tag}" for base, last, tag in parsed]


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], []),
        ([segment(5, 9)], ["5-9a"]),
        ([segment(10, 19), segment(0, 9)], ["0-9a", "10-19a"]),
        # merged ones win over their parts, also where the broker had compacted something between those away
        ([segment(0, 9), segment(10, 19), segment(0, 19, tag="m")], ["0-19m"]),
        ([segment(0, 9), segment(12, 19), segment(0, 19, tag="m")], ["0-19m"]),
        ([segment(0, 9), segment(10, 19), segment(20, 29), segment(10, 29, tag="m")], ["0-9a", "10-29m"]),
        # races: whoever covers more
        ([segment(0, 9), segment(10, 19), segment(10, 14, tag="b"), segment(15, 29, tag="b")],
         ["0-9a", "10-14b", "15-29b"]),
        ([segment(0, 9), segment(0, 12, tag="b"), segment(10, 29)], ["0-9a", "10-29a"]),
        # what follows without a break
        ([segment(0, 9), segment(10, 19), segment(20, 29, tag="b"), segment(0, 4, tag="b"), segment(5, 9, tag="b"),
          segment(11, 20, tag="c")], ["0-9a", "10-19a", "20-29b"]),
        # the same twice: the first by name; but the one with more records
        ([segment(0, 9, tag="b"), segment(0, 9)], ["0-9a"]),
        ([segment(0, 9, tag="b", records=9), segment(0, 9, records=7)], ["0-9b"]),
        # gaps are stepped over
        ([segment(0, 9), segment(100, 109)], ["0-9a", "100-109a"]),
        # epochs never go back
        ([segment(0, 9, (5, 0)), segment(10, 12, (4, 10)), segment(13, 19, (6, 13))], ["0-9a", "13-19a"]),
        ([segment(0, 9, (5, 0)), segment(10, 29, (4, 10)), segment(30, 35, (5, 30))], ["10-29a", "30-35a"]),
        ([segment(0, 9, (5, 0)), segment(10, 19, (5, 10), (7, 15)), segment(20, 21, (6, 20))], ["0-9a", "10-19a"]),
    ],
)  # fmt: skip
def test_which_segments_are_named(candidates: list[Candidate], chosen: list[str]) -> None:
    for seed in range(5):
        random.Random(seed).shuffle(candidates)
        assert names(choose(candidates)) == chosen


@pytest.mark.parametrize(
    ("one", "other", "loses"),
    [
        (segment(0, 9, (1, 0)), segment(5, 14, (1, 5)), set()),
        (segment(0, 9, (1, 0)), segment(10, 14, (2, 10)), set()),
        (segment(0, 9, (1, 0)), segment(5, 14, (2, 5)), {"0-9"}),
        (segment(0, 9, (3, 0)), segment(5, 14, (2, 5)), {"5-14"}),
        (segment(0, 9, (1, 0), (2, 7)), segment(0, 14, (1, 0)), {"0-14"}),  # they part in the middle
        (segment(0, 9, (1, 0), (2, 5)), segment(5, 9, (2, 5)), set()),
        (segment(5, 7, (2, 5)), segment(8, 99, (1, 8)), {"8-99"}),  # behind the place where they parted
    ],
)
def test_a_rewritten_history_is_disowned(one: Candidate, other: Candidate, loses: set[str]) -> None:
    for pair in ([one, other], [other, one]):
        losers = [each for each in pair if each.entry.key_name in disowned(pair)]
        assert {name.removesuffix("a") for name in names(losers)} == loses


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    for _ in range(draw(st.integers(0, 7))):
        base = draw(st.integers(0, 12))
        last = base + draw(st.integers(0, 8))
        first = draw(st.integers(0, 2))
        epochs = [(first, base)] if draw(st.booleans()) or last == base else [(first, base), (first + 1, last)]
        each = segment(base, last, *epochs, tag=draw(st.sampled_from("ab")), records=draw(st.integers(0, 3)))
        found[each.entry.key_name] = each
    return list(found.values())


def follows(one: Candidate, other: Candidate) -> bool:
    return one.entry.last_offset < other.entry.base_offset and one.last_epoch <= other.epochs[0][0]


@given(candidates())
def test_no_other_choice_is_better(found: list[Candidate]) -> None:
    def worth(chain: list[Candidate]) -> tuple[int, int, int, int]:
        breaks = sum(one.entry.last_offset + 1 != other.entry.base_offset for one, other in pairwise(chain))
        return covered(chain), -breaks, sum(each.entry.records for each in chain), -len(chain)

    ordered = sorted(found, key=lambda each: each.entry.base_offset)
    chains = [list(chain) for size in range(len(ordered) + 1) for chain in combinations(ordered, size)]
    allowed = [chain for chain in chains if all(follows(*pair) for pair in pairwise(chain))]
    chosen = choose(found)
    assert chosen in allowed
    assert worth(chosen) == max(map(worth, allowed))


def test_many_segments_are_chosen_from_quickly() -> None:
    """A million comparisons of each with each would be 10^12 steps; this is a twentieth of them."""
    many = [segment(10 * n, 10 * n + 9, (n // 100, 10 * n)) for n in range(50_000)]
    assert choose([*many, segment(0, 499_999, (0, 0), (499, 499_990), tag="m")])[0].entry.last_offset == 499_999


@pytest.mark.parametrize(
    ("spans", "gaps", "missing"),
    [
        ([], [], [(0, 50)]),
        ([(0, 49)], [], []),
        ([(10, 19), (30, 39)], [], [(0, 10), (20, 30), (40, 50)]),
        ([(10, 19), (30, 39)], [(20, 30)], [(0, 10), (40, 50)]),
        ([(10, 19), (30, 39)], [(0, 5), (15, 25), (45, 60)], [(5, 10), (25, 30), (40, 45)]),
        ([(0, 9), (60, 69)], [], [(10, 50)]),
        ([(40, 69)], [(0, 40)], []),
    ],
)
def test_what_nobody_has(
    spans: list[tuple[int, int]], gaps: list[tuple[int, int]], missing: list[tuple[int, int]]
) -> None:
    chosen = [segment(*span) for span in spans]
    assert uncovered(chosen, 0, 50, [Gap(*gap, 0, "lost") for gap in gaps]) == missing


def test_a_manifest_made_anew() -> None:
    chosen = [segment(5, 9, (1, 5)), segment(10, 19, (1, 10), (3, 15)), segment(30, 39, (3, 30), (4, 35))]
    manifest = rebuilt("prod", "id", PID, chosen, 1_700_000_000_000)
    assert (manifest.start_offset, manifest.end_offset, manifest.generation) == (5, 40, 1_700_000_000_000)
    assert manifest.epochs == ((1, 5), (3, 15), (4, 35))
    assert [(gap.start, gap.end, gap.at_ms) for gap in manifest.gaps] == [(20, 30, 1_700_000_000_000)]
    assert Manifest.from_json(manifest.to_json()) == manifest
