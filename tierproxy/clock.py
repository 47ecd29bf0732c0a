"""Time, handed in: the only place in tierproxy that reads a clock.

Two times exist and must not be mixed: `now_ms` is the wall clock, which may jump and is what is written
into manifests and compared with record timestamps; `monotonic` never goes back and is what ages, backoffs
and deadlines are counted with.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What every part that needs the time is given."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, the unit of Kafka's timestamps."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when it is told to: for tests and simulations."""

    def __init__(self, now_ms: int = 1_700_000_000_000, monotonic: float = 0.0) -> None:
        self._now_ms = now_ms
        self._monotonic = monotonic

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        if seconds < 0:
            raise ValueError("time does not pass backwards; use set_now_ms for a wall clock that jumps")
        self._now_ms += round(seconds * 1000)
        self._monotonic += seconds

    def set_now_ms(self, now_ms: int) -> None:
        """Set the wall clock alone, as an operator or NTP would; it may go back."""
        self._now_ms = now_ms
