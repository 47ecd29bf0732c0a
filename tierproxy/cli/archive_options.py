"""What the commands on archives share."""

import sys
from collections.abc import Callable
from typing import Any

import click

from tierproxy.cli.common import WRONG


def archive_option(command: Callable[..., Any]) -> Callable[..., Any]:
    help_text = "Only this one of the archives in the configuration."
    return click.option("--archive", "archive_name", metavar="NAME", help=help_text)(command)


def topics_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("topics", nargs=-1, metavar="[TOPIC]...")(command)


def partition_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--partition", type=click.IntRange(min=0), help="Only this partition.")(command)


def fail_if(wrong: bool) -> None:
    if wrong:
        sys.exit(WRONG)
