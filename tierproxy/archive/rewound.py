"""A manifest whose newest part was disowned by the brokers: cut at an offset, the rest quarantined. Pure.

After an unclean leader election the leader's log is the truth, and what was archived of the lost history beyond the
last common offset is not: its offsets stand for other records now. It stays in the store and is named in the manifest,
for people; readers never see it.
"""

from dataclasses import replace

from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.manifest import Manifest, PageRef, Quarantine, SegmentEntry


def rewound(
    manifest: Manifest, offset: int, log_start: int, at_ms: int, cause: str, cut: SegmentEntry | None = None
) -> Manifest:
    """`manifest` without what lies at or above `offset`, a batch border; archiving goes on where what is kept ends.

    A segment that reaches beyond `offset` is quarantined whole. `cut`, a segment with what such a one holds below
    `offset`, takes its place; without it those records are to be copied again. A recorded gap that reaches beyond
    `offset` is withdrawn: the leader's log may have those offsets again.

    Where nothing is left, the archive begins anew at `log_start`, the leader's: its records below our start_offset may
    be others than those that had been deleted there.

    Pages must end below `offset` (Library.unfolded). ContinuityError if they don't, if there is nothing at or above
    `offset`, or if `cut` is not the beginning of such a segment.
    """
    if offset >= manifest.end_offset:
        raise ContinuityError(f"{manifest.pid}: nothing lies at {offset}, the archive ends at {manifest.end_offset}")
    if any(page.last_offset >= offset for page in manifest.pages):
        raise ContinuityError(f"{manifest.pid}: a page of its manifest reaches beyond {offset}, where it is to be cut")
    kept = [entry for entry in manifest.segments if entry.last_offset < offset]
    disowned = manifest.segments[len(kept) :]
    if cut is not None:
        if not disowned or cut.base_offset != disowned[0].base_offset or cut.last_offset >= offset:
            raise ContinuityError(f"{manifest.pid}: {cut.key_name} is no beginning of what is cut at {offset}")
        if cut.last_offset >= manifest.start_offset:
            kept.append(cut)
    gaps = tuple(gap for gap in manifest.gaps if gap.end <= offset)
    left: list[PageRef | SegmentEntry] = [*manifest.pages, *kept]
    start = manifest.start_offset if left or gaps else log_start
    end = max([start, *(each.last_offset + 1 for each in left[-1:]), *(gap.end for gap in gaps[-1:])])
    held = sum(first <= end for _, first in manifest.epochs)
    quarantine = Quarantine(
        start=end,
        end=manifest.end_offset,
        at_ms=at_ms,
        cause=cause,
        epochs=manifest.epochs[max(held - 1, 0) :],
        gaps=manifest.gaps[len(gaps) :],
        segments=tuple(disowned),
    )
    return replace(
        manifest,
        start_offset=start,
        end_offset=end,
        segments=tuple(kept),
        gaps=gaps,
        epochs=tuple(row for row in manifest.epochs if row[1] < end) if left or gaps else (),
        quarantined=(*manifest.quarantined, quarantine),
        generation=manifest.generation + 1,
    )
