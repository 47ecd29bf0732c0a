"""From facts to what they mean for whoever looks: where each partition's history lies, and whether that is well. Pure.

Nothing is guessed that would raise a false alarm: how long something has waited is only known where a survey has seen
it wait, because records' own times may lie and a quiet topic's newest archived record may be old for good reason.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import pairwise

from tierproxy.archive.manifest import Gap, Sums
from tierproxy.config import TopicPolicy
from tierproxy.insight.facts import PartitionFacts, TopicFacts
from tierproxy.insight.words import counted, duration

GAPS_DRAWN = 30
"""Of more, the widest are drawn."""
LATE_AFTER = 3
"""Times `segment.age` that something may wait to be archived…"""
LATE_BESIDES_MS = 60_000
"""…and so much more, before it is called late."""
NEAR = 0.25
"""The part of a retention that is left when it is called near."""


class Where(StrEnum):
    ARCHIVE = "archive"
    BOTH = "both"
    BROKER = "broker"
    HOLE = "hole"
    """A recorded gap: lost before it was archived."""
    LOST = "lost"
    """Neither archived nor on the broker, and not recorded yet."""


class Level(IntEnum):
    """How much it matters, in the words of the pages."""

    OK = 0
    NOTE = 1
    WARNING = 2
    BAD = 3

    @property
    def word(self) -> str:
        return ("fine", "note", "warning", "needs you")[self]


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [start, end)."""

    where: Where
    start: int
    end: int

    @property
    def offsets(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    text: str


FINE = Verdict(Level.OK, "archived")


@dataclass(frozen=True, slots=True)
class PartitionPicture:
    """`lag` counts offsets that could be archived and are not; `waited_ms` None: nothing waits, or nobody knows.

    `retention_left` is the part of a retention that is left before the brokers delete what waits, None: no limit.
    `state` is what its archiver is at, where one tells.
    """

    topic: str
    facts: PartitionFacts
    spans: tuple[Span, ...]
    lag: int
    waited_ms: int | None
    retention_left: float | None
    state: str
    verdicts: tuple[Verdict, ...]

    @property
    def partition(self) -> int:
        return self.facts.partition

    @property
    def level(self) -> Level:
        return self.verdicts[0].level

    @property
    def first(self) -> int:
        return self.spans[0].start if self.spans else -1

    @property
    def end(self) -> int:
        return self.spans[-1].end if self.spans else -1


@dataclass(frozen=True, slots=True)
class TopicPicture:
    """`offsets` counts those of all partitions by where they are; `verdict` is that of the worst partition.

    Of `unknown` partitions nobody knows what is archived: they are in no sum.
    """

    facts: TopicFacts
    partitions: tuple[PartitionPicture, ...]
    offsets: Mapping[Where, int]
    sums: Sums
    freed_bytes: int
    lag: int
    waited_ms: int | None
    retention_left: float | None
    level: Level
    verdict: str
    unknown: int

    @property
    def name(self) -> str:
        return self.facts.name


def picture_of_topic(topic: TopicFacts, now_ms: int, states: Mapping[str, str]) -> TopicPicture:
    """`states`: what archivers are at, by `topic-partition`, where they tell."""
    partitions = tuple(
        picture_of(topic, part, now_ms, states.get(f"{topic.name}-{part.partition}", "")) for part in topic.partitions
    )
    offsets = dict.fromkeys(Where, 0)
    for part in partitions:
        for span in part.spans:
            offsets[span.where] += span.offsets
    archived = [part.archived for part in topic.partitions if part.archived is not None]
    worst = max(partitions, key=lambda part: part.level, default=None)
    return TopicPicture(
        facts=topic,
        partitions=partitions,
        offsets=offsets,
        sums=sum((each.sums for each in archived), Sums()),
        freed_bytes=sum(each.freed_bytes for each in archived),
        lag=sum(part.lag for part in partitions),
        waited_ms=max((part.waited_ms for part in partitions if part.waited_ms is not None), default=None),
        retention_left=min(
            (part.retention_left for part in partitions if part.retention_left is not None), default=None
        ),
        level=worst.level if worst is not None else Level.OK,
        verdict=_in_all(partitions, worst),
        unknown=len(topic.partitions) - len(archived),
    )


def _in_all(partitions: tuple[PartitionPicture, ...], worst: PartitionPicture | None) -> str:
    if worst is None:
        return "has no partitions"
    text = worst.verdicts[0].text
    alike = sum(part.level == worst.level for part in partitions)
    if worst.level is Level.OK:
        return f"all is well with {counted(len(partitions), 'partition')}"
    if len(partitions) == 1:
        return text
    others = f", and {alike - 1} more" if alike > 1 else ""
    return f"partition {worst.partition}{others}: {text}"


def picture_of(topic: TopicFacts, part: PartitionFacts, now_ms: int, state: str) -> PartitionPicture:
    lag = _lag(part)
    waited = now_ms - part.waiting_since_ms if lag and part.waiting_since_ms is not None else None
    left = _retention_left(topic.settings, part, lag, waited)
    spans = tuple(spans_of(part))
    verdicts = sorted(_verdicts(topic.policy, part, spans, lag, waited, left, state), key=lambda each: -each.level)
    return PartitionPicture(topic.name, part, spans, lag, waited, left, state, tuple(verdicts) or (FINE,))


def spans_of(part: PartitionFacts) -> list[Span]:
    """Where its offsets are, from the first that readers may have to the live end, without overlap or empty ones."""
    archived, known = part.archived, part.broker_problem == "" and part.high_watermark >= 0
    begins, ends = (archived.start, archived.end) if archived is not None else (0, 0)
    first, end = (part.log_start, part.high_watermark) if known else (0, 0)
    gaps = _drawn(archived.gaps if archived is not None else ())
    borders = {begins, ends, first, end}
    for gap in gaps:
        borders |= {min(max(gap.start, begins), ends), min(max(gap.end, begins), ends)}
    spans: list[Span] = []
    ordered = sorted(borders)
    at = 0
    for start, stop in pairwise(ordered):
        while at < len(gaps) and gaps[at].end <= start:
            at += 1
        in_gap = at < len(gaps) and gaps[at].start <= start
        where = _where(
            archived=begins <= start < ends and not in_gap,
            on_broker=first <= start < end,
            gap=begins <= start < ends and in_gap,
            between=archived is not None and archived.sums.segments > 0 and known and ends <= start < first,
        )
        if where is None:
            continue
        if spans and spans[-1].where is where and spans[-1].end == start:
            spans[-1] = Span(where, spans[-1].start, stop)
        else:
            spans.append(Span(where, start, stop))
    return spans


def _where(*, archived: bool, on_broker: bool, gap: bool, between: bool) -> Where | None:
    if archived:
        return Where.BOTH if on_broker else Where.ARCHIVE
    if on_broker:
        return Where.BROKER  # also in a gap: what was lost may be there again
    if gap:
        return Where.HOLE
    return Where.LOST if between else None


def _drawn(gaps: Iterable[Gap]) -> list[Gap]:
    widest = sorted(gaps, key=lambda gap: gap.start - gap.end)[:GAPS_DRAWN]
    return sorted(widest, key=lambda gap: gap.start)


def _lag(part: PartitionFacts) -> int:
    """What is decided and not archived, as far as is known."""
    if part.last_stable < 0 or part.archived is None:
        return 0
    return max(0, part.last_stable - part.archived.end)


def _retention_left(settings: Mapping[str, str], part: PartitionFacts, lag: int, waited_ms: int | None) -> float | None:
    """1.0 where nothing waits and there is a limit."""
    if "delete" not in settings.get("cleanup.policy", "delete"):
        return None
    most_ms, most_bytes = (retention(settings, name) for name in ("retention.ms", "retention.bytes"))
    left: list[float] = []
    if most_ms is not None:
        left.append(1 - (waited_ms or 0) / max(1, most_ms) if lag else 1.0)
    if most_bytes is not None:
        sums = part.archived.sums if part.archived is not None else Sums()
        offsets = part.archived.end - part.archived.start if part.archived is not None else 0
        left.append(1 - lag * (sums.plain_size / offsets if offsets > 0 else 0.0) / max(1, most_bytes))
    return max(0.0, min(left)) if left else None


def retention(settings: Mapping[str, str], name: str) -> int | None:
    """`retention.ms` or `retention.bytes` of a topic; None: no limit, or nobody told."""
    try:
        value = int(settings.get(name, "-1"))
    except ValueError:
        return None
    return value if value >= 0 else None


def _verdicts(
    policy: TopicPolicy,
    part: PartitionFacts,
    spans: tuple[Span, ...],
    lag: int,
    waited_ms: int | None,
    left: float | None,
    state: str,
) -> Iterable[Verdict]:
    if part.archive_problem:
        yield Verdict(Level.BAD if part.damaged else Level.WARNING, part.archive_problem)
    if state == "stopped":
        yield Verdict(Level.BAD, "archiving has stopped until a person has looked: see the problems")
    if part.broker_problem:
        yield Verdict(Level.WARNING, part.broker_problem)
    for span in spans:
        if span.where is Where.LOST:
            lost = f"offsets {span.start:,} to {span.end - 1:,}"
            yield Verdict(Level.BAD, f"{lost} are neither archived nor on the broker")
    if left is not None and left < NEAR and lag:
        yield Verdict(Level.BAD, f"{left:.0%} of the brokers' retention is left for {lag:,} offsets that wait")
    if waited_ms is not None and waited_ms > LATE_AFTER * policy.segment.age_ms + LATE_BESIDES_MS:
        yield Verdict(Level.WARNING, f"{lag:,} offsets have waited to be archived for {duration(waited_ms)} at least")
    archived = part.archived
    if archived is not None and archived.gaps:
        yield _holes(archived.gaps, policy)
    if archived is not None and archived.quarantined:
        yield Verdict(Level.NOTE, f"{archived.quarantined} lost histories are in quarantine: tierproxy archive ls")
    if archived is None and not part.archive_problem:
        yield Verdict(Level.OK, "not looked at yet")
    if archived is not None and not archived.sums.segments and lag:
        yield Verdict(Level.NOTE, "nothing is archived yet")


def _holes(gaps: tuple[Gap, ...], policy: TopicPolicy) -> Verdict:
    open_ones = [gap for gap in gaps if gap.accepted_ms < 0]
    offsets = sum(gap.end - gap.start for gap in gaps)
    holes = f"{counted(len(gaps), 'hole')} of {counted(offsets, 'offset')}"
    if open_ones and policy.on_gap == "halt":
        return Verdict(Level.BAD, f"readers wait at {holes}: tierproxy archive accept-gap lets them go on")
    return Verdict(Level.NOTE, f"{holes}, lost before it could be archived: {gaps[-1].cause}")
