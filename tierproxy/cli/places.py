"""Where a range begins and ends: options that take an offset or a time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.walk import offset_at


@dataclass(frozen=True, slots=True)
class Place:
    """An offset, or a time in ms since 1970: exactly one of them."""

    offset: int | None = None
    time_ms: int | None = None

    def __str__(self) -> str:
        return str(self.offset) if self.offset is not None else f"{self.time_ms} ms"

    async def offset_in(self, library: Library, manifest: Manifest) -> int:
        """The offset that it means in this partition, within what is archived."""
        if self.time_ms is not None:
            return await offset_at(library, manifest, self.time_ms)
        assert self.offset is not None
        return min(max(self.offset, manifest.start_offset), manifest.end_offset)


class PlaceType(click.ParamType[Place]):
    """`1000`, or a time in ISO 8601; without a zone it is UTC."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        if isinstance(value, Place):
            return value
        if value.isascii() and value.isdigit():
            return Place(offset=int(value))
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither an offset nor a time such as 2026-01-31T12:00:00Z", param, ctx)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return Place(time_ms=round(moment.timestamp() * 1000))


def range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--from` and `--to`, as `start` and `end`."""
    metavar = "OFFSET|TIME"
    ends = click.option("--to", "end", type=PlaceType(), metavar=metavar, help="End before this one.")(command)
    begins = "Begin with this offset, or with the first record of this time or later (2026-01-31T12:00:00Z)."
    return click.option("--from", "start", type=PlaceType(), metavar=metavar, help=begins)(ends)


async def offsets_between(
    library: Library, manifest: Manifest, start: Place | None, end: Place | None
) -> tuple[int, int]:
    """Offsets [first, stop) of a partition; an empty range where nothing is archived there."""
    first = manifest.start_offset if start is None else await start.offset_in(library, manifest)
    stop = manifest.end_offset if end is None else await end.offset_in(library, manifest)
    return first, max(first, stop)
