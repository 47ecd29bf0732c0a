"""Answers in terms of subjects, by kafka-python's codec."""

from dataclasses import dataclass
from typing import Any

from kafka.protocol import consumer

from tests.differential import messages
from tests.differential.world import Side


@dataclass(slots=True)
class Part:
    """About one partition. `diverging` is (epoch, end offset), `leader` (id, epoch); None where not told."""

    topic: str
    index: int
    error: int
    high_watermark: int
    last_stable: int
    log_start: int
    aborted: list[tuple[int, int]] | None
    preferred: int
    records: bytes | None
    diverging: tuple[int, int] | None = None
    leader: tuple[int, int] | None = None


@dataclass(slots=True)
class Fetched:
    """A fetch answer. `groups` is how its partitions are grouped into topic entries; `exact` says that kafka-python
    would have written the very same bytes: nothing left over, no odd encoding, no field it doesn't know. `size` is the
    payload's, in bytes."""

    error: int
    session_id: int
    groups: list[tuple[str, int]]
    parts: list[Part]
    endpoints: int
    exact: bool
    size: int


def read_fetched(payload: bytes, version: int, side: Side) -> Fetched:
    message = messages.decode(consumer.FetchResponse, payload, version)
    parts: list[Part] = []
    groups: list[tuple[str, int]] = []
    for group in message.responses:
        topic = _topic(group, version >= 13, side)
        groups.append((topic, len(group.partitions)))
        parts.extend(_part(topic, part, version) for part in group.partitions)
    return Fetched(
        error=message.error_code if version >= 7 else 0,
        session_id=message.session_id if version >= 7 else 0,
        groups=groups,
        parts=parts,
        endpoints=len(message.node_endpoints or ()) if version >= 16 else 0,
        exact=bytes(message.encode(header=True)) == payload,
        size=len(payload),
    )


def _topic(group: Any, by_id: bool, side: Side) -> str:
    if by_id:
        return side.topic(None, group.topic_id.bytes if group.topic_id is not None else bytes(16))
    return side.topic(group.topic, None)


def _part(topic: str, part: Any, version: int) -> Part:
    aborted = part.aborted_transactions
    diverging, leader = part.diverging_epoch, part.current_leader
    return Part(
        topic=topic,
        index=part.partition_index,
        error=part.error_code,
        high_watermark=part.high_watermark,
        last_stable=part.last_stable_offset,
        log_start=part.log_start_offset if version >= 5 else -1,
        aborted=None if aborted is None else [(each.producer_id, each.first_offset) for each in aborted],
        preferred=part.preferred_read_replica if version >= 11 else -1,
        records=None if part.records is None else bytes(part.records),
        diverging=(diverging.epoch, diverging.end_offset) if diverging is not None and diverging.epoch != -1 else None,
        leader=(leader.leader_id, leader.leader_epoch) if leader is not None and leader.leader_id != -1 else None,
    )


@dataclass(slots=True)
class Listed:
    """About one partition of a ListOffsets answer."""

    topic: str
    index: int
    error: int
    timestamp: int
    offset: int
    epoch: int


def read_listed(payload: bytes, version: int, side: Side) -> tuple[list[Listed], bool]:
    """The partitions in order, and whether the bytes are exactly kafka-python's."""
    message = messages.decode(consumer.ListOffsetsResponse, payload, version)
    parts = [
        Listed(
            side.topic(topic.name, None),
            part.partition_index,
            part.error_code,
            part.timestamp,
            part.offset,
            part.leader_epoch if version >= 4 else -1,
        )
        for topic in message.topics
        for part in topic.partitions
    ]
    return parts, bytes(message.encode(header=True)) == payload


@dataclass(slots=True)
class EpochEnd:
    """About one partition of an OffsetForLeaderEpoch answer."""

    topic: str
    index: int
    error: int
    epoch: int
    end: int


def read_epoch_ends(payload: bytes, version: int, side: Side) -> tuple[list[EpochEnd], bool]:
    """As read_listed."""
    message = messages.decode(consumer.OffsetForLeaderEpochResponse, payload, version)
    parts = [
        EpochEnd(side.topic(topic.topic, None), part.partition, part.error_code, part.leader_epoch, part.end_offset)
        for topic in message.topics
        for part in topic.partitions
    ]
    return parts, bytes(message.encode(header=True)) == payload
