"""`tierproxy check --topic`: which policy a topic has, why, and who says what each key is.

What is decided here is pure; brokers are asked which topics there are, so that a pattern stands for those, and which of
them are internal. A name may also be of a topic that isn't there yet, or whose cluster doesn't answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tierproxy.access import service_access
from tierproxy.clock import Clock
from tierproxy.config import Config, TopicPolicy
from tierproxy.config.changes import text_of
from tierproxy.config.patterns import is_name, is_regex, takes, topic_pattern
from tierproxy.config.policies import PolicyDefaults
from tierproxy.errors import TierproxyError
from tierproxy.upstream import Cluster, ClusterView

CLIENT_ID = "tierproxy-check"
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Value:
    """One key of the policy that applies. `origin`: policy, defaults or built in."""

    key: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`index` is the policy's place, None: no policy matches. `before`: places of those that were asked first and don't
    match, with the reason; `behind`: of those that would match as well."""

    topic: str
    known: str
    index: int | None
    match: str
    before: tuple[tuple[int, str, str], ...]
    behind: tuple[tuple[int, str], ...]
    values: tuple[Value, ...]


async def look_for_topics(config: Config, clock: Clock) -> ClusterView | str:
    """What there is; or why nobody can say."""
    cluster = Cluster(config.cluster.bootstrap, service_access(config.cluster.security), CLIENT_ID, clock)
    try:
        await cluster.start()
        return cluster.view
    except TierproxyError as error:
        return str(error)
    finally:
        await cluster.close()


def explain_all(config: Config, asked: tuple[str, ...], view: ClusterView | str) -> list[Explanation]:
    """Names as they come, of patterns the topics that exist. Raises TierproxyError for a pattern without any."""
    names: dict[str, None] = {}
    for each in asked:
        try:
            topic_pattern(each)
        except ValueError as error:
            raise TierproxyError(f"--topic: {error}") from None
        if is_name(each):
            names[each] = None
        elif isinstance(view, str):
            raise TierproxyError(f"which topics {each!r} matches can't be looked up: {view}")
        else:
            found = sorted(name for name in view.topics if takes(each, name))
            if not found:
                raise TierproxyError(f"{each!r} matches no topic that exists and that tierproxy may see")
            names |= dict.fromkeys(found)
    return [explain(config, name, view) for name in names]


def explain(config: Config, name: str, view: ClusterView | str) -> Explanation:
    topic = view.topics.get(name) if isinstance(view, ClusterView) else None
    internal = topic.internal if topic is not None else name.startswith("__")
    if isinstance(view, str):
        known = f"whether it exists nobody can say: {view}"
    elif topic is None:
        known = "does not exist, or tierproxy may not see it"
    else:
        known = f"{len(topic.partitions)} partition{'' if len(topic.partitions) == 1 else 's'}"
        known += ", internal to Kafka" if internal else ""
    chosen = next((at for at, policy in enumerate(config.topics) if policy.takes(name, internal)), None)
    end = len(config.topics) if chosen is None else chosen
    before = tuple((at, policy.match, _why_not(policy, name)) for at, policy in enumerate(config.topics[:end]))
    behind = tuple(
        (at, policy.match) for at, policy in enumerate(config.topics) if at > end and policy.takes(name, internal)
    )
    if chosen is None:
        return Explanation(name, known, None, "", before, behind, ())
    policy = config.topics[chosen]
    return Explanation(name, known, chosen, policy.match, before, behind, tuple(_values(policy)))


def _why_not(policy: TopicPolicy, name: str) -> str:
    if takes(policy.match, name):
        return "takes no internal topic: those are matched by their exact name only"
    if is_regex(policy.match):
        return "does not match the whole name"
    return "is another topic" if is_name(policy.match) else "does not match"


def _values(policy: TopicPolicy) -> Iterator[Value]:
    """All keys; only `archive` of a topic that is just proxied, as the others mean nothing then."""
    for name in PolicyDefaults.model_fields:
        if policy.archive is None and name != "archive":
            continue
        value = getattr(policy, name)
        if name == "segment":
            for inner, info in type(value).model_fields.items():
                key = f"segment.{info.alias or inner}"
                yield Value(key, text_of(type(value), inner, getattr(value, inner)), policy.origin(key))
        else:
            text = "the archive's" if name == "storage_class" and value is None else text_of(type(policy), name, value)
            yield Value(name, text, policy.origin(name))


def explanation_json(found: Explanation) -> dict[str, Any]:
    values: Mapping[str, Any] = {value.key: {"value": value.text, "from": value.origin} for value in found.values}
    return {
        "topic": found.topic,
        "known": found.known,
        "policy": None if found.index is None else {"index": found.index, "match": found.match},
        "before": [{"index": at, "match": match, "reason": reason} for at, match, reason in found.before],
        "behind": [{"index": at, "match": match} for at, match in found.behind],
        "values": values,
    }


def show_explanation(found: Explanation, console: Console) -> None:
    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    chosen = "no policy matches it, so it is just proxied"
    if found.index is not None:
        chosen = f"topics[{found.index}] '{found.match}'"
        if found.values and found.values[0].text == "none":
            chosen += ", which says that it is just proxied"
    say(f"{found.topic}: {chosen}")
    say(f"  {found.known}")
    for at, match, reason in _shortened(found.before):
        say(f"  not topics[{at}] '{match}': it {reason}" if at >= 0 else f"  {reason}")
    if found.behind:
        listed = ", ".join(f"topics[{at}] '{match}'" for at, match in found.behind[:SHOWN])
        say(f"  would match as well, but come later: {listed}{', …' if len(found.behind) > SHOWN else ''}")
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for value in found.values:
        table.add_row(f"  {value.key}", escape(value.text), value.origin)
    console.print(table)


def _shortened(before: tuple[tuple[int, str, str], ...]) -> list[tuple[int, str, str]]:
    """The first and the last of them, where there are many."""
    if len(before) <= 2 * SHOWN:
        return [*before]
    return [*before[:SHOWN], (-1, "", f"… nor {len(before) - 2 * SHOWN} more"), *before[-SHOWN:]]
