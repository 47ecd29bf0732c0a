"""Where a partition's worker and the copier of its broker meet.

Fetching is shared with the other partitions of a broker. While a worker waits in `wait`, the copier sees what it wants
and brings the answer by `bring`, which returns when the worker is through with its bytes. An answer that comes too late
is not taken.
"""

import asyncio
from dataclasses import dataclass
from typing import Self

from protocol.fetch_response import FetchedPartition
from tierproxy.clock import Clock
from tierproxy.tiering import steps

LAST_FETCH_BY_NAME = 12


@dataclass(slots=True)
class Delivery:
    """An answer on its way from a copier to the worker's task; `taken` is set when its bytes may go."""

    answer: FetchedPartition
    by_name: bool
    taken: asyncio.Event


class Handover:
    """One for each worker. As a context manager it ends what `wait` began, whatever became of the answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._copying: steps.Copy | None = None
        self._inbox: asyncio.Future[Delivery] | None = None

    # ---- the worker's side ---------------------------------------------------------------------------------

    def begin(self, action: steps.Copy) -> Self:
        self._copying, self._inbox = action, asyncio.get_running_loop().create_future()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        inbox, self._copying, self._inbox = self._inbox, None, None
        assert inbox is not None
        if inbox.done():
            inbox.result().taken.set()
        inbox.cancel()

    async def wait(self) -> Delivery | None:
        """The answer, or None if none has come when the action says to wake up."""
        action, inbox = self._copying, self._inbox
        assert action is not None
        assert inbox is not None
        await asyncio.wait([inbox], timeout=max(0.0, action.wake_at - self._clock.monotonic()))
        self._copying = None
        return inbox.result() if inbox.done() else None

    # ---- the copier's side ---------------------------------------------------------------------------------

    @property
    def wanted(self) -> steps.Copy | None:
        """What the worker waits for and nobody has brought; None if nothing, or not yet."""
        action, inbox = self._copying, self._inbox
        if action is None or inbox is None or inbox.done():
            return None
        return action if action.not_before <= self._clock.monotonic() else None

    @property
    def resting_until(self) -> float | None:
        """The clock's monotonic time before which nothing is wanted because something failed; None: no such."""
        action = self._copying
        if action is None or action.not_before <= self._clock.monotonic():
            return None
        return action.not_before

    async def bring(self, offset: int, answer: FetchedPartition, version: int) -> None:
        """Hand over the answer of Fetch `version` at `offset`; returns when its bytes are not needed any more."""
        action, inbox = self._copying, self._inbox
        if action is None or inbox is None or inbox.done() or action.offset != offset:
            return
        delivery = Delivery(answer, version <= LAST_FETCH_BY_NAME, asyncio.Event())
        inbox.set_result(delivery)
        await delivery.taken.wait()
