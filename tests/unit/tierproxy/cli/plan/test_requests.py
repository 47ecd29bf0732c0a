"""How many requests archiving takes."""

import pytest

from tierproxy.cli.plan.requests import merging, segment_requests, upkeep_month
from tierproxy.config import parse_config
from tierproxy.costs import MONTH_MS, Requests

MIB = 2**20
PAGE = 1 / 64


@pytest.mark.parametrize(
    ("stored", "trimmed", "expected"),
    [
        (1 * MIB, False, Requests(2 + PAGE, 3 + PAGE, 0, MIB)),
        (1 * MIB, True, Requests(2 + PAGE, 4 + PAGE, 0, MIB)),
        (30 * MIB, False, Requests(2 + PAGE, 6 + PAGE, 0, 30 * MIB)),  # read back 8 MiB at a time
    ],
)
def test_a_segment(stored: int, trimmed: bool, expected: Requests) -> None:
    assert segment_requests(stored, trimmed) == expected


def test_small_segments_are_joined_step_by_step() -> None:
    """64 of 1 MiB: 8 merges of 8 segments, then one of 8 merged ones, which is full."""
    found = merging(64, MIB, 64 * MIB, ratio=1.0)
    first, second = (8 * 2 + 3) * 8, 8 * 2 + 1 + 8 + 1
    assert (found.puts, found.gets, found.lists) == (18, first + second, 0)
    assert found.read_bytes == 2 * 2 * 64 * MIB


@pytest.mark.parametrize(("count", "size"), [(100, 64 * MIB), (100, 33 * MIB), (0, MIB), (1, MIB), (10, 0)])
def test_what_is_not_worth_it_is_left(count: float, size: float) -> None:
    assert merging(count, size, 64 * MIB, 1.0) == Requests()


def test_upkeep_is_a_read_of_the_manifest_again_and_again() -> None:
    config = parse_config("cluster: {name: c, bootstrap: ['k:1']}\nlisten: {advertised_host: h}")
    quiet, busy = upkeep_month(config, garbage=False), upkeep_month(config, garbage=True)
    days = MONTH_MS / 86_400_000
    assert quiet.gets == pytest.approx(MONTH_MS / 300_000 + 2 * days)
    assert quiet.puts == 0
    assert quiet.lists == pytest.approx(days)
    assert busy.puts == pytest.approx(3 * days)
