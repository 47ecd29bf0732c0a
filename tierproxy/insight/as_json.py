"""The same for programs: what /status.json and `tierproxy status --json` show. Times are in ms since 1970, sizes in
bytes; null is what nobody knows, or what there isn't."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tierproxy.archive.names import topic_id_text
from tierproxy.config import Config
from tierproxy.insight.overview import Overview
from tierproxy.insight.picture import PartitionPicture, TopicPicture
from tierproxy.insight.told import Told
from tierproxy.insight.traffic import Passing
from tierproxy.insight.worth import worth


def overview_json(config: Config, overview: Overview) -> dict[str, Any]:
    facts, money = overview.facts, worth(config, overview.topics)
    return {
        "cluster": {"name": config.cluster.name, "id": facts.cluster_id},
        "at_ms": facts.at_ms,
        "level": overview.level.word,
        "verdict": overview.verdict,
        "problems": list(facts.problems),
        "not_archived_topics": facts.proxied,
        "partitions": overview.partitions,
        "log_bytes": overview.sums.plain_size,
        "stored_bytes": overview.sums.stored_size,
        "freed_bytes": overview.freed_bytes,
        "saved_a_month": {
            "currency": config.prices.currency,
            "on_brokers": round(money.on_brokers, 4),
            "in_archive": round(money.in_archive, 4),
            "saved": round(money.saved, 4),
        },
        "lag_offsets": overview.lag,
        "topics": [topic_json(topic) for topic in overview.topics],
        "archivers": None
        if facts.group is None
        else {
            "group": facts.group.name,
            "state": facts.group.state,
            "problem": facts.group.problem or None,
            "members": [asdict(member) for member in facts.group.members],
        },
    }


def topic_json(topic: TopicPicture) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "topic_id": topic_id_text(topic.facts.topic_id),
        "policy": f"topics[{topic.facts.policy_at}]",
        "match": topic.facts.policy.match,
        "level": topic.level.word,
        "verdict": topic.verdict,
        "partitions": [partition_json(part) for part in topic.partitions],
    }


def partition_json(part: PartitionPicture) -> dict[str, Any]:
    facts, archived = part.facts, part.facts.archived
    known = not facts.broker_problem
    return {
        "partition": facts.partition,
        "leader": facts.leader if facts.leader >= 0 else None,
        "level": part.level.word,
        "verdicts": [each.text for each in part.verdicts],
        "state": part.state or None,
        "log_start": facts.log_start if known else None,
        "high_watermark": facts.high_watermark if known else None,
        "last_stable_offset": facts.last_stable if known else None,
        "lag_offsets": part.lag,
        "waiting_since_ms": facts.waiting_since_ms,
        "retention_left": None if part.retention_left is None else round(part.retention_left, 4),
        "spans": [{"where": str(span.where), "start": span.start, "end": span.end} for span in part.spans],
        "archive": None
        if archived is None
        else {
            "name": archived.archive,
            "read_ms": archived.read_ms,
            "start_offset": archived.start,
            "end_offset": archived.end,
            "segments": archived.sums.segments,
            "records": archived.sums.records,
            "log_bytes": archived.sums.plain_size,
            "stored_bytes": archived.sums.stored_size,
            "freed_bytes": archived.freed_bytes,
            "first_timestamp": archived.sums.min_timestamp,
            "last_timestamp": archived.sums.max_timestamp,
            "holes": [asdict(gap) for gap in archived.gaps],
            "quarantined": archived.quarantined,
        },
    }


def process_json(passing: Passing, told: Sequence[Told]) -> dict[str, Any]:
    """What only a process that runs can tell."""
    return {
        "connections": passing.connections,
        "speeds": None if passing.speeds is None else {name: round(speed, 2) for name, speed in passing.speeds.items()},
        "totals": dict(passing.totals),
        "cold_bytes_by_source": {source: round(speed, 2) for source, speed in passing.sources.items()},
        "lag_seconds": dict(passing.lag_seconds),
        "workers": [each.to_json() for each in told],
    }
