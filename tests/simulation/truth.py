"""What really happened, and what must hold: told of each effect on the brokers' logs and on the store, at its moment.

After every change of an object or a log:

- a manifest parses, is its own partition's, has the next generation, and its end never goes back;
- it names only objects that are there, with exactly the bytes it says, and keeps them so;
- the batches in them are those that the brokers had, bit for bit, each offset once, and none that consumers could
  not see yet (above the last stable offset);
- offsets between them are missing only where a gap says so, and a gap says so only of what the brokers' own
  retention deleted;
- what an archiver asks a broker to delete lies in the archive at that moment, as the broker has it;
- what was deleted for the archive's sake stays in the archive;
- what was ever archived stays there, or is quarantined: only where the brokers have disowned some of it, and nothing
  else with it but what they still have, to be archived again.

`Broken` is raised where the rule is broken, inside the play, so that the trace ends there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from protocol.batches import walk
from tests.fakes.broker.log import AbortedTransaction, PartitionLog
from tierproxy.archive.errors import ArchiveError
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import MANIFEST_FILE, PartitionId, parse_key, partition_prefix
from tierproxy.archive.segment_index import decompress_chunk, read_index


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`last` is inclusive."""

    base: int
    last: int
    epoch: int
    data: bytes


@dataclass
class Partition:
    """`written` has every batch that a leader ever had, by base offset and epoch."""

    pid: PartitionId
    log: PartitionLog
    written: dict[tuple[int, int], Batch] = field(default_factory=dict)
    expired_to: int = 0
    """The highest log start for which no archiver is to blame."""
    returns_to: int = 0
    """As `expired_to`, but of the history that there is: below it, a crash brings back what retention had deleted."""
    stable_to: int = 0
    """The highest last stable offset that any consumer was told; a new leader may have to find it again."""
    disowned: set[Batch] = field(default_factory=set)
    """What consumers may have seen and the brokers have given up in unclean elections."""
    gone: bool = False
    aborted: list[AbortedTransaction] = field(default_factory=list)
    """Every transaction that was ever aborted."""
    trimmed: dict[int, Batch] = field(default_factory=dict)
    manifest: Manifest | None = None
    segments: dict[str, tuple[Batch, ...]] = field(default_factory=dict)
    archived: dict[int, Batch] = field(default_factory=dict)
    """By base offset: what the manifest's segments hold."""
    quarantined: set[Batch] = field(default_factory=set)


@dataclass
class Counts:
    """What a play was worth."""

    commits: int = 0
    gaps: int = 0
    trims: int = 0
    rewritten: int = 0
    rewinds: int = 0
    reads: int = 0


class Truth:
    """One archive's, and the logs' that it comes from."""

    def __init__(self, cluster: str, cluster_id: str) -> None:
        self.cluster = cluster
        self.cluster_id = cluster_id
        self.partitions: dict[PartitionId, Partition] = {}
        self.objects: dict[str, bytes] = {}
        self.counts = Counts()
        self._segment_keys: dict[str, tuple[Partition, SegmentEntry]] = {}  # quarantined ones, too

    # ---- brokers -------------------------------------------------------------------------------------------

    def begun(self, pid: PartitionId, log: PartitionLog) -> None:
        self.partitions[pid] = Partition(pid, log)

    def gone(self, pid: PartitionId) -> None:
        self.partitions[pid].gone = True

    def appended(self, pid: PartitionId, base: int, last: int, epoch: int, data: bytes) -> None:
        partition = self.partitions[pid]
        partition.written[base, epoch] = Batch(base, last, epoch, data)
        if partition.log.aborted and partition.log.aborted[-1].marker_offset == base:
            partition.aborted.append(partition.log.aborted[-1])

    def stable(self, pid: PartitionId, offset: int) -> None:
        """A consumer is told this last stable offset."""
        partition = self.partitions[pid]
        partition.stable_to = max(partition.stable_to, offset)

    def expired(self, pid: PartitionId, log_start: int) -> None:
        partition = self.partitions[pid]
        partition.expired_to = max(partition.expired_to, log_start)
        partition.returns_to = max(partition.returns_to, log_start)

    def truncated(self, pid: PartitionId, cut: int) -> None:
        """The log ends at `cut` now; nobody may have seen what came behind (or see `rewritten`)."""
        partition = self.partitions[pid]
        partition.aborted = [each for each in partition.aborted if each.marker_offset < cut]

    def rewritten(self, pid: PartitionId, cut: int) -> None:
        """The log will be cut there, right now, though consumers may have seen what comes behind."""
        partition = self.partitions[pid]
        partition.disowned |= {
            partition.written[header.base_offset, header.leader_epoch]
            for header, _ in partition.log.batches()
            if header.base_offset >= cut
        }
        partition.stable_to = min(partition.stable_to, cut)
        partition.returns_to = min(partition.returns_to, cut)
        self.counts.rewritten += 1

    def trims(self, pid: PartitionId, log: PartitionLog, offset: int) -> None:
        """An archiver has the log deleted below `offset`, right now: the moment of truth."""
        partition = self.partitions[pid]
        if offset > partition.stable_to:
            raise Broken(f"{pid}: trimmed to {offset}, beyond the last stable offset {partition.stable_to}")
        start = max(log.start, partition.expired_to)
        if offset <= start:
            return
        for header, data in log.batches():
            if header.last_offset < max(log.start, partition.returns_to) or header.base_offset >= offset:
                continue
            kept = partition.archived.get(header.base_offset)
            if kept is None:
                raise Broken(f"{pid}: offset {header.base_offset} is trimmed but not archived")
            if kept.data != data:
                raise Broken(f"{pid}: offset {header.base_offset} is trimmed, and the archive has another record there")
            partition.trimmed[header.base_offset] = kept
        self.counts.trims += 1

    # ---- store ---------------------------------------------------------------------------------------------

    def stored(self, key: str, before: bytes | None, after: bytes | None) -> None:
        """An object is another now; `Disk.watch`."""
        if after is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = after
        if key.endswith(f"/{MANIFEST_FILE}"):
            _, pid, _ = parse_key(key)
            if after is None:
                raise Broken(f"{pid}: its manifest is deleted")
            self._manifest(self._partition(pid), after)
        elif key in self._segment_keys and before != after:
            self._object(*self._segment_keys[key])

    def _partition(self, pid: PartitionId) -> Partition:
        found = self.partitions.get(pid)
        if found is None:
            raise Broken(f"{pid}: an archive of a topic that never was")
        return found

    def _manifest(self, partition: Partition, data: bytes) -> None:
        pid, before = partition.pid, partition.manifest
        try:
            manifest = Manifest.from_json(data)
        except ArchiveError as error:
            raise Broken(f"{pid}: its manifest can't be read: {error}") from error
        if manifest.pid != pid or manifest.cluster != self.cluster or manifest.cluster_id != self.cluster_id:
            raise Broken(f"{pid}: the manifest of another partition or cluster lies there")
        if before is not None:
            self._follows(partition, before, manifest)
        self._name_segments(partition, manifest)
        self._check_coverage(partition, manifest)
        self._check_gaps(partition, before, manifest)
        self._check_trimmed(partition)
        partition.manifest = manifest
        self.counts.commits += 1

    def _check_trimmed(self, partition: Partition) -> None:
        """What was trimmed is archived, unless a crash has brought it back to the brokers."""
        for base, batch in list(partition.trimmed.items()):
            if partition.archived.get(base) == batch:
                continue
            if batch in partition.disowned and batch in partition.quarantined:
                del partition.trimmed[base]
            elif batch not in partition.quarantined or not self._on_brokers(partition, batch):
                raise Broken(f"{partition.pid}: what was trimmed at {base} is not in the archive any more")

    def _on_brokers(self, partition: Partition, batch: Batch) -> bool:
        """Whether it can still be fetched; or could, had retention not deleted it."""
        log = partition.log
        held = any((each.base_offset, each.leader_epoch) == (batch.base, batch.epoch) for each, _ in log.batches())
        return (held and batch.last >= log.start) or batch.last < partition.returns_to

    def _follows(self, partition: Partition, before: Manifest, after: Manifest) -> None:
        """How one manifest may follow another. Segments may be merged: it is the batches that must stay."""
        if after.generation != before.generation + 1:
            raise Broken(f"{partition.pid}: generation {after.generation} follows {before.generation}")
        if after.quarantined != before.quarantined:
            self._follows_by_rewind(partition, before, after)
            return
        if before.is_bare:
            return
        if after.end_offset < before.end_offset or after.start_offset != before.start_offset:
            raise Broken(
                f"{partition.pid}: [{after.start_offset}, {after.end_offset}) follows "
                f"[{before.start_offset}, {before.end_offset})"
            )
        batches = self._batches(partition, before.segments)
        if self._batches(partition, after.segments)[: len(batches)] != batches:
            raise Broken(f"{partition.pid}: what was archived is changed")

    def _follows_by_rewind(self, partition: Partition, before: Manifest, after: Manifest) -> None:
        """A cut, where history was rewritten: what lies behind is quarantined, whole segments of it."""
        pid = partition.pid
        if after.quarantined[:-1] != before.quarantined:
            raise Broken(f"{pid}: what was quarantined is changed")
        kept = sum(one == other for one, other in zip(before.segments, after.segments, strict=False))
        disowned = before.segments[kept:]
        batches = self._batches(partition, disowned)
        again = self._batches(partition, after.segments[kept:])
        if after.quarantined[-1].segments != disowned or before.segments[:kept] != after.segments[:kept]:
            raise Broken(f"{pid}: what is cut off is not what is quarantined")
        if not partition.disowned or (batches and partition.disowned.isdisjoint(batches)):
            raise Broken(f"{pid}: [{after.end_offset}, {before.end_offset}) is quarantined, and nobody disowned it")
        if again != batches[: len(again)]:
            raise Broken(f"{pid}: what stands for the beginning of a quarantined segment is something else")
        for batch in batches[len(again) :]:
            if batch not in partition.disowned and not self._on_brokers(partition, batch):
                raise Broken(f"{pid}: offset {batch.base} is quarantined, and the archive alone has it")
        if after.start_offset != before.start_offset and (after.segments or after.gaps):
            raise Broken(f"{pid}: the archive began at {before.start_offset}, now at {after.start_offset}")
        partition.quarantined |= set(batches)
        self.counts.rewinds += 1

    def _name_segments(self, partition: Partition, manifest: Manifest) -> None:
        names = {entry.key_name for entry in manifest.segments}
        for name in [name for name in partition.segments if name not in names]:
            for batch in partition.segments.pop(name):
                del partition.archived[batch.base]
        for entry in manifest.segments:
            if entry.key_name in partition.segments:
                continue
            batches = self._object(partition, entry)
            for batch in batches:
                if batch.base in partition.archived:
                    raise Broken(f"{partition.pid}: offset {batch.base} is archived twice")
                partition.archived[batch.base] = batch
            if batches[-1].last >= partition.stable_to and batches[-1] not in partition.disowned:
                raise Broken(
                    f"{partition.pid}: {batches[-1].last} is archived, but only {partition.stable_to} is stable"
                )
            partition.segments[entry.key_name] = batches
            self._segment_keys[partition_prefix(self.cluster, partition.pid) + entry.key_name] = partition, entry

    def _batches(self, partition: Partition, entries: Sequence[SegmentEntry]) -> list[Batch]:
        found: list[Batch] = []
        for entry in entries:
            found += partition.segments.get(entry.key_name) or self._object(partition, entry)
        return found

    def _object(self, partition: Partition, entry: SegmentEntry) -> tuple[Batch, ...]:
        """The batches of a segment that a manifest names, if it is all that the manifest says."""
        pid, name = partition.pid, entry.key_name
        data = self.objects.get(partition_prefix(self.cluster, pid) + name)
        if data is None:
            raise Broken(f"{pid}: segment {name} is not there")
        if len(data) != entry.stored_size or sha256(data).hexdigest() != entry.sha256:
            raise Broken(f"{pid}: segment {name} is not what was written")
        index = read_index(data[-entry.index_size :])
        batches = []
        for chunk in index.chunks:
            plain = decompress_chunk(data[chunk.position : chunk.position + chunk.stored_size], chunk)
            for header, batch in walk(memoryview(plain)):
                written = partition.written.get((header.base_offset, header.leader_epoch))
                if written is None or written.data != batch:
                    raise Broken(
                        f"{pid}: no broker ever had the batch at {header.base_offset} as segment {name} has it"
                    )
                batches.append(written)
        return tuple(batches)

    def _check_coverage(self, partition: Partition, manifest: Manifest) -> None:
        """The archive's offsets are all there, once."""
        next_offset = manifest.start_offset
        gaps = {gap.start: gap.end for gap in manifest.gaps}
        for entry in manifest.segments:
            for batch in partition.segments[entry.key_name]:
                while next_offset in gaps:
                    next_offset = gaps.pop(next_offset)
                if batch.last < next_offset:
                    raise Broken(f"{partition.pid}: offset {batch.last} is archived twice, or below a gap's end")
                if batch.base > next_offset:
                    raise Broken(f"{partition.pid}: offsets {next_offset} to {batch.base - 1} are not there")
                next_offset = batch.last + 1
        while next_offset in gaps:
            next_offset = gaps.pop(next_offset)
        if next_offset != manifest.end_offset:
            raise Broken(f"{partition.pid}: what is archived ends at {next_offset}, not at {manifest.end_offset}")

    def _check_gaps(self, partition: Partition, before: Manifest | None, manifest: Manifest) -> None:
        known = before.gaps if before is not None else ()
        for gap in manifest.gaps:
            if gap in known:
                continue
            self.counts.gaps += 1
            if gap.end > partition.expired_to:
                raise Broken(
                    f"{partition.pid}: [{gap.start}, {gap.end}) is written off, but retention has only deleted up to "
                    f"{partition.expired_to}"
                )

    def settled(self, pid: PartitionId) -> None:
        """All is archived, and nobody will change anything any more."""
        partition = self.partitions[pid]
        for header, _ in partition.log.batches():
            batch = partition.written[header.base_offset, header.leader_epoch]
            known = partition.archived.get(batch.base)
            if batch.last >= max(partition.log.start, partition.returns_to) and known != batch:
                raise Broken(f"{pid}: offset {batch.base} is not archived as the brokers have it")
        for base, batch in partition.archived.items():
            # Where retention was quicker than the archiver, nobody can tell any more.
            if batch in partition.disowned and batch.last >= partition.expired_to:
                raise Broken(f"{pid}: offset {base} is archived, and the brokers have disowned it")

    # ---- readers -------------------------------------------------------------------------------------------

    def read(
        self,
        pid: PartitionId,
        manifest: Manifest,
        offset: int,
        records: Sequence[memoryview],
        last: int,
        aborted: Sequence[tuple[int, int]],
    ) -> int:
        """A reader asked for `offset` and was given `records`, whole batches, up to `last`; how many those were."""
        partition = self.partitions[pid]
        next_offset, batches = offset, 0
        for piece in records:
            for header, data in walk(piece):
                written = partition.written.get((header.base_offset, header.leader_epoch))
                if written is None or written.data != data:
                    raise Broken(f"{pid}: a reader got a batch at {header.base_offset} that no broker ever had")
                if manifest == partition.manifest and partition.archived.get(header.base_offset) != written:
                    raise Broken(f"{pid}: a reader got a batch at {header.base_offset} that is not archived there")
                if not (
                    header.base_offset <= next_offset if next_offset == offset else header.base_offset == next_offset
                ):
                    raise Broken(f"{pid}: a reader at {next_offset} got the batch at {header.base_offset}")
                next_offset = header.next_offset
                batches += 1
        if next_offset != last + 1 or not batches:
            raise Broken(f"{pid}: a reader at {offset} was told of {last}, and got records up to {next_offset - 1}")
        if not partition.disowned and not partition.gone:
            self._aborted_as_told(partition, offset, last, aborted)
        self.counts.reads += 1
        return batches

    def _aborted_as_told(self, partition: Partition, offset: int, last: int, told: Sequence[tuple[int, int]]) -> None:
        """All transactions that were aborted and have something there, and none that ended before."""
        really = {(each.producer_id, each.first_offset): each.marker_offset for each in partition.aborted}
        due = {who for who, marker in really.items() if who[1] <= last and marker >= offset}
        if due - set(told):
            raise Broken(f"{partition.pid}: a reader of {offset} to {last} is not told of aborted {due - set(told)}")
        stale = {who for who in told if who not in really or really[who] < offset}
        if stale:
            raise Broken(f"{partition.pid}: a reader of {offset} to {last} is told of {stale}, aborted before or never")
