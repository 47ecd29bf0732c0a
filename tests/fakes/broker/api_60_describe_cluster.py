"""DescribeCluster v0-2: the nodes that are up. endpoint_type 2 (controllers) gets 114, as at a broker.

NOT done: fenced brokers, authorized operations.
"""

from typing import TYPE_CHECKING

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.node import Node

KEY = ApiKey.DESCRIBE_CLUSTER
_CONTROLLERS = 2


async def answer(node: "Node", request: Request) -> Answer:
    version = request.version
    if version >= 1 and request.message.endpoint_type == _CONTROLLERS:
        return encode_response(
            KEY,
            version,
            request.header.correlation_id,
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER, but we wanted an endpoint of "
            "type CONTROLLER",
            cluster_id="",
            brokers=[],
        )
    return encode_response(
        KEY,
        version,
        request.header.correlation_id,
        error_code=0,
        cluster_id=node.cluster.cluster_id,
        controller_id=node.cluster.controller,
        brokers=[
            part(
                KEY,
                version,
                "DescribeClusterBroker",
                broker_id=each.node_id,
                host=each.host,
                port=each.port,
                rack=each.rack,
            )
            for each in node.cluster.alive()
        ],
    )
