"""Virtual time, and processes that can be stopped and killed inside of one event loop.

`VirtualLoop` never waits: when nothing can run it sets its own clock to the next timer. Work for threads is done at
once, by the loop itself. So a play of minutes takes milliseconds, and the same seed gives the same order of everything.

A *process* is all tasks that were begun in its context, and what they began. Each callback of a loop carries the
context it was made in, so the loop knows whose it is: those of a frozen process (SIGSTOP) wait in the order in which
they came due, timers included, and run when it is thawed (SIGCONT). Callbacks of the world itself belong to none.

Not done: sockets, real threads, signals.
"""

import asyncio
import heapq
import math
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, TypeVar

from tierproxy.errors import TierproxyError

T = TypeVar("T")

T0_MS = 1_700_000_000_000
"""The right wall clock's time when a play begins, in ms."""
ROUNDS_MOST = 20_000

_PROCESS: "ContextVar[Process | None]" = ContextVar("process", default=None)


class Deadlock(RuntimeError):
    """Nothing can run, and no timer will change that."""


class Livelock(RuntimeError):
    """Something runs for ever without waiting."""


class Process:
    """One program in the play. `alive` goes from True to False once; `frozen` comes and goes."""

    def __init__(self, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self._loop = loop
        self._context = Context()
        self._context.run(_PROCESS.set, self)
        self._parked: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []  # in the order in which they began

    def begin(self, coro: Any, name: str) -> asyncio.Task[Any]:
        """Start a task in this process, as its own main function would."""
        task = self._loop.create_task(coro, name=name, context=self._context)
        task.add_done_callback(self._ended, context=self._loop.world)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": f"{task.get_name()} crashed", "exception": error})

    def note_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)

    def park(self, handle: asyncio.Handle) -> None:
        self._parked.append(handle)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        parked, self._parked = self._parked, []
        self._loop.run_soon(parked)

    def kill(self) -> None:
        """As by SIGKILL. Python must unwind its tasks, but what they say and ask from now on reaches nobody."""
        self.alive = False
        self.thaw()
        for task in self._tasks:
            task.cancel()

    def must_live(self) -> None:
        """Called by whatever stands between a process and the world, before anything goes out."""
        if not self.alive:
            raise asyncio.CancelledError


def current_process() -> Process | None:
    """Whose code is running; None: the world's."""
    return _PROCESS.get()


class _Handle(asyncio.Handle):
    __slots__ = ()
    _context: Context  # asyncio's own

    def _run(self) -> None:
        process = self._context.get(_PROCESS)
        if process is not None and process.frozen:
            process.park(self)
        else:
            super()._run()


class _Timer(asyncio.TimerHandle):
    __slots__ = ()
    _context: Context

    def _run(self) -> None:
        process = self._context.get(_PROCESS)
        if process is not None and process.frozen:
            process.park(self)
        else:
            super()._run()


class _Selector:
    """What asyncio's loop sleeps in: here the time passes by itself."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("nobody is waiting for anything that can still happen")
        if timeout > 0:
            self._rounds = 0
            self._loop.pass_time()
        self._rounds += 1
        if self._rounds > ROUNDS_MOST:
            self._rounds = 0
            raise Livelock(f"{ROUNDS_MOST} rounds of the loop, and no time has passed")
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own scheduling on a clock that jumps; `now` is in seconds since the play began."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.world = Context()
        """The context of what belongs to no process: hand it to `call_later`."""
        self._selector = _Selector(self)
        self._clock_resolution = math.ulp(0.0)
        self._ready: Any  # asyncio's own queues
        self._scheduled: Any
        self.set_task_factory(_begin_task)

    def time(self) -> float:
        return self.now

    def pass_time(self) -> None:
        """Go to the moment of the next timer; exactly, as sums of differences are not."""
        self.now = max(self.now, self._scheduled[0].when())
        self._clock_resolution = math.ulp(self.now)  # a timer that is early would find that it is not time yet

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_soon(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def in_world(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Have the world do something in `delay` seconds, whatever becomes of who asked for it."""
        self.call_at(self.now + delay, callback, *args, context=self.world)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """The work is done now; whoever waits for it hears in the next round, as from a thread that was quick."""
        future: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self.call_soon(_settle, future, None, error)
        else:
            self.call_soon(_settle, future, result, None)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads to be woken by."""


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _begin_task(loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, context=context)
    process = context.get(_PROCESS) if context is not None else _PROCESS.get()
    if process is not None:
        process.note_task(task)
    return task


async def answered(
    loop: VirtualLoop, delay: float, effect: Callable[[], T], answer_delay: float, lost: Exception | None = None
) -> T:
    """A question to the world: it has its effect after `delay`, the answer is here `answer_delay` later.

    The effect happens whatever becomes of who asked. `lost` is what the asker hears instead of its result.
    """
    future: asyncio.Future[T] = loop.create_future()

    def act() -> None:
        try:
            result: Any = effect()
        except TierproxyError as error:  # anything else is for the loop's exception handler
            loop.in_world(answer_delay, _settle, future, None, lost or error)
        else:
            loop.in_world(answer_delay, _settle, future, result, lost)

    loop.in_world(delay, act)
    return await future
