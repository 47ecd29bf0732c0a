"""A bound on the archived records that answers hold in memory: being put together, or not yet taken by their clients.

Nobody waits here. An answer may hold what it wishes or half of what is left, whichever is less, and never less than one
chunk: under pressure answers get smaller, and nobody who doesn't read keeps others from getting any. A client's answers
hold together no more than an equal part of the memory, counted so that one more client would find its own.
"""

from collections.abc import Hashable

from tierproxy.telemetry import LIMIT_WAITS

CHUNK = 1 << 20
"""Bytes that an archived partition's records take at the least, however few of them are asked for: chunks of about this
size are what is read and unpacked."""


class Allowance:
    """What one answer may hold, and who of its partitions has a part of it."""

    def __init__(self, bound: "AnswerMemory", size: int, who: Hashable) -> None:
        self._bound = bound
        self._who = who
        self._left = self._size = size
        self._parts: dict[Hashable, int] = {}
        self._each = size

    def divide(self, partitions: int) -> None:
        """So many may want a part: one gets an equal share at the most, rather than that others get none."""
        self._each = max(CHUNK, self._size // max(1, partitions))

    def admits(self, partition: Hashable, size: int) -> bool:
        """Whether there is room for `size` bytes of records for `partition`; the first one is given what there is."""
        if partition in self._parts:
            return True
        size = max(CHUNK, min(size, self._each))
        if not self._parts:
            size = max(CHUNK, min(size, self._left))
        elif size > self._left:
            LIMIT_WAITS.labels("cold_answers").inc()
            return False
        self._parts[partition] = size
        self._left -= size
        return True

    def part(self, partition: Hashable) -> int:
        """Bytes that `partition` was given room for."""
        return self._parts.get(partition, 0)

    def without(self, partition: Hashable) -> None:
        """Take back what `partition` was given: it has no use for it."""
        self._left += self._parts.pop(partition, 0)

    def keep(self, size: int) -> None:
        """Give back all but `size` bytes: the answer is complete."""
        self._bound.count(self._who, size - self._size)
        self._size = size

    def end(self) -> None:
        """The answer is gone. May be called again."""
        self.keep(0)


class AnswerMemory:
    """Grants allowances out of `capacity` bytes. `held` is what is granted now; a chunk for each may come on top."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.held = 0
        self._by_client: dict[Hashable, int] = {}  # of those that hold anything

    def grant(self, wish: int, who: Hashable = None) -> Allowance:
        """For an answer to the client `who`; None is one, too."""
        own = self._by_client.get(who, 0)
        share = self._capacity // (len(self._by_client) + (1 if own else 2))
        size = max(CHUNK, min(wish, (self._capacity - self.held) // 2, share - own))
        self.count(who, size)
        return Allowance(self, size, who)

    def count(self, who: Hashable, more: int) -> None:
        """`who` holds `more` bytes (or less, if negative) than before."""
        self.held += more
        left = self._by_client.get(who, 0) + more
        if left:
            self._by_client[who] = left
        else:
            self._by_client.pop(who, None)
