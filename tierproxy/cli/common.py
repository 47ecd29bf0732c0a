"""What all commands share: options, the configuration file, and how errors become an exit status.

0: all is well. 1: something is not. 2: asked wrongly, that is a bad option or a bad configuration file.
Errors that we know are one sentence on standard error; only what we did not foresee has a traceback.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from protocol.errors import MalformedError
from tierproxy.cli.output import complain, print_json
from tierproxy.config import Config, load_config
from tierproxy.errors import ConfigError, TierproxyError

WRONG = 1
BAD_CONFIG = 2

Command = TypeVar("Command", bound=Callable[..., Any])


class Cli(click.Group):
    """A group whose commands may raise TierproxyError."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            complain(str(error))
            ctx.exit(BAD_CONFIG)
        except TierproxyError as error:
            complain(f"tierproxy: {error}")
            ctx.exit(WRONG)
        except MalformedError as error:
            complain(f"tierproxy: what is archived, or what a broker said, is not Kafka's: {error}")
            ctx.exit(WRONG)


def config_option(command: Command) -> Command:
    """`--config FILE`, or the environment variable TIERPROXY_CONFIG."""
    return click.option(
        "-c",
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        envvar="TIERPROXY_CONFIG",
        required=True,
        metavar="FILE",
        help="The configuration file (or set TIERPROXY_CONFIG).",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def read_config(config_file: Path, as_json: bool = False) -> Config:
    """The configuration; with `as_json` its faults go to standard output as JSON as well."""
    try:
        return load_config(config_file)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "faults": [asdict(fault) for fault in error.faults]})
        raise
