"""The lasting conditions of this process that are open, and those that ended last: for people who look in later.

`telemetry.OncePerChange` writes here what it writes into the log. Bounded: of more open ones than `MOST_OPEN` the
oldest are in the log and the metrics only.
"""

from collections import deque
from dataclasses import dataclass, replace

from tierproxy.clock import SystemClock

MOST_OPEN = 500
MOST_ENDED = 50


@dataclass(frozen=True, slots=True)
class Trouble:
    """`message` as the log has it; times in ms since 1970, `ended_ms` None while it lasts."""

    part: str
    level: int
    message: str
    began_ms: int
    ended_ms: int | None = None


class Recent:
    """Keys are the caller's, and nobody else's."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._open: dict[object, Trouble] = {}
        self._ended: deque[Trouble] = deque(maxlen=MOST_ENDED)

    def began(self, key: object, part: str, level: int, message: str) -> None:
        if len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._open[key] = Trouble(part, level, message, self._clock.now_ms())

    def ended(self, key: object, *, told: bool = True) -> None:
        """Harmless if it is not known. Not `told`: what it was about is gone, nobody needs to hear of it."""
        trouble = self._open.pop(key, None)
        if trouble is not None and told:
            self._ended.append(replace(trouble, ended_ms=self._clock.now_ms()))

    @property
    def all(self) -> list[Trouble]:
        """Open ones first; of both the newest first."""
        return [*reversed(list(self._open.values())), *reversed(list(self._ended))]


RECENT = Recent()
