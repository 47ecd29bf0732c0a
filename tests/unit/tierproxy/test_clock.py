import pytest

from tierproxy.clock import Clock, ManualClock, SystemClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_every_clock_counts_forward_in_the_promised_units(clock: Clock) -> None:
    wall, steady = clock.now_ms(), clock.monotonic()
    assert isinstance(wall, int)
    assert 1_600_000_000_000 < wall < 4_000_000_000_000
    assert clock.monotonic() >= steady


def test_manual_clock_moves_both_times_together() -> None:
    clock = ManualClock(now_ms=5_000, monotonic=7.0)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic()) == (6_500, 8.5)


def test_manual_wall_clock_may_jump_back_while_the_other_stands() -> None:
    clock = ManualClock(now_ms=5_000, monotonic=7.0)
    clock.set_now_ms(1_000)
    assert (clock.now_ms(), clock.monotonic()) == (1_000, 7.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
