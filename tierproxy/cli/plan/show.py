"""How a plan is shown: tables for people, JSON for scripts."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tierproxy.cli.check import keep_text
from tierproxy.cli.plan.numbers import ARCHIVE, MEASURED, OTHERS, SAMPLE, Costs, Numbers, PartitionPlan, Plan, TopicPlan
from tierproxy.cli.records import time_text
from tierproxy.config import Config, Keep, TopicPolicy
from tierproxy.config.units import format_duration, format_size
from tierproxy.costs import Requests, amount, broker_disk_month, money

TOPICS_SHOWN = 50
"""Of each policy, the largest ones; JSON has all."""
_SOURCES = {
    MEASURED: "measured on the brokers",
    ARCHIVE: "as in the archive",
    SAMPLE: "by a sample",
    OTHERS: "by samples of other topics of the policy",
    "": "unknown",
}


# ---- JSON --------------------------------------------------------------------------------------------------


def plan_json(config: Config, plan: Plan, cluster_id: str | None, at_ms: int, partitions: bool) -> dict[str, Any]:
    prices = config.prices
    return {
        "ok": plan.ok,
        "at_ms": at_ms,
        "cluster": {"name": config.cluster.name, "id": cluster_id},
        "prices": {"currency": prices.currency, "source": prices.source},
        "months": plan.months,
        "troubles": plan.troubles,
        "notes": plan.notes,
        "total": _numbers_json(plan.numbers),
        "policies": [
            {
                "index": index,
                "match": config.topics[index].match,
                "archive": config.topics[index].archive,
                "total": _numbers_json(_sum(topics)),
                "topics": [_topic_json(topic, partitions) for topic in topics],
            }
            for index, topics in _by_policy(plan).items()
        ],
    }


def _topic_json(topic: TopicPlan, partitions: bool) -> dict[str, Any]:
    about: dict[str, Any] = {"topic": topic.name}
    if topic.excluded:
        return about | {"excluded": topic.excluded}
    ratio = topic.ratio
    about |= {
        "compression": {"ratio": round(ratio.value, 3), "source": ratio.source} if ratio is not None else None,
        "growth_measured_over_ms": topic.window_ms or None,
        "total": _numbers_json(topic.numbers),
    }
    if partitions:
        about["partitions"] = [_partition_json(each) for each in topic.partitions]
    return about


def _partition_json(part: PartitionPlan) -> dict[str, Any]:
    return {
        "partition": part.index,
        "problem": part.problem or None,
        "log_start": _or_none(part.log_start),
        "stable_end": _or_none(part.stable_end),
        "archived_to": _or_none(part.archived_to),
        "trim_now": _or_none(part.trim_now),
        "trim_to": _or_none(part.trim_to),
        "exact": part.exact,
        "expire_to": _or_none(part.expire_to),
        "offset_bytes": {"value": round(part.sized.value, 1), "source": part.sized.source} if part.sized else None,
        "numbers": _numbers_json(part.numbers),
    }


def _or_none(offset: int) -> int | None:
    return offset if offset >= 0 else None


def _numbers_json(numbers: Numbers) -> dict[str, Any]:
    """Bytes and objects are whole numbers, however they were reckoned."""
    found: dict[str, Any] = {}
    for name, value in asdict(numbers).items():
        if name in ("now", "later"):
            costs: Costs = getattr(numbers, name)
            found[f"cost_{name}"] = _rounded({**value, "total": costs.total, "saved": costs.saved}, 6)
        elif isinstance(value, dict):
            found[name] = _rounded(value, 1)
        else:
            found[name] = round(value, 6) if name == "cost_once" else round(value)
    return found


def _rounded(values: dict[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}


# ---- tables ------------------------------------------------------------------------------------------------


def show_plan(
    config: Config, plan: Plan, cluster_id: str | None, at_ms: int, partitions: bool, console: Console
) -> None:
    when = time_text(at_ms)
    console.print(f"plan for cluster {config.cluster.name} ({cluster_id}), {when}; nothing was changed")
    if not plan.topics:
        console.print("no topic of this cluster is to be archived; tierproxy check shows which policy matches what")
    else:
        for index in _by_policy(plan):
            console.print(_policy_line(index, config.topics[index]), soft_wrap=True)
        console.print("\nonce:")
        console.print(_now_table(config, plan))
        if partitions:
            console.print()
            console.print(_partition_table(plan))
        console.print(f"\neach month; costs as they will be in {plan.months} months, in {config.prices.currency}:")
        console.print(_cost_table(config, plan))
        console.print()
        for line in (*_summary(config, plan), *_bases(config, plan)):
            console.print(line, soft_wrap=True)
    for topic in plan.topics:
        if topic.excluded:
            console.print(f"not archived: {topic.name}: {topic.excluded}", soft_wrap=True)
    for note in plan.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for trouble in plan.troubles:
        console.print(f"MISSING: {trouble}", style="bold red", soft_wrap=True)


def _policy_line(index: int, policy: TopicPolicy) -> str:
    brokers = f"keep {keep_text(policy.keep_on_broker)}" if policy.trim != "never" else "are not trimmed"
    kept = "forever" if policy.keep_in_archive == Keep() else keep_text(policy.keep_in_archive)
    return f"topics[{index}] {policy.match}: brokers {brokers}, archive {policy.archive} keeps {kept}"


def _now_table(config: Config, plan: Plan) -> Table:
    table, total = _table("topic"), plan.numbers
    columns = ["partitions", "broker disks", "to archive", "objects", "stored", "ratio", "freed"]
    columns += ["archived"] if total.archived_bytes else []
    columns += ["expires"] if total.expire_bytes else []
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, numbers: Numbers, topic: TopicPlan | None = None, style: str | None = None) -> None:
        ratio = topic.ratio if topic is not None else None
        unsized = numbers.unsized + numbers.unknown
        cells = {
            "partitions": str(numbers.partitions),
            "broker disks": _size(numbers.disk_bytes, unsized),
            "to archive": _size(numbers.backlog_bytes, unsized),
            "objects": _unsure(f"{numbers.backlog_objects:,}", numbers.backlog_objects, unsized),
            "stored": _size(numbers.backlog_stored, unsized + numbers.unpressed),
            "ratio": f"{ratio.value:.1f} {ratio.source}" if ratio is not None else "",
            "freed": _size(numbers.freed_bytes, unsized),
            "archived": _size(numbers.archived_bytes, numbers.unknown),
            "expires": _size(numbers.expire_bytes, numbers.unknown),
        }
        table.add_row(name, *(cells[column] for column in columns), style=style)

    _rows(config, plan, row)
    return table


def _cost_table(config: Config, plan: Plan) -> Table:
    table = _table("topic")
    for name in ("grows by", "stored", "PUT", "GET", "brokers", "archive", "all on brokers", "saved"):
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, numbers: Numbers, topic: TopicPlan | None = None, style: str | None = None) -> None:
        unpaced, costs = numbers.unpaced + numbers.unsized + numbers.unknown, numbers.later
        table.add_row(
            name,
            _size(numbers.month_bytes, unpaced),
            _size(numbers.month_stored, unpaced + numbers.unpressed),
            f"{numbers.monthly.puts:,.0f}",
            f"{numbers.monthly.gets:,.0f}",
            *(amount(each) for each in (costs.brokers, costs.storage + costs.requests, costs.alone, costs.saved)),
            style=style,
        )

    _rows(config, plan, row)
    return table


def _rows(config: Config, plan: Plan, row: Callable[..., None]) -> None:
    """For each policy its sum, then its topics, the largest first; then the sum of all."""
    policies = _by_policy(plan)
    for index, topics in policies.items():
        row(f"topics[{index}] {config.topics[index].match}", _sum(topics), style="bold")
        able = [topic for topic in topics if not topic.excluded]
        largest = sorted(able, key=lambda each: -each.numbers.disk_bytes)
        for topic in largest[:TOPICS_SHOWN]:
            row(f"  {topic.name}", topic.numbers, topic)
        if len(able) > TOPICS_SHOWN:
            row(f"  {len(able) - TOPICS_SHOWN} more", _sum(largest[TOPICS_SHOWN:]))
    if len(policies) > 1:
        row("total", plan.numbers, style="bold")


def _partition_table(plan: Plan) -> Table:
    table = _table("partition")
    for name in ("log start", "log end", "archived to", "trim now to", "trim to", "to archive", "freed", "expire to"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for topic in plan.topics:
        for part in topic.partitions:
            numbers = part.numbers
            about = "" if part.exact or part.problem else "about "
            table.add_row(
                f"{topic.name}-{part.index}",
                _offset(part.log_start),
                _offset(part.stable_end),
                _offset(part.archived_to),
                _offset(part.trim_now),
                about + _offset(part.trim_to),
                _size(numbers.backlog_bytes, numbers.unsized + numbers.unknown),
                _size(numbers.freed_bytes, numbers.unsized + numbers.unknown),
                _offset(part.expire_to),
                part.problem,
                style="bold red" if part.problem else None,
            )
    return table


def _summary(config: Config, plan: Plan) -> Iterable[str]:
    total, currency = plan.numbers, config.prices.currency
    yield f"today, a month: {money(broker_disk_month(config, total.disk_bytes, 1), currency)} for the brokers' disks"
    yield (
        f"once: {total.backlog_offsets:,} offsets in {total.backlog_objects:,} objects go to the archive "
        f"({_asked(total.once)}; {money(total.cost_once, currency)})"
    )
    yield (
        f"then {format_size(round(total.freed_bytes))} are freed on the brokers, of which "
        f"{format_size(round(total.freed_now))} are archived already and go at once; at the least "
        f"{format_size(round(total.freed_least))}, as brokers delete whole log segments"
    )
    if total.expire_objects:
        yield (
            f"in the archive {total.expire_objects:,} objects with {format_size(total.expire_bytes)} of log, "
            f"{format_size(total.expire_stored)} stored, are older than keep_in_archive, and would be removed for ever"
        )
    for name, costs in (("then", total.now), (f"in {plan.months} months", total.later)):
        yield (
            f"{name}, a month: {money(costs.total, currency)} = brokers {money(costs.brokers, currency)} + storage "
            f"{money(costs.storage, currency)} + requests {money(costs.requests, currency)}; the same history on the "
            f"brokers alone {money(costs.alone, currency)}; saved {money(costs.saved, currency)}"
        )


def _asked(requests: Requests) -> str:
    return f"{requests.puts:,.0f} PUT, {requests.gets:,.0f} GET, {requests.lists:,.0f} LIST"


def _bases(config: Config, plan: Plan) -> Iterable[str]:
    """What the numbers rest on."""
    yield "\nwhat these numbers rest on:"
    sizes: dict[str, int] = {}
    for topic in plan.topics:
        for part in topic.partitions:
            source = part.sized.source if part.sized is not None else ""
            sizes[source] = sizes.get(source, 0) + 1
    yield "  bytes for an offset: " + _counted(sizes, "partition")
    ratios: dict[str, int] = {}
    for topic in plan.topics:
        if not topic.excluded:
            source = topic.ratio.source if topic.ratio is not None else ""
            ratios[source] = ratios.get(source, 0) + 1
    yield "  compression: " + _counted(ratios, "topic")
    windows = sorted({topic.window_ms for topic in plan.topics if topic.window_ms})
    unpaced = f", unknown of {plan.numbers.unpaced} partitions" if plan.numbers.unpaced else ""
    if windows:
        over = " to ".join(dict.fromkeys(format_duration(each) for each in (windows[0], windows[-1])))
        yield f"  growth: records of the last {over}, by their own times{unpaced}"
    else:
        yield f"  growth: no record of the last 24h{unpaced}"
    yield f"  prices: assumed, {config.prices.source}; without traffic and what readers ask for"


def _counted(sources: dict[str, int], word: str) -> str:
    ordered = [source for source in _SOURCES if source in sources]
    return ", ".join(
        f"{_SOURCES[source]} ({sources[source]} {word}{'s' if sources[source] != 1 else ''})" for source in ordered
    )


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _size(value: float, unknown: int) -> str:
    return _unsure(format_size(round(value)), value, unknown)


def _unsure(text: str, value: float, unknown: int) -> str:
    """With a question mark where some partitions are missing in it."""
    if not unknown:
        return text
    return f"{text} + ?" if value else "?"


def _offset(offset: int) -> str:
    return str(offset) if offset >= 0 else ""


def _by_policy(plan: Plan) -> dict[int, list[TopicPlan]]:
    found: dict[int, list[TopicPlan]] = {}
    for topic in plan.topics:
        found.setdefault(topic.policy, []).append(topic)
    return dict(sorted(found.items()))


def _sum(topics: Iterable[TopicPlan]) -> Numbers:
    return sum((topic.numbers for topic in topics), Numbers())
