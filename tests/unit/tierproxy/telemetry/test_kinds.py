from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tierproxy.telemetry.kinds import OTHER, Tally, TopicLabels, remove


def test_what_was_counted_elsewhere_is_as_if_it_had_been_observed() -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    observed = Tally("x_seconds", "x", ["api"], registry=one, buckets=(0.1, 1.0)).labels("a")
    added = Tally("x_seconds", "x", ["api"], registry=other, buckets=(0.1, 1.0)).labels("a")
    for seconds in (0.0625, 0.5, 0.5, 4.0):
        observed.observe(seconds)
    added.add([1, 0, 1], 4.0625)
    added.add([0, 2, 0], 1.0)
    assert generate_latest(one) == generate_latest(other)


def test_how_long_it_took_counts_also_when_it_failed() -> None:
    registry = CollectorRegistry()
    tally = Tally("x_seconds", "x", registry=registry)
    with pytest.raises(KeyError), tally.timed():
        raise KeyError
    assert registry.get_sample_value("x_seconds_count") == 1


def test_only_so_many_topics_have_a_label() -> None:
    labels = TopicLabels(most=2)
    assert labels.of({"c": 1, "a": 1, "b": 1}) == {"a": "a", "b": "b", "c": OTHER}
    # One that has a label keeps it, whoever comes; who is gone makes room.
    assert labels.of(["0", "b", "c"]) == {"0": "0", "b": "b", "c": OTHER}
    many = [f"topic-{number}" for number in range(10_000)]
    assert set(labels.of(many).values()) == {"topic-0", "topic-1", OTHER}
    assert labels.of([]) == {}


def test_a_label_that_is_gone_is_shown_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    lag = Gauge("lag", "x", ["topic"], registry=registry)
    lag.labels("a").set(7)
    lag.labels("b").set(7)
    remove(lag, "a", 0.0)
    assert registry.get_sample_value("lag", {"topic": "a"}) is None
    # A worker's file keeps it for ever: then it must say that all is well.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    remove(lag, "b", 0.0)
    assert registry.get_sample_value("lag", {"topic": "b"}) == 0
