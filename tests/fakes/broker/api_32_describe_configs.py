"""DescribeConfigs v1-4: the settings a topic was created with, and no others. Unknown topic: 3.

NOT done: defaults, synonyms, sources, other resources (they get 42), permission.
"""

from typing import TYPE_CHECKING

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.node import Node

KEY = ApiKey.DESCRIBE_CONFIGS
_TOPIC = 2


async def answer(node: "Node", request: Request) -> Answer:
    version = request.version
    results = []
    for asked in request.message.resources:
        topic = node.cluster.topics.get(asked.resource_name)
        error, configs = ErrorCode.NONE, {} if topic is None else topic.configs
        if asked.resource_type != _TOPIC:
            error, configs = ErrorCode.INVALID_REQUEST, {}
        elif topic is None:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        results.append(
            part(
                KEY,
                version,
                "DescribeConfigsResult",
                error_code=error,
                error_message=None,
                resource_type=asked.resource_type,
                resource_name=asked.resource_name,
                configs=[
                    part(
                        KEY,
                        version,
                        "DescribeConfigsResult",
                        "DescribeConfigsResourceResult",
                        name=name,
                        value=value,
                        synonyms=[],
                    )
                    for name, value in configs.items()
                    if asked.configuration_keys is None or name in asked.configuration_keys
                ],
            )
        )
    return encode_response(KEY, version, request.header.correlation_id, throttle_time_ms=0, results=results)
