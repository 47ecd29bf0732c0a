"""Requests and answers as kafka-python's message classes: untyped, so `Any` begins and ends here.

The product's codecs are not used on purpose: a fake that spoke with the tongue under test would agree with it.
"""

from itertools import groupby
from typing import Any
from uuid import UUID

from kafka.protocol import admin, consumer, metadata, producer

from protocol.apis import ApiKey
from protocol.headers import RequestHeader

REQUESTS: dict[int, Any] = {
    ApiKey.PRODUCE: producer.ProduceRequest,
    ApiKey.FETCH: consumer.FetchRequest,
    ApiKey.LIST_OFFSETS: consumer.ListOffsetsRequest,
    ApiKey.METADATA: metadata.MetadataRequest,
    ApiKey.FIND_COORDINATOR: metadata.FindCoordinatorRequest,
    ApiKey.API_VERSIONS: metadata.ApiVersionsRequest,
    ApiKey.DELETE_RECORDS: admin.DeleteRecordsRequest,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: consumer.OffsetForLeaderEpochRequest,
    ApiKey.DESCRIBE_CONFIGS: admin.DescribeConfigsRequest,
    ApiKey.DESCRIBE_CLUSTER: admin.DescribeClusterRequest,
}

RESPONSES: dict[int, Any] = {
    ApiKey.PRODUCE: producer.ProduceResponse,
    ApiKey.FETCH: consumer.FetchResponse,
    ApiKey.LIST_OFFSETS: consumer.ListOffsetsResponse,
    ApiKey.METADATA: metadata.MetadataResponse,
    ApiKey.FIND_COORDINATOR: metadata.FindCoordinatorResponse,
    ApiKey.API_VERSIONS: metadata.ApiVersionsResponse,
    ApiKey.DELETE_RECORDS: admin.DeleteRecordsResponse,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: consumer.OffsetForLeaderEpochResponse,
    ApiKey.DESCRIBE_CONFIGS: admin.DescribeConfigsResponse,
    ApiKey.DESCRIBE_CLUSTER: admin.DescribeClusterResponse,
}

ZERO_ID = bytes(16)


def decode_request(payload: bytes, header: RequestHeader) -> Any:
    """The body of a request; whatever kafka-python raises for bytes that are none."""
    return REQUESTS[header.api_key].decode(payload[header.body_at :], version=header.version)


def encode_request(key: int, version: int, correlation_id: int, client_id: str = "test", /, **fields: Any) -> bytes:
    """The payload of a request, header included."""
    message = REQUESTS[key](version=version, **fields)
    message.with_header(correlation_id=correlation_id, client_id=client_id)
    return bytes(message.encode(header=True))


def encode_response(key: int, version: int, correlation_id: int, /, **fields: Any) -> bytes:
    """The payload of an answer, header included."""
    message = RESPONSES[key](version=version, **fields)
    message.with_header(correlation_id=correlation_id)
    return bytes(message.encode(header=True))


def decode_response(key: int, version: int, payload: bytes) -> Any:
    return RESPONSES[key].decode(payload, version=version, header=True)


def part(api: int, version: int, /, *path: str, **fields: Any) -> Any:
    """One element of an answer's arrays, by the names of its classes: part(FETCH, 12, "NodeEndpoint", node_id=1)."""
    kind = RESPONSES[api]
    for name in path:
        kind = getattr(kind, name)
    return kind(version=version, **fields)


def request_part(api: int, version: int, /, *path: str, **fields: Any) -> Any:
    """As `part`, of a request."""
    kind = REQUESTS[api]
    for name in path:
        kind = getattr(kind, name)
    return kind(version=version, **fields)


def by_topic(answers: list[tuple[Any, Any]]) -> list[tuple[Any, list[Any]]]:
    """(topic, [answers]) of neighbours: a topic may come up several times, as it does at a broker."""
    return [(key, [each for _, each in group]) for key, group in groupby(answers, key=lambda pair: pair[0])]


def raw_id(uuid: UUID | None) -> bytes:
    """kafka-python gives None for the zero id."""
    return ZERO_ID if uuid is None else uuid.bytes


def text_id(raw: bytes) -> UUID | None:
    return None if raw == ZERO_ID else UUID(bytes=raw)
