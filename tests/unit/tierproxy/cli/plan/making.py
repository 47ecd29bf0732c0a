"""Facts for plans: one cluster, described in a few words."""

from collections.abc import Mapping
from dataclasses import replace

from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.cli.plan.facts import Facts, Sample
from tierproxy.cli.plan.judge import judge
from tierproxy.cli.plan.numbers import PartitionPlan, Plan
from tierproxy.cli.plan.shelve import LogFacts, Shelved
from tierproxy.cluster_view import ClusterView, LogSizes, PartitionView, TopicPartition, TopicView
from tierproxy.config import Config, TopicPolicy, parse_config

KIB = 1024
HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_800_000_000_000
ID = b"i" * 16
T0 = TopicPartition("t", 0)


def config(policy: str = "match: '*', archive: a", more: str = "") -> Config:
    return parse_config(
        "cluster: {name: prod, bootstrap: [kafka-0:9092]}\nlisten: {advertised_host: proxy}\n"
        f"archives: {{a: {{url: s3://bucket}}}}\ntopics: [{{{policy}}}]\n{more}"
    )


def policy(text: str = "") -> TopicPolicy:
    return config(f"match: '*', archive: a, {text}").topics[0]


def log(start: int, end: int, *, kept_from: int | None = None, day_from: int | None = None) -> LogFacts:
    """A log whose oldest record is ten days old; by default nothing came in the last day."""
    return LogFacts(0, start, end, end, kept_from, NOW - 10 * DAY, end if day_from is None else day_from)


def facts(
    configured: Config,
    logs: Mapping[TopicPartition, LogFacts],
    *,
    sizes: Mapping[TopicPartition, int] | None = None,
    shelves: Mapping[TopicPartition, Shelved | str | None] | None = None,
    samples: Mapping[str, Sample | str] | None = None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    topic_id: bytes = ID,
    replicas: tuple[int, ...] = (1, 2, 3),
) -> Facts:
    """All partitions are led by broker 1; every replica has the given size."""
    topics: dict[str, dict[int, PartitionView]] = {}
    for tp in logs:
        topics.setdefault(tp.topic, {})[tp.partition] = PartitionView(1, 0, replicas)
    view = ClusterView("id", {}, {name: TopicView(name, topic_id, False, parts) for name, parts in topics.items()})
    found = Facts(NOW, view, dict.fromkeys(topics, configured.topics[0]))
    found.logs.update(logs)
    found.sizes.update({node: LogSizes(0, sizes or {}) for node in replicas})
    found.shelves.update(dict.fromkeys(logs) if shelves is None else shelves)
    found.samples.update(samples or {})
    found.settings.update({name: (settings or {}).get(name, {}) for name in topics})
    return found


def planned(configured: Config, found: Facts, months: int = 12) -> tuple[Plan, PartitionPlan]:
    """The plan, and that of its first partition."""
    plan = judge(configured, found, months)
    return plan, plan.topics[0].partitions[0]


def manifest(*segments: tuple[int, int, int], start: int = 0) -> Manifest:
    """Segments as (offset behind the last, plain bytes, hours ago that its newest record was written)."""
    entries, first = [], start
    for stop, plain, hours in segments:
        time = NOW - hours * HOUR
        name, sha256 = segment_name(first, stop - 1, "0a1b2c3d"), "0" * 64
        sizes = plain // 4, plain, 1
        entries.append(SegmentEntry(name, first, stop - 1, *sizes, 1, time - HOUR, time, sha256, time))
        first = stop
    bare = Manifest.empty("prod", "id", PartitionId("t", ID, 0), start)
    return replace(bare, end_offset=first, segments=tuple(entries), generation=2)
