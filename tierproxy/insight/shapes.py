"""Where things are drawn: lanes of offsets, segments over time, lines of speeds. Pure; units are those of the drawing.

Pictures are `WIDE` units wide, whatever their width on a screen. What is there can be seen, however small its part is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tierproxy.archive.manifest import PageRef, SegmentEntry
from tierproxy.insight.picture import Span, Where

WIDE = 1000.0
LEAST = 12.0
BARS = 120
"""More segments than that are drawn together."""
BAR_LEAST = 3.0


@dataclass(frozen=True, slots=True)
class Box:
    """`kind` is a class of the style sheet, `title` what it says when pointed at."""

    x: float
    width: float
    kind: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Lanes:
    """The archive's lane, and the broker's below it; `trim` is where the broker's log starts, None if nowhere."""

    archive: tuple[Box, ...]
    broker: tuple[Box, ...]
    trim: float | None


def lanes(spans: Sequence[Span]) -> Lanes:
    """Offsets are drawn to scale, but for those that would not be seen."""
    widths = _widths([span.offsets for span in spans])
    archive: list[Box] = []
    broker: list[Box] = []
    x = 0.0
    for span, width in zip(spans, widths, strict=True):
        title = f"{span.start:,} to {span.end - 1:,}"
        if span.where in (Where.ARCHIVE, Where.BOTH):
            _join(archive, Box(x, width, "archived", f"archive: {title}"))
        elif span.where in (Where.HOLE, Where.LOST):
            archive.append(Box(x, width, str(span.where), f"{span.where}: {title}"))
        if span.where in (Where.BROKER, Where.BOTH):
            _join(broker, Box(x, width, "broker", f"broker: {title}"))
        x += width
    return Lanes(tuple(archive), tuple(broker), broker[0].x if broker and broker[0].x else None)


def lanes_of_sums(offsets: Mapping[Where, int]) -> Lanes:
    """The same of many partitions together: how much is where, not which offsets."""
    at, spans = 0, []
    for where in (Where.ARCHIVE, Where.HOLE, Where.LOST, Where.BOTH, Where.BROKER):
        if offsets.get(where):
            spans.append(Span(where, at, at + offsets[where]))
            at += offsets[where]
    drawn = lanes(spans)
    archive, broker = (tuple(replace(box, title="") for box in lane) for lane in (drawn.archive, drawn.broker))
    return Lanes(archive, broker, None)


def _join(lane: list[Box], box: Box) -> None:
    before = lane[-1] if lane else None
    if before is None or before.kind != box.kind or before.x + before.width < box.x - 0.01:
        lane.append(box)
        return
    first, last = before.title.partition(" to ")[0], box.title.rpartition(" to ")[2]
    lane[-1] = Box(before.x, before.width + box.width, box.kind, f"{first} to {last}")


def _widths(sizes: Sequence[int]) -> list[float]:
    total = sum(sizes)
    if not total:
        return []
    least = min(LEAST, WIDE / len(sizes))
    widths = [WIDE * size / total for size in sizes]
    small = [width < least for width in widths]
    room = WIDE - least * sum(small)
    rest = sum(width for width, is_small in zip(widths, small, strict=True) if not is_small)
    return [least if is_small else width / rest * room for width, is_small in zip(widths, small, strict=True)]


@dataclass(frozen=True, slots=True)
class Bar:
    """Some segments that follow one another. `height` is from 0 to 1."""

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Run:
    """Segments that are drawn as one: how many, their times in ms, and bytes of log."""

    segments: int
    first_ms: int
    last_ms: int
    base_offset: int
    last_offset: int
    plain_size: int
    stored_size: int

    def joined(self, other: "Run") -> "Run":
        return Run(
            self.segments + other.segments,
            min(self.first_ms, other.first_ms),
            max(self.last_ms, other.last_ms),
            self.base_offset,
            other.last_offset,
            self.plain_size + other.plain_size,
            self.stored_size + other.stored_size,
        )


def runs(pages: Iterable[PageRef], entries: Iterable[SegmentEntry], most: int = BARS) -> list[Run]:
    """A manifest's segments, at most so many runs of them. What has no times of records has that of its archiving."""
    found = [
        Run(sums.segments, *_times(sums.min_timestamp, sums.max_timestamp, sums.created_ms), first, last, plain, stored)
        for sums, first, last, plain, stored in (
            (page.sums, page.base_offset, page.last_offset, page.sums.plain_size, page.sums.stored_size)
            for page in pages
        )
    ]
    found += [
        Run(
            1,
            *_times(entry.min_timestamp, entry.max_timestamp, entry.created_ms),
            entry.base_offset,
            entry.last_offset,
            entry.plain_size,
            entry.stored_size,
        )
        for entry in entries
    ]
    step = -(-len(found) // most) or 1
    joined: list[Run] = []
    for at in range(0, len(found), step):
        run = found[at]
        for other in found[at + 1 : at + step]:
            run = run.joined(other)
        joined.append(run)
    return joined


def _times(first_ms: int, last_ms: int, created_ms: int) -> tuple[int, int]:
    return (first_ms, last_ms) if first_ms >= 0 else (created_ms, created_ms)


def bars(drawn: Sequence[Run], from_ms: int, to_ms: int, title: Callable[[Run], str]) -> list[Bar]:
    """Over time, from the left edge to the right one; as high as they are large, by their bytes' square root."""
    span = max(1, to_ms - from_ms)
    largest = max((run.plain_size for run in drawn), default=1) or 1
    found = []
    for run in drawn:
        width = max(BAR_LEAST, WIDE * (run.last_ms - run.first_ms) / span)
        x = min(max(0.0, WIDE * (run.first_ms - from_ms) / span), WIDE - width) if width < WIDE else 0.0
        found.append(Bar(x, min(width, WIDE), max(0.12, (run.plain_size / largest) ** 0.5), title(run)))
    return found


def line(values: Sequence[float], height: float, most: int) -> str:
    """The points of a line, for `most` values; the newest is at the right edge. Empty for less than two."""
    if len(values) < 2:
        return ""
    highest = max(values) or 1.0
    step = WIDE / (most - 1)
    shown = values[-most:]
    first = WIDE - step * (len(shown) - 1)
    return " ".join(
        f"{first + step * at:.1f},{height - 1 - value / highest * (height - 2):.1f}" for at, value in enumerate(shown)
    )
