"""Who of the workers is there, who gets the next connection, when one that died is started again. Decides, never waits.

*Ready* is said when all have been once, and from then on as long as one gateway is: a dead one gets no clients, the
others serve everybody, and a /ready that says no would send away those who come back. /ready shows each one's state all
the same. The archiver makes nobody unready, as everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tierproxy.admin import PartHealth

ARCHIVER = "archiver"
"""The one seat that is no gateway's."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds. Who has lived for so long, begins with the shortest pause again."""
KILL_AFTER = 30.0
"""Seconds that a worker has for its end, besides the drain."""


def gateway_seat(number: int) -> str:
    """The name of a gateway's seat; `number` is from 0 on, names are from 1 on."""
    return f"gateway-{number + 1}"


@dataclass(slots=True)
class Restarts:
    """How long to wait until one that has died is started again: not at all, and longer each time it dies soon."""

    _pause: float = 0.0

    def after(self, lived: float) -> float:
        """Seconds, after a life of `lived` seconds."""
        pause = 0.0 if lived >= LONGEST_PAUSE else self._pause
        self._pause = min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)
        return pause


@dataclass(slots=True, eq=False)
class Seat:
    """One worker's place, which outlives those who have it."""

    name: str
    role: Literal["gateway", "archiver"]
    parts: dict[str, PartHealth] = field(default_factory=dict)
    """What it says of itself, while it lives."""
    away: str = "it is starting"
    """Why nothing is said."""
    ports: set[int] = field(default_factory=set)
    """Which it can serve: it knows whose they are."""
    load: int = 0
    """Connections that it said it has."""
    unseen: int = 0
    """Connections that it was given and has not counted yet."""
    given_at: int = 0

    @property
    def ok(self) -> bool:
        return bool(self.parts) and all(part.ok for part in self.parts.values())

    def can_take(self, port: int) -> bool:
        """Whether clients may be sent to it. That the cluster can't be reached keeps nobody out: hot and cold agree."""
        part = self.parts.get("gateway")
        return part is not None and part.ok and port in self.ports

    def began(self) -> None:
        self.ended("it is starting")

    def ended(self, why: str) -> None:
        """What it had is gone with it."""
        self.parts, self.ports, self.load, self.unseen, self.away = {}, set(), 0, 0, why

    def counted(self, load: int, taken: int) -> None:
        """It has `load` connections, with `taken` of those that it was given since it said so last."""
        self.load, self.unseen = load, max(0, self.unseen - taken)


class Roster:
    """All seats."""

    def __init__(self, gateways: int, archiver: bool) -> None:
        self.seats = [Seat(gateway_seat(number), "gateway") for number in range(gateways)]
        if archiver:
            self.seats.append(Seat(ARCHIVER, "archiver"))
        self.complete = False  # all have been ready
        self.stopping: str | None = None  # why nobody new should come, though all are there
        self._turn = 0

    def candidates(self, port: int) -> list[Seat]:
        """Who can serve a client that has come to `port`, the best first: the one with the fewest connections; of
        equals, the one that was given one the longest ago."""
        able = [seat for seat in self.seats if seat.can_take(port)]
        return sorted(able, key=lambda seat: (seat.load + seat.unseen, seat.given_at))

    def gave(self, seat: Seat) -> None:
        self._turn += 1
        seat.given_at = self._turn
        seat.unseen += 1

    def said(self, seat: Seat, part: str, health: PartHealth) -> None:
        seat.parts[part] = health
        self.complete = self.complete or all(each.ok for each in self.seats)

    @property
    def parts(self) -> Mapping[str, PartHealth]:
        """`gateway-1 cluster` → how it is; `gateway-1` alone while nothing lives there that could say more."""
        found: dict[str, PartHealth] = {}
        if self.stopping is not None:
            found["workers"] = PartHealth(False, self.stopping)
        for seat in self.seats:
            if not seat.parts:
                found[seat.name] = PartHealth(False, seat.away)
            for part, health in seat.parts.items():
                found[f"{seat.name} {part}" if part != seat.role else seat.name] = health
        return found

    @property
    def ready(self) -> bool:
        if self.stopping is not None:
            return False
        return self.complete and any(seat.ok for seat in self.seats if seat.role == "gateway")
