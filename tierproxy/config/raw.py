"""What rules share: the shape of a problem, and how they read values that may be of any shape."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from tierproxy.config.source import PathKeys

Problem = tuple[PathKeys, str]


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean 'match'?`, or the known words when none is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def is_directory(archive: Any) -> bool:
    url = archive.get("url") if isinstance(archive, Mapping) else None
    return isinstance(url, str) and urlsplit(url).scheme == "file"
