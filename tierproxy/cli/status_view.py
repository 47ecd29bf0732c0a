"""What `tierproxy status` prints: a sentence, sums, a line for each partition, what there is to say of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tierproxy.config import Config
from tierproxy.config.units import format_size
from tierproxy.costs import money
from tierproxy.insight import traffic
from tierproxy.insight.overview import Overview
from tierproxy.insight.picture import Level, PartitionPicture, Where
from tierproxy.insight.shapes import WIDE, Lanes, lanes
from tierproxy.insight.told import Told
from tierproxy.insight.words import counted, duration
from tierproxy.insight.worth import worth

MOST_ROWS = 200
"""Partitions in a table; --json has all of them."""
LANE = 24
TROUBLES = 10
WIDE_ENOUGH = 110
"""Columns of a terminal from which on there is a picture."""

_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.BAD: "bold red"}


@dataclass(frozen=True, slots=True)
class Process:
    """What the admin port said, or why it said nothing; both empty where the configuration has no such port."""

    said: dict[str, Any] | None
    why: str = ""

    @property
    def told(self) -> list[Told]:
        return [Told.from_json(each) for each in self.said["workers"]] if self.said is not None else []


def status_view(config: Config, seen: Overview, process: Process, width: int) -> RenderableType:
    topics = sorted(seen.topics, key=lambda each: (-each.level, each.name))
    parts = [part for topic in topics for part in topic.partitions]
    shown: list[RenderableType] = [_head(config, seen)]
    if parts:
        shown += [Text(), _partitions(parts[:MOST_ROWS], width)]
    if len(parts) > MOST_ROWS:
        shown.append(Text(f"… and {counted(len(parts) - MOST_ROWS, 'partition')} more: name topics, or use --json"))
    words = _words(parts)
    if words:
        shown += [Text(), *words]
    shown += [Text(), *_archivers(seen, process)]
    return Group(*shown)


def _head(config: Config, seen: Overview) -> RenderableType:
    saving = worth(config, seen.topics)
    first = Text.assemble(
        (f"{seen.level.word}: ", _STYLES[seen.level]), (seen.verdict, "bold"), f"  (cluster {config.cluster.name})"
    )
    sums = Text(
        f"{counted(len(seen.topics), 'topic')}, {counted(seen.partitions, 'partition')}: "
        f"{format_size(seen.sums.plain_size)} archived as {format_size(seen.sums.stored_size)}, "
        f"{format_size(seen.freed_bytes)} freed on each replica"
        + (f" (saves {money(saving.saved, config.prices.currency)} a month)" if saving.on_brokers else "")
        + f", {counted(seen.lag, 'offset')} not archived yet"
    )
    problems = [Text(each, style="red") for each in seen.facts.problems if each != seen.verdict]
    return Group(first, *problems, sums)


def _partitions(parts: Sequence[PartitionPicture], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("topic", overflow="fold")
    table.add_column("", justify="right", no_wrap=True)
    if width >= WIDE_ENOUGH:
        table.add_column("archive / broker", no_wrap=True)
    for name in ("start", "trimmed to", "end", "behind"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("log", justify="right", no_wrap=True)
    table.add_column("stored", justify="right", no_wrap=True)
    for part in parts:
        archived, facts = part.facts.archived, part.facts
        picture = [lane_text(lanes(part.spans))] if width >= WIDE_ENOUGH else []
        table.add_row(
            Text(part.level.word, style=_STYLES[part.level]),
            part.topic,
            str(part.partition),
            *picture,
            _offset(part.first),
            _offset(facts.log_start if not facts.broker_problem else -1),
            _offset(part.end),
            f"{part.lag:,}" if part.lag else "-",
            format_size(archived.sums.plain_size) if archived is not None else "?",
            format_size(archived.sums.stored_size) if archived is not None else "?",
        )
    return table


def _offset(offset: int) -> str:
    return f"{offset:,}" if offset >= 0 else "-"


def lane_text(drawn: Lanes, width: int = LANE) -> Text:
    """Both lanes in one line: ▀ is in the archive, ▄ on the broker, █ in both, x a hole."""
    text = Text()
    for at in range(width):
        middle = (at + 0.5) * WIDE / width
        above = next((box.kind for box in drawn.archive if box.x <= middle < box.x + box.width), "")
        below = any(box.x <= middle < box.x + box.width for box in drawn.broker)
        if above in (Where.HOLE, Where.LOST):
            text.append("x", style="red")
        elif above:
            text.append("█" if below else "▀", style="blue")
        else:
            text.append("▄" if below else " ", style="yellow")
    return text


def _words(parts: Sequence[PartitionPicture]) -> list[RenderableType]:
    told = sorted((part for part in parts if part.level > Level.OK), key=lambda part: -part.level)
    lines: list[RenderableType] = [
        Text.assemble((f"{part.level.word}: ", _STYLES[part.level]), f"{part.topic}-{part.partition}: {each.text}")
        for part in told[:TROUBLES]
        for each in part.verdicts
    ]
    if len(told) > TROUBLES:
        lines.append(Text(f"… and something to say of {counted(len(told) - TROUBLES, 'more partition')}"))
    return lines


def _archivers(seen: Overview, process: Process) -> list[RenderableType]:
    lines: list[RenderableType] = []
    group = seen.facts.group
    if group is not None and group.problem:
        lines.append(Text(f"archivers: the group {group.name} can't be seen: {group.problem}", style="yellow"))
    elif group is not None:
        lines.append(Text(f"archivers: {counted(len(group.members), 'member')} of {group.name} {group.state}".rstrip()))
        for member in group.members:
            share = sum(map(len, member.partitions.values()))
            topics = counted(len(member.partitions), "topic")
            lines.append(Text(f"  {member.host} {member.client_id}: {counted(share, 'partition')} of {topics}"))
    if process.why:
        lines.append(Text(process.why, style="dim"))
    if process.said is None:
        return lines
    speeds = process.said["speeds"] or {}
    passing = (
        f"{speeds.get(traffic.COLD_FETCHES, 0):.3g} fetches of archived records a second, "
        f"{format_size(round(speeds.get(traffic.COLD_BYTES, 0)))}/s of archived bytes read, "
        f"{format_size(round(speeds.get(traffic.TO_CLIENTS, 0)))}/s to clients, "
        if speeds
        else ""
    )
    lines.append(Text(f"passing: {passing}{counted(process.said['connections'], 'client connection')}"))
    troubles = [(told.who, each) for told in process.told for each in told.troubles]
    troubles.sort(key=lambda each: (each[1].ended_ms is not None, -(each[1].ended_ms or each[1].began_ms)))
    for who, trouble in troubles[:TROUBLES]:
        part = trouble.part if who in ("", trouble.part) else f"{who} {trouble.part}"
        if trouble.ended_ms is None:
            how, style = f"open for {duration(seen.now_ms - trouble.began_ms)}", "yellow"
        else:
            how, style = f"over for {duration(seen.now_ms - trouble.ended_ms)}", "dim"
        lines.append(Text(f"{part}, {how}: {trouble.message}", style=style))
    return lines
