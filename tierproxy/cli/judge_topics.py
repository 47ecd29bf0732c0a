"""What the facts mean for policies and the topics that they match. Pure; see judge.py."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from protocol.messages import NO_TOPIC_ID
from tierproxy.cli.facts import Facts
from tierproxy.cli.lags import Lag
from tierproxy.config import Config, Keep, TopicPolicy
from tierproxy.config.patterns import takes
from tierproxy.config.units import format_duration, format_size
from tierproxy.tiering.policies import unfit

Level = Literal["ok", "warning", "fault"]

NO_IDS = (
    "will be archived but not trimmed: the brokers give no topic ids (Kafka has them from 2.8 on), so a recreated "
    "topic can't be told from the old one"
)
NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, and what was found, in words."""

    level: Level
    area: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicyUse:
    """What a policy matches in this cluster."""

    index: int
    policy: TopicPolicy
    topics: tuple[str, ...]
    partitions: int


def judge_topics(config: Config, facts: Facts, policies: Sequence[PolicyUse]) -> Iterator[Finding]:
    """What would hurt: policies without topics, topics that can't be archived, or not in time."""
    assert facts.view is not None
    for use in policies:
        if not use.topics and use.policy.archive is not None:
            yield Finding("warning", "topics", f"topics[{use.index}]", _unused(use, policies))
        if use.policy.archive is None:
            continue
        leaderless = [
            f"{name}-{index}"
            for name in use.topics
            for index, part in facts.view.topics[name].partitions.items()
            if part.leader < 0
        ]
        if leaderless:
            yield Finding("warning", "topics", names_text(leaderless), "has no leader, so it can't be archived now")
        if use.topics and use.policy.trim == "delete-records" and use.policy.keep_on_broker != Keep():
            nameless = [name for name in use.topics if facts.view.topics[name].topic_id == NO_TOPIC_ID]
            if nameless:
                yield Finding("warning", "topics", names_text(nameless), NO_IDS)
        by_text: dict[str, list[str]] = {}
        for name in use.topics:
            settings = facts.settings.get(name, {})
            for text in (*_settings(use.policy, settings), *_lag(facts.lags.get(name, ()), settings)):
                by_text.setdefault(text, []).append(name)
        for text, names in by_text.items():
            yield Finding("warning", "topics", names_text(names), text)


def _unused(use: PolicyUse, policies: Sequence[PolicyUse]) -> str:
    """Why no topic has this policy: there is none that it matches, or others come first."""
    shadows = _shadows(use, policies)
    if not shadows:
        return f"{use.policy.match!r} matches no topic that exists and that tierproxy may see"
    names = sum(len(names) for _, names in shadows)
    listed = ", ".join(f"topics[{index}]" for index, _ in shadows)
    return (
        f"{use.policy.match!r} is not used: each of the {names} topics that it matches, such as {shadows[0][1][0]}, "
        f"is taken by a policy before it ({listed})"
    )


def _shadows(use: PolicyUse, policies: Sequence[PolicyUse]) -> list[tuple[int, list[str]]]:
    """The policies before it that take topics of it, and which."""
    taken = [
        (each.index, [name for name in each.topics if takes(use.policy.match, name)])
        for each in policies
        if each.index < use.index
    ]
    return [(index, names) for index, names in taken if names]


def _settings(policy: TopicPolicy, settings: Mapping[str, str]) -> Iterator[str]:
    """What a topic's own settings do to its policy."""
    reason = unfit(settings)
    if reason is not None:
        yield f"is not archived: {reason}"
        return
    retention, most = _number(settings.get("retention.ms")), _number(settings.get("retention.bytes"))
    keep, age = policy.keep_on_broker, policy.segment.age_ms
    if retention is not None and retention >= 0:
        if retention < 2 * age:
            yield (
                f"retention.ms is {format_duration(retention)}, segment.age {format_duration(age)}: "
                "the broker may delete records before they are archived"
            )
        elif keep.time_ms is not None and retention < keep.time_ms and policy.trim == "delete-records":
            yield (
                f"retention.ms is {format_duration(retention)}: the broker deletes before "
                f"keep_on_broker.time ({format_duration(keep.time_ms)}) is over"
            )
    if most is not None and most >= 0:
        if most < 2 * policy.segment.bytes:
            yield (
                f"retention.bytes is {format_size(most)}, segment.bytes {format_size(policy.segment.bytes)}: a busy "
                "partition's broker may delete records before they are archived"
            )
        elif keep.bytes is not None and most < keep.bytes and policy.trim == "delete-records":
            yield (
                f"retention.bytes is {format_size(most)}: the broker deletes before "
                f"keep_on_broker.bytes ({format_size(keep.bytes)}) is reached"
            )


def _lag(lags: Sequence[Lag], settings: Mapping[str, str]) -> Iterator[str]:
    """What the archive's being behind means for the brokers' retention."""
    lost, late = [lag for lag in lags if lag.lost], [lag for lag in lags if lag.endangered and not lag.lost]
    if lost:
        worst = max(lost, key=lambda lag: lag.log_start - lag.archived_to)
        yield (
            f"the broker has deleted what was not archived: partition {worst.partition} is archived up to offset "
            f"{worst.archived_to}, its log begins at {worst.log_start} now"
        )
    if late:
        worst = max(late, key=lambda lag: lag.log_end - lag.archived_to)
        retention = format_duration(int(settings["retention.ms"]))
        yield (
            f"the archive is behind: partition {worst.partition} is archived up to offset {worst.archived_to} of "
            f"{worst.log_end}, and records behind that are older than three quarters of retention.ms ({retention})"
        )


def names_text(names: Iterable[str]) -> str:
    """The first of them."""
    listed = list(names)
    more = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
