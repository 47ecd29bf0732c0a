"""Bytes kept in memory up to a bound, the least recently used going first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """A mapping whose values' sizes never add up to more than `capacity` bytes, or are those of a single value.

    A value larger than the whole capacity is kept alone until the next one comes: who has just read it will ask for it.
    """

    def __init__(
        self, capacity: int, size_of: Callable[[V], int], dropped: Callable[[V], None] = lambda _: None
    ) -> None:
        """`dropped` is told of each value that goes, whatever the reason."""
        self._capacity = capacity
        self._size_of = size_of
        self._dropped = dropped
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self.drop(key)
        self._entries[key] = value
        self.size += self._size_of(value)
        self._make_room()

    def fit(self, capacity: int) -> None:
        """From now on it is `capacity`."""
        self._capacity = capacity
        self._make_room()

    def _make_room(self) -> None:
        while self.size > self._capacity and len(self._entries) > 1:
            self.drop(next(iter(self._entries)))

    def demote(self, key: K) -> None:
        """Let it go before all others, unless it is asked for again."""
        if key in self._entries:
            self._entries.move_to_end(key, last=False)

    def drop(self, key: K) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self.size -= self._size_of(value)
            self._dropped(value)
