"""A client's end of one connection: whole requests by kafka-python's classes, answers in their order.

For tests that look at single answers, of a fake broker, of a real one, or of tierproxy in front of either.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from protocol.apis import ApiKey
from tests.fakes.broker.messages import decode_response, encode_request, raw_id, request_part, text_id

NO_LIMIT = 50 << 20


class Closed(Exception):
    """The other end has closed the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One partition of a fetch; `topic` is a name (to v12) or a topic id."""

    topic: str | bytes
    partition: int
    offset: int
    max_bytes: int = 1 << 20
    epoch: int = -1
    last_epoch: int = -1


@dataclass(frozen=True, slots=True)
class Got:
    """One partition of a fetch's answer, in the order of the answer."""

    topic: str | bytes
    partition: int
    error: int
    records: bytes | None
    high_watermark: int
    last_stable: int
    log_start: int
    aborted: list[tuple[int, int]] | None
    preferred: int
    diverging: tuple[int, int] | None
    leader: tuple[int, int] | None


class Connection:
    """One connection. `ask` waits for the answer; `send` and `receive` don't belong together but by order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._last_id = 0

    @classmethod
    async def to(cls, address: tuple[str, int]) -> Self:
        return cls(*await asyncio.open_connection(*address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    async def ask(self, key: ApiKey, version: int, /, **fields: Any) -> Any:
        """The answer as kafka-python's message. Raises Closed."""
        self.send(key, version, **fields)
        return decode_response(key, version, await self.receive())

    def send(self, key: ApiKey, version: int, /, **fields: Any) -> int:
        """Just send it; its correlation id."""
        self._last_id += 1
        self.send_payload(encode_request(key, version, self._last_id, **fields))
        return self._last_id

    def send_payload(self, payload: bytes) -> None:
        self.writer.write(len(payload).to_bytes(4, "big") + payload)

    async def receive(self) -> bytes:
        """The next answer's payload. Raises Closed."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Closed from None

    # -- what is asked most -----------------------------------------------------------------------------------------

    def send_fetch(self, version: int, *asks: Ask, **limits: Any) -> None:
        self.send(ApiKey.FETCH, version, **fetch_fields(version, asks, **limits))

    async def fetch(self, version: int, *asks: Ask, **limits: Any) -> list[Got]:
        """Limits: max_wait (ms), min_bytes, max_bytes, committed, rack."""
        return got(version, await self.ask(ApiKey.FETCH, version, **fetch_fields(version, asks, **limits)))

    async def fetched(self, version: int) -> list[Got]:
        """The answer to a fetch that was sent with `send_fetch`."""
        return got(version, decode_response(ApiKey.FETCH, version, await self.receive()))

    async def list_offsets(
        self, version: int, *asks: tuple[str, int, int], committed: bool = False, epoch: int = -1
    ) -> list[tuple[int, int, int, int]]:
        """Asks are (topic, partition, timestamp); answers (error, offset, timestamp, leader epoch) in order."""
        self.send_list_offsets(version, *asks, committed=committed, epoch=epoch)
        return await self.listed_offsets(version)

    def send_list_offsets(
        self, version: int, *asks: tuple[str, int, int], committed: bool = False, epoch: int = -1
    ) -> None:
        kind = (ApiKey.LIST_OFFSETS, version, "ListOffsetsTopic")
        topics = [
            request_part(
                *kind,
                name=topic,
                partitions=[
                    request_part(
                        *kind, "ListOffsetsPartition", partition_index=at, current_leader_epoch=epoch, timestamp=time
                    )
                ],
            )
            for topic, at, time in asks
        ]
        self.send(
            ApiKey.LIST_OFFSETS,
            version,
            replica_id=-1,
            isolation_level=int(committed),
            topics=topics,
            timeout_ms=10_000,
        )

    async def listed_offsets(self, version: int) -> list[tuple[int, int, int, int]]:
        """The answer to what was sent with `send_list_offsets`."""
        answer = decode_response(ApiKey.LIST_OFFSETS, version, await self.receive())
        return [
            (each.error_code, each.offset, each.timestamp, each.leader_epoch if version >= 4 else -1)
            for topic in answer.topics
            for each in topic.partitions
        ]

    async def delete_records(
        self, version: int, *asks: tuple[str, int, int], timeout_ms: int = 10_000
    ) -> list[tuple[int, int]]:
        """Asks are (topic, partition, offset); answers (error, low watermark), by partition."""
        kind = (ApiKey.DELETE_RECORDS, version, "DeleteRecordsTopic")
        topics = [
            request_part(
                *kind,
                name=name,
                partitions=[
                    request_part(*kind, "DeleteRecordsPartition", partition_index=at, offset=offset)
                    for topic, at, offset in asks
                    if topic == name
                ],
            )
            for name in dict.fromkeys(topic for topic, _, _ in asks)
        ]
        answer = await self.ask(ApiKey.DELETE_RECORDS, version, topics=topics, timeout_ms=timeout_ms)
        return [(each.error_code, each.low_watermark) for topic in answer.topics for each in topic.partitions]

    async def epoch_ends(
        self, version: int, topic: str, *epochs: int, partition: int = 0, current: int = -1
    ) -> list[tuple[int, int, int]]:
        """(error, epoch, end offset) for each epoch, asked one after the other."""
        kind = (ApiKey.OFFSET_FOR_LEADER_EPOCH, version, "OffsetForLeaderTopic")
        found = []
        for epoch in epochs:
            asked = request_part(
                *kind,
                "OffsetForLeaderPartition",
                partition=partition,
                current_leader_epoch=current,
                leader_epoch=epoch,
            )
            topics = [request_part(*kind, topic=topic, partitions=[asked])]
            answer = await self.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, replica_id=-1, topics=topics)
            each = answer.topics[0].partitions[0]
            found.append((each.error_code, each.leader_epoch, each.end_offset))
        return found

    async def produce(
        self, version: int, topic: str | bytes, partition: int, records: bytes, *, acks: int = -1
    ) -> tuple[int, int]:
        """(error, base offset)"""
        answer = await self.ask(
            ApiKey.PRODUCE, version, **produce_fields(version, topic, partition, records, acks=acks)
        )
        each = answer.responses[0].partition_responses[0]
        return each.error_code, each.base_offset

    async def metadata(self, version: int, *names: str) -> Any:
        """Of these topics; of all without any."""
        topics = [request_part(ApiKey.METADATA, version, "MetadataRequestTopic", name=name) for name in names]
        return await self.ask(
            ApiKey.METADATA, version, topics=topics if names else None, allow_auto_topic_creation=False
        )


def fetch_fields(
    version: int,
    asks: Sequence[Ask],
    *,
    max_wait: int = 0,
    min_bytes: int = 1,
    max_bytes: int = NO_LIMIT,
    committed: bool = False,
    rack: str = "",
    session: tuple[int, int] = (0, -1),
    replica_id: int = -1,
) -> dict[str, Any]:
    """A Fetch request's fields. Each Ask gets a topic entry of its own."""
    kind = (ApiKey.FETCH, version, "FetchTopic")
    topics = [
        request_part(
            *kind,
            **_topic(ask.topic),
            partitions=[
                request_part(
                    *kind,
                    "FetchPartition",
                    partition=ask.partition,
                    current_leader_epoch=ask.epoch,
                    fetch_offset=ask.offset,
                    last_fetched_epoch=ask.last_epoch,
                    partition_max_bytes=ask.max_bytes,
                )
            ],
        )
        for ask in asks
    ]
    return {
        "replica_id": replica_id,
        "max_wait_ms": max_wait,
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "isolation_level": int(committed),
        "session_id": session[0],
        "session_epoch": session[1],
        "topics": topics,
        "forgotten_topics_data": [],
        "rack_id": rack,
    }


def got(version: int, answer: Any) -> list[Got]:
    """The partitions of a fetch's answer, in its order. Its top-level error must be none."""
    assert version < 7 or answer.error_code == 0, f"the fetch failed with {answer.error_code}"
    return [
        Got(
            raw_id(topic.topic_id) if version >= 13 else topic.topic,
            each.partition_index,
            each.error_code,
            None if each.records is None else bytes(each.records),
            each.high_watermark,
            each.last_stable_offset,
            each.log_start_offset if version >= 5 else -1,
            None
            if each.aborted_transactions is None
            else [(one.producer_id, one.first_offset) for one in each.aborted_transactions],
            each.preferred_read_replica if version >= 11 else -1,
            None
            if version < 12 or each.diverging_epoch is None
            else (each.diverging_epoch.epoch, each.diverging_epoch.end_offset),
            None
            if version < 12 or each.current_leader is None
            else (each.current_leader.leader_id, each.current_leader.leader_epoch),
        )
        for topic in answer.responses
        for each in topic.partitions
    ]


def produce_fields(
    version: int, topic: str | bytes, partition: int, records: bytes, *, acks: int = -1
) -> dict[str, Any]:
    kind = (ApiKey.PRODUCE, version, "TopicProduceData")
    data = request_part(*kind, "PartitionProduceData", index=partition, records=records)
    name = {"topic_id": text_id(topic)} if isinstance(topic, bytes) else {"name": topic}
    return {
        "transactional_id": None,
        "acks": acks,
        "timeout_ms": 10_000,
        "topic_data": [request_part(*kind, **name, partition_data=[data])],
    }


def _topic(key: str | bytes) -> dict[str, Any]:
    return {"topic_id": text_id(key)} if isinstance(key, bytes) else {"topic": key}
