from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol import consumer, metadata, producer

from protocol.apis import ApiKey
from protocol.errors import MalformedError, TruncatedError
from protocol.headers import (
    RequestHeader,
    read_request_header,
    request_header,
    response_body_at,
    response_header,
)
from tests.unit.protocol.reading import reads_alike_from_every_buffer, refuses_every_truncation
from tests.vectors import vector

MESSAGES: list[Any] = [
    consumer.FetchRequest,
    consumer.ListOffsetsRequest,
    metadata.ApiVersionsRequest,
    metadata.MetadataRequest,
    metadata.FindCoordinatorRequest,
    producer.ProduceRequest,
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda kind: str(kind.__name__))
@pytest.mark.parametrize("client_id", [None, "", "me", "ä" * 200])
def test_request_headers_are_kafka_pythons(message: Any, client_id: str | None) -> None:
    for version in range(message.max_version + 1):
        request = message(version=version)
        request.with_header(correlation_id=-7, client_id=client_id)
        data = bytes(request.encode_header(flexible=message.flexible_version_q(version)))
        expected = None if client_id is None else client_id.encode()
        assert read_request_header(data + b"body") == RequestHeader(message.API_KEY, version, -7, expected, len(data))
        if client_id is not None:
            assert request_header(message.API_KEY, version, -7, client_id) == data


@pytest.mark.parametrize(
    ("name", "client_id"),
    [
        ("fetch-request-java-v18", b"console-consumer"),
        ("fetch-request-librdkafka-v16", b"rdkafka"),
        ("fetch-request-kafka-python-v12", b"kafka-python-3.0.12"),
        ("fetch-request-aiokafka-v11", b"aiokafka-0.14.0"),
    ],
)
def test_headers_of_real_clients(name: str, client_id: bytes) -> None:
    header = read_request_header(vector(name))
    assert (header.api_key, header.version) == (ApiKey.FETCH, int(name.rpartition("-v")[2]))
    assert header.client_id == client_id
    assert header.body_at == 10 + len(client_id) + (header.version >= 12)


def test_tags_of_a_request_header_are_skipped() -> None:
    data = bytes.fromhex("0001 000c 00000001 0001 61") + bytes.fromhex("02 00 03 aabbcc 05 00")
    assert read_request_header(data + b"body") == RequestHeader(1, 12, 1, b"a", len(data))


def test_an_unknown_key_is_read_as_header_v1() -> None:
    data = bytes.fromhex("03e7 0005 00000001 ffff")
    assert read_request_header(data) == RequestHeader(999, 5, 1, None, 10)


def test_a_client_id_need_not_be_text() -> None:
    assert read_request_header(bytes.fromhex("0012 0000 00000001 0002 ffff")).client_id == b"\xff\xff"


def test_a_header_cut_short_is_truncated_and_a_broken_one_is_not() -> None:
    whole = request_header(ApiKey.FETCH, 17, 5, "client")
    refuses_every_truncation(read_request_header, whole)
    for cut in range(len(whole)):
        with pytest.raises(TruncatedError):
            read_request_header(whole[:cut])
    with pytest.raises(MalformedError) as caught:
        read_request_header(bytes.fromhex("0001 0004 00000001 fffe") + bytes(20))
    assert not isinstance(caught.value, TruncatedError)


def test_from_every_buffer() -> None:
    reads_alike_from_every_buffer(read_request_header, request_header(ApiKey.FETCH, 17, 5, "client") + b"body")


@given(st.binary(max_size=40))
def test_no_bytes_can_lead_it_astray(data: bytes) -> None:
    try:
        header = read_request_header(data)
    except MalformedError:
        return
    assert 10 <= header.body_at <= len(data)


@pytest.mark.parametrize(
    ("key", "version", "payload", "body_at"),
    [
        (ApiKey.FETCH, 11, "00000005", 4),
        (ApiKey.FETCH, 12, "00000005 00", 5),
        (ApiKey.FETCH, 12, "00000005 01 07 02 aabb", 9),
        (ApiKey.API_VERSIONS, 3, "00000005", 4),
        (ApiKey.SASL_HANDSHAKE, 1, "00000005", 4),
    ],
)
def test_where_the_body_of_a_response_starts(key: int, version: int, payload: str, body_at: int) -> None:
    data = bytes.fromhex(payload)
    assert response_body_at(key, version, data + b"\xff\xff") == body_at
    refuses_every_truncation(lambda cut: response_body_at(key, version, cut), data)


@pytest.mark.parametrize("version", range(4, 19))
def test_response_headers_are_a_brokers(version: int) -> None:
    answer = vector(f"fetch-v{version}")
    assert answer.startswith(response_header(ApiKey.FETCH, version, version))
    assert response_body_at(ApiKey.FETCH, version, answer) == len(response_header(ApiKey.FETCH, version, version))
