from collections.abc import Iterator
from typing import Any

import pytest
from kafka.protocol import admin, consumer, metadata, producer, sasl

from protocol.api_versions import read_api_versions
from protocol.apis import ApiKey, is_flexible, request_header_has_tags, response_header_has_tags
from tests.vectors import vector


def kafka_python_messages() -> Iterator[Any]:
    for module in (admin, consumer, metadata, producer, sasl):
        for name in module.__all__:
            kind = getattr(module, name)
            if name.endswith(("Request", "Response")) and hasattr(kind, "API_KEY"):
                yield kind


@pytest.mark.parametrize("message", list(kafka_python_messages()), ids=lambda kind: str(kind.__name__))
def test_first_flexible_versions_are_kafka_pythons(message: Any) -> None:
    for version in range(message.max_version + 1):
        assert is_flexible(message.API_KEY, version) == message.flexible_version_q(version), version


def test_kafka_python_was_asked_about_the_apis_that_are_read_or_patched_here() -> None:
    asked = {kind.API_KEY for kind in kafka_python_messages()}
    assert asked >= {
        ApiKey.PRODUCE,
        ApiKey.FETCH,
        ApiKey.LIST_OFFSETS,
        ApiKey.METADATA,
        ApiKey.FIND_COORDINATOR,
        ApiKey.API_VERSIONS,
        ApiKey.DELETE_RECORDS,
        ApiKey.OFFSET_FOR_LEADER_EPOCH,
        ApiKey.DESCRIBE_CLUSTER,
    }


def test_every_key_a_broker_offers_has_a_name() -> None:
    assert set(read_api_versions(vector("api-versions-v4"), 4)) <= set(ApiKey)


def test_keys_follow_one_another() -> None:
    assert list(ApiKey) == list(range(93))


def test_response_headers_of_api_versions_never_have_tags() -> None:
    for version in range(6):
        assert not response_header_has_tags(ApiKey.API_VERSIONS, version)
    assert request_header_has_tags(ApiKey.API_VERSIONS, 3)


def test_other_headers_have_tags_in_flexible_versions() -> None:
    for has_tags in (request_header_has_tags, response_header_has_tags):
        assert not has_tags(ApiKey.FETCH, 11)
        assert has_tags(ApiKey.FETCH, 12)
        assert not has_tags(ApiKey.SASL_HANDSHAKE, 1)
        assert has_tags(ApiKey.SHARE_FETCH, 1)


def test_an_unknown_key_is_not_flexible() -> None:
    assert not is_flexible(999, 9)
    assert not request_header_has_tags(-1, 9)
    assert not response_header_has_tags(93, 9)
