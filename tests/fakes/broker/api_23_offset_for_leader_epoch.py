"""OffsetForLeaderEpoch v2-4: where leader epochs end, by the leader's epoch cache (KIP-320, log.py).

Per partition: DESCRIBE allowed (29), partition known (3), leader (6), current leader epoch (74, 75).

NOT done: followers' own questions (replica_id is not looked at).
"""

from typing import TYPE_CHECKING, Any

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.log import NO_EPOCH
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.node import Node

KEY = ApiKey.OFFSET_FOR_LEADER_EPOCH


async def answer(node: "Node", request: Request) -> Answer:
    version = request.version
    topics = []
    for topic in request.message.topics:
        answers = []
        for asked in topic.partitions:
            error, (epoch, end) = _end(node, topic.topic, asked)
            answers.append(
                part(
                    KEY,
                    version,
                    "OffsetForLeaderTopicResult",
                    "EpochEndOffset",
                    error_code=error,
                    partition=asked.partition,
                    leader_epoch=epoch,
                    end_offset=end,
                )
            )
        topics.append(part(KEY, version, "OffsetForLeaderTopicResult", topic=topic.topic, partitions=answers))
    return encode_response(KEY, version, request.header.correlation_id, throttle_time_ms=0, topics=topics)


def _end(node: "Node", name: str, asked: Any) -> tuple[ErrorCode, tuple[int, int]]:
    topic = node.cluster.topics.get(name)
    if topic is not None and "DESCRIBE" in topic.denied:
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED, NO_EPOCH
    partition = topic.partition(asked.partition) if topic is not None else None
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NO_EPOCH
    if partition.leader != node.node_id:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER, NO_EPOCH
    error = partition.epoch_error(asked.current_leader_epoch)
    return (error, NO_EPOCH) if error else (ErrorCode.NONE, partition.log.epoch_end(asked.leader_epoch))
