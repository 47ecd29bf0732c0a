"""tierproxy.rates: whatever is asked for and when, the average holds, and nobody waits longer than it takes."""

from hypothesis import given
from hypothesis import strategies as st

from tierproxy.rates import BURST, TokenBucket, part_of

RATE = 1000
steps = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 5000)), max_size=40)


def test_a_bucket_that_is_not_in_debt_gives_any_amount() -> None:
    bucket = TokenBucket(RATE, 0.0)
    assert bucket.wait(0.0) == 0
    bucket.spend(5000, 0.0)
    assert bucket.wait(0.0) == 5
    assert bucket.wait(4.5) == 0.5
    assert bucket.wait(5.0) == 0


def test_little_is_saved_up() -> None:
    bucket = TokenBucket(RATE, 0.0)
    assert bucket.take(3000, 3600.0) == 0
    assert bucket.wait(3600.0) == 3 - BURST


def test_who_reserves_waits_for_those_before() -> None:
    bucket = TokenBucket(RATE, 0.0)
    assert [bucket.take(2000, 0.0) for _ in range(3)] == [0, 2, 4]


def test_without_a_limit_nobody_waits() -> None:
    bucket = TokenBucket(None, 0.0)
    bucket.spend(1 << 40, 0.0)
    assert (bucket.take(1 << 40, 0.0), bucket.wait(0.0)) == (0, 0)


@given(steps)
def test_no_stretch_of_time_sees_more_than_the_rate(asked: list[tuple[float, int]]) -> None:
    """Somebody comes now and then and takes something, if the bucket lets them."""
    bucket, now = TokenBucket(RATE, 0.0), 0.0
    passed: list[tuple[float, int]] = []
    for pause, size in asked:
        now += pause
        if bucket.wait(now) == 0:
            bucket.spend(size, now)
            passed.append((now, size))
    for first, (begin, _) in enumerate(passed):
        total = 0
        for end, size in passed[first:]:
            assert total <= RATE * (end - begin + BURST) + 1e-6  # and then one more passes
            total += size


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40))
def test_who_takes_what_may_pass_gets_the_whole_rate(sizes: list[int]) -> None:
    bucket, now = TokenBucket(RATE, 0.0), 0.0
    for size in sizes:
        now += bucket.wait(now)
        assert bucket.wait(now) < 1e-9
        bucket.spend(size, now)
    assert now <= sum(sizes) / RATE


def test_processes_keep_to_a_rate_together() -> None:
    assert [part_of(rate, 3) for rate in (None, 3000, 2)] == [None, 1000, 1]


def test_a_bucket_that_changes_keeps_its_debt_in_seconds() -> None:
    bucket = TokenBucket(RATE, 0.0)
    bucket.spend(3 * RATE, 0.0)
    owed = bucket.wait(0.0)
    bucket.change(2 * RATE, 0.0)
    assert (bucket.wait(0.0), bucket.wait(owed)) == (owed, 0.0)
    bucket.change(None, 1.0)
    assert bucket.wait(1.0) == 0.0
    bucket.change(RATE, 2.0)
    assert bucket.saved(2.0) == 0
