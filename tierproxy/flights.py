"""One fetch of a thing serves everyone who waits for it.

A flight runs in a task of its own: whoever gives up waiting doesn't end it, and a failed one is not kept, so the next
to ask starts anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from tierproxy.tasks import Tasks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    """Flights by key. `name` is for task names in logs."""

    def __init__(self, tasks: Tasks, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._flying: dict[K, asyncio.Task[V]] = {}
        self._unbegun: set[K] = set()
        self._next: dict[K, asyncio.Task[V]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flying

    def join(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> Awaitable[V]:
        """Wait for the flight that is under way, or start one."""
        return asyncio.shield(self._flying.get(key) or self._launch(key, start))

    def fresh(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> Awaitable[V]:
        """Wait for a flight that starts no earlier than now; everyone who asks before it starts shares it."""
        current = self._flying.get(key)
        if current is None or key in self._unbegun:
            return self.join(key, start)
        following = self._next.get(key)
        if following is None:
            following = self._spawn(key, self._after(key, current, start))
            self._next[key] = following
        return asyncio.shield(following)

    async def _after(self, key: K, current: asyncio.Task[V], start: Callable[[], Coroutine[Any, Any, V]]) -> V:
        await asyncio.wait([current])
        self._next.pop(key, None)
        return await self.join(key, start)

    def _launch(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Task[V]:
        self._unbegun.add(key)
        task = self._spawn(key, self._begin(key, start))
        self._flying[key] = task
        task.add_done_callback(lambda _: self._landed(key))
        return task

    async def _begin(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> V:
        self._unbegun.discard(key)
        return await start()

    def _landed(self, key: K) -> None:
        self._unbegun.discard(key)  # it was cancelled before it began
        self._flying.pop(key, None)

    def _spawn(self, key: K, flight: Coroutine[Any, Any, V]) -> asyncio.Task[V]:
        # Errors belong to those who wait; when nobody does any more there is nobody to tell.
        return self._tasks.spawn(flight, f"{self._name} {key}", awaited=True)
