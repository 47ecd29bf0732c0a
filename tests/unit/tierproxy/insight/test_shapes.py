from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tierproxy.insight.pictures import NOW
from tierproxy.archive.segment_entry import SegmentEntry
from tierproxy.insight.picture import Span, Where
from tierproxy.insight.shapes import BAR_LEAST, LEAST, WIDE, Run, bars, lanes, lanes_of_sums, line, runs


def spans(*parts: tuple[str, int]) -> list[Span]:
    at, found = 0, []
    for where, offsets in parts:
        found.append(Span(Where(where), at, at + offsets))
        at += offsets
    return found


def test_what_is_in_both_places_is_in_both_lanes() -> None:
    drawn = lanes(spans(("archive", 500), ("both", 250), ("broker", 250)))
    assert [(box.kind, box.x, box.width) for box in drawn.archive] == [("archived", 0, 750)]
    assert [(box.kind, box.x, box.width) for box in drawn.broker] == [("broker", 500, 500)]
    assert drawn.trim == 500
    assert [box.title for box in (*drawn.archive, *drawn.broker)] == ["archive: 0 to 749", "broker: 500 to 999"]


def test_holes_stay_for_themselves() -> None:
    drawn = lanes(spans(("archive", 500), ("hole", 250), ("archive", 250)))
    assert [(box.kind, box.title) for box in drawn.archive] == [
        ("archived", "archive: 0 to 499"),
        ("hole", "hole: 500 to 749"),
        ("archived", "archive: 750 to 999"),
    ]
    assert drawn.broker == ()
    assert drawn.trim is None


def test_nothing_was_trimmed_where_the_broker_has_the_first_offset() -> None:
    assert lanes(spans(("both", 5), ("broker", 5))).trim is None
    assert lanes([]).archive == ()


@given(st.lists(st.tuples(st.sampled_from([str(where) for where in Where]), st.integers(1, 10**12)), max_size=90))
def test_every_span_is_seen_and_all_fit(parts: list[tuple[str, int]]) -> None:
    drawn = lanes(spans(*parts))
    least = min(LEAST, WIDE / max(1, len(parts))) * 0.5
    for lane in (drawn.archive, drawn.broker):
        assert all(box.width >= least for box in lane)
        assert all(box.x >= -0.01 and box.x + box.width <= WIDE + 0.1 for box in lane)
        assert all(one.x + one.width <= other.x + 0.01 for one, other in pairwise(lane))


def test_of_many_partitions_together_nothing_says_which_offsets() -> None:
    drawn = lanes_of_sums({Where.ARCHIVE: 600, Where.BROKER: 100, Where.BOTH: 200, Where.HOLE: 100, Where.LOST: 0})
    found = [(box.kind, round(box.width)) for box in drawn.archive]
    assert found == [("archived", 600), ("hole", 100), ("archived", 200)]
    assert [(box.kind, round(box.x)) for box in drawn.broker] == [("broker", 700)]
    assert {box.title for box in (*drawn.archive, *drawn.broker)} == {""}
    assert drawn.trim is None


def entry(n: int, size: int = 1000, timed: bool = True) -> SegmentEntry:
    times = (NOW + n * 1000, NOW + n * 1000 + 999) if timed else (-1, -1)
    return SegmentEntry(f"{n}", n * 10, n * 10 + 9, size // 4, size, 1, 10, *times, "", NOW + n * 1000 + 5000)


def test_many_segments_are_drawn_together() -> None:
    found = runs((), [entry(n) for n in range(250)], most=100)
    assert len(found) == 84
    assert found[0] == Run(3, NOW, NOW + 2999, 0, 29, 3000, 750)
    assert (found[-1].segments, found[-1].last_offset) == (1, 2499)
    assert sum(run.segments for run in found) == 250


def test_records_without_times_are_drawn_when_they_were_archived() -> None:
    (run,) = runs((), [entry(3, timed=False)])
    assert (run.first_ms, run.last_ms) == (NOW + 8000, NOW + 8000)


def test_bars_are_over_time_and_stay_inside() -> None:
    drawn = bars(runs((), [entry(0), entry(5, 4000), entry(9)]), NOW, NOW + 9999, lambda run: str(run.segments))
    assert [round(bar.x) for bar in drawn] == [0, 500, 900]
    assert [bar.height for bar in drawn] == [0.5, 1.0, 0.5]
    assert all(bar.width >= BAR_LEAST and bar.x + bar.width <= WIDE for bar in drawn)
    (alone,) = bars(runs((), [entry(0)]), NOW, NOW, lambda run: "")
    assert (alone.x, alone.width) == (0.0, WIDE)


def test_a_line_ends_at_the_right_edge() -> None:
    assert line([5.0], 40, 11) == ""
    assert line([0.0, 5.0, 10.0], 40, 11) == "800.0,39.0 900.0,20.0 1000.0,1.0"
    assert line([0.0, 0.0], 40, 3) == "500.0,39.0 1000.0,39.0"
    assert len(line([1.0] * 50, 40, 11).split()) == 11
