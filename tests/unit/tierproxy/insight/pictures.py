"""Facts for tests, with what matters to one of them."""

from collections.abc import Sequence
from typing import Any

from tierproxy.archive.manifest import Gap, Sums
from tierproxy.config import TopicPolicy, parse_config
from tierproxy.insight.facts import Archived, Facts, GroupFacts, Member, PartitionFacts, TopicFacts

NOW = 1_700_000_000_000
CONFIG = parse_config(
    """
cluster: {name: prod, bootstrap: [kafka-0:9092]}
listen: {advertised_host: localhost}
admin: {}
archives: {main: {url: "s3://bucket/kafka"}}
topics: [{match: "*", archive: main, segment: {age: 10m}}]
"""
)


def policy(**changes: Any) -> TopicPolicy:
    return CONFIG.topics[0].model_copy(update=changes)


def archived(start: int, end: int, *gaps: Gap, **more: Any) -> Archived:
    """1,000 bytes of log an offset, stored as 250."""
    offsets = end - start
    sums = Sums(1, offsets * 250, offsets * 1000, offsets, NOW - 3_600_000, NOW - 60_000, NOW - 60_000, NOW - 30_000)
    known: dict[str, Any] = {"sums": sums if offsets else Sums(), "gaps": gaps}
    return Archived("main", NOW, start, end, **(known | more))


def gap(start: int, end: int, accepted_ms: int = -1) -> Gap:
    return Gap(start, end, NOW, "expired on the broker", accepted_ms)


def part(log_start: int, high_watermark: int, about: Archived | None, number: int = 0, **more: Any) -> PartitionFacts:
    known: dict[str, Any] = {"last_stable": high_watermark, "archived": about}
    return PartitionFacts(number, 1, log_start, high_watermark, **(known | more))


def topic(*parts: PartitionFacts, name: str = "payments", **more: Any) -> TopicFacts:
    known: dict[str, Any] = {"policy": policy(), "policy_at": 0, "settings": {}, "partitions": parts}
    return TopicFacts(name, bytes(range(16)), **(known | more))


def facts(*topics: TopicFacts, members: Sequence[Member] | None = None, **more: Any) -> Facts:
    at_work = [Member("tierproxy-archiver", "m-1", "10.0.0.1", {})] if members is None else members
    known: dict[str, Any] = {"group": GroupFacts("archivers", "Stable", tuple(at_work))}
    return Facts(NOW, "cluster-id", {each.name: each for each in topics}, **(known | more))
