"""The words of the machine in `fsm`: its states, what can happen, what can be done, and the table of moves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from tierproxy.archive.manifest import NO_EPOCH, Manifest, PageRef, SegmentEntry


class State(Enum):
    LOAD = "load"
    COPY = "copy"
    UPLOAD = "upload"
    VERIFY = "verify"
    COMMIT = "commit"
    GAP = "gap"
    LOOK = "look"
    TRIM = "trim"
    REWIND = "rewind"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the topic's policy asks for. `trim` False: the brokers' own retention deletes."""

    segment_bytes: int
    segment_age: float  # seconds since its first batch was copied
    keep_time_ms: int | None
    keep_bytes: int | None
    trim: bool
    trim_from: float = 0.0  # the clock's monotonic time before which nothing is trimmed


@dataclass(frozen=True, slots=True)
class Now:
    """`chance`, from 0 to 1, is another one each time: it spreads what many partitions try again."""

    monotonic: float  # seconds
    ms: int  # since 1970
    chance: float = 1.0


# ---- events: what happened ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The truth on both sides. `log_end` is the leader's high watermark, `leader_epoch` its current epoch.

    `same_to` is the offset up to which the leader's log and the archive are the same, by leader epochs
    (`history.narrow`); -1: the leader doesn't know the manifest's last epoch; None: not asked, as there is nothing
    to compare. `log_reach` is the true end of the leader's log; -1: not asked, or not said.
    """

    manifest: Manifest | None
    log_start: int
    log_end: int
    leader_epoch: int = NO_EPOCH
    same_to: int | None = None
    log_reach: int = -1


@dataclass(frozen=True, slots=True)
class Copied:
    """The open segment after a fetch: next offset to ask for, epoch of its last batch, plain bytes it holds.

    Also sent when a fetch brought nothing. `log_start` is what the leader said with it, -1 if nothing, and
    `stable_end` the last stable offset, up to which there is something to copy.
    """

    next_offset: int
    last_epoch: int
    segment_bytes: int
    log_start: int
    stable_end: int = -1


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """The leader's log does not reach the offset that we are at; it goes from `log_start` to `log_end`."""

    log_start: int
    log_end: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """The leader's log and what was copied are the same only up to `end_offset`."""

    end_offset: int


@dataclass(frozen=True, slots=True)
class Overlapped:
    """The leader's batch that holds the archive's end begins at `offset`, below it. Batches are never cut in a log, so
    what is archived from there on is of another history, even where the leader no longer knows the epochs to say so."""

    offset: int


@dataclass(frozen=True, slots=True)
class Due:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    pass


@dataclass(frozen=True, slots=True)
class Verified:
    pass


@dataclass(frozen=True, slots=True)
class Damaged:
    """What was read back is not what was written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The store has confirmed this manifest."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Conflicted:
    """What was decided by does not hold any more: look again."""

    reason: str = "somebody else changed the manifest"


@dataclass(frozen=True, slots=True)
class Looked:
    """The entries of a page of the manifest, all of them."""

    page: PageRef
    entries: Sequence[SegmentEntry]


@dataclass(frozen=True, slots=True)
class Trimmed:
    log_start: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The action did not work out this time."""

    reason: str


@dataclass(frozen=True, slots=True)
class Spoiled:
    """The open segment is lost (the disk is full): copy it again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Trying again will not help; a person must look."""

    reason: str


Event: TypeAlias = (
    Loaded
    | Copied
    | OutOfRange
    | Diverged
    | Overlapped
    | Due
    | Uploaded
    | Verified
    | Damaged
    | Committed
    | Conflicted
    | Looked
    | Trimmed
    | Failed
    | Spoiled
    | Hopeless
)


# ---- actions: what to do now -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Forget the open segment; read the manifest and the leader's log borders. Answer: Loaded."""

    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Copy:
    """Fetch at `offset` and append to the open segment.

    Answer: Copied, OutOfRange, Diverged, Overlapped; Due at `wake_at`.
    """

    offset: int
    last_epoch: int
    wake_at: float
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Upload:
    """Close the open segment and store it under a fresh name. Answer: Uploaded; Conflicted if there is a manifest now
    where there was none."""

    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Verify:
    """Read the stored segment back and compare. Answer: Verified, Damaged."""

    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Commit:
    """Replace `manifest` (None: there is none; the archive begins at `start_offset`) by one with the segment.

    Answer: Committed, also if an earlier try turns out to have gone through; Conflicted; Hopeless if the segment
    was not fetched where the manifest ends.
    """

    manifest: Manifest | None
    start_offset: int
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class RecordGap:
    """Replace `manifest` by one with the gap [start, end). Answer: Committed, Conflicted."""

    manifest: Manifest
    start: int
    end: int
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """Read a page of the manifest: how far may be trimmed is for its entries to say.

    Answer: Looked; Conflicted if it is not there any more.
    """

    page: PageRef


@dataclass(frozen=True, slots=True)
class Rewind:
    """Replace `manifest` by one that is cut at `offset`, and quarantine the rest (`archive.rewound`).

    The broker's log begins at `log_start`: what lies below can't be copied again. Answer: Committed; Conflicted if
    the manifest is another one, or the log meanwhile.

    Where a batch of the leader's proved it, it holds for that leader only: the one of `leader_epoch`. NO_EPOCH: epochs
    prove it.
    """

    manifest: Manifest
    offset: int
    log_start: int
    reason: str
    leader_epoch: int = NO_EPOCH
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Trim:
    """DeleteRecords below `offset`, if the manifest as stored and the log as it is now still agree with ours.

    Answer: Trimmed; Conflicted if the manifest, or the history of the log, is another one.
    """

    offset: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave the partition alone and say so loudly."""

    reason: str


Action: TypeAlias = Load | Copy | Upload | Verify | Commit | RecordGap | Look | Trim | Rewind | Stop

_L, _C, _U, _V, _M, _G, _K, _T, _R, _X = State
MOVES: Mapping[State, Mapping[type, tuple[State, ...]]] = {
    _L: {Loaded: (_C, _G, _K, _T, _R, _L, _X), Failed: (_L,), Hopeless: (_X,)},
    _C: {
        Copied: (_C, _U, _K, _T),
        Due: (_C, _U, _K, _T),
        OutOfRange: (_C, _G, _U, _K, _T, _L),
        Diverged: (_L,),
        Overlapped: (_L,),
        Failed: (_C, _U, _K, _T),
        Spoiled: (_L,),
        Hopeless: (_X,),
    },
    _U: {Uploaded: (_V,), Conflicted: (_L,), Failed: (_U,), Spoiled: (_L,), Hopeless: (_X,)},
    _V: {Verified: (_M,), Damaged: (_U,), Failed: (_V,), Hopeless: (_X,)},
    _M: {Committed: (_C, _K, _T), Conflicted: (_L,), Failed: (_M,), Hopeless: (_X,)},
    _G: {Committed: (_C, _K, _T), Conflicted: (_L,), Failed: (_G,), Hopeless: (_X,)},
    _K: {Looked: (_C, _U, _K, _T), Failed: (_C, _U), Conflicted: (_L,)},
    _T: {
        Trimmed: (_C, _U),
        Failed: (_C, _U),
        Conflicted: (_L,),
        Hopeless: (_X,),
    },
    _R: {Committed: (_L,), Conflicted: (_L,), Failed: (_R,), Hopeless: (_X,)},
    _X: {},
}
"""State → event → the states it may lead to."""
