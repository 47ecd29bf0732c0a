"""`tierproxy archive repair|accept-gap|move|gc|rm`: what changes archives because a person says so.

No broker is asked, as an archive stands alone, but by `rm`: whether the topic is really gone.
"""

import asyncio
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from tierproxy.archive.collector import Collected
from tierproxy.archive.manifest import Gap
from tierproxy.archive.names import topic_id_text
from tierproxy.cli.archive_options import archive_option, fail_if, partition_option, topics_argument
from tierproxy.cli.archive_view import (
    accepted_json,
    show_tidied,
    tidied_json,
)
from tierproxy.cli.common import config_option, json_option, read_config
from tierproxy.cli.moves import move_json, move_topics, show_moves
from tierproxy.cli.output import complain, print_json, print_json_line, progress_bar
from tierproxy.cli.removal import Tidied, must_be_dead, remove, tidy, topics_called
from tierproxy.cli.repair import RETURNED, Repair, Repairer
from tierproxy.cli.repair_view import repair_json, show_repairs
from tierproxy.cli.shelves import Shelf, accept_gaps, must_be_known, one_topic, open_libraries, with_shelves
from tierproxy.clock import SystemClock
from tierproxy.config.units import format_size, parse_duration_ms
from tierproxy.errors import TierproxyError


@click.command()
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC...")
@config_option
@click.option("--from", "source", required=True, metavar="NAME", help="The archive where they lie.")
@click.option("--to", "target", required=True, metavar="NAME", help="The archive where they shall lie.")
@partition_option
@json_option
def move(
    topics: tuple[str, ...], config_file: Path, source: str, target: str, partition: int | None, as_json: bool
) -> None:
    """Move the archive of topics to another store while it is read. TOPIC may hold * and ?.

    Whatever it is stopped by, begin again: it goes on where it was. Objects in the old archive stay. Status 1: some
    partition could not be moved.
    """
    config = read_config(config_file, as_json)
    moved = asyncio.run(move_topics(config, source, target, topics, partition))
    if as_json:
        print_json({"ok": all(each.ok for each in moved), "partitions": [move_json(each) for each in moved]})
    else:
        show_moves(moved, source, target)
    fail_if(not all(each.ok for each in moved))


@click.command()
@topics_argument
@config_option
@archive_option
@partition_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")
@json_option
def repair(
    topics: tuple[str, ...],
    config_file: Path,
    archive_name: str | None,
    partition: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Make lost or damaged manifests anew, from the segments alone. TOPIC may hold * and ?.

    Stop the archiver before: it would begin a partition's archive anew whose manifest is lost. Without --yes and with
    --dry-run the ends of segments are read; with --yes, all of those that get into a manifest. Status 1: something is
    still to be mended, or with --dry-run, can't be.
    """
    if dry_run and yes:
        raise click.UsageError("--dry-run and --yes contradict each other")
    config = read_config(config_file, as_json)

    async def repair_all(shelves: list[Shelf]) -> list[tuple[Shelf, Repair]]:
        results: list[tuple[Shelf, Repair]] = []
        with progress_bar() as progress:
            for shelf in shelves:
                repairer = Repairer(shelf.library, shelf.pid, SystemClock().now_ms())
                result = repairer.result
                try:
                    await repairer.plan()
                    if yes and result.problem and not result.hopeless:
                        total = sum(each.entry.stored_size for each in result.chosen)
                        task = progress.add_task(str(shelf.pid), total=total)
                        await repairer.carry_out(partial(progress.advance, task))
                except TierproxyError as error:  # the others are looked into all the same
                    result.problem = result.problem or "it can't be looked into"
                    result.hopeless = str(error)
                results.append((shelf, result))
        return results

    results = asyncio.run(with_shelves(config, archive_name, topics, partition, repair_all))
    left = any(result.problem and not result.changed for _, result in results)
    if as_json:
        print_json({"ok": not left, "partitions": [repair_json(*result) for result in results], "note": RETURNED})
    else:
        show_repairs(results)
        if any(result.problem and not result.changed and not result.hopeless for _, result in results) and not dry_run:
            complain("nothing was changed; to do it, say --yes")
    fail_if(any(result.hopeless for _, result in results) if dry_run else left)


@click.command()
@topics_argument
@config_option
@archive_option
@partition_option
@click.option("--dry-run", is_flag=True, help="Remove nothing, only say what there is.")
@click.option("--grace", metavar="TIME", help="How long garbage stays (24h); default: archiver.garbage.grace.")
@json_option
def gc(
    topics: tuple[str, ...],
    config_file: Path,
    archive_name: str | None,
    partition: int | None,
    dry_run: bool,
    grace: str | None,
    as_json: bool,
) -> None:
    """Remove objects that nothing needs: merged away, expired, left by an archiver that died. TOPIC may hold * and ?.

    An object is removed when it was seen to be garbage so long ago, by an earlier run or by an archiver. With
    archiver.garbage.delete = false nothing is. Status 1: some partition could not be looked at.
    """
    config = read_config(config_file, as_json)
    rules = config.archiver.garbage
    try:
        grace_ms = rules.grace_ms if grace is None else parse_duration_ms(grace)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--grace") from error

    async def work(shelves: list[Shelf]) -> list[Tidied]:
        return await tidy(shelves, SystemClock(), grace_ms, delete=rules.delete, dry_run=dry_run)

    done = asyncio.run(with_shelves(config, archive_name, topics, partition, work))
    good = not any(each.problem for each in done)
    total = sum((each.found for each in done), Collected())
    if as_json:
        print_json({"ok": good, "total": asdict(total), "partitions": [tidied_json(each) for each in done]})
    else:
        show_tidied(done, total)
    fail_if(not good)


@click.command()
@click.argument("topic")
@config_option
@archive_option
@click.option("--topic-id", metavar="ID", help="Which of the topics that had this name; archive ls shows them.")
@click.option("--yes", is_flag=True, help="Do it; without, it is only said what would be removed.")
@click.option("--force", is_flag=True, help="Even if the topic exists, or no broker says that it doesn't.")
def rm(topic: str, config_file: Path, archive_name: str | None, topic_id: str | None, yes: bool, force: bool) -> None:
    """Remove the whole archive of a topic that has been deleted. This can't be undone."""
    config = read_config(config_file)

    async def work() -> None:
        if archive_name is not None:
            must_be_known(config, archive_name)
        async with open_libraries(config) as libraries:
            asked = {name: each for name, each in libraries.items() if archive_name in (None, name)}
            found = [each for name, library in asked.items() for each in await topics_called(topic, name, library)]
            known = ", ".join(sorted({topic_id_text(each.topic_id) for each in found}))
            if not found:
                raise TierproxyError(f"nothing of {topic} is archived; tierproxy archive ls shows what is")
            if topic_id is None:
                raise TierproxyError(f"say which topic called {topic} is meant, by --topic-id: {known}")
            dead = [each for each in found if topic_id_text(each.topic_id) == topic_id]
            if not dead:
                raise TierproxyError(f"nothing of a topic {topic} with id {topic_id} is archived; known: {known}")
            if not force:
                await must_be_dead(config, SystemClock(), dead)
            for each in dead:
                told = f"{len(each.objects)} objects ({format_size(each.size)}) of {topic} {topic_id} in {each.archive}"
                if yes:
                    await remove(each)
                click.echo(f"removed {told}" if yes else f"would remove {told}; add --yes to do it")

    asyncio.run(work())


@click.command("accept-gap")
@click.argument("topic")
@config_option
@archive_option
@partition_option
@json_option
def accept_gap(topic: str, config_file: Path, archive_name: str | None, partition: int | None, as_json: bool) -> None:
    """Let readers of TOPIC go on across what is lost, where `on_gap: halt` holds them back.

    For the gaps that are recorded by now; those that come later are to be accepted again. Consumers notice within a
    minute.
    """
    config = read_config(config_file, as_json)
    now_ms = SystemClock().now_ms()

    async def accept(shelves: list[Shelf]) -> list[tuple[Shelf, list[Gap]]]:
        return [(shelf, await accept_gaps(shelf.library, shelf.pid, now_ms)) for shelf in one_topic(shelves)]

    accepted = asyncio.run(with_shelves(config, archive_name, (topic,), partition, accept))
    for shelf, gaps in accepted:
        if as_json:
            print_json_line(accepted_json(shelf, gaps))
        for gap in [] if as_json else gaps:
            click.echo(f"{shelf.archive} {shelf.pid}: accepted that {gap.start} to {gap.end - 1} are lost: {gap.cause}")
    if not as_json and not any(gaps for _, gaps in accepted):
        click.echo(f"{topic}: no gap waits to be accepted")


COMMANDS = (repair, accept_gap, move, gc, rm)
