"""What one partition's manifest comes to in a plan: what is archived, what trimming and expiry would take of it. Pure.

Trimming is asked of `retention.trim_point`, as the archiver does. What is not archived yet is added to the manifest
before that, as segments that the archiver would make of it: full ones, and the rest, which its age will close.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from protocol.messages import NO_TOPIC_ID
from tierproxy.archive.manifest import Manifest, PageRef, SegmentEntry
from tierproxy.archive.retention import reappeared, trim_point
from tierproxy.config import Keep, TopicPolicy

MOST_SEGMENTS = 1000
"""That are thought of one by one; of a longer backlog each stands for several."""

Pages = Mapping[PageRef, Sequence[SegmentEntry]]


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What a partition's leader says of its log. Offsets; -1 and None: not told.

    `stable_end` is where archiving stops for now, `end` the high watermark. `kept_from`: the first record that is
    younger than `keep_on_broker.time`; `end` if there is none. `first_ms` is the time of the oldest record, `day_from`
    the first offset of the last day.
    """

    error: int = 0
    start: int = -1
    stable_end: int = -1
    end: int = -1
    kept_from: int | None = None
    first_ms: int = -1
    day_from: int | None = None

    @property
    def known(self) -> bool:
        return self.error == 0 and self.start >= 0 and self.stable_end >= 0


@dataclass(frozen=True, slots=True)
class Shelved:
    """A partition's archive, condensed. Bytes are plain ones (of log) unless they are called stored.

    `trim_now`: where the broker's log would begin after the next trim; `trim_later`: when the backlog is archived too.
    `offset_bytes`: bytes of log for an offset, of the newest segments; None: nothing is archived that would say it.
    `first_ms` is the time of the oldest record, `day_from` the first offset of the last day, if one is archived. What
    expires is counted as when what may go from the brokers has gone.
    """

    archive: str
    start: int
    end: int
    segments: int
    plain_bytes: int
    stored_bytes: int
    offset_bytes: float | None
    trim_now: int
    trim_now_bytes: int
    trim_later: int
    trim_later_bytes: int
    first_ms: int
    day_from: int | None
    expire_to: int
    expire_segments: int = 0
    expire_bytes: int = 0
    expire_stored: int = 0


def trims(policy: TopicPolicy, topic_id: bytes) -> bool:
    """Whether tierproxy would delete on the brokers at all."""
    return policy.trim == "delete-records" and policy.keep_on_broker != Keep() and topic_id != NO_TOPIC_ID


def offset_bytes(manifest: Manifest) -> float | None:
    """Bytes of log for an offset, of the newest segments."""
    offsets = sum(entry.last_offset + 1 - entry.base_offset for entry in manifest.segments)
    return sum(entry.plain_size for entry in manifest.segments) / offsets if offsets else None


def with_backlog(
    manifest: Manifest, policy: TopicPolicy, log: LogFacts, an_offset_bytes: float, now_ms: int
) -> Manifest:
    """As it would be if all were archived that the log has now."""
    begin = max(manifest.end_offset, log.start)
    offsets = log.stable_end - begin
    if offsets <= 0:
        return manifest
    whole = max(1, int(policy.segment.bytes / an_offset_bytes)) if an_offset_bytes else offsets
    borders = [*range(begin, log.stable_end, max(whole, ceil(offsets / MOST_SEGMENTS))), log.stable_end]
    keep = policy.keep_on_broker.time_ms

    def entry(first: int, stop: int) -> SegmentEntry:
        old = keep is not None and log.kept_from is not None and stop <= log.kept_from
        newest = now_ms - keep if old and keep is not None else now_ms
        plain = round((stop - begin) * an_offset_bytes) - round((first - begin) * an_offset_bytes)
        return SegmentEntry("", first, stop - 1, 1, plain, 1, stop - first, -1, newest, "", now_ms)

    added = tuple(entry(first, stop) for first, stop in pairwise(borders))
    return replace(manifest, segments=(*manifest.segments, *added), end_offset=log.stable_end)


def backlog_segments(plain_bytes: float, offsets: int, policy: TopicPolicy) -> int:
    """Segments that so much becomes."""
    return max(1, min(offsets, ceil(plain_bytes / policy.segment.bytes))) if offsets > 0 else 0


def trim_to(
    manifest: Manifest, policy: TopicPolicy, log: LogFacts, now_ms: int, pages: Pages, topic_id: bytes
) -> int | PageRef:
    """Where the broker's log would begin after a trim with this manifest; or a page that has to be looked into."""
    if not trims(policy, topic_id):
        return log.start
    keep = policy.keep_on_broker
    point = trim_point(manifest, keep.time_ms, keep.bytes, now_ms, log.start, pages)
    if isinstance(point, PageRef):
        return point
    lost = reappeared(manifest, log.start)
    return max(log.start, point if lost is None else min(point, lost))


def bytes_between(manifest: Manifest, first: int, stop: int, pages: Pages) -> int:
    """Bytes of log in the offsets [first, stop), as far as they are archived; of a run that is cut, its share."""
    total = 0.0
    runs: list[PageRef | SegmentEntry] = []
    for page in manifest.pages:
        runs += pages.get(page, (page,))
    for run in (*runs, *manifest.segments):
        low, high = max(first, run.base_offset), min(stop, run.last_offset + 1)
        if low < high:
            plain = run.sums.plain_size if isinstance(run, PageRef) else run.plain_size
            total += plain * (high - low) / (run.last_offset + 1 - run.base_offset)
    return round(total)


def first_since(entry: SegmentEntry, time_ms: int) -> int:
    """The first offset of a segment that is not older than that, if its records came evenly."""
    span = entry.max_timestamp - entry.min_timestamp
    if entry.min_timestamp < 0 or entry.min_timestamp >= time_ms or span <= 0:
        return entry.base_offset
    share = min(1.0, (time_ms - entry.min_timestamp) / span)
    return entry.base_offset + round(share * (entry.last_offset + 1 - entry.base_offset))
