"""ApiVersions v0-4: what this broker offers, which is what the other files here do.

- A version above the last is answered with error 35 in the layout of v0, and the connection lives on (KIP-511).
- v3+: client names that Kafka would not put into a metric name get error 42, and no keys.

NOT done: features.
"""

import re
from typing import TYPE_CHECKING

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.node import Node

OFFERED: dict[int, tuple[int, int]] = {
    ApiKey.PRODUCE: (0, 13),
    ApiKey.FETCH: (4, 18),
    ApiKey.LIST_OFFSETS: (1, 11),
    ApiKey.METADATA: (0, 13),
    ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.API_VERSIONS: (0, 4),
    ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4),
    ApiKey.DESCRIBE_CONFIGS: (1, 4),
    ApiKey.DESCRIBE_CLUSTER: (0, 2),
}
"""Kafka 4.3.1's ranges of the APIs that are faked."""

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


async def answer(node: "Node", request: Request) -> Answer:
    error, version, versions = ErrorCode.NONE, request.version, dict(node.cluster.versions)
    if request.message is None:
        error, version = ErrorCode.UNSUPPORTED_VERSION, 0
        versions = {ApiKey.API_VERSIONS: node.cluster.versions[ApiKey.API_VERSIONS]}
    elif version >= 3:
        asked = request.message
        if not _NAME.fullmatch(asked.client_software_name) or not _NAME.fullmatch(asked.client_software_version):
            error, versions = ErrorCode.INVALID_REQUEST, {}
    return encode_response(
        ApiKey.API_VERSIONS,
        version,
        request.header.correlation_id,
        error_code=error,
        api_keys=[
            part(ApiKey.API_VERSIONS, version, "ApiVersion", api_key=key, min_version=first, max_version=last)
            for key, (first, last) in sorted(versions.items())
        ],
    )
