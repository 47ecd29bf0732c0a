"""The walk as README has it: blocks with a comment `<!-- walk … -->` before them, in their order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.documents import Block, blocks
from tests.kit import PROJECT


@dataclass(frozen=True, slots=True)
class Step:
    block: Block


@dataclass(frozen=True, slots=True)
class Write(Step):
    """Put the block into a file."""

    file: str


@dataclass(frozen=True, slots=True)
class Run(Step):
    """Type the block; it must succeed."""


@dataclass(frozen=True, slots=True)
class Begin(Step):
    """Type the block in a terminal of its own, where it stays until the end of the walk."""


@dataclass(frozen=True, slots=True)
class Repeat(Step):
    """Type the block until it succeeds and, if there is a pattern, shows that."""

    shows: str = ""


@dataclass(frozen=True, slots=True)
class Consume(Step):
    """Read all records by what the block makes: a program, or a client's properties."""


def steps() -> Iterator[Step]:
    for block in blocks(PROJECT / "README.md"):
        if block.note.split(":")[0] == "walk":
            yield step_of(block)


def step_of(block: Block) -> Step:
    """Raises ValueError for a comment with other words."""
    what = block.note.partition(":")[2].strip()
    if what == "":
        return Run(block)
    if what == "goes on":
        return Begin(block)
    if what == "until it succeeds":
        return Repeat(block)
    if what == "consume":
        return Consume(block)
    if found := re.fullmatch(r"until it shows (.+)", what):
        return Repeat(block, found[1])
    if found := re.fullmatch(r"write (\S+)", what):
        return Write(block, found[1])
    raise ValueError(f"{block}: no such step in a walk: {what}")
