"""What keeps an archive in order, decided: which segments to merge, which objects to remove, and when to look.

Merging. A quiet topic's segments are closed by age, so they are small, and many. Neighbours are joined when the
result is worth being written: at least `GROWTH` times as large as its largest part, of at least `LEAST_PARTS` parts;
or half of a full segment, and at least twice as large as its largest part. So each merge that a record goes through
makes its segment so much larger, and it goes through a logarithm of them: at most log4(full / first size) + 2. What
is left unmerged are some few segments of each size.

Garbage. An object that no manifest names may be one that an archiver is about to name, or one that readers with an
older manifest still read. So it stays for a grace time twice: from when it was written, and from when it was first
seen to be garbage. The latter is kept in a document beside the manifest (`Sightings`), as nobody else remembers when
an object was merged away.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from zlib import crc32

from tierproxy.archive.json_fields import Fields
from tierproxy.archive.manifest import Gap, SegmentEntry
from tierproxy.archive.names import PartitionId, may_be_garbage, topic_id_text
from tierproxy.archive.store import ObjectInfo

LEAST_PARTS = 8
GROWTH = 4
MOST_PARTS = 256
"""Of one merge, which is to end in reasonable time."""
DAY_MS = 86_400_000

FORMAT = "tierproxy-garbage"
VERSION = 1


@dataclass(frozen=True, slots=True)
class MergeRules:
    """What may be merged. `most_bytes` are plain bytes of the result, which is what a full segment has.

    Only segments archived at or before `settled_ms`, and never the newest: the archiver is at work behind it. Only
    below the offset `below`, if there is one. `most_span_ms`: the parts' archiving times lie no farther apart, so that
    the oldest does not stay much longer than it must, as a segment expires as a whole.
    """

    most_bytes: int
    settled_ms: int
    below: int | None = None
    most_span_ms: int | None = None


@dataclass(frozen=True, slots=True)
class MergePlan:
    """`run`: neighbours to be joined, none if nothing is worth it. Nothing below `look_from` can ever be joined."""

    run: tuple[SegmentEntry, ...]
    look_from: int


def plan_merge(entries: Sequence[SegmentEntry], gaps: Sequence[Gap], rules: MergeRules) -> MergePlan:
    """The first merge that is worth it. `entries` are a partition's last segments, in order and to the newest."""
    chain: list[SegmentEntry] = []
    look_from = entries[0].base_offset if entries else 0
    borders = {gap.start for gap in gaps}
    for entry in entries[:-1]:
        if entry.created_ms > rules.settled_ms or (rules.below is not None and entry.last_offset >= rules.below):
            break
        follows = bool(chain) and chain[-1].last_offset + 1 == entry.base_offset not in borders
        if chain and not follows:
            if run := _worthwhile(chain, rules):
                return MergePlan(run, look_from)
            chain = []
        if 2 * entry.plain_size > rules.most_bytes:
            if run := _worthwhile(chain, rules):
                return MergePlan(run, look_from)
            chain, look_from = [], entry.last_offset + 1
            continue
        if not chain:
            look_from = entry.base_offset
        chain.append(entry)
    return MergePlan(_worthwhile(chain, rules), look_from)


def _worthwhile(chain: Sequence[SegmentEntry], rules: MergeRules) -> tuple[SegmentEntry, ...]:
    """The first and from there longest run of the chain that is worth being merged."""
    for first, oldest in enumerate(chain):
        total = largest = stop = 0
        for last, entry in enumerate(chain[first : first + MOST_PARTS], first):
            total, largest = total + entry.plain_size, max(largest, entry.plain_size)
            far = rules.most_span_ms is not None and entry.created_ms - oldest.created_ms > rules.most_span_ms
            if total > rules.most_bytes or far:
                break
            full = 2 * total >= rules.most_bytes and 2 * largest <= total
            many = last - first + 1 >= LEAST_PARTS and GROWTH * largest <= total
            if full or many:
                stop = last + 1
        if stop:
            return tuple(chain[first:stop])
    return ()


@dataclass(frozen=True, slots=True)
class Sightings:
    """The document "garbage.json": names of objects seen to be garbage, and since when (ms since 1970)."""

    since: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        rows = ",\n".join(f"    {json.dumps({'name': n, 'since_ms': at})}" for n, at in sorted(self.since.items()))
        rows = f"[\n{rows}\n  ]" if rows else "[]"
        return f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n  "objects": {rows}\n}}\n'.encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """FormatError if it is not what it should be."""
        fields = Fields.of_document(data, "the list of garbage", FORMAT, VERSION)
        rows = fields.rows("objects", lambda row: (row.text("name"), row.integer("since_ms")))
        fields.finish()
        return cls(dict(rows))


@dataclass(frozen=True, slots=True)
class Garbage:
    """What of a listing is garbage: `ripe` may be removed, `waiting` not yet. `sightings` go on being kept."""

    ripe: tuple[ObjectInfo, ...]
    waiting: tuple[ObjectInfo, ...]
    sightings: Sightings


def sort_out(
    listed: Collection[tuple[str, ObjectInfo]], named: Collection[str], seen: Sightings, now_ms: int, grace_ms: int
) -> Garbage:
    """Judge the objects of a partition's folder: `listed` are (name in the folder, object), `named` what is needed."""
    ripe: list[ObjectInfo] = []
    waiting: list[ObjectInfo] = []
    since: dict[str, int] = {}
    for name, about in listed:
        if name in named or not may_be_garbage(name):
            continue
        if now_ms - about.modified_ms < grace_ms:  # by the store's clock: somebody may be about to name it
            waiting.append(about)
            continue
        since[name] = min(seen.since.get(name, now_ms), now_ms)
        (ripe if now_ms - since[name] >= grace_ms else waiting).append(about)
    return Garbage(tuple(ripe), tuple(waiting), Sightings(since))


def next_collection_ms(pid: PartitionId, after_ms: int) -> int:
    """When to look for a partition's garbage: once a day, each partition at a time of day of its own.

    By the wall clock, so that a restart neither repeats nor puts it off.
    """
    own = crc32(f"{pid.topic} {topic_id_text(pid.topic_id)} {pid.partition}".encode()) % DAY_MS
    return after_ms + 1 + (own - after_ms - 1) % DAY_MS
