"""Metadata v0-13: the nodes that are up, and topics by name or (v12+) by id.

- All topics: null, or an empty list in v0. Unknown name 3 with the zero id, unknown id 100 without a name.
- DESCRIBE denied: by name 29, by id 29 without a name; left out of "all topics".
- A partition whose leader is down has leader -1 and error 5.

NOT done: creating topics on demand, authorized operations.
"""

from typing import TYPE_CHECKING, Any

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part, raw_id, text_id
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.cluster import FakeTopic
    from tests.fakes.broker.node import Node

KEY = ApiKey.METADATA
_NO_LEADER = -1


async def answer(node: "Node", request: Request) -> Answer:
    version = request.version
    return encode_response(
        KEY,
        version,
        request.header.correlation_id,
        throttle_time_ms=0,
        brokers=[
            part(
                KEY,
                version,
                "MetadataResponseBroker",
                node_id=each.node_id,
                host=each.host,
                port=each.port,
                rack=each.rack,
            )
            for each in node.cluster.alive()
        ],
        cluster_id=node.cluster.cluster_id,
        controller_id=node.cluster.controller,
        topics=_topics(node, request.message.topics, version),
    )


def _topics(node: "Node", asked: list[Any] | None, version: int) -> list[Any]:
    if asked is None or (version == 0 and not asked):
        return [_topic(node, each, version) for each in node.cluster.topics.values() if "DESCRIBE" not in each.denied]
    found = []
    for each in asked:
        if version >= 10 and each.name is None:
            topic = node.cluster.topic_of_id(raw_id(each.topic_id))
            if topic is None or "DESCRIBE" in topic.denied:
                error = ErrorCode.UNKNOWN_TOPIC_ID if topic is None else ErrorCode.TOPIC_AUTHORIZATION_FAILED
                found.append(_error(version, error, None, raw_id(each.topic_id)))
                continue
        else:
            topic = node.cluster.topics.get(each.name)
            if topic is None or "DESCRIBE" in topic.denied:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if topic is None else ErrorCode.TOPIC_AUTHORIZATION_FAILED
                found.append(_error(version, error, each.name, bytes(16)))
                continue
        found.append(_topic(node, topic, version))
    return found


def _error(version: int, error: ErrorCode, name: str | None, topic_id: bytes) -> Any:
    return part(
        KEY, version, "MetadataResponseTopic", error_code=error, name=name, topic_id=text_id(topic_id), partitions=[]
    )


def _topic(node: "Node", topic: "FakeTopic", version: int) -> Any:
    up = {each.node_id for each in node.cluster.alive()}
    partitions = []
    for each in topic.partitions:
        led = each.leader in up
        partitions.append(
            part(
                KEY,
                version,
                "MetadataResponseTopic",
                "MetadataResponsePartition",
                error_code=ErrorCode.NONE if led else ErrorCode.LEADER_NOT_AVAILABLE,
                partition_index=each.index,
                leader_id=each.leader if led else _NO_LEADER,
                leader_epoch=each.leader_epoch,
                replica_nodes=each.replicas,
                isr_nodes=[replica for replica in each.replicas if replica in up],
                offline_replicas=[replica for replica in each.replicas if replica not in up],
            )
        )
    return part(
        KEY,
        version,
        "MetadataResponseTopic",
        error_code=ErrorCode.NONE,
        name=topic.name,
        topic_id=text_id(topic.topic_id),
        is_internal=topic.internal,
        partitions=partitions,
    )
