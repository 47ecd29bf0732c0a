"""The archiver's keys that have words of their own: its group, and limits in bytes per second."""

import pytest

from tierproxy.config import Config, parse_config
from tierproxy.errors import ConfigError


def config(archiver: str) -> Config:
    return parse_config(
        "cluster: {name: prod, bootstrap: [kafka-0:9092]}\nlisten: {advertised_host: localhost}\n"
        f"archiver: {{{archiver}}}\n"
    )


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("", "tierproxy-archiver-prod"),
        ("group: none", None),
        ("group: night-shift", "night-shift"),
        ("group: '{cluster} by night'", "prod by night"),
        ("group:", "tierproxy-archiver-prod"),
    ],
)
def test_the_group(written: str, group: str | None) -> None:
    assert config(written).archiver_group == group


@pytest.mark.parametrize(
    ("written", "rate"),
    [("", None), ("read_rate: none", None), ("read_rate: 50MiB", 50 << 20), ("read_rate: 1.5MB/s", 1_500_000)],
)
def test_a_rate(written: str, rate: int | None) -> None:
    assert config(written).archiver.read_rate == rate


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("group: 5", "must be a group's name of at most 249 characters, or none, not a number"),
        ("group: '{topic}'", r"\{cluster\} stands for cluster.name"),
        ('group: "a\\nb"', "can't be a group's name"),
        ("write_rate: 50", "unit"),
        ("write_rate: 100B/s", "must be at least 1KiB/s; without a limit, write none"),
        ("read_rate: fast", "archiver.read_rate"),
        ("session_timeout: 500ms", "must be between 1s and 30m"),
    ],
)
def test_what_can_not_be(written: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(written)
