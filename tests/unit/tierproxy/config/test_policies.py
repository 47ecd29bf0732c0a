"""Policies and the defaults that they inherit from."""

import pickle

import pytest

from tierproxy.config import Config, Keep, PolicyDefaults, TopicPolicy, parse_config, warnings
from tierproxy.errors import ConfigError

DAY = 86_400_000


def config(topics: str, defaults: str = "") -> Config:
    return parse_config(
        "cluster: {name: prod, bootstrap: [kafka-0:9092]}\nlisten: {advertised_host: localhost}\n"
        "archives: {main: {url: 's3://bucket'}, local: {url: 'file:///tmp/a'}}\n"
        f"defaults: {{{defaults}}}\ntopics: [{topics}]\n"
    )


def faults(topics: str, defaults: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(topics, defaults)
    return [f"{fault.path}: {fault.problem}" for fault in caught.value.faults]


def test_what_a_policy_does_not_say_is_inherited() -> None:
    made = config(
        "{match: a}, {match: b, archive: local, compression: zstd-9, on_gap: skip}",
        "archive: main, compression: zstd-5, on_gap: halt, storage_class: STANDARD_IA, cold_read_rate: 5MiB/s",
    )
    a, b = made.topics
    assert (a.archive, a.compression, a.on_gap, a.cold_read_rate) == ("main", 5, "halt", 5 << 20)
    assert (b.archive, b.compression, b.on_gap, b.storage_class) == ("local", 9, "skip", "STANDARD_IA")
    assert [a.origin(key) for key in ("archive", "compression", "trim")] == ["defaults", "defaults", "built in"]
    assert [b.origin(key) for key in ("archive", "on_gap", "storage_class")] == ["policy", "policy", "defaults"]


def test_segment_is_inherited_singly() -> None:
    made = config("{match: a, archive: main, segment: {age: 1m}}", "segment: {bytes: 1MiB, age: 5m}").topics[0]
    assert (made.segment.bytes, made.segment.age_ms) == (2**20, 60_000)
    assert (made.origin("segment.bytes"), made.origin("segment.age")) == ("defaults", "policy")
    only_age = config("{match: a, archive: main}", "segment: {age: 5m}").topics[0]
    assert (only_age.segment.bytes, only_age.segment.age_ms) == (128 * 2**20, 300_000)
    assert (only_age.origin("segment.bytes"), only_age.origin("segment.age")) == ("built in", "defaults")


def test_what_is_kept_is_inherited_whole() -> None:
    """Else records would expire by a limit that whoever wrote the policy did not mean."""
    a, b, c = config(
        "{match: a, archive: main}, "
        "{match: b, archive: main, keep_in_archive: {time: 365d}, keep_on_broker: {time: 7d}}, "
        "{match: c, archive: main, keep_in_archive: forever, keep_on_broker: forever}",
        "keep_in_archive: {bytes: 1GiB}, keep_on_broker: {bytes: 1MiB}",
    ).topics
    assert (a.keep_in_archive, a.keep_on_broker) == (Keep(bytes=2**30), Keep(bytes=2**20))
    assert (b.keep_in_archive, b.keep_on_broker) == (Keep(time_ms=365 * DAY), Keep(time_ms=7 * DAY))
    assert (c.keep_in_archive, c.keep_on_broker) == (Keep(), Keep())


def test_none_and_nothing_override_defaults() -> None:
    a, b = config(
        "{match: a, archive: none}, {match: b, cold_read_rate: none}", "archive: main, cold_read_rate: 1MiB/s"
    ).topics
    assert (a.archive, b.archive, b.cold_read_rate) == (None, "main", None)
    assert a.origin("archive") == b.origin("cold_read_rate") == "policy"


def test_programs_and_processes_get_complete_policies() -> None:
    made = config("{match: a}", "archive: main, segment: {age: 5m}")
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    assert again.topics[0].origin("archive") == "defaults"
    plain = TopicPolicy(match="a", archive="main")
    assert plain.inheriting(PolicyDefaults()) == plain


def test_regular_expressions_take_whole_names_and_no_internal_topics() -> None:
    made = config("{match: '/orders\\.(eu|us)/', archive: main}, {match: '/.*/', archive: none}")
    assert [made.policy_for(name, False) for name in ("orders.eu", "orders.eu.old")] == [*made.topics]
    assert made.policy_for("__consumer_offsets", True) is None
    named = config("{match: '*', archive: none}, {match: __consumer_offsets, archive: main}")
    assert named.policy_for("__consumer_offsets", True) is named.topics[1]


@pytest.mark.parametrize(
    ("topics", "defaults", "told"),
    [
        ("{match: a}", "", ["topics[0].archive: is required, here or under defaults: the name of an archive, or none"]),
        (
            "{match: a}",
            "archive: mian",
            ["defaults.archive: 'mian' is not defined under archives; did you mean 'main'?"],
        ),
        ("{match: a}", "archive: main, match: b", ["defaults.match: is not a known key; "]),
        ("{match: a}", "archive: none, trim: never", []),
        (
            "{match: a, trim: never}",
            "archive: none",
            ["topics[0].trim: has no effect: 'archive: none' topics are just proxied"],
        ),
        (
            "{match: a, storage_class: X}",
            "archive: local",
            ["topics[0].storage_class: means nothing for 'local', which is a file:// archive"],
        ),
        (
            "{match: a}",
            "archive: main, compression: zstd-99",
            ["defaults.compression: 'zstd-99' is not one of zstd-1 …"],
        ),
        (
            "{match: a, archive: main, compression: none}",
            "",
            ["topics[0].compression: 'none' is not one of zstd-1 … zstd-19: what is archived is zstd, whatever"],
        ),
        ("{match: /(/, archive: main}", "", ["topics[0].match: '/(/' is not a regular expression: missing ): ("]),
        (
            "{match: '/a|b/', archive: main}, {match: b, archive: main}",
            "",
            ["topics[1].match: 'b' can never match: topics[0] '/a|b/' takes its topics first"],
        ),
    ],
)
def test_faults(topics: str, defaults: str, told: list[str]) -> None:
    if not told:
        config(topics, defaults)
        return
    found = faults(topics, defaults)
    assert len(found) == len(told)
    for fault, beginning in zip(found, told, strict=True):
        assert fault.startswith(beginning)


def test_what_is_inherited_is_not_warned_of_again_and_again() -> None:
    made = config("{match: a, trim: never}, {match: b}", "archive: main, keep_on_broker: {time: 1d}")
    assert [fault.path for fault in warnings(made)] == ["archives.local"]
    assert [fault.path for fault in warnings(config("", "trim: never"))][-1] == "defaults"
