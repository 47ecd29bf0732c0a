"""What the small and rare messages say: the typed shapes that `protocol.codec` reads and writes.

Only facts somebody uses; fields that nobody reads are not here. Topic ids are 16 raw bytes, zero for none.
"""

from dataclasses import dataclass, field

NO_TOPIC_ID = bytes(16)


@dataclass(frozen=True, slots=True)
class MetadataPartition:
    error: int
    index: int
    leader: int  # node id; -1: none right now
    leader_epoch: int  # -1 below v7
    replicas: tuple[int, ...] = ()  # node ids


@dataclass(frozen=True, slots=True)
class MetadataTopic:
    error: int
    name: str
    topic_id: bytes  # zero below v10
    internal: bool
    partitions: tuple[MetadataPartition, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    cluster_id: str | None  # null below v2
    controller: int
    brokers: dict[int, tuple[str, int]]
    topics: tuple[MetadataTopic, ...]


@dataclass(slots=True)
class ListOffsetsRequest:
    """`partitions` are (topic, partition, timestamp); isolation is 0 (read_uncommitted) below v2."""

    isolation: int
    partitions: list[tuple[str, int, int]]


@dataclass(slots=True)
class OffsetAnswer:
    """About one partition. Offset and timestamp -1: nothing found. leader_epoch -1: unknown (below v4)."""

    topic: str
    partition: int
    error: int
    timestamp: int
    offset: int
    leader_epoch: int = -1


@dataclass(slots=True)
class ListOffsetsResponse:
    throttle_ms: int = 0  # v2+
    partitions: list[OffsetAnswer] = field(default_factory=list)


@dataclass(slots=True)
class DeleteRecordsRequest:
    """`partitions` are (topic, partition, offset): what lies below `offset` goes; -1: high watermark."""

    timeout_ms: int
    partitions: list[tuple[str, int, int]]


@dataclass(slots=True)
class DeleteAnswer:
    topic: str
    partition: int
    low_watermark: int
    error: int


@dataclass(slots=True)
class DeleteRecordsResponse:
    throttle_ms: int = 0
    partitions: list[DeleteAnswer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProducerState:
    """A producer that a partition's leader remembers. `transaction_start` is the first offset of its open transaction,
    -1 if it has none; `last_timestamp` that of its newest batch, in ms.
    """

    producer_id: int
    producer_epoch: int
    last_timestamp: int
    transaction_start: int


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """Where a leader epoch ended. `leader_epoch`: the largest known one that is not above the asked one."""

    topic: str
    partition: int
    error: int
    leader_epoch: int
    end_offset: int
