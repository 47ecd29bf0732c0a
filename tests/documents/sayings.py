"""All that tierproxy can say: its strings, with `…` where something is put in."""

import ast
import re
from functools import cache

from tests.kit import PROJECT

_FORMATS = re.compile(r"%[-\d.]*[sdrgf]")


@cache
def sayings() -> frozenset[str]:
    found = set()
    for file in (PROJECT / "tierproxy").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(_FORMATS.sub("…", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
                found.add("".join(map(str, parts)))
    return frozenset(found)
