"""Read and write the small and rare messages (`protocol.messages`), by kafka-python's classes (`kafka_messages`).

None of the messages that are encoded *again* here (ListOffsets and DeleteRecords responses) has a tagged field in any
version, so nothing is lost of those that kafka-python does not know. Those of groups are in `group_codec`.

`payload` is a frame without its four size bytes. A *response* is handed in whole, with its header; of a
*request* only the body, because its header was read already (`protocol.headers`). Versions outside
`CODEC_VERSIONS` raise MalformedError: nobody may send them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from kafka.protocol import admin, consumer, metadata

from protocol.apis import ApiKey, is_flexible
from protocol.errors import ErrorCode, MalformedError
from protocol.group_codec import GROUP_VERSIONS
from protocol.headers import response_header
from protocol.kafka_messages import decode, decode_response, encode
from protocol.messages import (
    NO_TOPIC_ID,
    DeleteAnswer,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    EpochEnd,
    ListOffsetsRequest,
    ListOffsetsResponse,
    Metadata,
    MetadataPartition,
    MetadataTopic,
    OffsetAnswer,
    ProducerState,
)
from protocol.wire import Buffer, Cursor

CODEC_VERSIONS: Mapping[int, tuple[int, int]] = {
    ApiKey.LIST_OFFSETS: (1, 11),  # v0 has another shape; 3.9 still offers it, no client in use sends it
    ApiKey.METADATA: (1, 13),  # v0 can't ask for all topics and lacks is_internal
    ApiKey.API_VERSIONS: (0, 3),
    ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),  # v0-1 are inter-broker only
    ApiKey.DESCRIBE_CONFIGS: (1, 4),
    **GROUP_VERSIONS,
    ApiKey.DESCRIBE_PRODUCERS: (0, 0),
    ApiKey.DESCRIBE_LOG_DIRS: (1, 4),
}
"""First and last version that this module and `group_codec` encode and decode, by API key."""

MAX_TOPICS = 50_000
"""Requests of clients about more topics are refused."""

RESOURCE_TOPIC = 2  # ConfigResource.Type.TOPIC


# ---- ApiVersions -------------------------------------------------------------------------------------------


def encode_api_versions_request(version: int, software_name: str, software_version: str) -> bytes:
    """Both texts must match `[a-zA-Z0-9](?:[a-zA-Z0-9\\-.]*[a-zA-Z0-9])?`, or the broker answers 42 (v3+)."""
    _check(ApiKey.API_VERSIONS, version)
    return encode(
        metadata.ApiVersionsRequest(
            version=version, client_software_name=software_name, client_software_version=software_version
        ),
        version,
    )


def decode_api_versions_response(payload: Buffer, version: int) -> tuple[int, dict[int, tuple[int, int]]]:
    """(error, {api key: (first, last version)}). Error 35 comes in v0's schema whatever was asked.

    An old broker answers so to a version that it does not know (KIP-511).
    """
    _check(ApiKey.API_VERSIONS, version)
    if len(payload) < 6:
        raise MalformedError("an ApiVersions response without an error code")
    error = int.from_bytes(payload[4:6], "big", signed=True)
    # The header has no tag section in any version, or an old client could not read the answer to a new one.
    message = decode(metadata.ApiVersionsResponse, payload, 4, 0 if error == ErrorCode.UNSUPPORTED_VERSION else version)
    return error, {api.api_key: (api.min_version, api.max_version) for api in message.api_keys or ()}


# ---- Metadata ----------------------------------------------------------------------------------------------


def encode_metadata_request(version: int, topics: Sequence[str] | None) -> bytes:
    """`None` asks for all topics. Asking creates no topic (below v4 the broker's own setting decides)."""
    _check(ApiKey.METADATA, version)
    asked = None
    if topics is not None:
        asked = [metadata.MetadataRequest.MetadataRequestTopic(version=version, name=name) for name in topics]
    return encode(metadata.MetadataRequest(version=version, topics=asked, allow_auto_topic_creation=False), version)


def decode_metadata_response(payload: Buffer, version: int) -> Metadata:
    """Topics without a name (an unknown id was asked for) are left out.

    The top-level error of v13 is not shown: it means "rebootstrap" (KIP-1102), and such an answer names no
    brokers.
    """
    _check(ApiKey.METADATA, version)
    message = decode_response(metadata.MetadataResponse, payload, version)
    return Metadata(
        cluster_id=message.cluster_id,
        controller=message.controller_id,
        brokers={broker.node_id: (broker.host, broker.port) for broker in message.brokers or ()},
        topics=tuple(_metadata_topic(topic) for topic in message.topics or () if topic.name is not None),
    )


def _metadata_topic(topic: Any) -> MetadataTopic:
    return MetadataTopic(
        error=topic.error_code,
        name=topic.name,
        topic_id=topic.topic_id.bytes if topic.topic_id is not None else NO_TOPIC_ID,
        internal=topic.is_internal,
        partitions=tuple(
            MetadataPartition(
                part.error_code,
                part.partition_index,
                part.leader_id,
                part.leader_epoch,
                tuple(part.replica_nodes or ()),
            )
            for part in topic.partitions or ()
        ),
    )


# ---- ListOffsets -------------------------------------------------------------------------------------------


def encode_list_offsets_request(version: int, isolation: int, partitions: Iterable[tuple[str, int, int, int]]) -> bytes:
    """`partitions` are (topic, partition, current leader epoch or -1, timestamp), each partition once."""
    _check(ApiKey.LIST_OFFSETS, version)
    kafka_topic = consumer.ListOffsetsRequest.ListOffsetsTopic
    topics = [
        kafka_topic(
            version=version,
            name=name,
            partitions=[
                kafka_topic.ListOffsetsPartition(
                    version=version, partition_index=index, current_leader_epoch=epoch, timestamp=timestamp
                )
                for _, index, epoch, timestamp in group
            ],
        )
        for name, group in groupby(partitions, key=lambda each: each[0])
    ]
    return encode(
        consumer.ListOffsetsRequest(
            version=version, replica_id=-1, isolation_level=isolation, topics=topics, timeout_ms=0
        ),
        version,
    )


def decode_list_offsets_request(body: Buffer, version: int) -> ListOffsetsRequest:
    """`body` is the request after its header."""
    _check(ApiKey.LIST_OFFSETS, version)
    _check_topics(ApiKey.LIST_OFFSETS, version, body, 5 if version >= 2 else 4)
    message = decode(consumer.ListOffsetsRequest, body, 0, version)
    return ListOffsetsRequest(
        isolation=message.isolation_level if version >= 2 else 0,
        partitions=[
            (name, part.partition_index, part.timestamp) for name, part in _each(message.topics, "ListOffsets")
        ],
    )


def decode_list_offsets_response(payload: Buffer, version: int) -> ListOffsetsResponse:
    _check(ApiKey.LIST_OFFSETS, version)
    message = decode_response(consumer.ListOffsetsResponse, payload, version)
    return ListOffsetsResponse(
        throttle_ms=message.throttle_time_ms if version >= 2 else 0,
        partitions=[
            OffsetAnswer(name, part.partition_index, part.error_code, part.timestamp, part.offset, part.leader_epoch)
            for name, part in _each(message.topics, "ListOffsets")
        ],
    )


def encode_list_offsets_response(response: ListOffsetsResponse, version: int, correlation_id: int) -> bytes:
    """The payload, header included. Neighbouring partitions of one topic are grouped, as a broker does."""
    _check(ApiKey.LIST_OFFSETS, version)
    kafka_topic = consumer.ListOffsetsResponse.ListOffsetsTopicResponse
    topics = [
        kafka_topic(
            version=version,
            name=name,
            partitions=[
                kafka_topic.ListOffsetsPartitionResponse(
                    version=version,
                    partition_index=part.partition,
                    error_code=part.error,
                    timestamp=part.timestamp,
                    offset=part.offset,
                    leader_epoch=part.leader_epoch,
                )
                for part in group
            ],
        )
        for name, group in groupby(response.partitions, key=lambda each: each.topic)
    ]
    message = consumer.ListOffsetsResponse(version=version, throttle_time_ms=response.throttle_ms, topics=topics)
    return response_header(ApiKey.LIST_OFFSETS, version, correlation_id) + encode(message, version)


# ---- DeleteRecords -----------------------------------------------------------------------------------------


def encode_delete_records_request(version: int, timeout_ms: int, partitions: Iterable[tuple[str, int, int]]) -> bytes:
    """`partitions` are (topic, partition, offset)."""
    _check(ApiKey.DELETE_RECORDS, version)
    kafka_topic = admin.DeleteRecordsRequest.DeleteRecordsTopic
    topics = [
        kafka_topic(
            version=version,
            name=name,
            partitions=[
                kafka_topic.DeleteRecordsPartition(version=version, partition_index=index, offset=offset)
                for _, index, offset in group
            ],
        )
        for name, group in groupby(partitions, key=lambda each: each[0])
    ]
    return encode(admin.DeleteRecordsRequest(version=version, topics=topics, timeout_ms=timeout_ms), version)


def decode_delete_records_request(body: Buffer, version: int) -> DeleteRecordsRequest:
    """`body` is the request after its header."""
    _check(ApiKey.DELETE_RECORDS, version)
    _check_topics(ApiKey.DELETE_RECORDS, version, body, 0)
    message = decode(admin.DeleteRecordsRequest, body, 0, version)
    return DeleteRecordsRequest(
        timeout_ms=message.timeout_ms,
        partitions=[(name, part.partition_index, part.offset) for name, part in _each(message.topics, "DeleteRecords")],
    )


def decode_delete_records_response(payload: Buffer, version: int) -> DeleteRecordsResponse:
    _check(ApiKey.DELETE_RECORDS, version)
    message = decode_response(admin.DeleteRecordsResponse, payload, version)
    return DeleteRecordsResponse(
        throttle_ms=message.throttle_time_ms,
        partitions=[
            DeleteAnswer(name, part.partition_index, part.low_watermark, part.error_code)
            for name, part in _each(message.topics, "DeleteRecords")
        ],
    )


def encode_delete_records_response(response: DeleteRecordsResponse, version: int, correlation_id: int) -> bytes:
    """The payload, header included."""
    _check(ApiKey.DELETE_RECORDS, version)
    kafka_topic = admin.DeleteRecordsResponse.DeleteRecordsTopicResult
    topics = [
        kafka_topic(
            version=version,
            name=name,
            partitions=[
                kafka_topic.DeleteRecordsPartitionResult(
                    version=version,
                    partition_index=part.partition,
                    low_watermark=part.low_watermark,
                    error_code=part.error,
                )
                for part in group
            ],
        )
        for name, group in groupby(response.partitions, key=lambda each: each.topic)
    ]
    message = admin.DeleteRecordsResponse(version=version, throttle_time_ms=response.throttle_ms, topics=topics)
    return response_header(ApiKey.DELETE_RECORDS, version, correlation_id) + encode(message, version)


# ---- OffsetForLeaderEpoch ----------------------------------------------------------------------------------


def encode_epoch_ends_request(version: int, partitions: Iterable[tuple[str, int, int, int]]) -> bytes:
    """`partitions` are (topic, partition, current leader epoch or -1, epoch whose end is asked for)."""
    _check(ApiKey.OFFSET_FOR_LEADER_EPOCH, version)
    kafka_topic = consumer.OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    topics = [
        kafka_topic(
            version=version,
            topic=name,
            partitions=[
                kafka_topic.OffsetForLeaderPartition(
                    version=version, partition=index, current_leader_epoch=current, leader_epoch=epoch
                )
                for _, index, current, epoch in group
            ],
        )
        for name, group in groupby(partitions, key=lambda each: each[0])
    ]
    return encode(consumer.OffsetForLeaderEpochRequest(version=version, replica_id=-1, topics=topics), version)


def decode_epoch_ends_response(payload: Buffer, version: int) -> list[EpochEnd]:
    """leader_epoch and end_offset are -1 where the broker has nothing for the asked epoch."""
    _check(ApiKey.OFFSET_FOR_LEADER_EPOCH, version)
    message = decode_response(consumer.OffsetForLeaderEpochResponse, payload, version)
    return [
        EpochEnd(topic.topic, part.partition, part.error_code, part.leader_epoch, part.end_offset)
        for topic in message.topics or ()
        for part in topic.partitions or ()
    ]


# ---- DescribeConfigs ---------------------------------------------------------------------------------------


def encode_topic_configs_request(version: int, topics: Iterable[str]) -> bytes:
    _check(ApiKey.DESCRIBE_CONFIGS, version)
    resources = [
        admin.DescribeConfigsRequest.DescribeConfigsResource(
            version=version, resource_type=RESOURCE_TOPIC, resource_name=topic, configuration_keys=None
        )
        for topic in topics
    ]
    return encode(admin.DescribeConfigsRequest(version=version, resources=resources), version)


def decode_topic_configs_response(payload: Buffer, version: int) -> dict[str, tuple[int, dict[str, str]]]:
    """{topic: (error, {setting: value})}; settings without a value (secrets) are left out."""
    _check(ApiKey.DESCRIBE_CONFIGS, version)
    message = decode_response(admin.DescribeConfigsResponse, payload, version)
    return {
        result.resource_name: (
            result.error_code,
            {config.name: config.value for config in result.configs or () if config.value is not None},
        )
        for result in message.results or ()
        if result.resource_type == RESOURCE_TOPIC
    }


# ---- DescribeProducers -------------------------------------------------------------------------------------


def encode_producers_request(version: int, partitions: Iterable[tuple[str, int]]) -> bytes:
    """`partitions` are (topic, partition)."""
    _check(ApiKey.DESCRIBE_PRODUCERS, version)
    kafka_topic = admin.DescribeProducersRequest.TopicRequest
    topics = [
        kafka_topic(version=version, name=name, partition_indexes=[index for _, index in group])
        for name, group in groupby(partitions, key=lambda each: each[0])
    ]
    return encode(admin.DescribeProducersRequest(version=version, topics=topics), version)


def decode_producers_response(
    payload: Buffer, version: int
) -> dict[tuple[str, int], tuple[int, tuple[ProducerState, ...]]]:
    """{(topic, partition): (error, its producers)}."""
    _check(ApiKey.DESCRIBE_PRODUCERS, version)
    message = decode_response(admin.DescribeProducersResponse, payload, version)
    return {
        (topic.name, part.partition_index): (
            part.error_code,
            tuple(
                ProducerState(each.producer_id, each.producer_epoch, each.last_timestamp, each.current_txn_start_offset)
                for each in part.active_producers or ()
            ),
        )
        for topic in message.topics or ()
        for part in topic.partitions or ()
    }


# ---- DescribeLogDirs ---------------------------------------------------------------------------------------


def encode_log_dirs_request(version: int, partitions: Iterable[tuple[str, int]]) -> bytes:
    """`partitions` are (topic, partition), those of a topic beside each other."""
    _check(ApiKey.DESCRIBE_LOG_DIRS, version)
    kafka_topic = admin.DescribeLogDirsRequest.DescribableLogDirTopic
    topics = [
        kafka_topic(version=version, topic=name, partitions=[index for _, index in group])
        for name, group in groupby(partitions, key=lambda each: each[0])
    ]
    return encode(admin.DescribeLogDirsRequest(version=version, topics=topics), version)


def decode_log_dirs_response(payload: Buffer, version: int) -> tuple[int, dict[tuple[str, int], int]]:
    """(error, {(topic, partition): bytes of its log's segments on this broker}).

    The error is that of the whole answer, or of the first directory that has one. Below v3 a broker says "not
    authorized" by naming no directory, of which each has one at least. Copies that are on their way between two
    directories don't count.
    """
    _check(ApiKey.DESCRIBE_LOG_DIRS, version)
    message = decode_response(admin.DescribeLogDirsResponse, payload, version)
    results = message.results or ()
    error = message.error_code if version >= 3 else ErrorCode.NONE
    if not results and not error:
        error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    sizes = {
        (topic.name, part.partition_index): part.partition_size
        for result in results
        for topic in result.topics or ()
        for part in topic.partitions or ()
        if not part.is_future_key
    }
    return error or next((result.error_code for result in results if result.error_code), ErrorCode.NONE), sizes


# ---- what all of them share --------------------------------------------------------------------------------


def _check(key: int, version: int) -> None:
    first, last = CODEC_VERSIONS[key]
    if not first <= version <= last:
        raise MalformedError(f"API {key} version {version}: only {first} to {last} can be read or written")


def _check_topics(key: int, version: int, body: Buffer, pos: int) -> None:
    """Refuse what would take too long to decode: a topic without partitions has three bytes, and costs 10 us."""
    cur = Cursor(body, pos)
    topics = cur.compact_array_len(nullable=True) if is_flexible(key, version) else cur.array_len(nullable=True)
    if topics > MAX_TOPICS:
        raise MalformedError(f"a request of API {key} about {topics} topics")


def _each(topics: Any, what: str) -> Iterator[tuple[str, Any]]:
    for topic in topics or ():
        if topic.name is None:
            raise MalformedError(f"{what}: a topic without a name")
        for part in topic.partitions or ():
            yield topic.name, part
