"""What a member of the archivers' group does next. Facts in, one action out; no waiting, no clock, no I/O.

    FIND ──► JOIN ──► SYNC ──► MEMBER ─┐ heartbeat, again and again
     ▲  ▲      ▲                │  ▲   │
     │  └──────┼── coordinator  │  └───┘
     │         └── rebalance, or what we want has changed
     └── whatever goes wrong

The group only saves work that would be done twice; what keeps archivers from harming one another is the manifests'
compare-and-swap. So nothing here has to be exact, and when in doubt a member works on too much, never on too little:

- During a rebalance it goes on with what it had, until another assignment takes that away. So a rolling restart does
  not stop the world.
- A coordinator that is away changes nothing, for as long as `COORDINATOR_AWAY`.
- Who can't be in the group at all (no right, old brokers, a stranger's group) works on everything alone, and so does
  who has not been given a first share for `FIRST_SHARE` seconds. It goes on trying.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from protocol.consumer_protocol import NO_GENERATION, Subscription
from protocol.errors import ErrorCode, error_name
from tierproxy.cluster_view import TopicPartition
from tierproxy.tiering.assignment import assign, by_topic

COORDINATOR_AWAY = 300.0
"""Seconds for which the last assignment holds without a coordinator; then others may be dead unnoticed."""
FIRST_SHARE = 45.0
"""Seconds in which a new member should have been given its share: a rebalance waits for the slowest."""
RETRY_FIRST = 0.5
RETRY_MOST = 10.0
"""Seconds between tries of what failed: doubled from the first to the last."""
FAILURES_WORTH_A_LINE = 5
"""Coordinators come and go; only what goes on is said."""
HOPELESS_PAUSE = 60.0
"""Seconds until what takes a person to change is tried again."""
HEARTBEATS = 10
"""In a session's timeout: a rebalance is noticed by the answer to one."""

_HOPELESS = frozenset(
    {
        ErrorCode.GROUP_AUTHORIZATION_FAILED,
        ErrorCode.INVALID_GROUP_ID,
        ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
        ErrorCode.INVALID_SESSION_TIMEOUT,
        ErrorCode.GROUP_MAX_SIZE_REACHED,
    }
)
"""Answers that only a person can change."""
_ELSEWHERE = frozenset({ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE})
_AGAIN = frozenset({ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION})


class State(Enum):
    FIND = auto()
    JOIN = auto()
    SYNC = auto()
    MEMBER = auto()


# ---- actions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Find:
    """Ask any broker who the coordinator is."""

    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Join:
    """`owned` and `generation` are for our subscription: what we have, and since when."""

    node_id: int
    member_id: str
    owned: Mapping[str, tuple[int, ...]]
    generation: int
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Sync:
    """`shares`: from the leader, what every member gets."""

    node_id: int
    generation: int
    member_id: str
    shares: Mapping[str, frozenset[TopicPartition]]


@dataclass(frozen=True, slots=True)
class Beat:
    node_id: int
    generation: int
    member_id: str
    at: float


Action = Find | Join | Sync | Beat


# ---- events --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    node_id: int


@dataclass(frozen=True, slots=True)
class Joined:
    """`members` for the leader only: who is in the group, and what each asks for. `partitions`: of all topics."""

    generation: int
    member_id: str
    leads: bool
    members: Mapping[str, Subscription]
    partitions: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Synced:
    share: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Alive:
    """The heartbeat was answered."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What we want has changed, or what there is to share out."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer with an error. `member_id`: with MEMBER_ID_REQUIRED, ours from now on."""

    error: int
    member_id: str = ""


@dataclass(frozen=True, slots=True)
class Away:
    """No answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """The brokers don't do what a group needs, or it is not one of archivers."""

    reason: str


Event = Found | Joined | Synced | Alive | Changed | Refused | Away | Unfit


class Membership:
    """`begin` gives the first action, `on` the next one after each event; times are the clock's monotonic seconds."""

    def __init__(self, session_timeout: float) -> None:
        self.state = State.FIND
        self.share: frozenset[TopicPartition] = frozenset()
        """What the group last gave us."""
        self.alone: str | None = None
        """Why we work on everything; None: we don't."""
        self.trouble: str | None = None
        """What has kept us from the group for a while; None: nothing."""
        self.generation = NO_GENERATION
        """Of the group when we got `share`; NO_GENERATION: we never did, or it is void."""
        self.leads = False
        self._interval = session_timeout / HEARTBEATS
        self.node_id = -1
        """Of the coordinator, as last found."""
        self.member_id = ""
        """Ours, "" if the coordinator doesn't know us."""
        self._joining = NO_GENERATION  # the generation that we are about to learn our share of
        self._seen_at = 0.0  # when the group was last whole
        self._failures = 0
        self._shared: dict[
            str, tuple[int, ...]
        ] = {}  # by the leader: topics that somebody wants, with their partitions

    def mine(self, tp: TopicPartition) -> bool:
        """Whether to work on a partition."""
        return self.alone is not None or tp in self.share

    def outdated(self, partitions: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether we have shared out something else than what there is now."""
        return self.leads and any(partitions.get(topic, ()) != known for topic, known in self._shared.items())

    def begin(self, now: float) -> Action:
        self.state, self._failures, self._seen_at = State.FIND, 0, now
        return Find()

    def on(self, event: Event, now: float) -> Action:
        """Take `event` into account and say what to do."""
        match event:
            case Found(node_id):
                self.node_id = node_id
                known = self.member_id and self.generation != NO_GENERATION  # so a new coordinator knows us, too
                return self._beat(now) if known else self._join()
            case Joined():
                return self._joined(event)
            case Synced(share):
                self.share, self.generation = share, self._joining
                return self._whole(now)
            case Alive():
                return self._whole(now)
            case Changed():
                return self._join()
            case Refused(error, member_id):
                return self._refused(error, member_id, now)
            case Away(reason):
                return self._find(reason, now)
            case Unfit(reason):
                return self._hopeless(reason, now)

    # ---- reactions -----------------------------------------------------------------------------------------

    def _joined(self, event: Joined) -> Action:
        self.state = State.SYNC
        self.member_id, self._joining, self.leads = event.member_id, event.generation, event.leads
        shares: Mapping[str, frozenset[TopicPartition]] = {}
        self._shared = {}
        if event.leads:
            wanted = {topic for each in event.members.values() for topic in each.topics}
            self._shared = {topic: event.partitions.get(topic, ()) for topic in wanted}
            shares = assign(event.members, self._shared)
        return Sync(self.node_id, event.generation, event.member_id, shares)

    def _refused(self, error: int, member_id: str, now: float) -> Action:
        if error == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = member_id
            return self._join()
        if error == ErrorCode.UNKNOWN_MEMBER_ID:  # we were away for long, and others have our share
            self.member_id = ""
            return self._join()
        if error in _AGAIN:
            return self._join()
        if error == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and self.state is State.JOIN:
            return self._join(self._retry_at("the group's coordinator has just begun", now))
        if error in _ELSEWHERE:
            return self._find("the group's coordinator is changing", now)
        if error in _HOPELESS:
            return self._hopeless(_why(error), now)
        return self._find(_why(error), now)

    def _whole(self, now: float) -> Action:
        self._seen_at, self._failures = now, 0
        self.alone = self.trouble = None
        return self._beat(now)

    def _beat(self, now: float) -> Action:
        self.state = State.MEMBER
        return Beat(self.node_id, self.generation, self.member_id, now + self._interval)

    def _join(self, not_before: float = 0.0) -> Action:
        self.state = State.JOIN
        owned, since = by_topic(self.share), self.generation
        return Join(self.node_id, self.member_id, owned, since, not_before)

    def _find(self, reason: str, now: float) -> Action:
        self.state = State.FIND
        return Find(self._retry_at(reason, now))

    def _hopeless(self, reason: str, now: float) -> Action:
        self.state = State.FIND
        self.alone = self.trouble = reason
        self.leads = False
        return Find(now + HOPELESS_PAUSE)

    def _retry_at(self, reason: str, now: float) -> float:
        self._failures += 1
        if self._failures >= FAILURES_WORTH_A_LINE:
            self.trouble = reason
        patience = COORDINATOR_AWAY if self.generation != NO_GENERATION else FIRST_SHARE
        if self.alone is None and now - self._seen_at >= patience:
            self.alone = reason
        return now + min(RETRY_FIRST * 2.0 ** min(self._failures - 1, 10), RETRY_MOST)


def _why(error: int) -> str:
    if error == ErrorCode.GROUP_AUTHORIZATION_FAILED:
        return "tierproxy's own account needs READ on the group"
    if error == ErrorCode.INCONSISTENT_GROUP_PROTOCOL:
        return "others than archivers of the same archives are in the group (choose another archiver.group)"
    if error == ErrorCode.INVALID_SESSION_TIMEOUT:
        return (
            "the brokers don't allow this archiver.session_timeout (group.min.session.timeout.ms, "
            "group.max.session.timeout.ms)"
        )
    if error == ErrorCode.UNKNOWN_SERVER_ERROR:
        return (
            "the group's coordinator says UNKNOWN_SERVER_ERROR, as it does when a group with very many topics is too "
            "large for one record (max.message.bytes of __consumer_offsets)"
        )
    return f"the group's coordinator says {error_name(error)}"
