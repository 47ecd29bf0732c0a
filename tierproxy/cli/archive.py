"""`tierproxy archive ls|verify|cat|export`: look into archives, take them elsewhere. No broker is asked."""

import asyncio
from pathlib import Path

import click

from tierproxy.cli.archive_care import COMMANDS
from tierproxy.cli.archive_options import archive_option, fail_if, partition_option, topics_argument
from tierproxy.cli.archive_view import (
    check_json,
    shelf_json,
    shelf_table,
    show_checks,
)
from tierproxy.cli.common import config_option, json_option, read_config
from tierproxy.cli.export import JSON_LINES, LOG, Asked, Exported, agreed_ranges, export_partition
from tierproxy.cli.output import complain, print_json, print_json_line, progress_bar, tables
from tierproxy.cli.places import Place, range_options
from tierproxy.cli.records import read_records, record_json, record_line
from tierproxy.cli.shelves import Shelf, one_topic, with_shelves
from tierproxy.cli.verify import PartitionCheck, verify_partition
from tierproxy.clock import SystemClock
from tierproxy.durable import CantWrite
from tierproxy.errors import TierproxyError


@click.group()
def archive() -> None:
    """What is archived: list it, check and print it, take it elsewhere, mend it, move it, remove what nothing needs."""


@archive.command()
@topics_argument
@config_option
@archive_option
@json_option
def ls(topics: tuple[str, ...], config_file: Path, archive_name: str | None, as_json: bool) -> None:
    """List what is archived, partition by partition. TOPIC may hold * and ?.

    JSON has a line for each partition. Status 1: some partition has no manifest that could be read.
    """
    config = read_config(config_file, as_json)
    shelves = asyncio.run(with_shelves(config, archive_name, topics, None, _all))
    if as_json:
        for shelf in shelves:
            print_json_line(shelf_json(shelf))
    else:
        tables().print(shelf_table(shelves))
        if not shelves:
            complain("nothing is archived yet")
    fail_if(any(shelf.manifest is None for shelf in shelves))


@archive.command()
@topics_argument
@config_option
@archive_option
@partition_option
@click.option("--allow-holes", is_flag=True, help="Accept missing offsets, as topics with compaction have them.")
@json_option
def verify(
    topics: tuple[str, ...],
    config_file: Path,
    archive_name: str | None,
    partition: int | None,
    allow_holes: bool,
    as_json: bool,
) -> None:
    """Read every byte of every segment and check it. TOPIC may hold * and ?.

    Checksums, offsets, counts and epochs are compared. Status 1: something is wrong or lost.
    """
    config = read_config(config_file, as_json)

    now_ms = SystemClock().now_ms()

    async def check_all(shelves: list[Shelf]) -> list[tuple[Shelf, PartitionCheck | None]]:
        sizes = [shelf.sums.stored_size for shelf in shelves]
        results: list[tuple[Shelf, PartitionCheck | None]] = []
        with progress_bar() as progress:
            task = progress.add_task("reading", total=sum(sizes))
            for shelf in shelves:
                if shelf.manifest is None:
                    results.append((shelf, None))
                    continue
                progress.update(task, description=str(shelf.pid))
                result = await verify_partition(
                    shelf.library,
                    shelf.manifest,
                    allow_holes=allow_holes,
                    now_ms=now_ms,
                    progress=lambda count: progress.advance(task, count),
                )
                results.append((shelf, result))
        return results

    results = asyncio.run(with_shelves(config, archive_name, topics, partition, check_all))
    good = all(result is not None and not result.problems for _, result in results)
    if as_json:
        print_json({"ok": good, "partitions": [check_json(*result) for result in results]})
    else:
        show_checks(results)
    fail_if(not good)


@archive.command()
@click.argument("topic")
@config_option
@archive_option
@partition_option
@click.option("--offset", type=click.IntRange(min=0), default=0, show_default=True, help="Begin here.")
@click.option("--count", type=click.IntRange(min=0), help="At most so many records.")
@click.option(
    "--isolation",
    type=click.Choice(["read_committed", "read_uncommitted"]),
    default="read_committed",
    show_default=True,
    help="Whether records of transactions that were aborted are left out.",
)
@json_option
def cat(
    topic: str,
    config_file: Path,
    archive_name: str | None,
    partition: int | None,
    offset: int,
    count: int | None,
    isolation: str,
    as_json: bool,
) -> None:
    """Print archived records of TOPIC, a line each, partition after partition."""
    config = read_config(config_file)

    async def show(shelves: list[Shelf]) -> None:
        left = count
        for shelf in one_topic(shelves):
            if shelf.manifest is None:
                raise TierproxyError(shelf.problem)
            number = shelf.pid.partition
            records = read_records(shelf.library, shelf.manifest, offset, committed=isolation == "read_committed")
            async for record in records:
                if left == 0:
                    return
                if as_json:
                    print_json_line(record_json(topic, number, record))
                else:
                    click.echo(record_line(number, record))
                left = None if left is None else left - 1

    asyncio.run(with_shelves(config, archive_name, (topic,), partition, show))


async def _all(shelves: list[Shelf]) -> list[Shelf]:
    return shelves


@archive.command()
@click.argument("topic")
@config_option
@archive_option
@partition_option
@range_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where to write; with the same DIR an export that was broken off goes on.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice([LOG, JSON_LINES]),
    default=LOG,
    show_default=True,
    help="Kafka's own log files, batches byte for byte, or JSON lines.",
)
@click.option(
    "--isolation",
    type=click.Choice(["read_committed", "read_uncommitted"]),
    default="read_committed",
    show_default=True,
    help="Of JSON lines; log files hold everything, transactions' markers too.",
)
@json_option
def export(
    topic: str,
    config_file: Path,
    archive_name: str | None,
    partition: int | None,
    start: Place | None,
    end: Place | None,
    output: Path,
    kind: str,
    isolation: str,
    as_json: bool,
) -> None:
    """Write TOPIC, or a part of it, to files: for other programs, or for a time without tierproxy.

    What is archived when it begins is what it is of: a later run with the same DIR finishes it, and adds nothing.
    """
    config = read_config(config_file, as_json)
    asked = Asked(topic, output, kind, isolation, start, end)

    async def write(found: list[Shelf]) -> list[Exported]:
        shelves = one_topic(found)
        ranges = await agreed_ranges(asked, shelves)
        results = []
        with progress_bar() as progress:
            task = progress.add_task("writing", total=sum(s.manifest.sums.plain_size for s in shelves if s.manifest))
            for shelf in shelves:
                assert shelf.manifest is not None, "agreed_ranges has looked"
                progress.update(task, description=str(shelf.pid))
                span = ranges[shelf.pid.partition]
                results.append(
                    await export_partition(
                        asked, shelf, shelf.manifest, span, lambda count: progress.advance(task, count)
                    )
                )
        return results

    try:
        results = asyncio.run(with_shelves(config, archive_name, (topic,), partition, write))
    except CantWrite as error:
        raise CantWrite(f"{error}; what is finished stays: put it right and give the same command again") from error
    if as_json:
        print_json({"topic": topic, "partitions": [each.as_json() for each in results]})
    else:
        for each in results:
            there = f", {len(each.kept)} were there already" if each.kept else ""
            click.echo(
                f"{topic}-{each.partition}: offsets {each.first} to {each.stop}, {len(each.written)} files{there}"
            )


for each in COMMANDS:
    archive.add_command(each)
