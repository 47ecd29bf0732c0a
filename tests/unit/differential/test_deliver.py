"""What a client makes of fetched batches."""

from tests.differential.deliver import READ_COMMITTED, READ_UNCOMMITTED, delivered
from tests.unit.differential.small_world import ABORTED, BATCHES, golden

DATA = [*range(15), *range(16, 21), *range(22, 31)]


def test_everything_but_markers_is_delivered_uncommitted() -> None:
    assert delivered(BATCHES, None, 0, READ_UNCOMMITTED) == DATA


def test_aborted_records_are_left_out_up_to_the_marker() -> None:
    committed = [offset for offset in DATA if not 5 <= offset < 10]
    assert delivered(BATCHES, [(ABORTED, 5)], 0, READ_COMMITTED) == committed
    assert golden().visible(BATCHES, 0, committed=True) == committed


def test_an_entry_that_is_missing_or_stale_shows_in_what_is_delivered() -> None:
    assert delivered(BATCHES, [], 0, READ_COMMITTED) == DATA
    later = [BATCHES[6]]
    stale = [(later[0].header.producer_id, 5)]
    assert delivered(later, stale, 22, READ_COMMITTED) == list(range(22, 31))  # by no producer: nobody's transaction


def test_records_below_the_fetch_offset_are_not_delivered() -> None:
    assert delivered(BATCHES[2:3], [], 12, READ_COMMITTED) == [12, 13, 14]
