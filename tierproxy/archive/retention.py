"""How long data stays: what brokers may let go (`keep_on_broker`) and what expires (`keep_in_archive`), as offsets.

Whole segments only, from the oldest on. A segment may go when it is old enough or when enough is kept behind
it, whichever comes first; with neither limit everything stays.

A segment is as old as its newest record, as with Kafka's own retention. So records that a producer dates into the
past go early, as they would on a broker, and one late record keeps its segment and all behind it. The time of
archiving stands in for a record's time where that is later or missing: a producer with a wrong clock can't fill the
brokers' disks, nor keep data for ever.
"""

from collections.abc import Mapping, Sequence

from tierproxy.archive.manifest import Manifest, PageRef, SegmentEntry, Sums

NO_PAGES: Mapping[PageRef, Sequence[SegmentEntry]] = {}


def trim_point(
    manifest: Manifest,
    keep_time_ms: int | None,
    keep_bytes: int | None,
    now_ms: int,
    log_start: int = -1,
    pages: Mapping[PageRef, Sequence[SegmentEntry]] = NO_PAGES,
) -> int | PageRef:
    """The offset up to which the broker's copy may be deleted: the end of a segment, or start_offset for
    nothing. Or a page: then that is for its entries to say, so ask again with them in `pages`.

    keep_time_ms: a segment stays until its newest record is that old.

    keep_bytes: a segment goes if the archived segments behind it alone hold that many plain bytes. What the
    broker has beyond the archive is not counted: it cannot be deleted anyway.

    What ends below `log_start`, the broker's, has gone already. Most pages lie there. Of another its sums say
    that all of it may go, until the one in which the limit lies.

    Never above what the manifest holds; the caller sees to it that the manifest is durable.
    """
    if keep_time_ms is None and keep_bytes is None:
        return manifest.start_offset
    point = manifest.start_offset
    first = max(log_start, point)
    behind = manifest.sums.plain_size

    def may_go(run: SegmentEntry | Sums) -> bool:
        old = keep_time_ms is not None and now_ms - run.newest_ms >= keep_time_ms
        return old or (keep_bytes is not None and behind >= keep_bytes)

    for page in manifest.pages:
        behind -= page.sums.plain_size
        if page.last_offset >= first and not may_go(page.sums):
            entries = pages.get(page)
            if entries is None:
                return page
            behind += page.sums.plain_size
            for entry in entries:
                behind -= entry.plain_size
                if entry.last_offset >= first and not may_go(entry):
                    return point
                point = max(point, entry.last_offset + 1)
        point = max(point, page.last_offset + 1)
    for entry in manifest.segments:
        behind -= entry.plain_size
        if entry.last_offset >= first and not may_go(entry):
            return point
        point = entry.last_offset + 1
    return point


def reappeared(manifest: Manifest, log_start: int) -> int | None:
    """Where a recorded gap begins that a log from `log_start` on reaches into: some of what was lost is there again.

    Brokers can bring back what they had deleted (a crash, an election), and then it is not archived. The batch in
    which a gap ends may be, for it is archived whole; of one that only a page knows it is not assumed.
    """
    for gap in manifest.gaps:
        if gap.end > log_start:
            behind = manifest.find(gap.end)
            end = min(gap.end, behind.base_offset) if isinstance(behind, SegmentEntry) else gap.end
            if end > log_start:
                return gap.start
    return None


class Expiry:
    """Which segments of an archive have expired: told the segments one by one from the oldest on, until one stays.

    Limits are as in trim_point(), bytes being plain ones. What the broker still holds does not expire: `log_start` is
    where its log begins. So an archive never begins above the broker's log, and the earliest offset that clients see,
    the lower one of the two, is always the archive's start and only ever rises.
    """

    def __init__(
        self, manifest: Manifest, keep_time_ms: int | None, keep_bytes: int | None, now_ms: int, log_start: int
    ) -> None:
        self.segments = 0
        self.plain_bytes = 0
        self._manifest = manifest
        self._keep_time_ms = keep_time_ms
        self._keep_bytes = keep_bytes
        self._now_ms = now_ms
        self._log_start = log_start
        self._behind = manifest.sums.plain_size
        self._point = manifest.start_offset

    def goes(self, entry: SegmentEntry) -> bool:
        """Whether the next segment has expired as well."""
        behind = self._behind - entry.plain_size
        old = self._keep_time_ms is not None and self._now_ms - entry.newest_ms >= self._keep_time_ms
        enough = self._keep_bytes is not None and behind >= self._keep_bytes
        if entry.last_offset >= self._log_start or not (old or enough):
            return False
        self._behind = behind
        self._point = entry.last_offset + 1
        self.segments += 1
        self.plain_bytes += entry.plain_size
        return True

    @property
    def point(self) -> int:
        """Where the archive is to begin; its start_offset if nothing has expired.

        A gap is not what it begins with: consumers who start at the earliest offset would be led into it.
        """
        point = self._point
        while self.segments and (gap := self._manifest.gap_at(point)) is not None:
            point = gap.end
        return max(self._point, min(point, self._log_start))
