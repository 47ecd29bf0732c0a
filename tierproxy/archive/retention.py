"""How much of what is archived the brokers may let go: the policy's `keep_on_broker`, as offsets.

Whole segments only, from the oldest on. A segment may go when it is old enough or when enough is kept behind
it, whichever comes first; with neither limit everything stays.
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

    keep_time_ms: a segment stays until its newest record is that old. The time of archiving stands in for a
    record's time where that is later or missing, so that a producer with a wrong clock cannot fill the
    brokers' disks.

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
