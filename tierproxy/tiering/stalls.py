"""Notices an archive that can't go on because of an open transaction. Pure.

A READ_COMMITTED fetch ends at the last stable offset, which stays where the oldest open transaction began. A
producer that hangs keeps everything behind it out of the archive, and so on the brokers' disks; nothing fails, so
somebody must look at the clock.
"""

STALL_AFTER = 300.0
"""Seconds at the same last stable offset, with records behind it; Kafka's longest transaction is 15 minutes."""


class StallWatch:
    """`see` what each answer says; it returns how long this has lasted once that is too long."""

    def __init__(self, after: float = STALL_AFTER) -> None:
        self._after = after
        self._stable = -1
        self._since = 0.0

    def lasting(self, now: float) -> float:
        """Seconds for which the last stable offset has stood still with records behind it; 0 if it doesn't."""
        return now - self._since if self._stable >= 0 else 0.0

    def see(self, next_offset: int, last_stable: int, high_watermark: int, now: float) -> float | None:
        """Seconds for which the archive at `next_offset` has waited for a transaction to end, if that is too long."""
        waiting = 0 <= last_stable <= next_offset and last_stable < high_watermark
        if not waiting or last_stable != self._stable:
            self._stable, self._since = (last_stable if waiting else -1), now
        lasted = now - self._since
        return lasted if waiting and lasted >= self._after else None
