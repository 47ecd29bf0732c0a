"""tierproxy.tiering.headroom: when the alarm is raised, and what can't fool it."""

import pytest

from tierproxy.tiering.headroom import Headroom, Limits, Outlook, Standing

T0 = 1_700_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
WEEK = Limits(7 * DAY, None)
GIB = Limits(None, 1 << 30)


def standing(archived_to: int, log_end: int, oldest_ms: int = -1, offset_bytes: float = 1000.0) -> Standing:
    return Standing(archived_to, log_end, oldest_ms, offset_bytes)


def seen(limits: Limits, *at: tuple[int, Standing]) -> Outlook:
    """The last outlook of several looks, each at some ms after T0."""
    headroom = Headroom()
    outlook = None
    for ms, where in at:
        outlook = headroom.see(where, limits, T0 + ms)
    assert outlook is not None
    return outlook


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({}, Limits(None, None)),
        ({"retention.ms": "604800000", "retention.bytes": "-1"}, WEEK),
        ({"cleanup.policy": "compact", "retention.ms": "1"}, Limits(None, None)),
        ({"cleanup.policy": "compact,delete", "retention.bytes": "5"}, Limits(None, 5)),
        ({"retention.ms": "soon"}, Limits(None, None)),
    ],
)
def test_what_brokers_keep(settings: dict[str, str], limits: Limits) -> None:
    assert Limits.of(settings) == limits


def test_nothing_behind_is_no_trouble() -> None:
    outlook = seen(WEEK, (0, standing(100, 100, T0 - 8 * DAY)))
    assert (outlook.offsets, outlook.seconds, outlook.left, outlook.alarm) == (0, 0.0, 1.0, False)


def test_the_alarm_comes_while_it_can_still_be_prevented() -> None:
    """The archive stands still: a quarter of the retention before the oldest record goes, somebody is told."""
    at = [(hours * HOUR, standing(100, 100 + hours, T0)) for hours in range(1, 6 * 24)]
    headroom = Headroom()
    alarms = [headroom.see(where, WEEK, T0 + ms).alarm for ms, where in at]
    first = alarms.index(True) + 1
    assert 5 * 24 < first < 5.5 * 24
    assert all(alarms[first:])
    outlook = headroom.see(standing(100, 500, T0), WEEK, T0 + 6 * DAY)
    assert outlook.over_in == pytest.approx(DAY / 1000)
    assert (outlook.limit, outlook.offsets, outlook.bytes) == ("retention.ms", 400, 400_000)


def test_the_speed_counts() -> None:
    """Half as fast as records come, so the time that is left lasts twice as long; quicker than that is no trouble."""
    slow = seen(WEEK, (0, standing(100, 900, T0 - 6 * DAY)), (HOUR, standing(200, 999, T0 - 6 * DAY + HOUR // 2)))
    assert slow.alarm
    assert slow.over_in == pytest.approx((DAY - HOUR / 2) / 1000 * 2)
    quick = seen(WEEK, (0, standing(100, 900, T0 - 5 * DAY)), (HOUR, standing(200, 999, T0 - 4 * DAY)))
    assert (quick.alarm, quick.over_in) == (False, None)


def test_the_alarm_ends_when_there_is_time_again() -> None:
    headroom = Headroom()
    assert headroom.see(standing(0, 900, T0 - 6 * DAY), WEEK, T0).alarm
    assert headroom.see(standing(100, 900, T0 - 4 * DAY), WEEK, T0 + HOUR).alarm, "catching up, but not yet calm"
    assert not headroom.see(standing(800, 900, T0 - 2 * DAY), WEEK, T0 + 2 * HOUR).alarm
    assert headroom.see(standing(800, 900, T0 - 6 * DAY), WEEK, T0 + 3 * HOUR).alarm
    assert not headroom.see(standing(900, 900, T0), WEEK, T0 + 4 * HOUR).alarm


def test_the_alarm_for_bytes() -> None:
    """1000 bytes an offset: a GiB is 1,073,741 of them."""
    assert not seen(GIB, (0, standing(0, 700_000))).alarm
    assert not seen(GIB, (0, standing(0, 900_000)), (60_000, standing(50_000, 910_000))).alarm, "getting less"
    outlook = seen(GIB, (0, standing(0, 800_000)), (60_000, standing(0, 830_000)))
    assert outlook.alarm
    assert outlook.limit == "retention.bytes"
    assert outlook.over_in == pytest.approx((2**30 - 830e6) / 500e3)
    soon = seen(GIB, (0, standing(0, 100_000)), (60_000, standing(0, 300_000)))
    assert soon.alarm, "much is left, but it lasts only four minutes"


def test_times_from_the_future_hide_nothing() -> None:
    """A broker keeps such a record for long, but not those beside it: what counts is when it was seen to be there."""
    future = T0 + 1000 * DAY
    first = seen(WEEK, (0, standing(100, 200, future)))
    assert (first.seconds, first.alarm) == (0.0, False)
    later = seen(WEEK, (0, standing(100, 200, future)), (6 * DAY, standing(100, 900, future)))
    assert later.alarm
    assert later.seconds == 6 * DAY / 1000


def test_times_from_the_past_are_no_lag_but_a_danger() -> None:
    """Old records that were written just now: nothing has waited for long, but the broker may delete them at once."""
    past = T0 - 1000 * DAY
    outlook = seen(WEEK, (0, standing(100, 100)), (1_000, standing(100, 200, past)))
    assert outlook.seconds == 1.0
    assert (outlook.alarm, outlook.over_in) == (True, 0.0)


def test_without_limits_nothing_is_deleted() -> None:
    outlook = seen(Limits(None, None), (0, standing(0, 10**9, T0 - 1000 * DAY)))
    assert (outlook.alarm, outlook.left) == (False, 1.0)
    assert outlook.seconds == 1000 * DAY / 1000


def test_a_log_end_that_was_never_heard_says_nothing() -> None:
    assert seen(WEEK, (0, standing(100, -1, T0 - 8 * DAY))).offsets == 0
    outlook = seen(WEEK, (0, standing(100, -1)), (1_000, standing(100, 200, T0 - DAY)))
    assert outlook.seconds == DAY / 1000 + 1


def test_long_watches_need_little_memory() -> None:
    headroom = Headroom()
    for n in range(5_000):
        outlook = headroom.see(standing(100, 101 + n), WEEK, T0 + n * 1000)
    assert outlook.seconds == 4999.0
    assert len(headroom._samples) <= 100


def test_a_log_that_gets_shorter_is_another_one() -> None:
    headroom = Headroom()
    headroom.see(standing(100, 900), WEEK, T0)
    assert headroom.see(standing(100, 200), WEEK, T0 + HOUR).seconds == 0
