"""README.md is a promise: what it tells people to write and to type works."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tierproxy.cli import main
from tierproxy.config import parse_config, warnings

ROOT = Path(__file__).parents[4]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def typed(program: str) -> list[list[str]]:
    """Every command line of `program` in a shell block or between backticks, without what follows a redirection."""
    lines = [line for block in blocks("sh") for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", README)
    found = []
    for line in lines:
        words = shlex.split(line.partition(">")[0], comments=True) if not line.startswith("{") else []
        if words and Path(words[0]).name == program and len(words) > 1:
            found.append(words[1:])
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_configuration_it_shows_loads(text: str) -> None:
    assert warnings(parse_config(text, environ={})) == []


@pytest.mark.parametrize("arguments", typed("tierproxy"), ids=" ".join)
def test_the_commands_it_shows_exist(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("arguments", typed("make"), ids=" ".join)
def test_the_targets_it_shows_exist(arguments: list[str]) -> None:
    assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_the_files_it_points_to_exist(target: str) -> None:
    assert (ROOT / target).exists()


def test_there_is_something_to_test() -> None:
    assert len(blocks("yaml")) == 1
    commands = {"check", "serve", "schema", "status", "archive", "restore"}
    assert {arguments[0] for arguments in typed("tierproxy")} == commands
    assert {arguments[0] for arguments in typed("make")} >= {"demo", "test", "bench"}
