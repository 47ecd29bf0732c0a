from hypothesis import given
from hypothesis import strategies as st

from tierproxy.byte_cache import ByteCache


def test_the_least_recently_used_goes_first() -> None:
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    cache.put("a", b"1234")
    cache.put("b", b"1234")
    assert cache.get("a") == b"1234"
    cache.put("c", b"1234")
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)


def test_what_is_larger_than_the_cache_is_kept_alone_until_the_next_comes() -> None:
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    cache.put("a", b"1234")
    cache.put("b", bytes(11))
    assert ("a" in cache, "b" in cache) == (False, True)
    cache.put("c", b"1234")
    assert ("b" in cache, "c" in cache) == (False, True)


def test_what_no_longer_fits_goes_at_once() -> None:
    cache: ByteCache[str, bytes] = ByteCache(12, len)
    for key in "abc":
        cache.put(key, b"1234")
    cache.fit(8)
    assert ("a" in cache, "b" in cache, "c" in cache, cache.size) == (False, True, True, 8)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 25), st.booleans())))
def test_the_bound_holds_whatever_happens(steps: list[tuple[int, int, bool]]) -> None:
    cache: ByteCache[int, bytes] = ByteCache(20, len)
    for key, size, drop in steps:
        if drop:
            cache.drop(key)
        else:
            cache.put(key, bytes(size))
        held = [value for key in range(6) if (value := cache.get(key)) is not None]
        assert cache.size == sum(map(len, held))
        assert cache.size <= 20 or len(cache) == 1
        assert len(cache) == len(held)


def test_what_is_demoted_goes_first_unless_it_is_asked_for_again() -> None:
    cache: ByteCache[str, bytes] = ByteCache(3, len)
    for key in "abc":
        cache.put(key, b"x")
    cache.demote("c")
    cache.demote("b")
    cache.demote("no such")
    assert cache.get("b")
    cache.put("d", b"x")
    assert [key for key in "abcd" if key in cache] == ["a", "b", "d"]
