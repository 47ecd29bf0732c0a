"""What to do next with one partition. Facts in, one action out; no waiting, no clock, no I/O.

The life of a segment goes around once:

    LOAD ──► COPY ──► UPLOAD ──► VERIFY ──► COMMIT ──► TRIM ──► COPY …
               │  ▲                           │      └► LOOK ┘ (how far to trim is written in an older page)
               ▼  │                           └─ somebody else wrote the manifest ──► LOAD
              GAP ┘   (the broker deleted what was not archived yet: recorded, then on behind it)

    LOAD ──► REWIND ──► LOAD   (the brokers have rewritten history: what they disowned is quarantined)

and `steps.MOVES` prints every move there is. An event that a state does not list is a defect of the caller and
raises IllegalMove. STOPPED is for what a person must look at; nothing leads out of it.

What this file guarantees, whatever happens outside (tests/unit/tierproxy/tiering/test_fsm_simulation.py plays
it with crashes between any two steps):

- TRIM is asked for only up to the end of a manifest that the store has confirmed, and that manifest only ever
  names segments that were read back. So nothing is trimmed that is not committed and verified.
- Copying begins at that manifest's end. Whatever was copied but not committed is forgotten on LOAD and copied
  again: no hole, and nothing twice.
- When the broker's log and the archive disagree (records gone from the end, or rewritten: `history` says how), nothing
  is trimmed until the archive was cut where they part, and the leader's history behind it is archived as well. Where
  nobody can say where they part, the partition is stopped. Were only uncommitted batches affected, they are dropped
  and copied afresh.
- A topic without an id (brokers before 2.8) is never trimmed: one that was deleted and created again, and has grown
  past the archive's end since, looks like the old one.

Time comes in with each event: `Now.monotonic` ages segments and spaces retries, `Now.ms` is compared with the
records' own timestamps for retention. A retried action carries `not_before`; `Now.chance` keeps partitions whose
store fails from trying again all at once.
"""

from collections.abc import Sequence
from dataclasses import replace

from protocol.messages import NO_TOPIC_ID
from tierproxy.archive.manifest import NO_EPOCH, Manifest, PageRef, SegmentEntry
from tierproxy.archive.retention import reappeared, trim_point
from tierproxy.tiering.history import Behind, Foreign, Rewritten, Same, data_end, judge
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
    Look,
    Looked,
    Now,
    OutOfRange,
    Overlapped,
    RecordGap,
    Rewind,
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
"""Seconds between tries of what failed: doubled from the first to the last, each shortened at random by up to half."""
SPOILED_PAUSE = 10.0
"""Seconds after which a segment that was lost with its disk is begun again."""
DOUBT_PAUSE = 1.0
"""Seconds until the log is looked at again when it has been found to differ, or to show less than it has."""
DOUBTS_MOST = 6
"""Looks, ever further apart and half a minute in all, before a log that seems to be another one stops the partition:
a leader that was replaced without knowing it yet seems so, too."""
REWOUND_REST_MS = 90_000
"""Nothing is trimmed for so long after history was rewritten: gateways elsewhere serve from a manifest that is up to
a minute old, and would take what was quarantined for what the broker has just deleted."""
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
        self.hurried = False
        """The brokers will soon delete what is not archived. Then a segment is closed by its bytes alone while there is
        more to copy, and at once when there is not."""
        self.trim_to = -1
        """How far the leader's log may be trimmed, as last reckoned; -1: that isn't known, or it may not be."""
        self._origin = 0  # where the archive begins if there is no manifest yet
        self._next_offset = 0
        self._last_epoch = NO_EPOCH
        self._bytes = 0  # in the open segment
        self._opened_at = 0.0
        self._gap_end = 0
        self._rewind: Rewind | None = None
        self._failures = 0
        self._leader_epoch = NO_EPOCH  # when the log was last compared with the manifest
        self._overlap: int | None = None  # where a batch of that leader's begins which the archive's end cuts in two
        self._doubts = 0  # in a row, of whether the log is ours at all
        self._copy_not_before = 0.0
        self._trim_failures = 0
        self._trim_at = 0.0  # when to look next at what may be trimmed
        self._pages: dict[PageRef, Sequence[SegmentEntry]] = {}  # those looked into that the broker has records of

    @property
    def archived_to(self) -> int:
        """Everything below is committed; the offset at which copying begins."""
        return self.manifest.end_offset if self.manifest is not None else self._origin

    @property
    def next_offset(self) -> int:
        """Where copying goes on: everything below is committed or in the open segment."""
        return self._next_offset

    def begin(self) -> Action:
        return Load()

    def change(self, rules: Rules) -> None:
        """Other rules, from the next event on. An action that is under way goes by the old ones."""
        self.rules = rules
        self._trim_at = 0.0

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
            case Diverged():
                return self._doubt(now)
            case Overlapped(offset):
                self._overlap = offset
                return self._doubt(now)
            case Due():
                return self._go_on(now)
            case Uploaded():
                return self._to(State.VERIFY, Verify())
            case Verified():
                return self._to(State.COMMIT, self._commit())
            case Damaged():
                self._failures += 1
                return self._to(State.UPLOAD, Upload(self._retry_at(now)))
            case Committed() if self.state is State.REWIND:
                return self._to(State.LOAD, Load())
            case Committed(manifest):
                return self._committed(manifest, now)
            case Conflicted():
                return self._to(State.LOAD, Load())
            case Looked(page, entries):
                self._pages[page] = entries
                self._trim_at = now.monotonic
                return self._go_on(now)
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
        manifest, overlap = event.manifest, self._overlap
        same_leader = event.leader_epoch == self._leader_epoch
        self.manifest, self._leader_epoch, self._overlap = manifest, event.leader_epoch, None
        self.log_start = event.log_start
        self._origin = event.log_start
        self._begin_segment()
        if manifest is None:
            return self._go_on(now)
        if event.log_start > manifest.end_offset:
            return self._gap(event.log_start)
        match judge(event):
            case Same() if overlap is not None and overlap < data_end(manifest) and same_leader:
                return self._overlapped(manifest, overlap, event, now)
            case Same():
                self._doubts = 0
                return self._go_on(now)
            case Behind():
                return self._doubt(now)
            case Rewritten(offset, reason):
                self._rewind = Rewind(manifest, offset, event.log_start, reason)
                return self._to(State.REWIND, self._rewind)
            case Foreign(reason):
                return self._foreign(reason, now)

    def _overlapped(self, manifest: Manifest, offset: int, event: Loaded, now: Now) -> Action:
        """A batch says what epochs can't: the leader has forgotten those that end below its log start."""
        reason = (
            f"a batch of the leader's begins at offset {offset} and goes on above {manifest.end_offset}, where the "
            "archive ends: history was rewritten, as by an unclean leader election"
        )
        if NO_EPOCH in (event.leader_epoch, manifest.last_epoch) or manifest.topic_id == NO_TOPIC_ID:
            self._overlap = offset  # it still holds when we look again
            return self._foreign(f"{reason}, and nobody can say from where on", now)
        self._rewind = Rewind(manifest, offset, event.log_start, reason, event.leader_epoch)
        return self._to(State.REWIND, self._rewind)

    def _foreign(self, reason: str, now: Now) -> Action:
        self._doubts += 1
        if self._doubts > DOUBTS_MOST:
            return self._stop(reason)
        return self._to(State.LOAD, Load(now.monotonic + _pause(self._doubts, now)))

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
        if self.hurried and self._bytes and event.stable_end >= 0:
            if event.next_offset >= event.stable_end:
                return self._to(State.UPLOAD, Upload())
            self._opened_at = now.monotonic
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
            return self._doubt(now)
        self._copy_not_before = now.monotonic + RETRY_FIRST  # in range by now: the leader was changing
        return self._go_on(now)

    def _doubt(self, now: Now) -> Action:
        """Look at both sides again. If only what is not committed was rewritten, it is copied again from there."""
        return self._to(State.LOAD, Load(now.monotonic + DOUBT_PAUSE))

    def _committed(self, manifest: Manifest, now: Now) -> Action:
        self.manifest = manifest
        self._begin_segment()
        self._trim_at = now.monotonic
        return self._go_on(now)

    def _failed(self, now: Now) -> Action:
        if self.state in (State.TRIM, State.LOOK):  # copying does not wait for a broker that won't trim
            self._trim_failures += 1
            self._trim_at = now.monotonic + _pause(self._trim_failures, now)
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
            case State.REWIND:
                assert self._rewind is not None
                return replace(self._rewind, not_before=retry_at)
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
            point = self._trim_point(now.ms) if now.monotonic >= self.rules.trim_from else -1
            if isinstance(point, PageRef):
                return self._to(State.LOOK, Look(point))
            self.trim_to = point
            if point > self.log_start:
                return self._to(State.TRIM, Trim(point))
        return self._to(State.COPY, self._copy())

    def _trim_point(self, now_ms: int) -> int | PageRef:
        if self.manifest is None or not self.rules.trim or self.manifest.topic_id == NO_TOPIC_ID:
            return -1
        if self.manifest.quarantined:
            latest = self.manifest.quarantined[-1]
            if latest.start == self.manifest.end_offset or now_ms - latest.at_ms < REWOUND_REST_MS:
                return -1
        known = {page for page in self.manifest.pages if page.last_offset >= self.log_start}
        self._pages = {page: entries for page, entries in self._pages.items() if page in known}
        keep_time_ms, keep_bytes = self.rules.keep_time_ms, self.rules.keep_bytes
        point = trim_point(self.manifest, keep_time_ms, keep_bytes, now_ms, self.log_start, self._pages)
        if isinstance(point, PageRef):
            return point
        lost = reappeared(self.manifest, self.log_start)
        return min(point, self.manifest.end_offset if lost is None else lost)

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
        return now.monotonic + _pause(self._failures, now)

    def _to(self, state: State, action: Action) -> Action:
        self.state = state
        return action


def _pause(failures: int, now: Now) -> float:
    longest = min(RETRY_FIRST * 2.0 ** max(min(failures, 10) - 1, 0), RETRY_MOST)
    return longest * (1 + now.chance) / 2
