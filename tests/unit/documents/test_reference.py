"""docs/config.md and docs/cli.md are what the program says of itself, and say something about everything."""

import re

import click
import pytest

from tests.documents.reference import PAGES
from tests.kit import PROJECT
from tierproxy.cli import main


@pytest.mark.parametrize("file", PAGES)
def test_a_page_is_as_it_is_made(file: str) -> None:
    assert (PROJECT / "docs" / file).read_text() == PAGES[file](), "run `make reference`"


@pytest.mark.parametrize("file", PAGES)
def test_nothing_is_without_a_word(file: str) -> None:
    for row in re.findall(r"^\| `.*$", PAGES[file](), re.MULTILINE):
        assert row.rsplit(" | ", 1)[1].strip(" |"), row


def test_every_key_is_there_with_its_unit_bounds_and_default() -> None:
    page = PAGES["config.md"]()
    assert "| `age` | duration, between 10ms and 7d | `10m` |" in page
    assert "| `protocol` | `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT`, `SASL_SSL` | `PLAINTEXT` |" in page
    assert "| `advertised_host` | text | — |" in page
    assert "| `keep_in_archive` | `forever`, or [section](#topicskeep_in_archive)" in page
    assert "| `cold_read_rate` | rate | `none` |" in page
    for heading in ("cluster.security.sasl", "archives.NAME", "topics[].segment", "limits.cold_clients[]"):
        assert f"\n## {heading}\n" in page


def test_every_command_is_there() -> None:
    def names(group: click.Group, path: str) -> list[str]:
        found = []
        for name, command in group.commands.items():
            found += [f"{path} {name}"] + (names(command, f"{path} {name}") if isinstance(command, click.Group) else [])
        return found

    page = PAGES["cli.md"]()
    for name in names(main, "tierproxy"):
        assert f"\n## {name}\n" in page
