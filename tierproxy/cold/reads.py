"""What ranges of archived objects are read through: a store alone, or caches and other workers before it."""

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from protocol.wire import Buffer
from tierproxy.archive.store import Store
from tierproxy.cold.meter import came_from
from tierproxy.cold.shared_reads import SharedReads

DOUBTS = 100


class Reads(Protocol):
    """Ranges of objects that never change."""

    async def get_range(self, store: Store, key: str, start: int, end: int) -> Buffer:
        """As Store.get_range."""
        ...

    async def drop(self, store: Store, key: str, start: int, end: int) -> None:
        """What was got is damaged: the next time it must come from the store."""
        ...


class DirectReads:
    """From the store, each time."""

    async def get_range(self, store: Store, key: str, start: int, end: int) -> Buffer:
        """As Store.get_range."""
        data = await store.get_range(key, start, end)
        came_from("store", len(data))
        return data

    async def drop(self, store: Store, key: str, start: int, end: int) -> None:
        """Nothing is kept."""


class WorkersReads:
    """Through the workers who own them, but for stores that `places` doesn't name: those are as near to each of us."""

    def __init__(self, shared: SharedReads, own: Reads, places: Mapping[Store, str]) -> None:
        """`own` is what we read through where nobody is asked."""
        self._shared = shared
        self._own = own
        self._places = places
        self._doubts: deque[tuple[str, str, int, int]] = deque(maxlen=DOUBTS)

    async def get_range(self, store: Store, key: str, start: int, end: int) -> Buffer:
        """As Store.get_range."""
        place = self._places.get(store)
        if place is None:
            return await self._own.get_range(store, key, start, end)
        doubts = [each for each in self._doubts if each[:2] == (place, key) and each[2] < end and start < each[3]]
        for each in doubts:
            self._doubts.remove(each)
        return await self._shared.get_range(place, key, start, end, anew=bool(doubts))

    async def drop(self, store: Store, key: str, start: int, end: int) -> None:
        """Whoever owns it is told with the next read."""
        place = self._places.get(store)
        if place is None:
            await self._own.drop(store, key, start, end)
        else:
            self._doubts.append((place, key, start, end))
