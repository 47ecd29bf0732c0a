"""What a survey has heard, compactly: it may be about many thousands of partitions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from tierproxy.archive.manifest import Gap, Manifest, Sums
from tierproxy.config import TopicPolicy


@dataclass(frozen=True, slots=True)
class Archived:
    """What a partition's manifest said at `read_ms`. `archive` is where it lies. Without segments nothing is archived:
    `end` is the next offset to archive.

    `still`: the broker's offsets have not changed since.
    `freed_bytes` is the log, before compression, that the broker no longer has (to a segment or a page).
    """

    archive: str
    read_ms: int
    start: int
    end: int
    sums: Sums
    gaps: tuple[Gap, ...] = ()
    quarantined: int = 0
    freed_bytes: int = 0
    still: bool = True

    @classmethod
    def nothing(cls, archive: str, read_ms: int, next_offset: int) -> "Archived":
        return cls(archive, read_ms, next_offset, next_offset, Sums())

    @classmethod
    def of(cls, archive: str, manifest: Manifest, log_start: int, read_ms: int) -> "Archived":
        return cls(
            archive,
            read_ms,
            manifest.start_offset,
            manifest.end_offset,
            manifest.sums,
            manifest.gaps,
            len(manifest.quarantined),
            freed(manifest, log_start),
        )


def freed(manifest: Manifest, log_start: int) -> int:
    """Bytes of log in segments that end below `log_start`; of a page that straddles it, a part by its offsets."""
    total = sum(entry.plain_size for entry in manifest.segments if entry.last_offset < log_start)
    for page in manifest.pages:
        offsets = page.last_offset + 1 - page.base_offset
        below = min(max(log_start - page.base_offset, 0), offsets)
        total += page.sums.plain_size * below // offsets
    return total


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """Offsets are -1 where the leader didn't tell them; `broker_problem` says why.

    `archived` None: nobody knows yet, or `archive_problem` says why; `damaged` if that won't mend itself.
    `waiting_since_ms`: since when there has been something to archive and nothing was archived, as far as surveys saw.
    """

    partition: int
    leader: int
    log_start: int = -1
    high_watermark: int = -1
    last_stable: int = -1
    broker_problem: str = ""
    archived: Archived | None = None
    archive_problem: str = ""
    damaged: bool = False
    waiting_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """`settings` are the topic's in Kafka, empty where they can't be read; `policy_at` is its policy's place in the
    configuration's `topics`, `replicas` how many copies the brokers keep.
    """

    name: str
    topic_id: bytes
    policy: TopicPolicy
    policy_at: int
    settings: Mapping[str, str]
    partitions: tuple[PartitionFacts, ...]
    replicas: float = 1.0


@dataclass(frozen=True, slots=True)
class Member:
    """One archiver, as the group's coordinator sees it; `partitions` by topic."""

    client_id: str
    member_id: str
    host: str
    partitions: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """The archivers' group; `problem` says why its members can't be told."""

    name: str
    state: str = ""
    members: tuple[Member, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One survey, begun at `at_ms`. `group` None: archivers work alone. `problems` are whatever could not be asked.

    `proxied` is the number of topics that no policy archives; `pending` of partitions whose manifest wasn't read yet.
    """

    at_ms: int
    cluster_id: str | None
    topics: Mapping[str, TopicFacts]
    proxied: int = 0
    group: GroupFacts | None = None
    problems: tuple[str, ...] = ()
    pending: int = 0

    @property
    def partitions(self) -> int:
        return sum(len(topic.partitions) for topic in self.topics.values())
