"""What to do next with one partition. Facts in, one action out; no waiting, no clock, no I/O.

The life of a segment goes around once:

    LOAD ──► COPY ──► UPLOAD ──► VERIFY ──► COMMIT ──► TRIM ──► COPY …
               │  ▲                           │
               ▼  │                           └─ somebody else wrote the manifest ──► LOAD
              GAP ┘   (the broker deleted what was not archived yet: recorded, then on behind it)

and `steps.MOVES` prints every move there is. An event that a state does not list is a defect of the caller and
raises IllegalMove. STOPPED is for what a person must look at; nothing leads out of it.

What this file guarantees, whatever happens outside (tests/unit/tierproxy/tiering/test_fsm_simulation.py plays
it with crashes between any two steps):

- TRIM is asked for only up to the end of a manifest that the store has confirmed, and that manifest only ever
  names segments that were read back. So nothing is trimmed that is not committed and verified.
- Copying begins at that manifest's end. Whatever was copied but not committed is forgotten on LOAD and copied
  again: no hole, and nothing twice.
- When the broker's log and the archive disagree (records gone from the end, or rewritten), the partition is
  stopped and not trimmed. Were only uncommitted batches affected, they are dropped and copied afresh.
- A topic without an id (brokers before 2.8) is never trimmed: one that was deleted and created again, and has grown
  past the archive's end since, looks like the old one.

Time comes in with each event: `Now.monotonic` ages segments and spaces retries, `Now.ms` is compared with the
records' own timestamps for retention. A retried action carries `not_before`.
"""

from protocol.messages import NO_TOPIC_ID
from tierproxy.archive.manifest import NO_EPOCH, Manifest
from tierproxy.archive.retention import trim_point
from tierproxy.tiering.steps import (
    MOVES,
    Action,
    Commit,
    Committed,
    Conflicted,
    Copied,
    Copy,
    Damaged,
    Diverged,
    Due,
    Event,
    Failed,
    Hopeless,
    Load,
    Loaded,
    Now,
    OutOfRange,
    RecordGap,
    Rules,
    Spoiled,
    State,
    Stop,
    Trim,
    Trimmed,
    Upload,
    Uploaded,
    Verified,
    Verify,
)

RETRY_FIRST = 0.5
RETRY_MOST = 30.0
"""Seconds between tries of what failed: doubled from the first to the last."""
SPOILED_PAUSE = 10.0
"""Seconds after which a segment that was lost with its disk is begun again."""
TRIM_CHECK_LEAST = 0.5
TRIM_CHECK_MOST = 30.0
"""Seconds between looks at what may be trimmed when nothing is committed; a tenth of `keep_time` in between."""


class IllegalMove(RuntimeError):
    """An event that can't happen in this state: a defect of whoever sent it, or of the machine."""


class Machine:
    """One partition. `begin` gives the first action, `on` the next one after each event."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.state = State.LOAD
        self.manifest: Manifest | None = None
        """As the store last confirmed it; None: there is none yet."""
        self.log_start = -1
        """The leader's, as last heard."""
        self._origin = 0  # where the archive begins if there is no manifest yet
        self._next_offset = 0
        self._last_epoch = NO_EPOCH
        self._bytes = 0  # in the open segment
        self._opened_at = 0.0
        self._gap_end = 0
        self._failures = 0
        self._copy_not_before = 0.0
        self._trim_failures = 0
        self._trim_at = 0.0  # when to look next at what may be trimmed

    @property
    def archived_to(self) -> int:
        """Everything below is committed; the offset at which copying begins."""
        return self.manifest.end_offset if self.manifest is not None else self._origin

    def begin(self) -> Action:
        return Load()

    def on(self, event: Event, now: Now) -> Action:
        """Take `event` into account and say what to do. Raises IllegalMove."""
        before = self.state
        allowed = MOVES[before].get(type(event))
        if allowed is None:
            raise IllegalMove(f"{type(event).__name__} in state {before.name}")
        action = self._react(event, now)
        if self.state not in allowed:
            raise IllegalMove(f"{type(event).__name__} led from {before.name} to {self.state.name}")
        return action

    # ---- reactions -----------------------------------------------------------------------------------------

    def _react(self, event: Event, now: Now) -> Action:
        if not isinstance(event, Failed | Due | Damaged | Uploaded):
            self._failures = 0
        match event:
            case Loaded():
                return self._loaded(event, now)
            case Copied():
                return self._copied(event, now)
            case OutOfRange():
                return self._out_of_range(event, now)
            case Diverged(end_offset):
                return self._diverged(end_offset)
            case Due():
                return self._go_on(now)
            case Uploaded():
                return self._to(State.VERIFY, Verify())
            case Verified():
                return self._to(State.COMMIT, self._commit())
            case Damaged():
                self._failures += 1
                return self._to(State.UPLOAD, Upload(self._retry_at(now)))
            case Committed(manifest):
                return self._committed(manifest, now)
            case Conflicted():
                return self._to(State.LOAD, Load())
            case Trimmed(log_start):
                self.log_start = log_start
                self._trim_failures = 0
                self._trim_at = now.monotonic + self._trim_interval()
                return self._go_on(now)
            case Failed():
                return self._failed(now)
            case Spoiled():
                return self._to(State.LOAD, Load(now.monotonic + SPOILED_PAUSE))
            case Hopeless(reason):
                return self._stop(reason)

    def _loaded(self, event: Loaded, now: Now) -> Action:
        manifest = event.manifest
        self.manifest = manifest
        self.log_start = event.log_start
        self._origin = event.log_start
        self._begin_segment()
        if manifest is None:
            return self._go_on(now)
        if event.log_start > manifest.end_offset:
            return self._gap(event.log_start)
        reason = disagreement(event)
        return self._stop(reason) if reason is not None else self._go_on(now)

    def _copied(self, event: Copied, now: Now) -> Action:
        if event.log_start >= 0:
            if event.log_start < self.log_start:  # a crash brought trimmed records back: trim them again
                self._trim_at = now.monotonic
            self.log_start = event.log_start
        if event.segment_bytes and not self._bytes:
            self._opened_at = now.monotonic
        self._bytes = event.segment_bytes
        self._next_offset = event.next_offset
        self._last_epoch = event.last_epoch
        self._copy_not_before = 0.0
        return self._go_on(now)

    def _out_of_range(self, event: OutOfRange, now: Now) -> Action:
        self.log_start = event.log_start
        if event.log_start > self._next_offset:
            if self._bytes:
                return self._to(State.UPLOAD, Upload())  # first what is ours; the gap shows again behind it
            if self.manifest is None:
                return self._to(State.LOAD, Load())  # nothing is archived yet: begin where the log begins now
            return self._gap(event.log_start)
        if event.log_end < self._next_offset:
            if event.log_end >= self.archived_to:
                return self._to(State.LOAD, Load())
            return self._stop(_lost(event.log_end, self.archived_to))
        self._copy_not_before = now.monotonic + RETRY_FIRST  # in range by now: the leader was changing
        return self._go_on(now)

    def _diverged(self, end_offset: int) -> Action:
        if self._bytes and end_offset >= self.archived_to:
            return self._to(State.LOAD, Load())  # only what is not committed was rewritten
        return self._stop(_rewritten(end_offset, self.archived_to))

    def _committed(self, manifest: Manifest, now: Now) -> Action:
        self.manifest = manifest
        self._begin_segment()
        self._trim_at = now.monotonic
        return self._go_on(now)

    def _failed(self, now: Now) -> Action:
        if self.state is State.TRIM:  # copying does not wait for a broker that won't trim
            self._trim_failures += 1
            self._trim_at = now.monotonic + _pause(self._trim_failures)
            return self._go_on(now)
        self._failures += 1
        retry_at = self._retry_at(now)
        match self.state:
            case State.LOAD:
                return Load(retry_at)
            case State.UPLOAD:
                return Upload(retry_at)
            case State.VERIFY:
                return Verify(retry_at)
            case State.COMMIT:
                return self._commit(retry_at)
            case State.GAP:
                return self._record_gap(retry_at)
            case _:
                self._copy_not_before = retry_at
                return self._go_on(now)

    # ---- decisions -----------------------------------------------------------------------------------------

    def _go_on(self, now: Now) -> Action:
        """Close the open segment if it is time; else trim if there is something to trim; else copy."""
        if self._bytes and (
            self._behind_gap()
            or self._bytes >= self.rules.segment_bytes
            or now.monotonic >= self._opened_at + self.rules.segment_age  # as `_copy` reckons, to the last bit
        ):
            return self._to(State.UPLOAD, Upload())
        if self._trim_at <= now.monotonic:
            self._trim_at = now.monotonic + self._trim_interval()
            point = self._trim_point(now.ms)
            if point > self.log_start:
                return self._to(State.TRIM, Trim(point))
        return self._to(State.COPY, self._copy())

    def _trim_point(self, now_ms: int) -> int:
        if self.manifest is None or not self.rules.trim or self.manifest.topic_id == NO_TOPIC_ID:
            return -1
        allowed = trim_point(self.manifest, self.rules.keep_time_ms, self.rules.keep_bytes, now_ms)
        return min(allowed, self.manifest.end_offset)

    def _trim_interval(self) -> float:
        if self.rules.keep_time_ms is None:
            return TRIM_CHECK_MOST
        return min(max(self.rules.keep_time_ms / 10_000, TRIM_CHECK_LEAST), TRIM_CHECK_MOST)

    def _copy(self) -> Copy:
        wake_at = self._trim_at
        if self._bytes:
            wake_at = min(wake_at, self._opened_at + self.rules.segment_age)
        return Copy(self._next_offset, self._last_epoch, wake_at, self._copy_not_before)

    def _commit(self, not_before: float = 0.0) -> Commit:
        return Commit(self.manifest, self._origin, not_before)

    def _gap(self, log_start: int) -> Action:
        self._gap_end = log_start
        return self._to(State.GAP, self._record_gap())

    def _record_gap(self, not_before: float = 0.0) -> RecordGap:
        assert self.manifest is not None
        return RecordGap(self.manifest, self.manifest.end_offset, self._gap_end, not_before)

    def _stop(self, reason: str) -> Action:
        return self._to(State.STOPPED, Stop(reason))

    def _begin_segment(self) -> None:
        self._bytes = 0
        self._next_offset = self.archived_to
        self._last_epoch = self.manifest.resume_epoch if self.manifest is not None else NO_EPOCH
        self._copy_not_before = 0.0

    def _behind_gap(self) -> bool:
        """Whether readers who are in a gap wait for what comes next: then any batch is segment enough."""
        gaps = self.manifest.gaps if self.manifest is not None else ()
        return bool(gaps) and gaps[-1].end == self.archived_to

    def _retry_at(self, now: Now) -> float:
        return now.monotonic + _pause(self._failures)

    def _to(self, state: State, action: Action) -> Action:
        self.state = state
        return action


def disagreement(facts: Loaded) -> str | None:
    """How the broker's log contradicts the archive, for a person; None if it does not.

    Either its end is missing, or the epoch of the last archived batch ends before that batch, or is unknown
    although it is newer than the leader's own. An epoch that is merely unknown says nothing: some brokers forget
    those that were trimmed.
    """
    manifest = facts.manifest
    if manifest is None or facts.log_start > manifest.end_offset:
        return None
    if facts.log_end < manifest.end_offset:
        return _lost(facts.log_end, manifest.end_offset)
    if facts.epoch_end is None or manifest.resume_epoch == NO_EPOCH:
        return None
    if 0 <= facts.epoch_end < manifest.end_offset:
        return _rewritten(facts.epoch_end, manifest.end_offset)
    if facts.epoch_end < 0 and NO_EPOCH < facts.leader_epoch < manifest.resume_epoch:
        return (
            f"the archive's last leader epoch is {manifest.resume_epoch}, the broker's only {facts.leader_epoch}: "
            "its log is another one, or was rewritten"
        )
    return None


def _pause(failures: int) -> float:
    return min(RETRY_FIRST * 2.0 ** max(min(failures, 10) - 1, 0), RETRY_MOST)


def _lost(log_end: int, archived_to: int) -> str:
    return (
        f"the broker's log ends at {log_end}, but the archive holds offsets up to {archived_to}: the broker has "
        "lost records"
    )


def _rewritten(same_to: int, archived_to: int) -> str:
    return (
        f"the broker's log differs from the archive from offset {same_to} on, and the archive goes up to "
        f"{archived_to}: its history was rewritten, as after an unclean leader election"
    )
