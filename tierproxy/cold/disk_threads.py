"""Threads for work that may never end, as reading from a disk that hangs.

They differ from an executor's in three ways: nobody waits for them when the process ends, whoever gives up on work
still sees that it has not ended, and handing work over costs half as much (30 µs, which is felt at 256 KiB).
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from errno import ECANCELED
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class DiskThreads:
    """`count` threads, which start with the first work; it is done in the order in which it came."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._started = False
        self._closed = False
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.hanging = 0
        """Pieces of work that were given up and have not ended."""

    def submit(self, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Do `work` in a thread, and then call `done` on the running loop with its result or what it raised.

        After close() work is not begun any more: `done` gets an OSError.
        """
        loop = asyncio.get_running_loop()

        def run() -> None:
            outcome: T | Exception
            try:
                outcome = work() if not self._closed else OSError(ECANCELED, "the disk is not used any more")
            except Exception as error:  # noqa: BLE001 - it is whoever waits who knows what it means
                outcome = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done, outcome)

        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True).start()
        self._work.put(run)

    async def answer(self, work: Callable[[], T], seconds: float) -> T:
        """What `work` gives; raises what it raises, and TimeoutError when it has not ended in time."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T | Exception] = loop.create_future()
        late = False

        def done(outcome: T | Exception) -> None:
            if late:
                self.hanging -= 1
            elif not waiting.done():
                waiting.set_result(outcome)

        def give_up() -> None:
            nonlocal late
            if not waiting.done():
                late = True
                self.hanging += 1
                waiting.set_result(TimeoutError(f"no answer within {seconds:g} s"))

        self.submit(work, done)
        timer = loop.call_later(seconds, give_up)
        try:
            outcome = await waiting
        finally:
            timer.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the threads after what they are doing. Those that hang stay."""
        self._closed = True
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # what it holds, while we wait for the next
