"""The other side of the small messages: requests read and answers written, for a broker of our own (tierproxy.alone).

By kafka-python's classes, as in `codec`, which says what must be minded with them. A request is handed in as its body;
an answer is a payload, header included. Versions that are not in `SERVED` are not for here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from kafka.protocol import consumer, metadata, producer

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from protocol.headers import response_header
from protocol.kafka_messages import decode as decode_message
from protocol.kafka_messages import encode as encode_message
from protocol.messages import NO_TOPIC_ID, EpochEnd, MetadataTopic
from protocol.wire import Buffer

SERVED: Mapping[int, tuple[int, int]] = {
    ApiKey.PRODUCE: (3, 13),
    ApiKey.METADATA: (0, 13),
    ApiKey.OFFSET_COMMIT: (1, 9),
    ApiKey.OFFSET_FETCH: (1, 9),
    ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.JOIN_GROUP: (0, 9),
    ApiKey.HEARTBEAT: (0, 4),
    ApiKey.LEAVE_GROUP: (0, 5),
    ApiKey.SYNC_GROUP: (0, 5),
    ApiKey.API_VERSIONS: (0, 4),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
}
"""First and last version of what is read and written here. OffsetCommit and OffsetFetch from v10 on go by topic id."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker as clients are told of it."""

    node_id: int
    host: str
    port: int


def answer_of(key: int, version: int, correlation_id: int, message: Any) -> bytes:
    """The payload of one of kafka-python's messages."""
    return response_header(key, version, correlation_id) + encode_message(message, version)


# ---- ApiVersions, Metadata ---------------------------------------------------------------------------------


def api_versions_answer(version: int, correlation_id: int, offered: Mapping[int, tuple[int, int]]) -> bytes:
    kafka_api = metadata.ApiVersionsResponse.ApiVersion
    apis = [
        kafka_api(version=version, api_key=key, min_version=first, max_version=last)
        for key, (first, last) in sorted(offered.items())
    ]
    message = metadata.ApiVersionsResponse(version=version, error_code=0, api_keys=apis, throttle_time_ms=0)
    return answer_of(ApiKey.API_VERSIONS, version, correlation_id, message)


def metadata_question(body: Buffer, version: int) -> list[str | bytes] | None:
    """Names and (v10+) topic ids, in their order; None for all topics.

    librdkafka 2.16 asks for all topics with three bytes too many, which brokers pass over.
    """
    message = decode_message(metadata.MetadataRequest, body, 0, version, more=True)
    if message.topics is None or (version == 0 and not message.topics):
        return None
    return [
        topic.name if topic.name is not None else (topic.topic_id.bytes if topic.topic_id else NO_TOPIC_ID)
        for topic in message.topics
    ]


def metadata_answer(
    version: int,
    correlation_id: int,
    cluster_id: str | None,
    broker: Endpoint,
    topics: Sequence[MetadataTopic | tuple[str | bytes, int]],
) -> bytes:
    """One broker leads everything; a topic that can't be described is given as (name or id, error)."""
    kafka_broker = metadata.MetadataResponse.MetadataResponseBroker
    brokers = [kafka_broker(version=version, node_id=broker.node_id, host=broker.host, port=broker.port)]
    message = metadata.MetadataResponse(
        version=version,
        throttle_time_ms=0,
        brokers=brokers,
        cluster_id=cluster_id,
        controller_id=broker.node_id,
        topics=[_metadata_topic(version, broker.node_id, topic) for topic in topics],
    )
    return answer_of(ApiKey.METADATA, version, correlation_id, message)


def _metadata_topic(version: int, node_id: int, topic: MetadataTopic | tuple[str | bytes, int]) -> Any:
    kafka_topic = metadata.MetadataResponse.MetadataResponseTopic
    if isinstance(topic, tuple):
        asked, error = topic
        by_id = isinstance(asked, bytes)
        return kafka_topic(
            version=version,
            error_code=error,
            name=None if by_id else asked,
            topic_id=_uuid(asked) if isinstance(asked, bytes) else None,
            partitions=[],
        )
    partitions = [
        kafka_topic.MetadataResponsePartition(
            version=version,
            error_code=part.error,
            partition_index=part.index,
            leader_id=part.leader,
            leader_epoch=part.leader_epoch,
            replica_nodes=[node_id],
            isr_nodes=[node_id],
            offline_replicas=[],
        )
        for part in topic.partitions
    ]
    return kafka_topic(
        version=version,
        error_code=topic.error,
        name=topic.name,
        topic_id=_uuid(topic.topic_id),
        is_internal=topic.internal,
        partitions=partitions,
    )


def _uuid(topic_id: bytes) -> UUID | None:
    return None if topic_id == NO_TOPIC_ID else UUID(bytes=topic_id)


# ---- OffsetForLeaderEpoch ----------------------------------------------------------------------------------


def epoch_ends_question(body: Buffer, version: int) -> list[tuple[str, int, int]]:
    """(topic, partition, the epoch whose end is asked for)"""
    message = decode_message(consumer.OffsetForLeaderEpochRequest, body, 0, version)
    return [(topic.topic, part.partition, part.leader_epoch) for topic in message.topics for part in topic.partitions]


def epoch_ends_answer(version: int, correlation_id: int, ends: Iterable[EpochEnd]) -> bytes:
    kafka_topic = consumer.OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult
    topics = [
        kafka_topic(
            version=version,
            topic=name,
            partitions=[
                kafka_topic.EpochEndOffset(
                    version=version,
                    error_code=end.error,
                    partition=end.partition,
                    leader_epoch=end.leader_epoch,
                    end_offset=end.end_offset,
                )
                for end in group
            ],
        )
        for name, group in groupby(ends, key=lambda end: end.topic)
    ]
    message = consumer.OffsetForLeaderEpochResponse(version=version, throttle_time_ms=0, topics=topics)
    return answer_of(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, correlation_id, message)


# ---- Produce -----------------------------------------------------------------------------------------------


def produce_refusal(body: Buffer, version: int, correlation_id: int, error: ErrorCode, words: str) -> bytes | None:
    """None where the producer wants no answer (acks=0): it can only be told by closing."""
    asked = decode_message(producer.ProduceRequest, body, 0, version)
    if asked.acks == 0:
        return None
    kafka_topic = producer.ProduceResponse.TopicProduceResponse
    told = {"record_errors": [], "error_message": words} if version >= 8 else {}
    topics = [
        kafka_topic(
            version=version,
            **({"topic_id": topic.topic_id} if version >= 13 else {"name": topic.name}),
            partition_responses=[
                kafka_topic.PartitionProduceResponse(
                    version=version, index=part.index, error_code=error, base_offset=-1, **told
                )
                for part in topic.partition_data
            ],
        )
        for topic in asked.topic_data
    ]
    message = producer.ProduceResponse(version=version, responses=topics, throttle_time_ms=0)
    return answer_of(ApiKey.PRODUCE, version, correlation_id, message)
