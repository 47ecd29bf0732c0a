"""What asks and comparisons need to know of the two sides: names, ids, logs. No sockets, no servers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import md5

from tests.differential.golden import Golden

REF, ARC = "ref", "arc"
ZERO_ID = bytes(16)
UNKNOWN_TOPICS = ("?a", "?b")


def is_unknown(topic: str) -> bool:
    """Topics that no broker has begin with a question mark; they are called the same on both sides."""
    return topic.startswith("?")


@dataclass(frozen=True, slots=True)
class AtRecord:
    """A moment that each side knows as its own: `delta` ms from the time of its record at `offset`."""

    offset: int
    delta: int


@dataclass
class Side:
    """One of the two sides: `prefix` makes topics of subjects, `ids` are the topics' ids by subject."""

    prefix: str
    ids: dict[str, bytes]
    logs: dict[tuple[str, int], Golden] = field(default_factory=dict)

    def name(self, topic: str) -> str:
        return f"no-such-topic-{topic[1:]}" if is_unknown(topic) else f"{self.prefix}-{topic}"

    def id(self, topic: str) -> bytes:
        if is_unknown(topic):
            return ZERO_ID if topic == "?zero" else md5(topic.encode(), usedforsecurity=False).digest()
        return self.ids[topic]

    def topic(self, name: str | None, topic_id: bytes | None) -> str:
        """The subject whose topic this is, or a text that tells that it is none of this side's."""
        if name is not None:
            kind, _, rest = name.partition("-")
            if name.startswith("no-such-topic-"):
                return "?" + name.removeprefix("no-such-topic-")
            return rest if kind == self.prefix else f"!{name}"
        return self._by_id().get(topic_id or ZERO_ID, f"!{topic_id!r}")

    def _by_id(self) -> dict[bytes, str]:
        unknown = {self.id(topic): topic for topic in ("?zero", *UNKNOWN_TOPICS)}
        return unknown | {topic_id: topic for topic, topic_id in self.ids.items()}

    def time_of(self, topic: str, index: int, offset: int) -> int | None:
        """The timestamp of a record; None where there is none."""
        log = self.logs.get((topic, index))
        return None if log is None else log.time_of(offset)

    def moment(self, topic: str, index: int, time: int | AtRecord) -> int:
        """The timestamp to ask this side for."""
        if isinstance(time, int):
            return time
        own = self.time_of(topic, index, time.offset)
        return 0 if own is None else own + time.delta


@dataclass
class World:
    """Both sides. `seams` are the log starts of the archived side's partitions at the broker; None: it moves."""

    ref: Side
    arc: Side
    seams: dict[tuple[str, int], int | None]
    leader_epoch: int
    archived: set[str]  # subjects with a policy that archives them
    compacted: set[str]
    zstd_refused: bool = False  # a broker that refuses topics with compression.type=zstd to old fetches

    def places(self) -> Iterator[tuple[str, int]]:
        yield from self.seams

    def is_cold(self, topic: str, index: int, offset: int) -> bool | None:
        """Whether the broker no longer has the archived side's `offset`; None if that can't be known."""
        if (topic, index) not in self.seams:
            return False
        seam = self.seams[topic, index]
        log = self.ref.logs[topic, index]
        if not log.start <= offset < log.end:
            return False
        return None if seam is None else offset < seam
