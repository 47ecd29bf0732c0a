"""What people read: README.md and the pages beside it, taken apart so that tests can hold them to what they say.

A *block* is fenced by ``` and has a language. A comment before it says more about it where the walk needs that:
`<!-- walk: write config.yaml -->`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit import PROJECT

DOCUMENTS = (
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
)
_FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """`note` is the comment before it, "" if there is none."""

    document: Path
    line: int
    language: str
    text: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.document.relative_to(PROJECT)}:{self.line}"


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(document, line, found["language"], found["text"], found["note"] or "")


def prose(document: Path) -> str:
    """What is not in blocks."""
    return _FENCE.sub("", document.read_text())


def inline(document: Path) -> list[str]:
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`]+)`", prose(document).replace("\n", " "))


def commands(block: Block) -> list[str]:
    """The lines of a shell block, those that end in a backslash joined to the next."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def headings(document: Path) -> set[str]:
    """The anchors by which a document's sections can be linked to, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
