"""How repairs are shown: lines for people, JSON for scripts."""

from typing import Any

import click

from tierproxy.archive.names import topic_id_text
from tierproxy.cli.repair import RETURNED, Repair
from tierproxy.cli.shelves import Shelf
from tierproxy.cli.verify import Problem


def repair_json(shelf: Shelf, result: Repair) -> dict[str, Any]:
    chosen = result.chosen
    return {
        "archive": shelf.archive,
        "topic": shelf.pid.topic,
        "topic_id": topic_id_text(shelf.pid.topic_id),
        "partition": shelf.pid.partition,
        "problem": result.problem or None,
        "hopeless": result.hopeless or None,
        "changed": result.changed,
        "pages": [page.name for page in result.pages],
        "start_offset": chosen[0].entry.base_offset if chosen else None,
        "end_offset": chosen[-1].entry.last_offset + 1 if chosen else None,
        "segments": [each.entry.key_name for each in chosen],
        "gaps": [{"start": gap.start, "end": gap.end, "cause": gap.cause} for gap in result.gaps],
        "left_out": _problems_json(result.left_out),
        "damaged": _problems_json(result.unsound),
        "kept_as": result.kept_as,
    }


def show_repairs(results: list[tuple[Shelf, Repair]]) -> None:
    for shelf, result in results:
        click.echo(f"{shelf.archive} {shelf.pid}: {_verdict(result)}")
        for gap in result.gaps:
            click.echo(f"  offsets {gap.start} to {gap.end - 1} are recorded as a gap: {gap.cause}")
        for each in result.unsound:
            click.echo(f"  {each.segment} is damaged, but nothing else has its offsets: {each.text}")
        for each in result.left_out:
            click.echo(f"  {each.segment} is left out: {each.text}")
        if result.kept_as is not None:
            click.echo(f"  the damaged manifest is kept as {result.kept_as}")
    if any(result.chosen for _, result in results):
        click.echo(RETURNED + ".")


def _verdict(result: Repair) -> str:
    if not result.problem:
        return "ok"
    if result.hopeless:
        return f"{result.problem}; it can't be made anew: {result.hopeless}"
    what = f"{len(result.pages)} of its pages" if result.pages else "it"
    were = "were" if result.pages else "was"
    done = f"{were} made anew" if result.changed else "would be made anew"
    entries = [each.entry for each in result.chosen]
    found = f"offsets {entries[0].base_offset} to {entries[-1].last_offset}" if entries else "nothing"
    return f"{result.problem}; {what} {done} of {len(entries)} segments: {found}"


def _problems_json(problems: list[Problem]) -> list[dict[str, str | None]]:
    return [{"segment": each.segment, "problem": each.text} for each in problems]
