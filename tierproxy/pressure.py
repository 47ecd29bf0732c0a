"""A bound on what all connections together gather in memory: requests and answers that must be read whole.

Over the bound, a connection that is gathering is no longer read, except the one that has been at it the longest: so
there is always one that gets on, and what is in memory exceeds the bound by one message at most. A peer that stops in
the middle of a message is the idle limit's business (session.py).
"""

from collections.abc import Hashable
from typing import Protocol

from tierproxy.telemetry import LIMIT_WAITS


class Gatherer(Hashable, Protocol):
    """Who gathers; told when it may be worth asking `must_wait` again."""

    def pressure_changed(self) -> None: ...


class Pressure:
    """Keeps count. `limit` is in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._gathering: dict[Gatherer, int] = {}  # the longest at it first
        self._waiting: set[Gatherer] = set()
        self.total = 0

    def note(self, who: Gatherer, size: int) -> None:
        """`who` has `size` bytes of unfinished messages in memory now; 0: none, it is done."""
        before = self._gathering.get(who, 0)
        if size == before:
            return
        if size:
            self._gathering[who] = size
        else:
            del self._gathering[who]
            self._waiting.discard(who)
        self.total += size - before
        if size < before and self._waiting:
            self._wake()

    def must_wait(self, who: Gatherer) -> bool:
        """Whether `who` may not read on now. It will be told when that may have changed."""
        if self.total <= self._limit or who not in self._gathering or who is next(iter(self._gathering)):
            return False
        if who not in self._waiting:
            self._waiting.add(who)
            LIMIT_WAITS.labels("gathered").inc()
        return True

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for who in waiting:
            who.pressure_changed()
