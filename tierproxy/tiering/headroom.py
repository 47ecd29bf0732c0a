"""How far archiving is behind, and whether the brokers will delete what isn't archived yet. Pure; time is handed in.

Brokers delete by their records' own times (retention.ms) and by size (retention.bytes), whatever is archived. Records'
times are what producers say, so they may lie: a time in the future must not hide that its neighbours go, and one in the
past means that the broker may delete at once. How long a record has *waited* is therefore told by when it was seen to
be there, within what its own time allows; when it will be *deleted* by its own time, but never later than seen.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

ALARM_AT = 0.25
"""The alarm begins when so much of a retention is left for archiving, and it is not getting more…"""
ALARM_SOON = 600.0
"""…or when retention.bytes is used up in so many seconds at the present speeds…"""
CALM_AT = 0.5
"""…and ends when so much is left again, or nothing is left to archive."""
SPEED_SECONDS = 60.0
"""Speeds are those of the last so many seconds at least."""
MOST_SAMPLES = 100
"""What was seen longer ago is kept ever more coarsely: there may be many thousands of partitions."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the brokers keep of a partition, in ms and bytes; None: without limit."""

    time_ms: int | None
    bytes: int | None

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Limits":
        """From a topic's settings. Where cleanup.policy doesn't name `delete` nothing is deleted by age or size."""
        if "delete" not in settings.get("cleanup.policy", "delete"):
            return cls(None, None)
        return cls(_limit(settings.get("retention.ms")), _limit(settings.get("retention.bytes")))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the archiving of a partition stands.

    `log_end` is the leader's high watermark as last heard, -1 if nothing was. `oldest_ms` is the time of the oldest
    record that is not archived, or of one before it; -1: not known. `offset_bytes` is what an offset takes in the log.
    """

    archived_to: int
    log_end: int
    oldest_ms: int
    offset_bytes: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """`offsets`, `bytes` (estimated) and `seconds` are how far the archive is behind. `left` is the part of a
    retention that is left, 1 when nothing is behind; `over_in` the seconds until the brokers delete what is not
    archived, at the present speeds; None: not in sight. `limit` names the setting that is nearest.
    """

    offsets: int
    bytes: float
    seconds: float
    left: float
    over_in: float | None
    limit: str
    alarm: bool


@dataclass(frozen=True, slots=True)
class _Sample:
    ms: int
    standing: Standing


class Headroom:
    """Of one partition: `see` where it stands now and then."""

    def __init__(self) -> None:
        self._samples: list[_Sample] = []  # log ends never go back in it
        self._alarm = False

    def see(self, now: Standing, limits: Limits, now_ms: int) -> Outlook:
        """How it looks at `now_ms` (since 1970; a clock that goes back makes no sense of it for a moment)."""
        offsets = max(0, now.log_end - now.archived_to)
        if now.log_end >= 0:
            self._keep(_Sample(now_ms, now))
        if offsets == 0:
            self._alarm = False
            return Outlook(0, 0.0, 0.0, 1.0, None, "", False)
        earliest, latest = self._arrived(now.archived_to, now_ms)
        told = now.oldest_ms if now.oldest_ms >= 0 else earliest or latest
        seconds = (now_ms - min(max(told, earliest), latest)) / 1000
        rooms: list[tuple[float, float | None, str]] = []
        if limits.time_ms is not None:
            left_ms = min(told, latest) + limits.time_ms - now_ms
            rooms.append((_part(left_ms, limits.time_ms), _until(left_ms / 1000, self._ageing()), "retention.ms"))
        if limits.bytes is not None:
            left_bytes = limits.bytes - offsets * now.offset_bytes
            rooms.append((_part(left_bytes, limits.bytes), _until(left_bytes, self._growing()), "retention.bytes"))
        left, over_in, limit = min(rooms, key=lambda room: room[0], default=(1.0, None, ""))
        worse = any(
            over_in is not None and (part <= ALARM_AT or (name == "retention.bytes" and over_in < ALARM_SOON))
            for part, over_in, name in rooms
        )
        self._alarm = worse or (self._alarm and left < CALM_AT)
        return Outlook(offsets, offsets * now.offset_bytes, seconds, left, over_in, limit, self._alarm)

    # ---- what the samples say ------------------------------------------------------------------------------

    def _keep(self, sample: _Sample) -> None:
        samples = self._samples
        if samples and (sample.ms <= samples[-1].ms or sample.standing.log_end < samples[-1].standing.log_end):
            samples.clear()
        samples.append(sample)
        # Of those from before the first record that is not archived came, the last one says enough.
        done = bisect_right(samples, sample.standing.archived_to, key=_log_end) - 1
        while done > 0 and sample.ms - samples[1].ms >= SPEED_SECONDS * 1000:
            del samples[0]
            done -= 1
        if len(samples) > MOST_SAMPLES:
            del samples[1 : MOST_SAMPLES // 2 : 2]

    def _arrived(self, offset: int, now_ms: int) -> tuple[int, int]:
        """Between which times the record at `offset` came, as far as it was seen; 0 if it was always there."""
        at = bisect_right(self._samples, offset, key=_log_end)
        return self._samples[at - 1].ms if at else 0, self._samples[at].ms if at < len(self._samples) else now_ms

    def _span(self) -> tuple[_Sample, _Sample]:
        """The newest sample, and the youngest that is old enough to tell a speed, or else the oldest."""
        newest = self._samples[-1]
        for sample in reversed(self._samples):
            if newest.ms - sample.ms >= SPEED_SECONDS * 1000:
                return sample, newest
        return self._samples[0], newest

    def _ageing(self) -> float:
        """Seconds by which the oldest record that is not archived gets older in a second: 1 when nothing moves."""
        old, new = self._span()
        if old is new or min(old.standing.oldest_ms, new.standing.oldest_ms) < 0:
            return 1.0
        return 1.0 - max(0, new.standing.oldest_ms - old.standing.oldest_ms) / (new.ms - old.ms)

    def _growing(self) -> float:
        """Bytes a second by which what is not archived grows."""
        old, new = self._span()
        if old is new:
            return 0.0
        more = (new.standing.log_end - new.standing.archived_to) - (old.standing.log_end - old.standing.archived_to)
        return more * new.standing.offset_bytes / (new.ms - old.ms) * 1000


def _log_end(sample: _Sample) -> int:
    return sample.standing.log_end


def _limit(value: str | None) -> int | None:
    try:
        number = int(value) if value is not None else -1
    except ValueError:
        return None
    return number if number >= 0 else None


def _part(left: float, whole: float) -> float:
    return left / whole if whole > 0 else 0.0


def _until(left: float, speed: float) -> float | None:
    """Seconds until `left` is used up; None if it isn't getting less."""
    if left <= 0:
        return 0.0
    return left / speed if speed > 0 else None
