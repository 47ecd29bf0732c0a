"""`tierproxy plan`: what archiving and trimming would do with this configuration, and what it would cost.

facts → gather (asks) → judge (decides) → show. Nothing is changed anywhere.
"""

import asyncio
import logging
import sys
from functools import partial
from pathlib import Path

import click

from tierproxy.cli.common import WRONG, config_option, json_option, read_config
from tierproxy.cli.output import print_json, tables, waiting
from tierproxy.clock import SystemClock
from tierproxy.config.patterns import takes
from tierproxy.config.units import parse_duration_ms, parse_size
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import setup_logging

MOST_SAMPLE = 16 * 2**20


def _size(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if size > MOST_SAMPLE:
        raise click.BadParameter("is more than 16MiB, which would be no sample any more")
    return size


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        return max(1, parse_duration_ms(text)) / 1000
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@config_option
@click.option("--partitions", is_flag=True, help="Show each partition.")
@click.option("--months", type=click.IntRange(1, 120), default=12, show_default=True, help="How far costs look ahead.")
@click.option(
    "--sample",
    "sample_bytes",
    callback=_size,
    default="1MiB",
    show_default=True,
    metavar="SIZE",
    help="Read so much of topics that nothing is archived of, to see how well they compress; 0: nothing.",
)
@click.option(
    "--timeout",
    "seconds",
    callback=_seconds,
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="What is not known by then is left out.",
)
@json_option
def plan(
    topics: tuple[str, ...],
    config_file: Path,
    partitions: bool,
    months: int,
    sample_bytes: int,
    seconds: float,
    as_json: bool,
) -> None:
    """What would be archived and trimmed with this configuration, and what it would cost. TOPIC may hold * and ?.

    Asks the live cluster and the archives, and changes nothing: use it before you change a policy. The status is 1 if
    something could not be found out.
    """
    from tierproxy.cli.plan.gather import gather  # the other commands need none of it
    from tierproxy.cli.plan.judge import judge
    from tierproxy.cli.plan.show import plan_json, show_plan

    config = read_config(config_file, as_json)
    setup_logging("error")
    logging.getLogger("tierproxy.upstream").setLevel(logging.CRITICAL)  # the plan says it better
    with waiting("asking brokers and archives …"):
        facts = asyncio.run(gather(config, SystemClock(), partial(_named, topics), sample_bytes, seconds))
    for name in topics:
        if not any(_named((name,), topic) for topic in facts.topics):
            raise TierproxyError(f"no topic that is to be archived is called {name}; tierproxy check shows which are")
    found = judge(config, facts, months)
    if as_json:
        print_json(plan_json(config, found, facts.view.cluster_id, facts.at_ms, partitions))
    else:
        show_plan(config, found, facts.view.cluster_id, facts.at_ms, partitions, tables())
    sys.exit(0 if found.ok else WRONG)


def _named(topics: tuple[str, ...], topic: str) -> bool:
    return not topics or any(takes(each, topic) for each in topics)
