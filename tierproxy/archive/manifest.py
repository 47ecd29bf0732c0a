"""The manifest of a partition: the only truth about what its archive holds, as an immutable value.

Every change makes a new manifest (`with_segment`, `with_gap`, `with_start`, `with_fence`; Library.merging) with the
next generation, and becomes real when the store replaces the old one by compare-and-swap. The archive holds
[start_offset, end_offset). Segments cover it in order without overlap; what lies between two of them is either a
recorded gap (lost before it was archived) or offsets that the broker itself does not have (compacted away).

The root has the newest segments itself; older ones are in pages (see `pages`), of which it has a row each. So some
questions can't be answered from here alone: `Library.segment_at` and `Library.segments` read pages where they must.

Stored as JSON, for people and `jq`, one line a segment:

    {
      "format": "tierproxy-manifest",
      "version": 2,
      "generation": 2,
      "fence": 1,                                     only where garbage was removed, see with_fence()
      "cluster": "prod",                              the name in our configuration
      "cluster_id": "5L6g3nShT-eMCtK--X86sw",         Kafka's own
      "topic": "flights",
      "topic_id": "7s9mFq3kQ1-wYzVtL2xAbg",
      "partition": 0,
      "start_offset": 0,                              the first offset that readers may have
      "end_offset": 183202,                           the next offset to archive
      "epochs": [[0, 0], [2, 90000]],                 leader epoch, offset of its first batch
      "gaps": [{"start": ..., "end": ..., "at_ms": ..., "cause": "..."}],
      "quarantined": [{"start": ..., "end": ..., "at_ms": ..., "cause": "...",       only if there is any
                       "epochs": ..., "gaps": ..., "segments": ...}],
      "pages": [
        {"name": "manifest/00000000000000000000-00000000000000091600-77aa01cd.json.zst", "base_offset": 0, ...}
      ],
      "segments": [
        {"name": "00000000000000091601-00000000000000183201-5f1c9a3e.log.zst", "base_offset": 91601, ...}
      ],
      "checksum": "sha256:..."                        of all the other fields, see json_fields
    }

A gap that an operator has accepted has an "accepted_ms". Programs that know neither that nor "quarantined" refuse
the manifest, which is right: they would write it back without.

Version 1 had no pages, and is still read. A program that knows only that one refuses version 2: it would take what it
does not find in the root for gone.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Self

from tierproxy.archive.errors import ContinuityError, FormatError
from tierproxy.archive.json_fields import Fields, sealed
from tierproxy.archive.names import PartitionId, parse_topic_id, topic_id_text
from tierproxy.archive.pages import PageRef
from tierproxy.archive.segment_entry import SegmentEntry, Sums

__all__ = ["NO_EPOCH", "Gap", "Manifest", "PageRef", "SegmentEntry", "Sums"]

FORMAT = "tierproxy-manifest"
VERSION = 2
READABLE = (1, VERSION)
NO_EPOCH = -1
"""Kafka's word for "leader epoch not known"."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets [start, end) that were gone from the broker before they were archived: lost for ever.

    `accepted_ms`: when an operator took note, so that readers with `on_gap: halt` go on; -1: nobody has.
    """

    start: int
    end: int
    at_ms: int
    cause: str
    accepted_ms: int = -1


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What was archived in [start, end) of a history that the brokers have given up, as after an unclean election.

    Nothing of it is served, and none of its objects is garbage: it may be the only copy of what was acknowledged.
    `segments` are whole, so the first may begin below `start`; `epochs` are the leader epochs in the range, the one
    at `start` with its own beginning; `gaps` those that were recorded in it.
    """

    start: int
    end: int
    at_ms: int
    cause: str
    epochs: tuple[tuple[int, int], ...]
    gaps: tuple[Gap, ...]
    segments: tuple[SegmentEntry, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is archived of one partition. See the module for the meaning of each field.

    `segments` are only the newest: whoever means all of them asks the Library.
    """

    cluster: str
    cluster_id: str
    topic: str
    topic_id: bytes
    partition: int
    start_offset: int
    end_offset: int
    segments: tuple[SegmentEntry, ...] = ()
    epochs: tuple[tuple[int, int], ...] = ()
    gaps: tuple[Gap, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()
    pages: tuple[PageRef, ...] = ()
    generation: int = 1
    fence: int = 0

    @classmethod
    def empty(cls, cluster: str, cluster_id: str, pid: PartitionId, start_offset: int) -> Self:
        """A partition's first manifest: nothing is archived yet, `start_offset` is the next to archive."""
        return cls(cluster, cluster_id, pid.topic, pid.topic_id, pid.partition, start_offset, start_offset)

    @property
    def pid(self) -> PartitionId:
        """The partition that this is about."""
        return PartitionId(self.topic, self.topic_id, self.partition)

    @property
    def sums(self) -> Sums:
        """What all segments come to. Those that end below the start count where they share a page with others:
        Library.sums() has the exact figures."""
        return sum((page.sums for page in self.pages), Sums.of(self.segments))

    @property
    def last_archived(self) -> int:
        """The last offset of the newest segment, -1 if there is none."""
        if self.segments:
            return self.segments[-1].last_offset
        return self.pages[-1].last_offset if self.pages else -1

    @property
    def last_epoch(self) -> int:
        """The newest leader epoch in the archive, -1 if there is none."""
        return self.epochs[-1][0] if self.epochs else NO_EPOCH

    @property
    def resume_epoch(self) -> int:
        """The epoch of what lies just before end_offset, for a fetch there (last_fetched_epoch).

        -1 behind a gap and where nothing is archived: with the epoch of what was before a gap, an honest
        broker's log would look like a rewritten one.
        """
        behind_gap = bool(self.gaps) and self.gaps[-1].end == self.end_offset
        return NO_EPOCH if behind_gap else self.last_epoch

    @property
    def is_bare(self) -> bool:
        """Whether nothing was ever archived: it is as `empty` made it, but for fences."""
        return self.generation == 1 + self.fence and self.start_offset == self.end_offset

    def holds(self, offset: int) -> bool:
        """Whether readers get `offset` from here: itself, or what follows where it is missing."""
        return self.start_offset <= offset < self.end_offset

    def find(self, offset: int) -> SegmentEntry | PageRef | None:
        """The segment that holds `offset`, or else the next; or the page that has it; None: all end below."""
        if self.pages and offset <= self.pages[-1].last_offset:
            return self.pages[bisect_left(self.pages, offset, key=_last_offset)]
        found = bisect_left(self.segments, offset, key=_last_offset)
        return self.segments[found] if found < len(self.segments) else None

    def gap_at(self, offset: int) -> Gap | None:
        """The recorded gap that `offset` lies in."""
        found = bisect_right(self.gaps, offset, key=_gap_start)
        return self.gaps[found - 1] if found and offset < self.gaps[found - 1].end else None

    def epoch_at(self, offset: int) -> int:
        """The leader epoch of the batch at `offset`, -1 if not known."""
        found = bisect_right(self.epochs, offset, key=_epoch_start)
        return self.epochs[found - 1][0] if found else NO_EPOCH

    def with_segment(
        self, entry: SegmentEntry, epochs: Sequence[tuple[int, int]], *, fetched_at: int | None = None
    ) -> Self:
        """With one more segment at the end, and the leader epochs that it holds (as in its index).

        A segment continues the archive if its first batch is what the broker gave for end_offset. That
        batch may begin below it, if the broker was trimmed in the middle of the batch and nothing before is
        archived, and above it, if the offsets between were compacted away. Only the archiver can tell the
        latter from a mistake: it says so with `fetched_at`, the offset that it had asked for.
        ContinuityError if it does not fit.
        """
        first, last = entry.base_offset, entry.last_offset
        stray = first > self.end_offset if fetched_at is None else fetched_at != self.end_offset
        if stray or first <= self.last_archived or last < max(first, self.end_offset):
            asked = "" if fetched_at is None else f", fetched at {fetched_at},"
            raise ContinuityError(
                f"{self.pid}: a segment from {first} to {last}{asked} does not continue what ends at {self.end_offset}"
            )
        return replace(
            self,
            segments=(*self.segments, entry),
            end_offset=last + 1,
            epochs=self._lineage(epochs),
            generation=self.generation + 1,
        )

    def _lineage(self, epochs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        lineage = list(self.epochs)
        for epoch, start in epochs:
            if lineage and epoch == lineage[-1][0]:
                continue
            if lineage and (epoch < lineage[-1][0] or start <= lineage[-1][1]):
                raise ContinuityError(
                    f"{self.pid}: leader epoch {epoch} from {start} can't follow epoch {lineage[-1][0]} "
                    f"from {lineage[-1][1]}"
                )
            lineage.append((epoch, start))
        return tuple(lineage)

    def with_gap(self, gap: Gap) -> Self:
        """With a gap behind what is archived: archiving goes on at its end.

        ContinuityError if it does not begin at end_offset.
        """
        if gap.start != self.end_offset or gap.end <= gap.start:
            raise ContinuityError(
                f"{self.pid}: [{gap.start}, {gap.end}) is no gap behind what ends at {self.end_offset}"
            )
        return replace(self, gaps=(*self.gaps, gap), end_offset=gap.end, generation=self.generation + 1)

    def with_gaps_accepted(self, at_ms: int) -> Self:
        """With an operator's word that nobody need wait at the gaps there are; itself if there is none to accept."""
        gaps = tuple(replace(gap, accepted_ms=at_ms) if gap.accepted_ms < 0 else gap for gap in self.gaps)
        return self if gaps == self.gaps else replace(self, gaps=gaps, generation=self.generation + 1)

    def with_start(self, offset: int) -> Self:
        """Without anything below `offset`, because it expired or a user deleted it; itself if nothing is.

        Segments that end below are left out, and pages of which all do: their objects are garbage from then on. A
        page with others in it stays as it is, and nobody is shown its first ones any more. An offset above
        end_offset empties the archive, which then goes on from there.
        """
        if offset <= self.start_offset:
            return self
        # The epoch that holds `offset` began before it. Beyond the end nothing is known of any epoch.
        behind = sum(start <= offset for _, start in self.epochs)
        epochs = self.epochs[max(behind - 1, 0) :] if offset <= self.end_offset else ()
        return replace(
            self,
            start_offset=offset,
            end_offset=max(offset, self.end_offset),
            pages=tuple(page for page in self.pages if page.last_offset >= offset),
            segments=tuple(entry for entry in self.segments if entry.last_offset >= offset),
            # A gap that ends here stays: resume_epoch must know of it.
            gaps=tuple(gap for gap in self.gaps if gap.end >= offset),
            epochs=epochs,
            generation=self.generation + 1,
        )

    def with_fence(self) -> Self:
        """The same behind a fence: whoever has written an object under an older manifest must not name it any more.

        Put up before unnamed objects are removed: an archiver that slept since then may have written one of them. And
        where a move hands the archive over, as unnamed objects stay in the old store. The archiver's commit fails, as
        the manifest has changed, and must not be repeated with the same object.
        """
        return replace(self, fence=self.fence + 1, generation=self.generation + 1)

    def continues_like(self, other: Self) -> bool:
        """Whether what was written to follow `other` may follow this one: only what lies before has changed.

        So it is after expiry, merging and users' deletions, and not behind a fence or another end.
        """

        def end(manifest: Self) -> tuple[object, ...]:
            last = manifest.epochs[-1:], manifest.resume_epoch, len(manifest.quarantined)
            return manifest.fence, manifest.end_offset, *last, manifest.cluster_id

        return end(self) == end(other)

    def referenced(self) -> set[str]:
        """Names, in the partition's folder, of all objects that this manifest itself needs: no garbage."""
        quarantined = (entry for each in self.quarantined for entry in each.segments)
        return {entry.key_name for entry in (*self.segments, *quarantined)} | {page.name for page in self.pages}

    def to_json(self) -> bytes:
        """The stored form; equal manifests give equal bytes."""
        fields: list[tuple[str, object]] = [
            ("format", FORMAT),
            ("version", VERSION),
            ("generation", self.generation),
            *([("fence", self.fence)] if self.fence else []),
            ("cluster", self.cluster),
            ("cluster_id", self.cluster_id),
            ("topic", self.topic),
            ("topic_id", topic_id_text(self.topic_id)),
            ("partition", self.partition),
            ("start_offset", self.start_offset),
            ("end_offset", self.end_offset),
            ("epochs", self.epochs),
        ]
        lines = [f'  "{name}": {json.dumps(value)}' for name, value in fields]
        lines.append(_json_list("gaps", [_json_gap(gap) for gap in self.gaps]))
        if self.quarantined:
            lines.append(_json_list("quarantined", [_json_quarantine(each) for each in self.quarantined]))
        lines.append(_json_list("pages", [page.to_row() for page in self.pages]))
        lines.append(_json_list("segments", [entry.to_row() for entry in self.segments]))
        return sealed(("{\n" + ",\n".join(lines) + "\n}\n").encode())

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """From the stored form. UnknownVersionError for a newer one, FormatError for anything not right."""
        fields = Fields.of_document(data, "the manifest", FORMAT, *READABLE)
        manifest = cls(
            generation=fields.integer("generation", 1),
            fence=fields.integer("fence", absent=0),
            cluster=fields.text("cluster"),
            cluster_id=fields.text("cluster_id"),
            topic=fields.text("topic"),
            topic_id=parse_topic_id(fields.text("topic_id")),
            partition=fields.integer("partition"),
            start_offset=fields.integer("start_offset"),
            end_offset=fields.integer("end_offset"),
            epochs=fields.pairs("epochs"),
            gaps=fields.rows("gaps", _read_gap),
            quarantined=fields.rows("quarantined", _read_quarantine) if fields.has("quarantined") else (),
            pages=() if fields.version == 1 else fields.rows("pages", PageRef.from_row),
            segments=fields.rows("segments", SegmentEntry.from_row),
        )
        if fields.version == 1:
            fields.empty_list("pages")
        fields.finish()
        manifest._check()
        return manifest

    def _check(self) -> None:
        """FormatError if the parts do not agree with each other."""
        end = -1
        for page in self.pages:
            if page.base_offset <= end:
                raise FormatError(f"the manifest: page {page.name} overlaps another")
            end = page.last_offset
        for entry in self.segments:
            if entry.base_offset <= end:
                raise FormatError(f"the manifest: segment {entry.key_name} overlaps another")
            end = entry.last_offset
        for one, other in pairwise(self.epochs):
            if other[0] <= one[0] or other[1] <= one[1]:
                raise FormatError(f"the manifest: epochs do not ascend at {list(other)}")
        if any(gap.start >= gap.end for gap in self.gaps):
            raise FormatError("the manifest: a gap is empty")
        if any(other.start < one.end for one, other in pairwise(self.gaps)):
            raise FormatError("the manifest: gaps do not ascend")
        ends = [end + 1, self.start_offset, *(gap.end for gap in self.gaps)]
        if max(ends) != self.end_offset:
            raise FormatError(f"the manifest: end_offset is {self.end_offset}, its parts end at {max(ends)}")
        if self.segments and self.segments[0].last_offset < self.start_offset:
            raise FormatError(f"the manifest: segment {self.segments[0].key_name} lies below start_offset")
        if self.pages and self.pages[0].last_offset < self.start_offset:
            raise FormatError(f"the manifest: page {self.pages[0].name} lies below start_offset")


def _last_offset(row: SegmentEntry | PageRef) -> int:
    return row.last_offset


def _gap_start(gap: Gap) -> int:
    return gap.start


def _epoch_start(row: tuple[int, int]) -> int:
    return row[1]


def _json_list(name: str, rows: Sequence[object]) -> str:
    if not rows:
        return f'  "{name}": []'
    return f'  "{name}": [\n' + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]"


def _json_gap(gap: Gap) -> dict[str, object]:
    fields = asdict(gap)
    if gap.accepted_ms < 0:
        del fields["accepted_ms"]
    return fields


def _json_quarantine(each: Quarantine) -> dict[str, object]:
    return {
        "start": each.start,
        "end": each.end,
        "at_ms": each.at_ms,
        "cause": each.cause,
        "epochs": each.epochs,
        "gaps": [_json_gap(gap) for gap in each.gaps],
        "segments": [entry.to_row() for entry in each.segments],
    }


def _read_gap(row: Fields) -> Gap:
    accepted_ms = row.integer("accepted_ms") if row.has("accepted_ms") else -1
    return Gap(row.integer("start"), row.integer("end"), row.integer("at_ms"), row.text("cause"), accepted_ms)


def _read_quarantine(row: Fields) -> Quarantine:
    return Quarantine(
        start=row.integer("start"),
        end=row.integer("end"),
        at_ms=row.integer("at_ms"),
        cause=row.text("cause"),
        epochs=row.pairs("epochs"),
        gaps=row.rows("gaps", _read_gap),
        segments=row.rows("segments", SegmentEntry.from_row),
    )
