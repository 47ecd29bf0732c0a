"""A bound on bytes in flight that those who want more wait for, first come, first served, unless too many do."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tierproxy.errors import TierproxyError

QUEUE = 10_000
"""How many may wait. Each is a read of a chunk, which nobody may want any more when its turn comes."""


class Crowded(TierproxyError):
    """Too many wait already; it will be better in a moment."""


class ByteBudget:
    """At most `capacity` bytes are lent at a time; a larger wish is let through alone."""

    def __init__(self, capacity: int, queue: int = QUEUE) -> None:
        self._capacity = capacity
        self._most = queue
        self._lent = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether somebody waits."""
        return bool(self._queue)

    @asynccontextmanager
    async def lend(self, size: int) -> AsyncIterator[None]:
        """Raises Crowded."""
        await self._take(size)
        try:
            yield
        finally:
            self._lent -= size
            self._admit()

    async def _take(self, size: int) -> None:
        if not self._queue and self._fits(size):
            self._lent += size
            return
        if len(self._queue) >= self._most:
            raise Crowded(f"{self._most} reads of archives wait already (limits.cold_in_flight)")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._queue.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._lent -= size  # admitted at the very moment it gave up
            else:
                self._queue.remove(entry)
            self._admit()
            raise

    def _fits(self, size: int) -> bool:
        return self._lent == 0 or self._lent + size <= self._capacity

    def _admit(self) -> None:
        while self._queue and self._fits(self._queue[0][0]):
            size, turn = self._queue.popleft()
            if not turn.done():
                self._lent += size
                turn.set_result(None)
