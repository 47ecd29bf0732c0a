"""What a plan is: numbers of each partition, and sums of them.

What can't be known is counted beside the numbers, as so many partitions of which something is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import add
from typing import Any, Self

from tierproxy.costs import Requests

MEASURED, ARCHIVE, SAMPLE, OTHERS = "measured", "archive", "sample", "other topics"
"""What a number rests on: brokers' answers; manifests; a piece of the topic's log; samples of its policy's topics."""


@dataclass(frozen=True, slots=True)
class Estimate:
    value: float
    source: str


class Sum:
    """A dataclass of numbers, which are added up field by field."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, _values(self), _values(other)))


@lru_cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _values(of: Sum) -> Iterator[Any]:
    kind: Any = type(of)
    return (getattr(of, name) for name in _names(kind))


@dataclass(frozen=True, slots=True)
class Costs(Sum):
    """Of a month. `brokers`: what stays on their disks; `alone`: all of the history there instead, without archive."""

    brokers: float = 0.0
    storage: float = 0.0
    requests: float = 0.0
    alone: float = 0.0

    @property
    def total(self) -> float:
        return self.brokers + self.storage + self.requests

    @property
    def saved(self) -> float:
        return self.alone - self.total


NO_REQUESTS = Requests()
NO_COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Numbers(Sum):
    """Bytes are of log and of one copy, unless they are called `disk`, `freed` (all replicas) or `stored`.

    `unknown`: partitions of which nothing is known, and so nothing counted. Of the known ones, `unsized` are those
    whose bytes are missing, `unpressed` those whose stored bytes are, `unpaced` those of which nobody knows how fast
    they grow.

    `freed_now`: the part that goes at once, being archived. `freed_least`: what is freed at the least, as brokers
    delete whole log segments only. `once` is asked of the store
    for the backlog, `monthly` in every month. `now` is with the backlog archived and trimmed.
    """

    partitions: int = 0
    unknown: int = 0
    unsized: int = 0
    unpressed: int = 0
    unpaced: int = 0
    log_bytes: float = 0
    disk_bytes: float = 0
    backlog_offsets: int = 0
    backlog_bytes: float = 0
    backlog_objects: int = 0
    backlog_stored: float = 0
    lost_offsets: int = 0
    trim_offsets: int = 0
    trim_bytes: float = 0
    freed_bytes: float = 0
    freed_now: float = 0
    freed_least: float = 0
    archived_objects: int = 0
    archived_bytes: int = 0
    archived_stored: int = 0
    expire_objects: int = 0
    expire_bytes: int = 0
    expire_stored: int = 0
    once: Requests = NO_REQUESTS
    cost_once: float = 0.0
    month_bytes: float = 0
    month_stored: float = 0
    month_objects: float = 0
    monthly: Requests = NO_REQUESTS
    now: Costs = NO_COSTS
    later: Costs = NO_COSTS


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """Offsets, -1 where nothing is known. `trim_to` is where the broker's log would begin with all archived, `trim_now`
    with what is archived already. `exact`: `trim_to` depends on no segment that is still to be made. `sized`: bytes of
    log for an offset.
    """

    index: int
    numbers: Numbers
    problem: str = ""
    log_start: int = -1
    stable_end: int = -1
    archived_to: int = -1
    trim_now: int = -1
    trim_to: int = -1
    exact: bool = True
    expire_to: int = -1
    sized: Estimate | None = None


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """`excluded`: why it can't be archived. `ratio`: how much smaller it is stored. `window_ms`: the time over which
    it was measured how fast it grows, the longest of its partitions."""

    name: str
    policy: int
    excluded: str = ""
    ratio: Estimate | None = None
    window_ms: int = 0
    partitions: tuple[PartitionPlan, ...] = ()
    numbers: Numbers = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", sum((each.numbers for each in self.partitions), Numbers()))


@dataclass
class Plan:
    months: int
    """How far `later` lies ahead."""
    topics: list[TopicPlan] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What is missing from the plan, and why."""
    notes: list[str] = field(default_factory=list)
    """What else whoever reads it should know."""

    @property
    def ok(self) -> bool:
        return not self.troubles

    @property
    def numbers(self) -> Numbers:
        return sum((each.numbers for each in self.topics), Numbers())
