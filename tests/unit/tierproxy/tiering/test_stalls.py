"""tierproxy.tiering.stalls: an open transaction that holds the archive back for too long is noticed."""

from tierproxy.tiering.stalls import StallWatch


def test_waiting_for_one_transaction_too_long() -> None:
    watch = StallWatch(after=60)
    assert watch.see(50, 50, 80, 0) is None
    assert watch.see(50, 50, 90, 59) is None
    assert watch.see(50, 50, 99, 60) == 60
    assert watch.see(50, 50, 99, 100) == 100


def test_a_stable_offset_that_moves_is_no_stall() -> None:
    watch = StallWatch(after=60)
    for minute in range(10):
        assert watch.see(50 + minute, 50 + minute, 999, 59.0 * minute) is None


def test_nothing_behind_the_stable_offset_is_no_stall() -> None:
    watch = StallWatch(after=60)
    assert watch.see(50, 50, 50, 0) is None
    assert watch.see(50, 50, 50, 1000) is None
    assert watch.see(50, 50, 51, 1001) is None
    assert watch.see(50, 50, 51, 1061) == 60


def test_an_archive_that_lags_is_no_stall() -> None:
    watch = StallWatch(after=60)
    assert watch.see(10, 50, 80, 0) is None
    assert watch.see(20, 50, 80, 1000) is None


def test_an_answer_that_says_nothing_is_no_stall() -> None:
    watch = StallWatch(after=0)
    assert watch.see(0, -1, -1, 0) is None


def test_how_long_it_lasts_is_measured_from_the_first_moment() -> None:
    watch = StallWatch(300)
    assert watch.lasting(5) == 0
    watch.see(10, 10, 20, 100)
    assert watch.lasting(130) == 30
    watch.see(10, 15, 20, 140)
    assert watch.lasting(150) == 0
