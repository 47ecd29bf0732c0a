"""`tierproxy restore`: write archived topics, or a part of them, into a Kafka cluster."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from tierproxy.access import service_access
from tierproxy.cli.common import config_option, json_option, read_config
from tierproxy.cli.output import print_json, progress_bar
from tierproxy.cli.places import Place, offsets_between, range_options
from tierproxy.cli.records import time_text
from tierproxy.cli.shelves import Shelf, one_topic, with_shelves
from tierproxy.clock import SystemClock
from tierproxy.config import ClusterConfig, load_target
from tierproxy.config.units import format_size, parse_size
from tierproxy.errors import TierproxyError
from tierproxy.restore.job import Asked, Job, measured
from tierproxy.restore.lane import Pace
from tierproxy.restore.target import Target

LANES = 8
"""Partitions that are written at a time."""
CLIENT_ID = "tierproxy-restore"


class Size(click.ParamType[int]):
    """`50MiB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size < 1:
            self.fail("must be more than nothing", param, ctx)
        return size


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(value.split("=", 1) for value in values if "=" in value)
    if len(pairs) < len(values):
        raise click.BadParameter("each must look like name=value, and name something once", ctx, param)
    return pairs


@click.command()
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC...")
@config_option
@click.option("--archive", "archive_name", metavar="NAME", help="Only this one of the archives in the configuration.")
@click.option("--partition", type=click.IntRange(min=0), help="Only this partition.")
@range_options
@click.option("--into", metavar="HOST:PORT[,…]", help="The cluster to write to, in plaintext and without an account.")
@click.option(
    "--target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The cluster to write to, as a file with a `cluster:` section: bootstrap and security.",
)
@click.option("--rename", multiple=True, callback=_pairs, metavar="OLD=NEW", help="Write OLD into a topic called NEW.")
@click.option("--topic-config", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="Of topics it has to create.")
@click.option("--offset-header", metavar="NAME", help="Give each record a header with the offset that it had.")
@click.option("--rate", type=Size(), metavar="SIZE", help="At most so many bytes a second, for example 50MiB.")
@click.option("--dry-run", is_flag=True, help="Say what would be written and what stands in the way; write nothing.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run ended; without one, begin.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to note how far it is. [default: beside the configuration file]",
)
@json_option
def restore(
    topics: tuple[str, ...],
    config_file: Path,
    archive_name: str | None,
    partition: int | None,
    start: Place | None,
    end: Place | None,
    into: str | None,
    target: Path | None,
    rename: dict[str, str],
    topic_config: dict[str, str],
    offset_header: str | None,
    rate: int | None,
    dry_run: bool,
    resume: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Write what is archived of TOPIC into a Kafka cluster: same partitions, order, keys, values, headers and times.

    Offsets are the target's own. Of transactions only what was committed is written, as plain records. The target's
    topic is created if it isn't there; else it must be empty, and nobody else may write into it meanwhile. TOPIC may
    hold * and ?.
    """
    config = read_config(config_file, as_json)
    if (into is None) == (target is None):
        raise click.UsageError("give either --into HOST:PORT or --target FILE")
    addresses = json.dumps({"cluster": {"bootstrap": (into or "").split(",")}})  # which is YAML as well
    cluster = load_target(target if target is not None else addresses)
    asked = Asked(
        options=tuple(None if each is None else str(each) for each in (start, end, partition, offset_header)),
        partition=partition,
        offset_header=offset_header,
        topic_settings=topic_config,
        resume=resume,
        state_folder=state or config_file.parent,
    )

    async def work(shelves: list[Shelf]) -> list[Job]:
        brokers = _connect(cluster)
        try:
            await brokers.start()
            jobs = [await _job(brokers, topic, partition, start, end, rename, asked) for topic in _topics(shelves)]
            _check_names(jobs, rename)
            faults = [f"{job.name}: {fault}" for job in jobs for fault in await job.look()]
            if dry_run:
                _show_plan(jobs, faults, as_json)
            if faults:
                raise TierproxyError("; ".join(faults))
            if not dry_run:
                await _run(jobs, rate)
            return jobs
        finally:
            await brokers.close()

    jobs = asyncio.run(with_shelves(config, archive_name, topics, None, work))
    if not dry_run:
        _show_result(jobs, as_json)


def _connect(cluster: ClusterConfig) -> Target:
    return Target(cluster.bootstrap, service_access(cluster.security), CLIENT_ID, SystemClock())


def _topics(shelves: list[Shelf]) -> list[list[Shelf]]:
    """By name, of each the newest."""
    by_name = sorted(shelves, key=lambda shelf: shelf.pid.topic)
    return [one_topic(list(group)) for _, group in groupby(by_name, key=lambda shelf: shelf.pid.topic)]


async def _job(
    brokers: Target,
    shelves: Sequence[Shelf],
    partition: int | None,
    start: Place | None,
    end: Place | None,
    rename: dict[str, str],
    asked: Asked,
) -> Job:
    """All partitions are looked at, also where only one is wanted: the target is to have as many."""
    topic = shelves[0].pid.topic
    wanted = [shelf for shelf in shelves if partition in (None, shelf.pid.partition)]
    if not wanted:
        raise TierproxyError(f"nothing of {topic}, partition {partition}, is archived")
    sources = []
    for shelf in wanted:
        if shelf.manifest is None:
            raise TierproxyError(f"{shelf.pid}: {shelf.problem}")
        first, stop = await offsets_between(shelf.library, shelf.manifest, start, end)
        sources.append(await measured(shelf.library, shelf.manifest, first, stop))
    partitions = max(shelf.pid.partition for shelf in shelves) + 1
    return Job(brokers, rename.get(topic, topic), sources, partitions, asked, SystemClock())


def _check_names(jobs: list[Job], rename: dict[str, str]) -> None:
    unused = sorted(set(rename) - {job.topic for job in jobs})
    if unused:
        raise click.BadParameter(f"--rename {unused[0]}=…: no such topic is restored")
    names = [job.name for job in jobs]
    twice = sorted(name for name in set(names) if names.count(name) > 1)
    if twice:
        raise click.BadParameter(f"two topics would be written into {twice[0]}")


async def _run(jobs: list[Job], rate: int | None) -> None:
    lanes, pace = asyncio.Semaphore(LANES), Pace(rate, SystemClock())
    with progress_bar() as progress:
        for job in jobs:
            await job.begin()
            assert job.state is not None
            done = sum(each.bytes for each in job.state.partitions.values())
            task = progress.add_task(job.name, total=sum(each.bytes for each in job.sources), completed=done)
            await job.run(lanes, pace, partial(progress.advance, task))


def _show_plan(jobs: list[Job], faults: list[str], as_json: bool) -> None:
    if as_json:
        plans = [
            {
                "topic": job.topic,
                "target_topic": job.name,
                "partitions": [
                    {
                        "partition": each.manifest.partition,
                        "from": each.first,
                        "to": each.stop,
                        "records_at_most": each.records,
                        "bytes_at_most": each.bytes,
                        "first_timestamp": each.oldest_ms,
                        "last_timestamp": each.newest_ms,
                    }
                    for each in job.sources
                ],
            }
            for job in jobs
        ]
        print_json({"ok": not faults, "faults": faults, "topics": plans})
        return
    for job in jobs:
        for each in job.sources:
            click.echo(
                f"{job.topic}-{each.manifest.partition} → {job.name}: offsets {each.first} to {each.stop}, at most "
                f"{each.records} records, {format_size(each.bytes)}, {time_text(each.oldest_ms)} to "
                f"{time_text(each.newest_ms)}"
            )


def _show_result(jobs: list[Job], as_json: bool) -> None:
    results = []
    for job in jobs:
        assert job.state is not None
        for number, each in sorted(job.state.partitions.items()):
            results.append(
                {
                    "topic": job.topic,
                    "target_topic": job.name,
                    "partition": number,
                    "from": each.first,
                    "to": each.stop,
                    "records": each.records,
                    "bytes": each.bytes,
                    "target_end_offset": each.target_offset,
                }
            )
    if as_json:
        print_json({"ok": True, "partitions": results})
        return
    for row in results:
        click.echo(
            f"{row['topic']}-{row['partition']} → {row['target_topic']}: {row['records']} records of offsets "
            f"{row['from']} to {row['to']}"
        )
