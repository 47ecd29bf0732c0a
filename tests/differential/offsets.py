"""Compares answers about offsets: ListOffsets and OffsetForLeaderEpoch."""

from tests.differential.answers import EpochEnd, Listed, read_epoch_ends, read_listed
from tests.differential.asks import EpochsAsk, OffsetsAsk, TimePlace
from tests.differential.findings import Allowed, Findings
from tests.differential.wire import Reply
from tests.differential.world import AtRecord, Side, World

EARLIEST, EARLIEST_LOCAL = -2, -4
NOTHING = -1


def compare_offsets(ask: OffsetsAsk, ref: Reply, arc: Reply, world: World) -> Findings:
    findings = Findings()
    if not _both_answered(ref, arc, findings):
        return findings
    assert ref.payload is not None
    assert arc.payload is not None
    ref_parts, _ = read_listed(ref.payload, ask.version, world.ref)
    arc_parts, exact = read_listed(arc.payload, ask.version, world.arc)
    if not _same_places(ref_parts, arc_parts, exact, findings):
        return findings
    asked = {(place.topic, place.index): place for place in ask.places}
    for one, other in zip(ref_parts, arc_parts, strict=True):
        place = asked.get((one.topic, one.index))
        time = place.time if place is not None else 0
        where = f"{one.topic}-{one.index} by time {time}"
        if not findings.same(f"{where}: error", one.error, other.error):
            continue
        if time == EARLIEST_LOCAL and one.topic in world.archived:
            _earliest_local(where, one, other, world, findings)
            continue
        if one.offset == NOTHING and _is_true(place, other, world):
            findings.allow(Allowed.LOST_TIME)
            continue
        findings.same(f"{where}: offset", one.offset, other.offset)
        if time == EARLIEST and one.topic in world.compacted and other.epoch == NOTHING != one.epoch:
            findings.allow(Allowed.START_EPOCH)
        else:
            findings.same(f"{where}: leader epoch", one.epoch, other.epoch)
        findings.same(f"{where}: timestamp", _own(one, world.ref), _own(other, world.arc))
    return findings


def _is_true(place: TimePlace | None, arc: Listed, world: World) -> bool:
    """Whether tierproxy names the very record that a log has to name, where records were taken out of the log.

    Kafka looks for a time only in the first segment that may have it: one that compaction or DeleteRecords has emptied,
    perhaps.
    """
    log = None if place is None else world.arc.logs.get((place.topic, place.index))
    if place is None or log is None or arc.offset == NOTHING:
        return False
    if place.topic not in world.compacted and log.start == 0:
        return False
    sought = world.arc.moment(place.topic, place.index, place.time)
    return sought >= 0 and log.first_since(sought) == (arc.offset, arc.timestamp)


def _own(part: Listed, side: Side) -> object:
    """A timestamp in words that both sides share: that of the record at the offset, where it is."""
    if part.timestamp >= 0 and part.timestamp == side.time_of(part.topic, part.index, part.offset):
        return AtRecord(part.offset, 0)
    return part.timestamp


def _earliest_local(where: str, ref: Listed, arc: Listed, world: World, findings: Findings) -> None:
    """What is local to the broker is the broker's to say: its own log start, with the epoch there."""
    seam = world.seams.get((ref.topic, ref.index))
    if (ref.offset, ref.epoch) == (arc.offset, arc.epoch):
        return
    findings.allow(Allowed.EARLIEST_LOCAL)
    if seam is not None:
        findings.same(f"{where}: offset", seam, arc.offset)
    findings.same(f"{where}: timestamp", ref.timestamp, arc.timestamp)


def compare_epochs(ask: EpochsAsk, ref: Reply, arc: Reply, world: World) -> Findings:
    findings = Findings()
    if not _both_answered(ref, arc, findings):
        return findings
    assert ref.payload is not None
    assert arc.payload is not None
    ref_parts, _ = read_epoch_ends(ref.payload, ask.version, world.ref)
    arc_parts, exact = read_epoch_ends(arc.payload, ask.version, world.arc)
    if not _same_places(ref_parts, arc_parts, exact, findings):
        return findings
    asked = {(place.topic, place.index): place.epoch for place in ask.places}
    for one, other in zip(ref_parts, arc_parts, strict=True):
        epoch = asked.get((one.topic, one.index), -1)
        where = f"{one.topic}-{one.index}, end of epoch {epoch}"
        if not findings.same(f"{where}: error", one.error, other.error):
            continue
        if (one.epoch, one.end) == (other.epoch, other.end):
            continue
        # The broker has forgotten the epochs below its log start. It then says later ends than there were, which no
        # client takes for a truncation; it must never say earlier ones, nor forget an epoch.
        seam = world.seams.get((one.topic, one.index))
        later = other.end >= one.end and other.epoch >= one.epoch and one.topic in world.archived
        if later and (seam is None or one.end < seam):
            findings.allow(Allowed.EPOCH_ENDS)
        else:
            findings.same(where, (one.epoch, one.end), (other.epoch, other.end))
    return findings


def _both_answered(ref: Reply, arc: Reply, findings: Findings) -> bool:
    closed = ref.payload is None, arc.payload is None
    return findings.same("closed the connection", *closed) and not closed[0]


def _same_places(
    ref: list[Listed] | list[EpochEnd], arc: list[Listed] | list[EpochEnd], exact: bool, findings: Findings
) -> bool:
    """Sorts both by partition, because brokers answer topics in the order of a hash of their names."""
    if not exact:
        findings.differ("tierproxy's answer isn't what kafka-python makes of it")
    ref.sort(key=_place)
    arc.sort(key=_place)
    return findings.same("partitions", [_place(part) for part in ref], [_place(part) for part in arc])


def _place(part: Listed | EpochEnd) -> tuple[str, int]:
    return part.topic, part.index
