"""How much of all the open segments is held in memory. Shared by every partition of a process; used from threads.

Segments hold two things: the batches of a chunk that is not full yet, and finished chunks while they are so few that
they need no file. As long as there is room each segment may hold plenty. When half of it is taken they get an equal
share of the other half, and close chunks early and go to files sooner; so the total stays below `most`, unless there
are so many segments that even the least share is too much (more than `most / 2 / SHARE_LEAST`). Chunks that are being
compressed come on top of a segment's share, and only while it is SHARE_MOST (`spool`).
"""

import threading

SHARE_MOST = 2 * 1024 * 1024
SHARE_LEAST = 32 * 1024
"""Bytes that one segment may hold: half of them in the chunk that is being filled."""


class SegmentMemory:
    """Room for `most` bytes."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._lock = threading.Lock()
        self._held: dict[Place, int] = {}
        self.held = 0
        """Bytes that all segments hold."""

    def enter(self) -> "Place":
        """A place for one segment more."""
        place = Place(self)
        with self._lock:
            self._held[place] = 0
        return place

    @property
    def share(self) -> int:
        """What one segment may hold now."""
        if self.held <= self._half:
            return SHARE_MOST
        return min(SHARE_MOST, max(SHARE_LEAST, self._half // max(1, len(self._held))))

    def _note(self, place: "Place", held: int) -> None:
        with self._lock:
            if place in self._held:  # else it has left: a thread had not heard of it
                self.held += held - self._held[place]
                self._held[place] = held

    def _remove(self, place: "Place") -> None:
        with self._lock:
            self.held -= self._held.pop(place, 0)


class Place:
    """One segment's."""

    def __init__(self, memory: SegmentMemory) -> None:
        self._memory = memory

    @property
    def share(self) -> int:
        """Bytes that this segment may hold now."""
        return self._memory.share

    def hold(self, held: int) -> None:
        """So many bytes are held from now on."""
        self._memory._note(self, held)

    def leave(self) -> None:
        """The segment is gone. May be called again."""
        self._memory._remove(self)
