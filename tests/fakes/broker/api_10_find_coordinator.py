"""FindCoordinator v0-6: every group's and every transaction's coordinator is the first node that is up.

With `cluster.coordinators_ready` off, error 15 with node -1, as before the internal topic exists.

NOT done: what a coordinator does (groups, transactions), keys of share groups, permission.
"""

from typing import TYPE_CHECKING

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.node import Node

KEY = ApiKey.FIND_COORDINATOR


async def answer(node: "Node", request: Request) -> Answer:
    version = request.version
    if node.cluster.coordinators_ready:
        found = node.cluster.alive()[0]
        where = {"error_code": ErrorCode.NONE, "node_id": found.node_id, "host": found.host, "port": found.port}
    else:
        where = {"error_code": ErrorCode.COORDINATOR_NOT_AVAILABLE, "node_id": -1, "host": "", "port": -1}
    if version < 4:
        return encode_response(KEY, version, request.header.correlation_id, throttle_time_ms=0, **where)
    return encode_response(
        KEY,
        version,
        request.header.correlation_id,
        throttle_time_ms=0,
        coordinators=[
            part(KEY, version, "Coordinator", key=key, error_message="", **where)
            for key in request.message.coordinator_keys
        ],
    )
