"""How archives are shown: tables for people, JSON for scripts."""

from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from tierproxy.archive.collector import Collected
from tierproxy.archive.manifest import Gap
from tierproxy.archive.names import topic_id_text
from tierproxy.cli.records import time_text
from tierproxy.cli.removal import Tidied
from tierproxy.cli.shelves import NOTHING, Shelf
from tierproxy.cli.verify import Orphan, PartitionCheck
from tierproxy.config.units import format_duration, format_size

ORPHANS_SHOWN = 10


def shelf_json(shelf: Shelf) -> dict[str, Any]:
    manifest, sums = shelf.manifest, shelf.sums
    about = _about(shelf)
    if manifest is None:
        return about | {"problem": shelf.problem}
    return about | {
        "start_offset": manifest.start_offset,
        "end_offset": manifest.end_offset,
        "segments": sums.segments,
        "records": sums.records,
        "plain_bytes": sums.plain_size,
        "stored_bytes": sums.stored_size,
        "ratio": _ratio(sums.plain_size, sums.stored_size),
        "first_timestamp": sums.min_timestamp,
        "last_timestamp": sums.max_timestamp,
        "gaps": [_gap_json(gap) for gap in manifest.gaps],
        "quarantined": [
            {
                "start": each.start,
                "end": each.end,
                "at_ms": each.at_ms,
                "cause": each.cause,
                "epochs": each.epochs,
                "segments": [entry.key_name for entry in each.segments],
            }
            for each in manifest.quarantined
        ],
    }


def accepted_json(shelf: Shelf, gaps: list[Gap]) -> dict[str, Any]:
    return _about(shelf) | {"accepted": [_gap_json(gap) for gap in gaps]}


def _gap_json(gap: Gap) -> dict[str, Any]:
    accepted = gap.accepted_ms if gap.accepted_ms >= 0 else None
    return {"start": gap.start, "end": gap.end, "at_ms": gap.at_ms, "cause": gap.cause, "accepted_ms": accepted}


def _about(shelf: Shelf) -> dict[str, Any]:
    return {
        "archive": shelf.archive,
        "topic": shelf.pid.topic,
        "topic_id": topic_id_text(shelf.pid.topic_id),
        "partition": shelf.pid.partition,
    }


def shelf_table(shelves: list[Shelf]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("archive", "topic"):
        table.add_column(name, overflow="fold")
    for name in ("partition", "start", "end", "records", "segments", "plain", "stored", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from", no_wrap=True)
    table.add_column("to", no_wrap=True)
    table.add_column("gaps", overflow="fold")
    total = sum((shelf.sums for shelf in shelves), NOTHING)
    ids: dict[tuple[str, str], set[bytes]] = {}
    for shelf in shelves:
        ids.setdefault((shelf.archive, shelf.pid.topic), set()).add(shelf.pid.topic_id)
    for shelf in shelves:
        topic, number, manifest, sums = shelf.pid.topic, str(shelf.pid.partition), shelf.manifest, shelf.sums
        if len(ids[shelf.archive, topic]) > 1:  # deleted and created again
            topic = f"{topic} ({topic_id_text(shelf.pid.topic_id)})"
        if manifest is None:
            table.add_row(shelf.archive, topic, number, *[""] * 9, Text(shelf.problem, style="bold red"))
            continue
        table.add_row(
            shelf.archive,
            topic,
            number,
            str(manifest.start_offset),
            str(manifest.end_offset),
            str(sums.records),
            str(sums.segments),
            format_size(sums.plain_size),
            format_size(sums.stored_size),
            _ratio_text(sums.plain_size, sums.stored_size),
            time_text(sums.min_timestamp),
            time_text(sums.max_timestamp),
            ", ".join(
                [
                    *(f"[{gap.start}, {gap.end}) {gap.cause}" for gap in manifest.gaps),
                    *(f"quarantined [{each.start}, {each.end}) {each.cause}" for each in manifest.quarantined),
                ]
            ),
        )
    table.add_section()
    table.add_row(
        "total",
        "",
        str(len(shelves)),
        "",
        "",
        str(total.records),
        str(total.segments),
        format_size(total.plain_size),
        format_size(total.stored_size),
        _ratio_text(total.plain_size, total.stored_size),
        style="bold",
    )
    return table


def check_json(shelf: Shelf, result: PartitionCheck | None) -> dict[str, Any]:
    about = _about(shelf)
    if result is None:
        return about | {"ok": False, "problems": [{"segment": None, "problem": shelf.problem}]}
    return about | {
        "ok": not result.problems,
        "segments": result.segments,
        "stored_bytes": result.stored_bytes,
        "plain_bytes": result.plain_bytes,
        "records": result.records,
        "gaps": [[gap.start, gap.end] for gap in result.gaps],
        "missing": [list(span) for span in result.missing],
        "problems": [{"segment": each.segment, "problem": each.text} for each in result.problems],
        "orphans": [{"name": each.name, "size": each.size, "age_ms": each.age_ms} for each in result.orphans],
    }


def show_checks(results: list[tuple[Shelf, PartitionCheck | None]]) -> None:
    read = bad = 0
    for shelf, result in results:
        name = f"{shelf.archive} {shelf.pid}"
        if result is None:
            bad += 1
            click.echo(f"{name}: {shelf.problem}")
            continue
        read += result.stored_bytes
        bad += bool(result.problems)
        gaps = f", {len(result.gaps)} recorded gaps" if result.gaps else ""
        verdict = "ok" if not result.problems else f"{len(result.problems)} PROBLEMS"
        click.echo(
            f"{name}: {verdict}, {result.segments} segments, {result.records} records, "
            f"{format_size(result.stored_bytes)}{gaps}"
        )
        for problem in result.problems:
            click.echo(f"  {problem.segment or 'partition'}: {problem.text}")
        _show_orphans(result.orphans)
    click.echo(f"read {format_size(read)} of {len(results)} partitions: {bad or 'none'} with problems")


def tidied_json(done: Tidied) -> dict[str, Any]:
    about: dict[str, Any] = {
        "archive": done.shelf.archive,
        "topic": done.shelf.pid.topic,
        "topic_id": topic_id_text(done.shelf.pid.topic_id),
        "partition": done.shelf.pid.partition,
    }
    return about | ({"problem": done.problem} if done.problem else asdict(done.found))


def show_tidied(done: list[Tidied], total: Collected) -> None:
    for each in done:
        if each.problem or each.found != Collected():
            told = each.problem or _collected_text(each.found)
            click.echo(f"{each.shelf.archive} {each.shelf.pid}: {told}")
    click.echo(f"{len(done)} partitions: {_collected_text(total)}")


def _collected_text(found: Collected) -> str:
    parts = (
        (found.removed, found.removed_bytes, "removed"),
        (found.ripe, found.ripe_bytes, "could be removed"),
        (found.waiting, found.waiting_bytes, "wait until their grace time is over"),
    )
    told = [f"{count} objects ({format_size(size)}) {what}" for count, size, what in parts if count]
    return ", ".join(told) or "no garbage"


def _show_orphans(orphans: list[Orphan]) -> None:
    if not orphans:
        return
    size = format_size(sum(each.size for each in orphans))
    click.echo(f"  warning: {len(orphans)} objects that no manifest names, {size}")
    for each in orphans[:ORPHANS_SHOWN]:
        click.echo(f"    {each.name}: {format_size(each.size)}, {format_duration(each.age_ms)} old")
    if len(orphans) > ORPHANS_SHOWN:
        click.echo(f"    … and {len(orphans) - ORPHANS_SHOWN} more; --json has all of them")


def _ratio(plain: int, stored: int) -> float | None:
    return round(plain / stored, 2) if stored else None


def _ratio_text(plain: int, stored: int) -> str:
    return f"{plain / stored:.1f}" if stored else "-"
