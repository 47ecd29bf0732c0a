"""The words of the machine in `fsm`: its states, what can happen, what can be done, and the table of moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from tierproxy.archive.manifest import NO_EPOCH, Manifest


class State(Enum):
    LOAD = "load"
    COPY = "copy"
    UPLOAD = "upload"
    VERIFY = "verify"
    COMMIT = "commit"
    GAP = "gap"
    TRIM = "trim"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the topic's policy asks for. `trim` False: the brokers' own retention deletes."""

    segment_bytes: int
    segment_age: float  # seconds since its first batch was copied
    keep_time_ms: int | None
    keep_bytes: int | None
    trim: bool


@dataclass(frozen=True, slots=True)
class Now:
    monotonic: float  # seconds
    ms: int  # since 1970


# ---- events: what happened ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The truth on both sides. `log_end` is the leader's high watermark, `leader_epoch` its current epoch.

    `epoch_end` is where the manifest's last epoch ends in the leader's log; -1: the leader doesn't know that
    epoch; None: not asked, as there is nothing to compare.
    """

    manifest: Manifest | None
    log_start: int
    log_end: int
    leader_epoch: int = NO_EPOCH
    epoch_end: int | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """The open segment after a fetch: next offset to ask for, epoch of its last batch, plain bytes it holds.

    Also sent when a fetch brought nothing. `log_start` is what the leader said with it, -1 if nothing.
    """

    next_offset: int
    last_epoch: int
    segment_bytes: int
    log_start: int


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
    """Somebody else has changed the manifest."""


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
    | Due
    | Uploaded
    | Verified
    | Damaged
    | Committed
    | Conflicted
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
    """Fetch at `offset` and append to the open segment. Answer: Copied, OutOfRange, Diverged; Due at `wake_at`."""

    offset: int
    last_epoch: int
    wake_at: float
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Upload:
    """Close the open segment and store it under a fresh name. Answer: Uploaded."""

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
class Trim:
    """DeleteRecords below `offset`, if the manifest as stored and the log as it is now still agree with ours.

    Answer: Trimmed; Conflicted if the manifest is another one; Hopeless if `fsm.disagreement` finds any.
    """

    offset: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave the partition alone and say so loudly."""

    reason: str


Action: TypeAlias = Load | Copy | Upload | Verify | Commit | RecordGap | Trim | Stop

_L, _C, _U, _V, _M, _G, _T, _X = State
MOVES: Mapping[State, Mapping[type, tuple[State, ...]]] = {
    _L: {Loaded: (_C, _G, _T, _X), Failed: (_L,), Hopeless: (_X,)},
    _C: {
        Copied: (_C, _U, _T),
        Due: (_C, _U, _T),
        OutOfRange: (_C, _G, _U, _T, _L, _X),
        Diverged: (_L, _X),
        Failed: (_C, _U, _T),
        Spoiled: (_L,),
        Hopeless: (_X,),
    },
    _U: {Uploaded: (_V,), Failed: (_U,), Spoiled: (_L,), Hopeless: (_X,)},
    _V: {Verified: (_M,), Damaged: (_U,), Failed: (_V,), Hopeless: (_X,)},
    _M: {Committed: (_C, _T), Conflicted: (_L,), Failed: (_M,), Hopeless: (_X,)},
    _G: {Committed: (_C, _T), Conflicted: (_L,), Failed: (_G,), Hopeless: (_X,)},
    _T: {
        Trimmed: (_C, _U),
        Failed: (_C, _U),
        Conflicted: (_L,),
        Hopeless: (_X,),
    },
    _X: {},
}
"""State → event → the states it may lead to."""
