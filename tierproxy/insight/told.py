"""What the processes of one tierproxy tell of themselves: what their archivers are at, and their last troubles."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tierproxy.recent import RECENT, Trouble

MOST_STATES = 500
"""Partitions that are told one by one: those that aren't just copying."""
COPYING = "copy"


@dataclass(frozen=True, slots=True)
class Told:
    """`who` is a worker's name, empty for a process that does everything. `counts` has partitions by state, `states`
    that of the partitions (`topic-partition`) where it isn't the usual one."""

    who: str
    counts: Mapping[str, int]
    states: Mapping[str, str]
    troubles: Sequence[Trouble]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Told":
        """KeyError, TypeError if it isn't what to_json() gives."""
        troubles = tuple(Trouble(**each) for each in data["troubles"])
        return cls(data["who"], dict(data["counts"]), dict(data["states"]), troubles)


Ask = Callable[[], Awaitable[Sequence[Told]]]
"""Has all processes tell; those that don't within a moment are left out."""


def told_here(who: str, states: Mapping[str, str]) -> Told:
    """Of this process. `states`: of all partitions that it archives."""
    unusual = {name: state for name, state in states.items() if state != COPYING}
    first = sorted(unusual.items(), key=lambda each: each[1] != "stopped")[:MOST_STATES]
    return Told(who, dict(Counter(states.values())), dict(first), RECENT.all)
