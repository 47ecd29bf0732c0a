"""Requests in terms of subjects: each can be put to either side, and its answer read back in the same terms."""

from dataclasses import dataclass
from typing import Any, ClassVar

from kafka.protocol import consumer

from tests.differential import messages
from tests.differential.world import AtRecord, Side


@dataclass(frozen=True, slots=True)
class FetchPlace:
    topic: str
    index: int
    offset: int
    max_bytes: int
    current_epoch: int = -1
    last_epoch: int = -1


@dataclass(frozen=True, slots=True)
class FetchAsk:
    """`session` is (id, epoch); (0, -1) asks for no session. `forgotten` are (topic, partition)."""

    API: ClassVar[int] = 1
    version: int
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation: int
    places: tuple[FetchPlace, ...]
    session: tuple[int, int] = (0, -1)
    forgotten: tuple[tuple[str, int], ...] = ()
    rack: str = ""
    replica: int = -1

    def payload(self, side: Side) -> bytes:
        version, kind = self.version, consumer.FetchRequest
        asked = [
            kind.FetchTopic(
                version=version,
                **messages.topic_key(version, 13, side.name(topic), side.id(topic)),
                partitions=[
                    kind.FetchTopic.FetchPartition(
                        version=version,
                        partition=place.index,
                        current_leader_epoch=place.current_epoch,
                        fetch_offset=place.offset,
                        last_fetched_epoch=place.last_epoch,
                        log_start_offset=-1,
                        partition_max_bytes=place.max_bytes,
                    )
                    for place in group
                ],
            )
            for topic, group in messages.grouped(self.places)
        ]
        forgotten = [
            kind.ForgottenTopic(
                version=version,
                **messages.topic_key(version, 13, side.name(topic), side.id(topic)),
                partitions=[index],
            )
            for topic, index in self.forgotten
        ]
        replica: dict[str, Any] = {"replica_id": self.replica}
        if version >= 15:
            replica = {"replica_state": kind.ReplicaState(version=version, replica_id=self.replica, replica_epoch=-1)}
        return messages.encode(
            kind(
                version=version,
                max_wait_ms=self.max_wait_ms,
                min_bytes=self.min_bytes,
                max_bytes=self.max_bytes,
                isolation_level=self.isolation,
                session_id=self.session[0],
                session_epoch=self.session[1],
                topics=asked,
                forgotten_topics_data=forgotten,
                rack_id=self.rack,
                **replica,
            )
        )

    @property
    def effective(self) -> dict[tuple[str, int], FetchPlace]:
        """The places by partition; of one named twice the last counts."""
        return {(place.topic, place.index): place for place in self.places}


@dataclass(frozen=True, slots=True)
class TimePlace:
    topic: str
    index: int
    time: int | AtRecord
    current_epoch: int = -1


@dataclass(frozen=True, slots=True)
class OffsetsAsk:
    API: ClassVar[int] = 2
    version: int
    isolation: int
    places: tuple[TimePlace, ...]

    def payload(self, side: Side) -> bytes:
        version, kind = self.version, consumer.ListOffsetsRequest
        asked = [
            kind.ListOffsetsTopic(
                version=version,
                name=side.name(topic),
                partitions=[
                    kind.ListOffsetsTopic.ListOffsetsPartition(
                        version=version,
                        partition_index=place.index,
                        current_leader_epoch=place.current_epoch,
                        timestamp=side.moment(topic, place.index, place.time),
                    )
                    for place in group
                ],
            )
            for topic, group in messages.grouped(self.places)
        ]
        return messages.encode(
            kind(version=version, replica_id=-1, isolation_level=self.isolation, topics=asked, timeout_ms=30_000)
        )


@dataclass(frozen=True, slots=True)
class EpochPlace:
    topic: str
    index: int
    epoch: int
    current_epoch: int = -1


@dataclass(frozen=True, slots=True)
class EpochsAsk:
    API: ClassVar[int] = 23
    version: int
    places: tuple[EpochPlace, ...]

    def payload(self, side: Side) -> bytes:
        version, kind = self.version, consumer.OffsetForLeaderEpochRequest
        asked = [
            kind.OffsetForLeaderTopic(
                version=version,
                topic=side.name(topic),
                partitions=[
                    kind.OffsetForLeaderTopic.OffsetForLeaderPartition(
                        version=version,
                        partition=place.index,
                        current_leader_epoch=place.current_epoch,
                        leader_epoch=place.epoch,
                    )
                    for place in group
                ],
            )
            for topic, group in messages.grouped(self.places)
        ]
        return messages.encode(kind(version=version, replica_id=-1, topics=asked))


Ask = FetchAsk | OffsetsAsk | EpochsAsk
