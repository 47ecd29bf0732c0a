"""What the gateway knows of archived partitions: facts, kept by the scout and the archiver, read by routing.

Pure and synchronous, so that the code that decides never waits: a fact that is missing is asked for by putting its
tier into `wanted`, and the decision meanwhile is the one that can do no harm (show -1 as log start, answer "no error,
no records"). Topics are found by name and by id, as Fetch requests name them either way; both lead to the same `Tier`,
and a topic that was deleted and created again is a new one, because tiers belong to topic ids.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId

UNKNOWN = -1
NO_ID = bytes(16)
"""The id of every topic of a broker before 2.8: such topics are known by name alone."""
MOST_DOUBTS = 64
TopicKey = str | bytes  # a name, or a 16-byte topic id


@dataclass(frozen=True, slots=True)
class ArchivedTopic:
    """A topic with a policy that archives it, as the cluster describes it now."""

    name: str
    topic_id: bytes
    partitions: int
    archive: str
    on_gap: str
    leaders: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """By partition: its leader's node id and leader epoch."""


@dataclass(slots=True)
class Tier:
    """What is known of one archived partition. Offsets are -1 while unknown; times are the clock's milliseconds."""

    pid: PartitionId
    archive: str
    on_gap: str
    manifest: Manifest | None = None  # None with manifest_known: nothing is archived yet
    manifest_known: bool = False
    manifest_at_ms: int = 0
    broker_start: int = UNKNOWN  # the leader's log start offset, as last heard
    high_watermark: int = UNKNOWN
    last_stable: int = UNKNOWN
    leadership: tuple[int, int] | None = None  # the leader that said so, and its epoch; None: not known
    doubts: set[int] = field(default_factory=set)
    """Offsets refused unexpectedly: the next fetch there is held and looked into."""
    unresolved: int = 0
    """How often in a row a refusal could not be looked into for lack of time."""

    def doubt(self, offset: int) -> None:
        """A fetch at `offset` was refused, and nobody knows why yet."""
        if len(self.doubts) >= MOST_DOUBTS:
            self.doubts.clear()  # clients of those offsets are in doubt again when they come back
        self.doubts.add(offset)

    def expects_cold(self, offset: int) -> bool:
        """Whether a fetch at `offset` will be refused by the broker and served from the archive, by all we know."""
        archived = self.manifest
        return archived is not None and archived.holds(offset) and offset < self.broker_start


@dataclass(slots=True)
class Catalog:
    """The tiers of one cluster. `may_archive` says by a topic's name whether some policy archives it."""

    may_archive: Callable[[str], bool]
    archives_anything: bool
    wanted: dict[PartitionId, Tier] = field(default_factory=dict)  # tiers the scout should learn about soon
    topics_stale: bool = False  # a topic or partition was met that the last metadata did not show
    doubtful: set[TopicKey] = field(default_factory=set)  # of those, the ones an out-of-range answer was about
    _topics: dict[TopicKey, ArchivedTopic] = field(default_factory=dict)
    _passing: dict[TopicKey, str] = field(default_factory=dict)  # known and not archived, with their names
    _tiers: dict[TopicKey, dict[int, Tier]] = field(default_factory=dict)

    # -- told by the scout and the archiver -------------------------------------------------------------------------

    def set_topics(self, archived: Iterable[ArchivedTopic], passing: Iterable[tuple[str, bytes]]) -> None:
        """Replace what is known of topics; tiers of topics that still exist are kept, in the same archive."""
        topics: dict[TopicKey, ArchivedTopic] = {}
        tiers: dict[TopicKey, dict[int, Tier]] = {}
        for topic in archived:
            keys: list[TopicKey] = [topic.name] if topic.topic_id == NO_ID else [topic.topic_id, topic.name]
            kept = {
                index: tier for index, tier in self._tiers.get(keys[0], {}).items() if tier.archive == topic.archive
            }
            for index, tier in kept.items():
                tier.on_gap = topic.on_gap
                self._led_by(tier, topic.leaders.get(index))
            for key in keys:
                topics[key], tiers[key] = topic, kept
        self._topics, self._tiers = topics, tiers
        self._passing = {key: pair[0] for pair in passing for key in pair if key != NO_ID}
        self.topics_stale = False
        self.doubtful.clear()

    def policies_changed(self, archives_anything: bool) -> None:
        """Topics that pass and may be archived from now on aren't known until they are learned again, which is soon."""
        self.archives_anything = archives_anything
        unknown = {name for name in {*self._passing.values()} if self.may_archive(name)}
        self._passing = {key: name for key, name in self._passing.items() if name not in unknown}
        self.topics_stale = True

    def committed(self, pid: PartitionId, manifest: Manifest, now_ms: int) -> None:
        """The archiver of this process has committed `manifest`: it counts from this moment on.

        Unless it has committed a later one, of which we were told first: copying and upkeep go on side by side.
        """
        tier = self.find(pid.topic_id, pid.partition)
        if tier is not None and (tier.manifest is None or tier.manifest.generation <= manifest.generation):
            tier.manifest, tier.manifest_known, tier.manifest_at_ms = manifest, True, now_ms

    def trimmed(self, topic: str, partition: int, log_start: int) -> None:
        """The archiver of this process has trimmed the broker's copy: it now starts at `log_start`."""
        tier = self.find(topic, partition)
        if tier is not None:
            tier.broker_start = log_start

    # -- asked by routing -------------------------------------------------------------------------------------------

    def find(self, topic: TopicKey, partition: int) -> Tier | None:
        """The tier of an archived topic's partition; None when the topic passes, or isn't known (yet)."""
        tiers = self._tiers.get(topic)
        if tiers is None:
            if topic not in self._passing and self.might_be_archived(topic):
                self.topics_stale = True
            return None
        tier = tiers.get(partition)
        if tier is None:
            about = self._topics[topic]
            if not 0 <= partition < about.partitions:
                self.topics_stale = True
                return None
            pid = PartitionId(about.name, about.topic_id, partition)
            tier = tiers[partition] = Tier(pid, about.archive, about.on_gap, leadership=about.leaders.get(partition))
            self.wanted[pid] = tier
        return tier

    def _led_by(self, tier: Tier, leadership: tuple[int, int] | None) -> None:
        """What another leader said of its log is not known of this one's: an unclean election moves log starts back,
        and what was archived above may be disowned.
        """
        if leadership == tier.leadership:
            return
        if tier.leadership is not None:
            tier.broker_start = tier.high_watermark = tier.last_stable = UNKNOWN
            self.want(tier)
        tier.leadership = leadership

    def might_be_archived(self, topic: TopicKey) -> bool:
        """Whether the topic is archived or, not being known yet, may turn out to be."""
        if not self.archives_anything or topic in self._passing:
            return False
        return topic in self._topics or isinstance(topic, bytes) or self.may_archive(topic)

    def want(self, tier: Tier) -> None:
        self.wanted[tier.pid] = tier

    def asked_for_start(self, tier: Tier, log_start: int) -> None:
        """A client asks where the log begins, and the leader has said `log_start`: the manifest is to be learned next.

        So it need not be for the scout as well. Whoever asks could not begin while that is being read already, since a
        manifest from before the leader's answer is not enough. What else the scout would learn is `log_start`.
        """
        tier.broker_start = log_start
        self.wanted.pop(tier.pid, None)

    def shown_start(self, topic: TopicKey, partition: int, log_start: int) -> int:
        """The log start offset to show a client to whom the broker said `log_start` (-1: it said none).

        The archive's start where it is known; -1 where it isn't, never the broker's: librdkafka keeps what it is
        shown and answers seek(BEGINNING) from it. Also takes the broker's figure down as a fact.
        """
        tier = self.find(topic, partition)
        if tier is None:
            return UNKNOWN if self.might_be_archived(topic) else log_start
        if log_start < 0:
            return log_start
        if not tier.manifest_known:
            self.want(tier)
        elif tier.manifest is None:
            if log_start <= tier.broker_start:
                return log_start
            # Trimmed, or aged, since we looked and saw no archive: there may be one by now.
            tier.manifest_known = False
            self.want(tier)
        tier.broker_start = log_start
        return min(tier.manifest.start_offset, log_start) if tier.manifest is not None else UNKNOWN
