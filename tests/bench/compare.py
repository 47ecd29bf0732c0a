"""Two runs beside each other: `python -m tests.bench.compare A B [part of a name …]`.

A and B are results' JSON files or their directories. Shares and CPU seconds compare between runs of one machine; speeds
say little when something else was running.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def load(place: str) -> dict[str, Any]:
    path = Path(place)
    found: dict[str, Any] = json.loads((path / "result.json" if path.is_dir() else path).read_text())
    return found


def differences(
    a: Mapping[str, Any], b: Mapping[str, Any], parts: tuple[str, ...] = ()
) -> list[tuple[str, float | None, float | None, str]]:
    """(name, in A, in B, unit) of each figure whose name has one of the parts in it; None where it is missing."""
    names = dict.fromkeys([*a["figures"], *b["figures"]])
    found = []
    for name in names:
        if parts and not any(part in name for part in parts):
            continue
        one, other = a["figures"].get(name), b["figures"].get(name)
        unit = (one or other)["unit"]
        found.append((name, one and one["value"], other and other["value"], unit))
    return found


def table(a: Mapping[str, Any], b: Mapping[str, Any], parts: tuple[str, ...] = ()) -> Table:
    made = Table(title=f"A: {_about(a)}\nB: {_about(b)}")
    made.add_column("")
    for column in ("A", "B", "B / A"):
        made.add_column(column, justify="right")
    made.add_column("")
    for name, one, other, unit in differences(a, b, parts):
        made.add_row(name, _number(one), _number(other), f"{other / one:.2f}" if one and other else "", unit)
    return made


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _about(result: Mapping[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    quick = ", quick" if settings["quick"] else ""
    return f"{result['versions']['tierproxy']}, {machine['processor']}, {settings['rounds']} rounds{quick}"


def main(a: str, b: str, *parts: str) -> None:
    Console(width=140).print(table(load(a), load(b), parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
