"""The walk notices where README leads astray: with a README of one block, and nothing but a shell."""

from pathlib import Path

import pytest

from tests.documents import Block, blocks
from tests.walk import snippets
from tests.walk.steps import Begin, Consume, Repeat, Run, Write, step_of
from tests.walk.walker import Walker, WrongTurn


def block(text: str, note: str, language: str = "sh") -> Block:
    return Block(Path(__file__), 1, language, text, note)


@pytest.fixture
def walker(tmp_path: Path) -> Walker:
    return Walker(tmp_path, {"there": "here", "nowhere": "x"}, 3, environment={}, say=lambda _: None)


def test_a_block_says_by_its_comment_what_is_to_be_done(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- walk: write a.yaml -->\n```yaml\na: 1\n```\n\n"  # the blank line is no part of it
        "```sh\nls\n```\n"
        "<!-- walk -->\n```sh\ncd x\n```\n"
    )
    found = list(blocks(page))
    assert [(each.language, each.note, each.line) for each in found] == [
        ("yaml", "walk: write a.yaml", 2),
        ("sh", "", 6),
        ("sh", "walk", 10),
    ]
    assert isinstance(step_of(block("", "walk")), Run)
    assert isinstance(step_of(block("", "walk: goes on")), Begin)
    assert isinstance(step_of(block("", "walk: consume")), Consume)
    assert step_of(block("", "walk: write a.yaml")) == Write(block("", "walk: write a.yaml"), "a.yaml")
    assert step_of(block("", "walk: until it shows 1+")) == Repeat(block("", "walk: until it shows 1+"), "1+")
    with pytest.raises(ValueError, match="no such step in a walk: go on"):
        step_of(block("", "walk: go on"))


def test_where_a_block_ends_the_next_begins(walker: Walker) -> None:
    walker.do(step_of(block("mkdir there\ncd there\n", "walk")))
    walker.do(step_of(block("a: there\n", "walk: write a.yaml", "yaml")))
    assert (walker.where.name, (walker.where / "a.yaml").read_text()) == ("here", "a: here\n")
    walker.do(step_of(block("echo 1 >> count; cat count; test $(wc -l < count) -gt 2\n", "walk: until it shows 1")))
    assert (walker.where / "count").read_text() == "1\n1\n1\n"
    assert walker.unused == {"nowhere"}


@pytest.mark.parametrize("text", ["false\n", "false\ntrue\n", "no-such-program\n", "cd no-such-folder\n"])
def test_a_command_that_fails_is_a_wrong_turn(walker: Walker, text: str) -> None:
    with pytest.raises(WrongTurn):
        walker.do(step_of(block(text, "walk")))


def test_a_program_that_ends_instead_of_staying_is_a_wrong_turn(walker: Walker) -> None:
    with walker:
        walker.do(step_of(block("echo so it goes\n", "walk: goes on")))
        with pytest.raises(WrongTurn, match="has ended"):
            walker.do(step_of(block("false\n", "walk: until it succeeds")))


def test_a_library_that_nobody_has_a_loop_for_is_an_error() -> None:
    assert "for _ in range(3)" in snippets.python("from kafka import KafkaConsumer\n", 3)
    with pytest.raises(KeyError):
        snippets.python("from pulsar import Consumer\n", 3)
