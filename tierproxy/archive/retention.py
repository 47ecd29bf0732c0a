"""How much of what is archived the brokers may let go: the policy's `keep_on_broker`, as offsets.

Whole segments only, from the oldest on. A segment may go when it is old enough or when enough is kept behind
it, whichever comes first; with neither limit everything stays.
"""

from tierproxy.archive.manifest import Manifest, SegmentEntry


def trim_point(manifest: Manifest, keep_time_ms: int | None, keep_bytes: int | None, now_ms: int) -> int:
    """The offset up to which the broker's copy may be deleted: the end of a segment, or start_offset for
    nothing.

    keep_time_ms: a segment stays until its newest record is that old. The time of archiving stands in for a
    record's time where that is later or missing, so that a producer with a wrong clock cannot fill the
    brokers' disks.

    keep_bytes: a segment goes if the archived segments behind it alone hold that many plain bytes. What the
    broker has beyond the archive is not counted: it cannot be deleted anyway.

    Never above what the manifest holds; the caller sees to it that the manifest is durable.
    """
    point = manifest.start_offset
    behind = manifest.plain_size
    for entry in manifest.segments:
        behind -= entry.plain_size
        old = keep_time_ms is not None and now_ms - _age_from(entry) >= keep_time_ms
        enough = keep_bytes is not None and behind >= keep_bytes
        if not old and not enough:
            break
        point = entry.last_offset + 1
    return point


def reappeared(manifest: Manifest, log_start: int) -> int | None:
    """Where a recorded gap begins that a log from `log_start` on reaches into: some of what was lost is there again.

    Brokers can bring back what they had deleted (a crash, an election), and then it is not archived. The batch in
    which a gap ends may be, for it is archived whole.
    """
    for gap in manifest.gaps:
        if gap.end > log_start:
            behind = manifest.segment_at(gap.end)
            end = gap.end if behind is None else min(gap.end, manifest.segments[behind].base_offset)
            if end > log_start:
                return gap.start
    return None


def _age_from(entry: SegmentEntry) -> int:
    return min(entry.max_timestamp, entry.created_ms) if entry.max_timestamp >= 0 else entry.created_ms
