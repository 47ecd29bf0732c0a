"""Reading stored JSON documents with care: every field is there, is of its kind, and is known.

A document is read, changed and written back by programs of different age. A field that one of them does not
know would be lost on the way, so an unknown one is an error, as is a missing one: nothing is guessed.
"""

import json
from array import array
from collections.abc import Callable
from typing import Self, TypeVar, cast

from tierproxy.archive.errors import FormatError, UnknownVersionError

T = TypeVar("T")


class Fields:
    """The fields of one JSON object, each to be taken once. FormatError says where and what is wrong."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{where} is no JSON object")
        self.where = where
        self.version = 0
        """Of the document, if it is a whole one."""
        self._left: dict[str, object] = dict(value)

    @classmethod
    def of_document(cls, data: bytes, what: str, format_name: str, *versions: int) -> Self:
        """The other fields of a whole document that says it is `format_name` in one of those versions."""
        try:
            fields = cls(json.loads(data), what)
        except (
            ValueError,
            RecursionError,
        ) as error:  # json's own errors and UnicodeDecodeError are ValueErrors
            raise FormatError(f"{what} is no JSON: {error}") from error
        if fields._left.pop("format", None) != format_name:
            raise FormatError(f"{what} is none: it does not name {format_name!r} as its format")
        found = fields._left.pop("version", None)
        if type(found) is not int or found not in versions:
            known = " and ".join(map(str, versions))
            raise UnknownVersionError(f"{what} has version {found!r}, this tierproxy knows only {known}")
        fields.version = found
        return fields

    def integer(self, name: str, least: int = 0) -> int:
        """A number without fraction, from `least` to 2**63 - 1."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 63:
            raise FormatError(f"{self.where}: {name} is {value!r}, not a number from {least} on")
        return value

    def text(self, name: str) -> str:
        """A string, maybe empty."""
        value = self._take(name)
        if not isinstance(value, str):
            raise FormatError(f"{self.where}: {name} is {value!r}, not a string")
        return value

    def rows(self, name: str, read: Callable[["Fields"], T]) -> tuple[T, ...]:
        """A list of objects, each read by `read`, which must take all its fields."""
        return tuple(self._row(name, i, value, read) for i, value in enumerate(self._list(name)))

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        """A list of pairs of numbers from 0 on."""
        pairs = []
        for value in self._list(name):
            if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and n >= 0 for n in value):
                raise FormatError(f"{self.where}: {name} has {value!r} in it, not a pair of numbers")
            pairs.append((value[0], value[1]))
        return tuple(pairs)

    def integers(self, name: str, least: int = 0) -> "array[int]":
        """A list of numbers, each as integer() takes them."""
        values = self._list(name)
        if set(map(type, values)) - {int}:  # a bool would pass for one
            raise FormatError(f"{self.where}: {name} has something else than numbers in it")
        try:
            numbers: array[int] = array("q", cast(list[int], values))
        except OverflowError:
            raise FormatError(f"{self.where}: {name} has a number from {1 << 63} on in it") from None
        if numbers and min(numbers) < least:
            raise FormatError(f"{self.where}: {name} has {min(numbers)} in it, not numbers from {least} on")
        return numbers

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._list(name)
        if set(map(type, values)) - {str}:
            raise FormatError(f"{self.where}: {name} has something else than strings in it")
        return tuple(cast(list[str], values))

    def empty_list(self, name: str) -> None:
        """A list that this version keeps empty."""
        if self._list(name):
            raise FormatError(f"{self.where}: {name} is not empty, as it must be in this version")

    def finish(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise FormatError(f"{self.where}: unknown fields {', '.join(sorted(self._left))}")

    def _take(self, name: str) -> object:
        try:
            return self._left.pop(name)
        except KeyError:
            raise FormatError(f"{self.where}: {name} is missing") from None

    def _list(self, name: str) -> list[object]:
        value = self._take(name)
        if not isinstance(value, list):
            raise FormatError(f"{self.where}: {name} is no list")
        return value

    def _row(self, name: str, i: int, value: object, read: Callable[["Fields"], T]) -> T:
        fields = Fields(value, f"{self.where}: {name}[{i}]")
        row = read(fields)
        fields.finish()
        return row
