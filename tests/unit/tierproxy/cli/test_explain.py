"""Which policy a topic has, and why."""

from io import StringIO

import pytest
from rich.console import Console

from tierproxy.cli.explain import Explanation, explain, explain_all, show_explanation
from tierproxy.config import parse_config
from tierproxy.errors import TierproxyError
from tierproxy.upstream import ClusterView, PartitionView, TopicView

CONFIG = parse_config(
    """\
cluster: {name: prod, bootstrap: [kafka-0:9092]}
listen: {advertised_host: localhost}
archives: {main: {url: "s3://bucket"}}
defaults: {archive: main, segment: {age: 5m}, keep_on_broker: {time: 7d}}
topics:
  - match: exact
  - match: '/orders\\.(eu|us)/'
    segment: {bytes: 1MiB}
    keep_on_broker: forever
    cold_read_rate: 5MiB/s
  - {match: "orders.*", archive: none}
  - match: "?rders*"
""",
    environ={},
)
NOTHING = ClusterView("id", {}, {})


def view(*names: str) -> ClusterView:
    topics = {
        name: TopicView(name, b"i" * 16, name.startswith("__"), {n: PartitionView(0, 0) for n in range(2)})
        for name in names
    }
    return ClusterView("id", {}, topics)


def shown(found: Explanation) -> str:
    console = Console(width=200, record=True, file=StringIO())
    show_explanation(found, console)
    return console.export_text()


def test_the_policy_that_applies_and_those_that_do_not() -> None:
    found = explain(CONFIG, "orders.eu", view("orders.eu"))
    assert (found.index, found.known) == (1, "2 partitions")
    assert found.before == ((0, "exact", "is another topic"),)
    assert found.behind == ((2, "orders.*"), (3, "?rders*"))
    assert {value.key: (value.text, value.origin) for value in found.values} == {
        "archive": ("main", "defaults"),
        "keep_on_broker": ("forever", "policy"),
        "storage_class": ("the archive's", "built in"),
        "keep_in_archive": ("forever", "built in"),
        "segment.bytes": ("1MiB", "policy"),
        "segment.age": ("5m", "defaults"),
        "compression": ("zstd-3", "built in"),
        "recompress": ("false", "built in"),
        "trim": ("delete-records", "built in"),
        "on_gap": ("skip", "built in"),
        "cold_read_rate": ("5MiB/s", "policy"),
    }


def test_a_topic_that_is_just_proxied() -> None:
    found = explain(CONFIG, "orders.asia", NOTHING)
    assert (found.index, found.known) == (2, "does not exist, or tierproxy may not see it")
    assert [reason for _, _, reason in found.before] == ["is another topic", "does not match the whole name"]
    assert [(value.key, value.text) for value in found.values] == [("archive", "none")]
    unmatched = explain(CONFIG, "payments", "nobody answers")
    assert (unmatched.index, unmatched.values) == (None, ())
    assert unmatched.known == "whether it exists nobody can say: nobody answers"
    assert len(unmatched.before) == 4


def test_no_pattern_takes_an_internal_topic() -> None:
    config = CONFIG.model_copy(update={"topics": CONFIG.topics[3:]})
    known = view("orders", "__orders")
    internal = ClusterView("id", {}, {"orders": TopicView("orders", b"i" * 16, True, {0: PartitionView(0, 0)})})
    assert explain(config, "orders", known).index == 0
    found = explain(config, "orders", internal)
    assert found.index is None
    assert found.known == "1 partition, internal to Kafka"
    assert "exact name only" in found.before[0][2]


def test_patterns_stand_for_what_exists() -> None:
    known = view("orders.us", "orders.eu", "payments")
    assert [each.topic for each in explain_all(CONFIG, ("orders.*", "/p.*/", "new", "orders.eu"), known)] == [
        "orders.eu",
        "orders.us",
        "payments",
        "new",
    ]
    assert [each.topic for each in explain_all(CONFIG, ("new",), "nobody answers")] == ["new"]
    for asked, seen, words in (
        ("x*", known, "matches no topic that exists"),
        ("x*", "nobody answers", "can't be looked up: nobody answers"),
        ("/(/", known, "is not a regular expression"),
        ("a b", known, "can match no topic"),
    ):
        with pytest.raises(TierproxyError, match=words):
            explain_all(CONFIG, (asked,), seen)


def test_what_a_person_reads() -> None:
    text = shown(explain(CONFIG, "orders.eu", view("orders.eu")))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[:2] == [r"orders.eu: topics[1] '/orders\.(eu|us)/'", "  2 partitions"]
    assert lines[2] == "  not topics[0] 'exact': it is another topic"
    assert lines[3] == "  would match as well, but come later: topics[2] 'orders.*', topics[3] '?rders*'"
    assert lines[4].split() == ["archive", "main", "defaults"]
    proxied = shown(explain(CONFIG, "orders.asia", NOTHING))
    assert "topics[2] 'orders.*', which says that it is just proxied" in proxied
    assert "no policy matches it, so it is just proxied" in shown(explain(CONFIG, "x", NOTHING))


def test_of_many_policies_some_are_shown() -> None:
    plain = CONFIG.topics[0]
    many = tuple(plain.model_copy(update={"match": f"t{number}"}) for number in range(50))
    config = CONFIG.model_copy(update={"topics": many})
    text = shown(explain(config, "t49", NOTHING))
    assert "… nor 39 more" in text
    assert text.count("is another topic") == 10
