import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.retention import Expiry, reappeared, trim_point

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
    assert isinstance(point, int)
    later = trim_point(made, keep_time, keep_bytes, now + 100)
    assert isinstance(later, int)
    assert point <= later  # time only adds
    if keep_bytes is not None and keep_time is None:
        kept = sum(e.plain_size for e in made.segments if e.base_offset >= point)
        assert kept >= min(keep_bytes, made.sums.plain_size)


# ---- what expires in the archive -----------------------------------------------------------------------------

ALL_TRIMMED = 1 << 40


def expiry(
    made: Manifest, keep_time: int | None, keep_bytes: int | None, now: int, log_start: int = ALL_TRIMMED
) -> Expiry:
    """Told all segments until one stays."""
    told = Expiry(made, keep_time, keep_bytes, now, log_start)
    for one in made.segments:
        if not told.goes(one):
            break
    return told


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(-1, 300)), max_size=8),
    limits,
    limits,
    st.integers(0, 400),
    st.integers(-1, 90),
)
def test_what_expires_is_what_brokers_would_let_go_and_have_let_go(
    shapes: list[tuple[int, int]], keep_time: int | None, keep_bytes: int | None, now: int, log_start: int
) -> None:
    made = manifest(*(entry(10 * i, size=size, newest=newest) for i, (size, newest) in enumerate(shapes)))
    found = expiry(made, keep_time, keep_bytes, now, log_start)
    allowed = trim_point(made, keep_time, keep_bytes, now)
    assert isinstance(allowed, int)
    may_go = [e for e in made.segments if e.last_offset < min(allowed, log_start)]
    assert found.segments == len(may_go)
    assert found.plain_bytes == sum(e.plain_size for e in may_go)
    assert found.point == (may_go[-1].last_offset + 1 if may_go else 0)
    left = made.with_start(found.point)
    assert left.segments == made.segments[len(may_go) :]
    assert (left.end_offset, left.last_epoch) == (made.end_offset, made.last_epoch)


@pytest.mark.parametrize(
    ("log_start", "point"), [(-1, 0), (0, 0), (9, 0), (10, 10), (19, 10), (25, 20), (30, 30), (99, 30)]
)
def test_what_the_broker_still_holds_does_not_expire(log_start: int, point: int) -> None:
    assert expiry(THREE, 0, None, 1 << 60, log_start).point == point


def test_the_archive_does_not_begin_with_a_gap() -> None:
    gapped = manifest(entry(0, newest=1000)).with_gap(Gap(10, 30, 0, "lost")).with_gap(Gap(30, 50, 0, "lost"))
    assert expiry(gapped, 0, None, 1000).point == 50
    more = gapped.with_segment(entry(50, newest=2000), [])
    assert expiry(more, 0, None, 1000).point == 50
    assert expiry(more, 0, None, 2000).point == 60
    assert expiry(more, 0, None, 999).point == 0
    assert expiry(more, 0, None, 1000, log_start=50).point == 50


def test_a_gap_alone_is_no_reason_to_begin_elsewhere() -> None:
    assert expiry(manifest(start=5).with_gap(Gap(5, 9, 0, "lost")), 0, 0, 1 << 60).point == 5


def test_a_segment_that_a_user_deleted_half_of_expires_whole() -> None:
    assert expiry(THREE.with_start(15), None, 100, 0).point == 20


def test_where_lost_records_are_there_again() -> None:
    """A gap from 10 to 20, in whose last batch (15 to 24, which is archived whole) the broker was trimmed."""
    holey = manifest(entry(0)).with_gap(Gap(10, 20, 0, "?")).with_segment(entry(15), [])
    assert [reappeared(holey, at) for at in (25, 20, 15, 14, 10, 0)] == [None, None, None, 10, 10, 10]
    behind = holey.with_gap(Gap(25, 31, 0, "?"))
    assert [reappeared(behind, at) for at in (31, 30, 22, 0)] == [None, 25, 25, 10]
