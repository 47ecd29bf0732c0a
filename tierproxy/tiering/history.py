"""Whether the leader's log still is the one that was archived, and if not, up to where it is. Pure.

Both are told by leader epochs: an epoch has one leader, so two logs that hold the same epoch hold the same batches as
far as both go in it. The archive's newest epoch is asked for first; where the leader has another one instead, the
archive's next lower is asked for, until both know the same (KIP-279, as followers do it).

What the leader says of epochs is about its log's true end. The high watermark is not: right after an election, also a
clean one, it may lag behind what followers had seen as committed. So a high watermark below the archive's end alone
means: wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from protocol.messages import NO_TOPIC_ID
from tierproxy.archive.manifest import NO_EPOCH, Manifest, SegmentEntry
from tierproxy.tiering.steps import Loaded

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Same:
    """Nothing speaks against it."""


@dataclass(frozen=True, slots=True)
class Behind:
    """The leader has everything that is archived, but does not show all of it yet."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The leader's log is what was archived only below `offset`, a batch border."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """The log is another one, and nobody can say from where on: a person must look."""

    reason: str


Judgement: TypeAlias = Same | Behind | Rewritten | Foreign


def judge(facts: Loaded) -> Judgement:
    """How the leader's log and the archive stand to each other."""
    manifest = facts.manifest
    if manifest is None or facts.log_start > manifest.end_offset:
        return Same()
    log_end = max(facts.log_end, facts.log_reach)
    if manifest.last_archived < 0 and 0 <= facts.log_reach < manifest.end_offset:
        return _rewritten(manifest, log_end)  # and nothing is archived that could differ
    if facts.same_to == UNKNOWN:
        if NO_EPOCH < facts.leader_epoch < manifest.last_epoch:
            return Foreign(
                f"the archive's last leader epoch is {manifest.last_epoch}, the broker's only {facts.leader_epoch}: "
                "its log is another one, of another cluster perhaps"
            )
        # Some brokers forget epochs that were trimmed: that alone says nothing.
        if log_end < manifest.end_offset:
            return Foreign(_lost(log_end, manifest.end_offset) + "; from where on they differ, it can't say")
    elif facts.same_to is not None:
        end = data_end(manifest)
        if facts.same_to < end:
            return _rewritten(manifest, facts.same_to)
        if log_end < manifest.end_offset > end:  # the log has come back from before a gap
            return _rewritten(manifest, end)
    elif log_end < manifest.end_offset:
        return Foreign(_lost(log_end, manifest.end_offset) + ", and there is no leader epoch to compare")
    return Behind() if facts.log_end < manifest.end_offset else Same()


def data_end(manifest: Manifest) -> int:
    """Where the archived records end: at the manifest's end but for gaps, in which there is nothing to compare."""
    end = manifest.end_offset
    for gap in reversed(manifest.gaps):
        if gap.end == end:
            end = gap.start
    return end


def continues(manifest: Manifest, entry: SegmentEntry, epochs: Sequence[tuple[int, int]]) -> bool:
    """Whether a segment can be of the history that is archived. If not, another leader gave it, behind a gap perhaps,
    where a fetch can't say which batch it follows.
    """
    newer = not epochs or epochs[0][0] >= manifest.last_epoch
    return newer and entry.base_offset > manifest.last_archived


def narrow(manifest: Manifest, asked: int, said_epoch: int, said_end: int) -> tuple[int, int]:
    """What follows from the leader's answer to "where does epoch `asked` end?": up to where both logs are the same, and
    the epoch to ask for next, NO_EPOCH if that is the answer. UNKNOWN for the offset if it does not know.

    The leader names the largest epoch up to `asked` that it has, and where that ends in its log.
    """
    if said_end < 0 or said_epoch > asked:
        return UNKNOWN, NO_EPOCH
    said_epoch = said_epoch if said_epoch >= 0 else asked
    own = [(epoch, start) for epoch, start in manifest.epochs if epoch <= said_epoch]
    if not own:  # older than anything archived
        return min(said_end, manifest.epochs[0][1], data_end(manifest)), NO_EPOCH
    epoch = own[-1][0]
    own_end = manifest.epochs[len(own)][1] if len(own) < len(manifest.epochs) else data_end(manifest)
    return min(said_end, own_end), epoch if epoch < said_epoch else NO_EPOCH


def _rewritten(manifest: Manifest, offset: int) -> Rewritten | Foreign:
    reason = (
        f"the leader's log and the archive are the same up to offset {offset}, and the archive goes up to "
        f"{manifest.end_offset}: history was rewritten, as by an unclean leader election"
    )
    if manifest.topic_id == NO_TOPIC_ID:
        return Foreign(
            f"{reason}, or the topic was deleted and created again, which can't be told apart without topic ids"
        )
    return Rewritten(offset, reason)


def _lost(log_end: int, archived_to: int) -> str:
    return (
        f"the broker's log ends at {log_end}, but the archive holds offsets up to {archived_to}: the broker has "
        "lost records"
    )
