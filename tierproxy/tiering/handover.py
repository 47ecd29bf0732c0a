"""Where a partition's worker and the copier of its broker meet.

Fetching is shared with the other partitions of a broker. While a worker waits in `wait`, the copier sees what it wants
and brings the answer by `bring`, which says when the worker is through with its bytes. An answer that comes too late
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
    """One for each worker. As a context manager it ends what `begin` began, whatever became of the answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._copying: steps.Copy | None = None
        self._inbox: asyncio.Future[Delivery | None] | None = None  # None in it: the time is over
        self._alarm: asyncio.TimerHandle | None = None

    # ---- the worker's side ---------------------------------------------------------------------------------

    def begin(self, action: steps.Copy) -> Self:
        loop = asyncio.get_running_loop()
        inbox: asyncio.Future[Delivery | None] = loop.create_future()
        self._copying, self._inbox = action, inbox
        self._alarm = loop.call_later(max(0.0, action.wake_at - self._clock.monotonic()), _ring, inbox)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        inbox, alarm = self._inbox, self._alarm
        self._copying = self._inbox = self._alarm = None
        assert inbox is not None
        assert alarm is not None
        alarm.cancel()
        # It may be there, and the task be cancelled in this moment.
        if inbox.done() and not inbox.cancelled() and (delivery := inbox.result()) is not None:
            delivery.taken.set()

    async def wait(self) -> Delivery | None:
        """The answer, or None if none has come when the action says to wake up."""
        assert self._inbox is not None
        delivery = await self._inbox
        self._copying = None
        return delivery

    def wake(self) -> None:
        """Have `wait` return at once, with nothing if nothing has been brought."""
        if self._inbox is not None:
            _ring(self._inbox)

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

    def bring(self, offset: int, answer: FetchedPartition, version: int) -> asyncio.Event | None:
        """Hand over an answer of Fetch `version`. What is returned is set when its bytes may go; None: now."""
        action, inbox = self._copying, self._inbox
        if action is None or inbox is None or inbox.done() or action.offset != offset:
            return None
        delivery = Delivery(answer, version <= LAST_FETCH_BY_NAME, asyncio.Event())
        inbox.set_result(delivery)
        return delivery.taken if answer.records else None


def _ring(inbox: "asyncio.Future[Delivery | None]") -> None:
    if not inbox.done():
        inbox.set_result(None)
