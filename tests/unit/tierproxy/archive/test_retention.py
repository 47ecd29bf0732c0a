import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.retention import reappeared, trim_point

PID = PartitionId("flights", bytes(16), 0)


def entry(base: int, *, size: int = 100, newest: int = 0, archived: int | None = None) -> SegmentEntry:
    """Ten offsets from `base`; archived a little after its newest record."""
    created = newest + 5 if archived is None else archived
    return SegmentEntry(segment_name(base, base + 9, "t"), base, base + 9, 5, size, 2, 10, 0, newest, "0" * 64, created)


def manifest(*entries: SegmentEntry, start: int = 0) -> Manifest:
    made = Manifest.empty("prod", "id", PID, start)
    for one in entries:
        made = made.with_segment(one, [])
    return made


# Three segments of 100 bytes, their newest records at 1000, 2000 and 3000 ms.
THREE = manifest(entry(0, newest=1000), entry(10, newest=2000), entry(20, newest=3000))


@pytest.mark.parametrize(
    ("keep_time", "keep_bytes", "now", "point"),
    [
        # no limit: everything stays
        (None, None, 1 << 60, 0),
        # time
        (500, None, 1499, 0),
        (500, None, 1500, 10),
        (500, None, 2499, 10),
        (500, None, 2500, 20),
        (500, None, 3500, 30),
        (500, None, 1 << 60, 30),
        (0, None, 3000, 30),
        (0, None, 999, 0),
        # bytes: what is behind must hold that many
        (None, 0, 0, 30),
        (None, 1, 0, 20),
        (None, 100, 0, 20),
        (None, 101, 0, 10),
        (None, 200, 0, 10),
        (None, 201, 0, 0),
        (None, 1 << 60, 0, 0),
        # whichever is reached first
        (500, 100, 0, 20),
        (500, 200, 2500, 20),
        (500, 1 << 60, 1500, 10),
        (1 << 60, 100, 1500, 20),
    ],
)
def test_how_much_the_broker_may_let_go(keep_time: int | None, keep_bytes: int | None, now: int, point: int) -> None:
    assert trim_point(THREE, keep_time, keep_bytes, now) == point


def test_an_old_segment_behind_a_young_one_waits_for_it() -> None:
    mixed = manifest(entry(0, newest=9000), entry(10, newest=1000))
    assert trim_point(mixed, 500, None, 5000) == 0
    assert trim_point(mixed, 500, None, 9500) == 20


def test_time_limits_of_segments_differ_in_size() -> None:
    mixed = manifest(entry(0, size=1000), entry(10, size=50), entry(20, size=60))
    assert trim_point(mixed, None, 100, 0) == 10
    assert trim_point(mixed, None, 60, 0) == 20
    assert trim_point(mixed, None, 111, 0) == 0


def test_records_from_the_future_are_as_old_as_their_segment() -> None:
    assert trim_point(manifest(entry(0, newest=1 << 50, archived=1000)), 500, None, 1500) == 10


def test_records_without_time_are_as_old_as_their_segment() -> None:
    assert trim_point(manifest(entry(0, newest=-1, archived=1000)), 500, None, 1499) == 0
    assert trim_point(manifest(entry(0, newest=-1, archived=1000)), 500, None, 1500) == 10


def test_nothing_is_archived_so_nothing_may_go() -> None:
    assert trim_point(manifest(start=77), 0, 0, 1 << 60) == 77


def test_a_gap_changes_nothing() -> None:
    gapped = manifest(entry(0, newest=1000)).with_gap(Gap(10, 50, 0, "lost")).with_segment(entry(50, newest=2000), [])
    assert trim_point(gapped, 0, None, 1000) == 10
    assert trim_point(gapped, 0, None, 2000) == 60


def test_a_gap_at_the_end_is_not_ours_to_trim() -> None:
    assert trim_point(manifest(entry(0)).with_gap(Gap(10, 50, 0, "lost")), 0, 0, 1 << 60) == 10


limits = st.none() | st.integers(0, 500)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(-1, 300)), max_size=8), limits, limits, st.integers(0, 400))
def test_it_is_a_border_and_never_beyond_the_end(
    shapes: list[tuple[int, int]], keep_time: int | None, keep_bytes: int | None, now: int
) -> None:
    made = manifest(*(entry(10 * i, size=size, newest=newest) for i, (size, newest) in enumerate(shapes)))
    point = trim_point(made, keep_time, keep_bytes, now)
    assert point in [0, *(e.last_offset + 1 for e in made.segments)]
    assert point <= made.end_offset
    assert point <= trim_point(made, keep_time, keep_bytes, now + 100)  # time only adds
    if keep_bytes is not None and keep_time is None:
        kept = sum(e.plain_size for e in made.segments if e.base_offset >= point)
        assert kept >= min(keep_bytes, made.plain_size)


def test_where_lost_records_are_there_again() -> None:
    """A gap from 10 to 20, in whose last batch (15 to 24, which is archived whole) the broker was trimmed."""
    holey = manifest(entry(0)).with_gap(Gap(10, 20, 0, "?")).with_segment(entry(15), [])
    assert [reappeared(holey, at) for at in (25, 20, 15, 14, 10, 0)] == [None, None, None, 10, 10, 10]
    behind = holey.with_gap(Gap(25, 31, 0, "?"))
    assert [reappeared(behind, at) for at in (31, 30, 22, 0)] == [None, 25, 25, 10]
