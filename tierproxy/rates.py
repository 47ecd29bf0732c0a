"""A limit in bytes per second: a bucket that fills with time. Pure; times are a clock's monotonic seconds.

What is asked for need not be there yet: whoever comes when the bucket is not in debt may take any amount, and those who
come later wait until that is paid for. So one answer or segment may be of any size, and the average holds all the same:
in any stretch of time no more passes than `rate` times its seconds, `BURST` seconds' worth, and what passed last.
"""

BURST = 1.0
"""Seconds' worth that is saved up while nothing passes."""


def part_of(rate: int | None, processes: int) -> int | None:
    """What each of `processes` may let pass, so that together they keep to `rate`."""
    return None if rate is None else max(1, rate // processes)


class TokenBucket:
    """`rate` in bytes per second; None: no limit."""

    def __init__(self, rate: int | None, now: float) -> None:
        self.rate = rate
        self._level = 0.0
        self._at = now

    def change(self, rate: int | None, now: float) -> None:
        """Another rate from now on. What was too much until now is waited for as long as it would have been."""
        wait = self.wait(now)
        self.rate, self._level, self._at = rate, -wait * (rate or 0), now

    def wait(self, now: float) -> float:
        """Seconds until something may pass again."""
        if self.rate is None:
            return 0.0
        self._level = min(self._level + (now - self._at) * self.rate, BURST * self.rate)
        self._at = now
        return max(0.0, -self._level / self.rate)

    def saved(self, now: float) -> int:
        """Bytes that may pass now without anybody waiting for them later. Only where there is a rate."""
        self.wait(now)
        return max(0, int(self._level))

    def spend(self, size: int, now: float) -> None:
        """`size` bytes have passed; a negative number gives back what was spent and has not."""
        if self.rate is not None:
            self.wait(now)
            self._level -= size

    def take(self, size: int, now: float) -> float:
        """Reserve `size` bytes: seconds to wait before they may pass. Who reserves later waits for them as well."""
        wait = self.wait(now)
        self.spend(size, now)
        return wait
