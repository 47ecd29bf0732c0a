"""How archives are shown: tables for people, JSON for scripts."""

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.names import topic_id_text
from tierproxy.cli.records import time_text
from tierproxy.cli.shelves import Shelf
from tierproxy.cli.verify import PartitionCheck
from tierproxy.config.units import format_size


def shelf_json(shelf: Shelf) -> dict[str, Any]:
    manifest = shelf.manifest
    about = _about(shelf)
    if manifest is None:
        return about | {"problem": shelf.problem}
    return about | {
        "start_offset": manifest.start_offset,
        "end_offset": manifest.end_offset,
        "segments": len(manifest.segments),
        "records": manifest.records,
        "plain_bytes": manifest.plain_size,
        "stored_bytes": manifest.stored_size,
        "ratio": _ratio(manifest.plain_size, manifest.stored_size),
        "first_timestamp": _first_time(manifest),
        "last_timestamp": max((entry.max_timestamp for entry in manifest.segments), default=-1),
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
    plain = stored = records = segments = 0
    ids: dict[tuple[str, str], set[bytes]] = {}
    for shelf in shelves:
        ids.setdefault((shelf.archive, shelf.pid.topic), set()).add(shelf.pid.topic_id)
    for shelf in shelves:
        topic, number, manifest = shelf.pid.topic, str(shelf.pid.partition), shelf.manifest
        if len(ids[shelf.archive, topic]) > 1:  # deleted and created again
            topic = f"{topic} ({topic_id_text(shelf.pid.topic_id)})"
        if manifest is None:
            table.add_row(shelf.archive, topic, number, *[""] * 9, Text(shelf.problem, style="bold red"))
            continue
        plain, stored = plain + manifest.plain_size, stored + manifest.stored_size
        records, segments = records + manifest.records, segments + len(manifest.segments)
        table.add_row(
            shelf.archive,
            topic,
            number,
            str(manifest.start_offset),
            str(manifest.end_offset),
            str(manifest.records),
            str(len(manifest.segments)),
            format_size(manifest.plain_size),
            format_size(manifest.stored_size),
            _ratio_text(manifest.plain_size, manifest.stored_size),
            time_text(_first_time(manifest)),
            time_text(max((entry.max_timestamp for entry in manifest.segments), default=-1)),
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
        str(records),
        str(segments),
        format_size(plain),
        format_size(stored),
        _ratio_text(plain, stored),
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
    click.echo(f"read {format_size(read)} of {len(results)} partitions: {bad or 'none'} with problems")


def _first_time(manifest: Manifest) -> int:
    return min((entry.min_timestamp for entry in manifest.segments if entry.min_timestamp >= 0), default=-1)


def _ratio(plain: int, stored: int) -> float | None:
    return round(plain / stored, 2) if stored else None


def _ratio_text(plain: int, stored: int) -> str:
    return f"{plain / stored:.1f}" if stored else "-"
