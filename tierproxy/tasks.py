"""Background tasks that can't get lost.

asyncio keeps only weak references to tasks and reports a crash when (and if) the task is collected. So
lint bans `asyncio.create_task` everywhere but here: `Tasks.spawn` keeps the task, names it, logs a crash
with its traceback at the moment it happens, and `close` ends whatever still runs.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger("tierproxy.tasks")

T = TypeVar("T")


class Tasks:
    """A set of running tasks with one owner and one end.

    `on_crash(name, error)` is called after the log line, so that an owner can take the process down when
    a task that it can't live without has died.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None] | None = None) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._on_crash = on_crash
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str, *, awaited: bool = False) -> asyncio.Task[T]:
        """Start `coro` as a task called `name`. After `close` it is refused with RuntimeError.

        With `awaited`, an error is the business of whoever awaits the task: it is no crash, and not logged here.
        """
        if self._closed:
            coro.close()
            raise RuntimeError(f"task {name!r} was started after its owner had closed")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._running.add(task)
        task.add_done_callback(self._awaited_ended if awaited else self._ended)
        return task

    async def close(self, grace: float = 10.0) -> None:
        """Cancel every task and wait until all have ended, at most `grace` seconds.

        May be called from one of its own tasks (that one is left alone) and more than once. Tasks that
        ignore their cancellation are named in the log.
        """
        self._closed = True
        waiting = self._running - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        if not waiting:
            return
        _, stuck = await asyncio.wait(waiting, timeout=grace)
        for task in stuck:
            log.warning("task %s did not stop within %g s and is left behind", task.get_name(), grace)

    def _awaited_ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, so that asyncio doesn't report it when all who waited have left

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        log.error("task %s crashed", task.get_name(), exc_info=error)
        if self._on_crash is not None:
            self._on_crash(task.get_name(), error)
