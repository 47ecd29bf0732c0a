"""Requests as bytes and answers as objects, by kafka-python: a second opinion on everything `protocol/` does.

What writes is answered by errors first: those readers return (error codes, what was asked for).
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar
from uuid import UUID

from kafka.protocol import admin, consumer, metadata, producer

CLIENT_ID = "differential"
_CORRELATION = 7
T = TypeVar("T")


def encode(message: Any) -> bytes:
    """Header and body."""
    message.with_header(correlation_id=_CORRELATION, client_id=CLIENT_ID)
    return bytes(message.encode(header=True))


def decode(kind: Any, payload: bytes, version: int) -> Any:
    return kind.decode(payload, version=version, header=True)


def grouped(places: Iterable[T]) -> Iterator[tuple[str, list[T]]]:
    """Neighbours of one topic together, as clients group them. Each place has a `topic`."""
    for topic, group in groupby(places, key=lambda place: place.topic):  # type: ignore[attr-defined]  # see above
        yield topic, list(group)


def topic_key(version: int, first_by_id: int, name: str, topic_id: bytes) -> dict[str, Any]:
    """How a topic entry of this version names its topic."""
    return {"topic_id": UUID(bytes=topic_id)} if version >= first_by_id else {"topic": name}


def api_versions(version: int = 2) -> bytes:
    return encode(metadata.ApiVersionsRequest(version=version))


def read_api_versions(payload: bytes, version: int = 2) -> dict[int, tuple[int, int]]:
    answer = decode(metadata.ApiVersionsResponse, payload, version)
    return {each.api_key: (each.min_version, each.max_version) for each in answer.api_keys}


def topics(names: Iterable[str]) -> bytes:
    kind = metadata.MetadataRequest
    asked = [kind.MetadataRequestTopic(version=12, name=name) for name in names]
    return encode(kind(version=12, topics=asked, allow_auto_topic_creation=False))


def read_topic_ids(payload: bytes) -> dict[str, bytes]:
    """Ids of those topics that have a leader for every partition."""
    answer = decode(metadata.MetadataResponse, payload, 12)
    return {
        topic.name: topic.topic_id.bytes
        for topic in answer.topics
        if not topic.error_code and all(not part.error_code for part in topic.partitions)
    }


def read_leader_epoch(payload: bytes) -> int:
    """The leader epoch that all partitions share."""
    answer = decode(metadata.MetadataResponse, payload, 12)
    (epoch,) = {part.leader_epoch for topic in answer.topics for part in topic.partitions}
    assert isinstance(epoch, int)
    return epoch


def delete_records(topic: str, partition: int, offset: int) -> bytes:
    kind = admin.DeleteRecordsRequest
    part = kind.DeleteRecordsTopic.DeleteRecordsPartition(version=2, partition_index=partition, offset=offset)
    wanted = kind.DeleteRecordsTopic(version=2, name=topic, partitions=[part])
    return encode(kind(version=2, topics=[wanted], timeout_ms=30_000))


def read_deleted(payload: bytes) -> tuple[list[int], int]:
    """The low watermark of the one partition."""
    part = decode(admin.DeleteRecordsResponse, payload, 2).topics[0].partitions[0]
    return [part.error_code], part.low_watermark


def produce(names: Iterable[str], partition: int, batch: bytes, transactional_id: str | None) -> bytes:
    """The same batch to a partition of each topic, acknowledged by all replicas."""
    kind, version = producer.ProduceRequest, 8
    data = [
        kind.TopicProduceData(
            version=version,
            name=name,
            partition_data=[
                kind.TopicProduceData.PartitionProduceData(version=version, index=partition, records=batch)
            ],
        )
        for name in names
    ]
    return encode(kind(version=version, transactional_id=transactional_id, acks=-1, timeout_ms=30_000, topic_data=data))


def read_produced(payload: bytes) -> tuple[list[int], list[int]]:
    """The base offset in each topic's partition."""
    answer = decode(producer.ProduceResponse, payload, 8)
    parts = [part for topic in answer.responses for part in topic.partition_responses]
    return [part.error_code for part in parts], [part.base_offset for part in parts]


def find_transaction_coordinator(transactional_id: str) -> bytes:
    return encode(metadata.FindCoordinatorRequest(version=2, key=transactional_id, key_type=1))


def read_coordinator(payload: bytes) -> tuple[list[int], None]:
    return [decode(metadata.FindCoordinatorResponse, payload, 2).error_code], None


def init_producer(transactional_id: str | None, timeout_ms: int) -> bytes:
    return encode(
        producer.InitProducerIdRequest(version=1, transactional_id=transactional_id, transaction_timeout_ms=timeout_ms)
    )


def read_producer(payload: bytes) -> tuple[list[int], tuple[int, int]]:
    """Producer id and epoch."""
    answer = decode(producer.InitProducerIdResponse, payload, 1)
    return [answer.error_code], (answer.producer_id, answer.producer_epoch)


def add_to_transaction(transactional_id: str, pid: int, names: Iterable[str], partition: int) -> bytes:
    kind = producer.AddPartitionsToTxnRequest
    wanted = kind.AddPartitionsToTxnTopic
    return encode(
        kind(
            version=1,
            v3_and_below_transactional_id=transactional_id,
            v3_and_below_producer_id=pid,
            v3_and_below_producer_epoch=0,
            v3_and_below_topics=[wanted(version=1, name=name, partitions=[partition]) for name in names],
        )
    )


def read_added(payload: bytes) -> tuple[list[int], None]:
    answer = decode(producer.AddPartitionsToTxnResponse, payload, 1)
    topics_ = answer.results_by_topic_v3_and_below
    return [part.partition_error_code for topic in topics_ for part in topic.results_by_partition], None


def end_transaction(transactional_id: str, pid: int, *, commit: bool) -> bytes:
    return encode(
        producer.EndTxnRequest(
            version=1, transactional_id=transactional_id, producer_id=pid, producer_epoch=0, committed=commit
        )
    )


def read_ended(payload: bytes) -> tuple[list[int], None]:
    return [decode(producer.EndTxnResponse, payload, 1).error_code], None


def list_offsets(names: Iterable[str], partition: int, timestamp: int, isolation: int) -> bytes:
    """The same question about a partition of each topic."""
    kind, version = consumer.ListOffsetsRequest, 4
    wanted = [
        kind.ListOffsetsTopic(
            version=version,
            name=name,
            partitions=[
                kind.ListOffsetsTopic.ListOffsetsPartition(
                    version=version, partition_index=partition, current_leader_epoch=-1, timestamp=timestamp
                )
            ],
        )
        for name in names
    ]
    return encode(kind(version=version, replica_id=-1, isolation_level=isolation, topics=wanted))


def read_offsets(payload: bytes) -> tuple[list[int], list[int]]:
    """The offset of each."""
    answer = decode(consumer.ListOffsetsResponse, payload, 4)
    parts = [part for topic in answer.topics for part in topic.partitions]
    return [part.error_code for part in parts], [part.offset for part in parts]
