"""The commands: serve, check, plan, status, schema, archive, restore."""

import logging
import sys
from functools import partial
from pathlib import Path

import click

from tierproxy import __version__
from tierproxy.cli.archive import archive
from tierproxy.cli.archive_options import topics_argument
from tierproxy.cli.check import run_check, run_explain
from tierproxy.cli.common import WRONG, Cli, config_option, json_option, read_config
from tierproxy.cli.output import print_json
from tierproxy.cli.plan import plan
from tierproxy.cli.restore import restore
from tierproxy.config import json_schema, warnings
from tierproxy.telemetry import setup_logging

log = logging.getLogger("tierproxy.cli")


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tierproxy")
def main() -> None:
    """A Kafka-protocol proxy that archives topics in object storage and serves them from offset 0."""


@main.command()
@config_option
@click.option(
    "--from-archive",
    is_flag=True,
    help="Serve what is archived without any broker, to whoever connects: for when the cluster is gone.",
)
@click.option(
    "--host",
    metavar="HOST",
    help="With --from-archive: listen here instead of on 127.0.0.1, and advertise listen.advertised_host.",
)
def serve(config_file: Path, from_archive: bool, host: str | None) -> None:
    """Run gateway and archiver until SIGTERM or SIGINT."""
    from tierproxy.alone import alone  # the other commands need none of it
    from tierproxy.workers.supervisor import run

    if host is not None and not from_archive:
        raise click.UsageError("--host goes with --from-archive; else listen.host says where to listen")
    config = read_config(config_file)
    setup_logging(config.log.level, config.log.format)
    for fault in warnings(config):
        log.warning("configuration: %s", fault)
    if from_archive:
        run(config, partial(alone, host=host))
    else:
        run(config, file=config_file)


@main.command()
@config_option
@json_option
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC",
    help="Explain instead which policy this topic has and why: a name, also of one that isn't there yet, or a pattern.",
)
def check(config_file: Path, as_json: bool, topics: tuple[str, ...]) -> None:
    """Check the configuration, and that brokers, topics, rights and archives are as it needs them.

    Nothing is changed, but for an object that is written to each archive and removed again. Warnings leave the status
    at 0. Status 1: something would keep tierproxy from doing what the configuration says.
    """
    config = read_config(config_file, as_json)
    if topics:
        run_explain(config, topics, as_json)
    else:
        sys.exit(0 if run_check(config, as_json) else WRONG)


@main.command()
@topics_argument
@config_option
@click.option(
    "--watch",
    "every",
    type=click.FloatRange(min=1.0),
    is_flag=False,
    flag_value=5.0,
    metavar="SECONDS",
    help="Look again every so many seconds (5 if none are said), until interrupted.",
)
@json_option
def status(topics: tuple[str, ...], config_file: Path, every: float | None, as_json: bool) -> None:
    """Show where each partition's history lies, how far archiving is behind, and what needs somebody.

    TOPIC may hold * and ?. The status is 1 if something needs a person. JSON is as of the dashboard's /status.json.
    """
    from tierproxy.cli.status import run_status  # the other commands need none of it

    if every is not None and as_json:
        raise click.UsageError("--watch is for people, --json for programs: use one of them")
    sys.exit(0 if run_status(read_config(config_file, as_json), topics, as_json, every) else WRONG)


@main.command()
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    print_json(json_schema())


main.add_command(plan)
main.add_command(archive)
main.add_command(restore)
