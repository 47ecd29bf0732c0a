"""What is known of a Kafka cluster at one moment, and how an answer to Metadata changes it. Pure.

Views are frozen: whoever holds one can compare it with the next. Absent means unknown or gone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.errors import ErrorCode
from protocol.messages import Metadata, MetadataTopic, ProducerState

NOBODY = -1
"""The leader of a partition that has none."""


class TopicPartition(NamedTuple):
    """A partition by name, as Kafka's older APIs speak of it. A recreated topic has the same."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class PartitionView:
    """`replicas` are the brokers that should have a copy. Views that differ only there are equal."""

    leader: int
    leader_epoch: int
    replicas: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class TopicView:
    """`topic_id` is zero where the cluster has no topic ids (before Kafka 2.8)."""

    name: str
    topic_id: bytes
    internal: bool
    partitions: Mapping[int, PartitionView]


@dataclass(frozen=True, slots=True)
class ClusterView:
    cluster_id: str | None
    brokers: Mapping[int, tuple[str, int]]
    topics: Mapping[str, TopicView]

    @classmethod
    def unknown(cls) -> "ClusterView":
        """Before anything was asked."""
        return cls(None, {}, {})

    def leader(self, tp: TopicPartition) -> int:
        """Node id of the partition's leader, or NOBODY."""
        topic = self.topics.get(tp.topic)
        partition = topic.partitions.get(tp.partition) if topic is not None else None
        return partition.leader if partition is not None else NOBODY


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """The 16-byte id of the topic that a name stands for; zero from brokers before 2.8, which have no ids."""

    error: int
    topic_id: bytes


@dataclass(frozen=True, slots=True)
class ListedOffset:
    """offset and timestamp -1: there is none; leader_epoch -1: not known."""

    error: int
    offset: int
    timestamp: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class DeletedRecords:
    error: int
    low_watermark: int


@dataclass(frozen=True, slots=True)
class Producers:
    """Those that a partition's leader remembers."""

    error: int
    producers: tuple[ProducerState, ...]


@dataclass(frozen=True, slots=True)
class LogSizes:
    """Bytes that partitions' logs have on one broker, whole log segments. What it did not tell is absent."""

    error: int
    sizes: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class EndOfEpoch:
    """`leader_epoch` is the largest known epoch not above the asked one, `end_offset` where it ends.

    Both are -1 where the broker knows none.
    """

    error: int
    leader_epoch: int
    end_offset: int


def merge_metadata(view: ClusterView, answer: Metadata, asked: Collection[str] | None) -> ClusterView:
    """The view after `answer` to a question about `asked` (None: all topics).

    A topic is dropped when it is said not to exist, or when all were asked for and it is not named. One that
    the broker can't describe right now (no permission, no leader for the topic) stays as it was.
    """
    topics = {} if asked is None else dict(view.topics)
    for topic in answer.topics:
        if topic.error == ErrorCode.NONE:
            topics[topic.name] = _topic_view(topic)
        elif topic.error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            topics.pop(topic.name, None)
        elif topic.name in view.topics:
            topics[topic.name] = view.topics[topic.name]
    return ClusterView(
        cluster_id=answer.cluster_id if answer.cluster_id is not None else view.cluster_id,
        brokers=answer.brokers or view.brokers,
        topics=topics,
    )


def _topic_view(topic: MetadataTopic) -> TopicView:
    partitions = {part.index: PartitionView(part.leader, part.leader_epoch, part.replicas) for part in topic.partitions}
    return TopicView(topic.name, topic.topic_id, topic.internal, dict(sorted(partitions.items())))
