"""A bound on bytes in flight that those who want more wait for, the clients in turns, unless too many wait.

A turn is worth `TURN` bytes: who asks for small pieces gets as much as who asks for large ones (deficit round robin).
A client's own wishes are granted in their order.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from tierproxy.errors import TierproxyError
from tierproxy.telemetry import LIMIT_REFUSALS, LIMIT_WAITS

ON_BEHALF_OF: ContextVar[Hashable] = ContextVar("the client that cold bytes are read for", default=None)
"""Set by who answers a client. What is started for it, reading ahead too, takes its turns: tasks inherit this."""

QUEUE = 10_000
"""How many may wait. Each is a read of a chunk, which nobody may want any more when its turn comes."""

TURN = 4 << 20
"""Bytes that a client may be lent before it is the next one's turn; more if a single wish is larger."""


class Crowded(TierproxyError):
    """Too many wait already; it will be better in a moment."""


_Wish = tuple[int, asyncio.Future[None]]


@dataclass(slots=True)
class _Line:
    """What one client waits for, and what is left of its turn."""

    credit: int = TURN
    wishes: deque[_Wish] = field(default_factory=deque)


class ByteBudget:
    """At most `capacity` bytes are lent at a time; a larger wish is let through alone."""

    def __init__(self, capacity: int, queue: int = QUEUE) -> None:
        self._capacity = capacity
        self._most = queue
        self._lent = 0
        self._waiting = 0
        self._lines: OrderedDict[Hashable, _Line] = OrderedDict()  # of those who wait; the first one's turn it is

    @property
    def lent(self) -> int:
        """Bytes that are lent now."""
        return self._lent

    @property
    def crowded(self) -> bool:
        """Whether somebody waits."""
        return self._waiting > 0

    @asynccontextmanager
    async def lend(self, size: int, who: Hashable = None) -> AsyncIterator[None]:
        """Raises Crowded. `who` is the client whose turn it takes: without one, ON_BEHALF_OF; None is one, too."""
        await self._take(size, who if who is not None else ON_BEHALF_OF.get())
        try:
            yield
        finally:
            self._lent -= size
            self._admit()

    async def _take(self, size: int, who: Hashable) -> None:
        if not self._waiting and self._fits(size):
            self._lent += size
            return
        LIMIT_WAITS.labels("cold_in_flight").inc()
        if self._waiting >= self._most:
            self._make_room(who)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wish = (size, turn)
        self._lines.setdefault(who, _Line()).wishes.append(wish)
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._withdraw(who, wish)
            elif turn.exception() is None:
                self._lent -= size  # admitted at the very moment it gave up
            self._admit()
            raise

    def _make_room(self, who: Hashable) -> None:
        """Send away the last wish of whoever has most. Raises Crowded if `who` would have as many then."""
        LIMIT_REFUSALS.labels("cold_in_flight").inc()  # of `who`, or of another
        crowd = Crowded(f"{self._most} reads of archives wait already (limits.cold_in_flight)")
        longest = max(self._lines, key=lambda each: len(self._lines[each].wishes), default=None)
        own = len(self._lines[who].wishes) if who in self._lines else 0
        if longest not in self._lines or own + 1 >= len(self._lines[longest].wishes):
            raise crowd  # with a queue of 0 there is no line
        _, turn = self._lines[longest].wishes.pop()
        self._left(longest)
        if not turn.done():
            turn.set_exception(crowd)

    def _withdraw(self, who: Hashable, wish: _Wish) -> None:
        line = self._lines.get(who)
        if line is not None and wish in line.wishes:  # else its turn has come meanwhile, and it was passed over
            line.wishes.remove(wish)
            self._left(who)

    def _fits(self, size: int) -> bool:
        return self._lent == 0 or self._lent + size <= self._capacity

    def _left(self, who: Hashable) -> None:
        """One of its wishes is gone."""
        self._waiting -= 1
        if not self._lines[who].wishes:
            del self._lines[who]

    def _admit(self) -> None:
        while self._lines:
            who, line = next(iter(self._lines.items()))
            size, turn = line.wishes[0]
            if line.credit < size:
                line.credit += TURN
                self._lines.move_to_end(who)
                continue
            if not self._fits(size):
                return
            line.wishes.popleft()
            line.credit -= size
            self._left(who)
            if not turn.done():
                self._lent += size
                turn.set_result(None)
