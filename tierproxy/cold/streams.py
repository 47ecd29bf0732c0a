"""Who reads archived partitions from front to back, how fast, and how far ahead of them to read. Pure.

A reader that comes back for the offset after the last one it was given is sequential. It is known by (partition, next
offset) rather than by connection, so a group that rebalances and a client that reconnects keep their read-ahead.

How far ahead: a read takes `latency`, and in that time the reader takes latency / pace bytes, where pace is the time
that *it* needs for a byte: from when it was given the last answer to when it asked again. What it had to wait for us
is left out, or a slow start would look like a slow reader. Twice that, and one read more, keeps a reader from waiting;
a share of the memory is the most, so that many readers get little each rather than throw out what others have yet
to read. Of whom nothing is known yet one read is ahead: most who look at the first records want no more than those.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from tierproxy.archive.names import PartitionId

REMEMBERED = 10_000
ACTIVE_SECONDS = 10.0
"""A reader that was served so lately counts when memory is shared out."""
SMOOTHING = 0.3
LEAST_WINDOW = 256 << 10


@dataclass(slots=True)
class Stream:
    """One reader. Offsets are Kafka's, sizes stored bytes, times seconds."""

    served_at: float
    taken: int = 0
    """What its last answer took."""
    asked_at: float = -1.0
    """When it first asked for what follows; -1: not yet."""
    answers: int = 0
    """How many it was given in a row."""
    pace: float = -1.0
    """Seconds that it needs for a byte; -1: not known."""
    frontier: int = -1
    """The offset up to which is read ahead of it; -1: nowhere."""
    ahead: int = 0
    """Bytes that are read ahead of it and that it hasn't taken."""
    filling: bool = False

    def asked(self, now: float) -> None:
        """It wants what follows its last answer."""
        if self.asked_at < 0:
            self.asked_at = now
            if self.taken:
                pace = (now - self.served_at) / self.taken
                self.pace = pace if self.pace < 0 else self.pace + SMOOTHING * (pace - self.pace)

    def served(self, now: float, taken: int) -> None:
        """It was given an answer with `taken` bytes."""
        self.served_at, self.taken, self.asked_at = now, taken, -1.0
        self.answers += 1
        self.ahead = max(0, self.ahead - taken)

    def missed(self) -> None:
        """What it wants is neither in memory nor on its way: reading ahead begins anew."""
        self.frontier, self.ahead = -1, 0

    def lasts(self) -> float:
        """Seconds that it needs for what is read ahead of it; 0 if its pace is not known."""
        return self.ahead * max(self.pace, 0.0)

    def window(self, latency: float, read: int, share: int) -> int:
        """Bytes to have read ahead, given how long a read takes and how many bytes it brings at the most."""
        meanwhile = 2 * latency / max(self.pace, 1e-12) if self.pace >= 0 else 0.0
        return max(LEAST_WINDOW, int(min(meanwhile + read, share)))


class Streams:
    """All readers, by what they ask for next; those that are longest silent are forgotten first."""

    def __init__(self) -> None:
        self._streams: OrderedDict[tuple[PartitionId, int], Stream] = OrderedDict()
        self._active: Counter[PartitionId] = Counter()
        self._total = 0  # of _active: there may be thousands of partitions
        self._counted_at = -1.0

    def at(self, pid: PartitionId, offset: int) -> Stream | None:
        return self._streams.get((pid, offset))

    def moved(self, pid: PartitionId, offset: int, stream: Stream, then: int) -> None:
        """The reader at `offset` will ask for `then` next."""
        if self._streams.pop((pid, offset), None) is None:
            self._active[pid] += 1  # until it is counted
            self._total += 1
        other = self._streams.get((pid, then))
        if other is not None and other.frontier > stream.frontier:  # what is read ahead of one is so for both
            stream.frontier, stream.ahead = other.frontier, other.ahead
        self._streams[pid, then] = stream
        self._streams.move_to_end((pid, then))
        if len(self._streams) > REMEMBERED:
            self._streams.popitem(last=False)

    def active(self, now: float) -> int:
        """How many read at present, looked at once a second."""
        self._count(now)
        return max(1, self._total)

    def alone(self, pid: PartitionId, now: float) -> bool:
        """Whether nobody else reads the partition that one reads."""
        self._count(now)
        return self._active[pid] <= 1

    def _count(self, now: float) -> None:
        if now - self._counted_at < 1:
            return
        self._counted_at = now
        self._active.clear()
        for (pid, _), stream in reversed(self._streams.items()):
            if now - stream.served_at > ACTIVE_SECONDS:
                break
            self._active[pid] += 1
        self._total = self._active.total()
