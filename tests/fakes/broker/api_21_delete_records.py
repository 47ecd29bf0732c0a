"""DeleteRecords v0-2: the log start moves at once, to the record.

- Per partition: DELETE allowed (29), topic known (3), not internal (17), leader (6), cleanup.policy not `compact` (44),
  offset not above the high watermark and not below -1 (1). -1 is the high watermark. Below the log start: success, and
  the log start as it is. A partition named twice counts as asked last.
- With `partition.follower_frozen`: error 7 after timeout_ms, with the old low watermark, and yet it is trimmed.

NOT done: waiting for the retention check (call `log.clean`).
"""

import asyncio
from typing import TYPE_CHECKING

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.node import Node

KEY = ApiKey.DELETE_RECORDS


async def answer(node: "Node", request: Request) -> Answer:
    version, message = request.version, request.message
    asked = {topic.name: {p.partition_index: p.offset for p in topic.partitions} for topic in message.topics}
    topics = []
    timed_out = False
    for name, partitions in asked.items():
        answers = []
        for index, offset in partitions.items():
            error, low = _delete(node, name, index, offset)
            timed_out = timed_out or error == ErrorCode.REQUEST_TIMED_OUT
            answers.append(
                part(
                    KEY,
                    version,
                    "DeleteRecordsTopicResult",
                    "DeleteRecordsPartitionResult",
                    partition_index=index,
                    low_watermark=low,
                    error_code=error,
                )
            )
        topics.append(part(KEY, version, "DeleteRecordsTopicResult", name=name, partitions=answers))
    if timed_out:
        await asyncio.sleep(message.timeout_ms / 1000)
    return encode_response(KEY, version, request.header.correlation_id, throttle_time_ms=0, topics=topics)


def _delete(node: "Node", name: str, index: int, offset: int) -> tuple[ErrorCode, int]:
    """(error, low watermark)"""
    topic = node.cluster.topics.get(name)
    if topic is not None and "DELETE" in topic.denied:
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED, -1
    partition = topic.partition(index) if topic is not None else None
    if topic is None or partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1
    if topic.internal:
        return ErrorCode.INVALID_TOPIC_EXCEPTION, -1
    if partition.leader != node.node_id:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER, -1
    if topic.configs["cleanup.policy"] == "compact":
        return ErrorCode.POLICY_VIOLATION, -1
    log = partition.log
    upto = log.high_watermark if offset == -1 else offset
    if not 0 <= upto <= log.high_watermark:
        return ErrorCode.OFFSET_OUT_OF_RANGE, -1
    before = log.start
    log.trim(upto)
    if partition.follower_frozen:
        return ErrorCode.REQUEST_TIMED_OUT, before
    return ErrorCode.NONE, log.start
