import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.config.units import (
    DURATION_PATTERN,
    DURATION_UNITS_MS,
    SIZE_PATTERN,
    SIZE_UNITS,
    format_duration,
    format_size,
    parse_duration_ms,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128MiB", 128 * 2**20),
        ("20GB", 20 * 10**9),
        ("1.5KiB", 1536),
        ("512 B", 512),
        ("3tib", 3 * 2**40),
        ("0", 0),
        ("9007199254740993B", 9007199254740993),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert re.search(SIZE_PATTERN, text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("10m", 600_000),
        ("7d", 7 * 86_400_000),
        ("2w", 14 * 86_400_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1500),
        ("0", 0),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds
    assert re.search(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("128", "needs a unit"),
        ("128M", "write MB (1000s) or MiB (1024s)"),
        ("128Mib/s", "is not a size"),
        ("12Mbit", "unknown unit"),
        ("-1MiB", "is not a size"),
        ("", "is not a size"),
        ("much", "is not a size"),
    ],
)
def test_bad_sizes_say_what_is_right(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30", "needs a unit"),
        ("10min", "unknown unit 'min'"),
        ("10M", "unknown unit 'M'"),
        ("1y", "unknown unit 'y'"),
        ("-5s", "is not a duration"),
        ("1h-5m", "is not a duration"),
        ("", "is empty"),
        ("soon", "is not a duration"),
    ],
)
def test_bad_durations_say_what_is_right(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_duration_ms(text)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZE_UNITS)))
def test_any_whole_size_is_exact(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * SIZE_UNITS[unit]


@given(st.integers(0, 10**6), st.sampled_from(sorted(DURATION_UNITS_MS)))
def test_any_whole_duration_is_exact(number: int, unit: str) -> None:
    assert parse_duration_ms(f"{number}{unit}") == number * DURATION_UNITS_MS[unit]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (128 * 2**20, "128 MiB"),
        (1000 * 2**20, "1000 MiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (500, "500ms"), (5_400_000, "1h30m"), (7 * 86_400_000, "7d"), (86_461_001, "1d1m")],
)
def test_durations_for_people(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text
