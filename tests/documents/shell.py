"""What shell blocks and text tell people to type: which programs, and whether tierproxy's own lines are right."""

import re
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import click

from tests.kit import PROJECT
from tierproxy.cli import main

OTHERS = frozenset(
    {
        "cd",
        "cp",
        "curl",
        "docker",
        "echo",
        "export",
        "git",
        "helm",
        "kubectl",
        "podman",
        "python",
        "python3",
        "rm",
        "seq",
        "test",
        "touch",
        "zstd",
    }
)
"""Programs that are not ours and not Kafka's, and that the pages may use."""
_BETWEEN = {"|", "||", "&&", ";"}


def typed(line: str) -> list[list[str]]:
    """The commands of a line, without comments and redirections, each as its words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if word in _BETWEEN:
            found.append([])
        elif word in ("<", ">", ">>"):
            next(lexer, None)
        else:
            found[-1].append(word)
    return [words for words in found if words]


def program(words: list[str]) -> str:
    """`.venv/bin/tierproxy` is tierproxy, `kafka-topics.sh` kafka-topics."""
    return Path(words[0]).name.removesuffix(".sh")


def complaint(arguments: Iterable[str]) -> str | None:
    """What `tierproxy ARGUMENTS` would say before it does anything; None if it would begin."""
    command: click.Command = main
    context: click.Context | None = None
    rest = list(arguments)
    try:
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            context = click.Context(command, parent=context)
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command = found
        command.make_context(command.name, rest, parent=context)
    except click.exceptions.Exit:
        return None  # --help
    except click.ClickException as error:
        return error.format_message()
    return None


@cache
def targets() -> frozenset[str]:
    """What `make` can be asked for."""
    return frozenset(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
