"""How commands speak: results to standard output, everything else to standard error."""

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.status import Status

PIPE_WIDTH = 200
"""Columns of a table that goes to a file or another program: nobody there can widen a window."""


def tables() -> Console:
    """For tables on standard output."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False)


def progress_bar() -> Progress:
    """For bytes, on standard error; shows nothing where nobody looks."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def waiting(text: str) -> Status:
    """Says on standard error what is being waited for; nothing where nobody looks."""
    return Console(stderr=True, quiet=not sys.stderr.isatty()).status(text)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_line(value: Any) -> None:
    """One of many: a line each, so that a reader needs no end to begin."""
    click.echo(json.dumps(value, ensure_ascii=False))


def complain(text: str) -> None:
    """A sentence for a person, to standard error."""
    click.echo(text, err=True)
