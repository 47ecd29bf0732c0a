"""Produce v3-13: batches are appended as they are, with offset and leader epoch put in.

- Partition unknown: 3 (by id from v13: 100); not led here: 6, with current leader and endpoints from v10 (KIP-951);
  a batch whose CRC is wrong: 2.
- acks=0 gets no answer; where there would be an error, the connection is closed.

NOT done: idempotence and transactions (batches of both are taken without a look), waiting for replicas, quotas,
WRITE permission. v0-2 are offered, as Kafka does, and close the connection.
"""

from typing import TYPE_CHECKING, Any

from protocol.apis import ApiKey
from protocol.batches import crc_ok, walk
from protocol.errors import ErrorCode
from tests.fakes.broker.messages import encode_response, part, raw_id, text_id
from tests.fakes.broker.steering import Answer, HangUp, Request

if TYPE_CHECKING:
    from tests.fakes.broker.cluster import FakeTopic
    from tests.fakes.broker.node import Node

KEY = ApiKey.PRODUCE
_FIRST_BY_ID = 13
_FIRST_WITH_ENDPOINTS = 10


async def answer(node: "Node", request: Request) -> Answer:
    version, message = request.version, request.message
    if version < 3:
        raise HangUp
    leaders: set[int] = set()
    topics = []
    failed = False
    for each in message.topic_data:
        topic = (
            node.cluster.topic_of_id(raw_id(each.topic_id))
            if version >= _FIRST_BY_ID
            else node.cluster.topics.get(each.name)
        )
        unknown = ErrorCode.UNKNOWN_TOPIC_ID if version >= _FIRST_BY_ID else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        answers = []
        for data in each.partition_data:
            error, offset, start = _append(node, topic, unknown, data.index, bytes(data.records or b""))
            fields: dict[str, Any] = {}
            if error == ErrorCode.NOT_LEADER_OR_FOLLOWER and version >= _FIRST_WITH_ENDPOINTS:
                assert topic is not None
                moved = topic[data.index]
                leaders.add(moved.leader)
                fields["current_leader"] = part(
                    KEY,
                    version,
                    "TopicProduceResponse",
                    "PartitionProduceResponse",
                    "LeaderIdAndEpoch",
                    leader_id=moved.leader,
                    leader_epoch=moved.leader_epoch,
                )
            failed = failed or error != ErrorCode.NONE
            answers.append(
                part(
                    KEY,
                    version,
                    "TopicProduceResponse",
                    "PartitionProduceResponse",
                    index=data.index,
                    error_code=error,
                    base_offset=offset,
                    log_start_offset=start,
                    record_errors=[],
                    **fields,
                )
            )
        name = {"topic_id": text_id(raw_id(each.topic_id))} if version >= _FIRST_BY_ID else {"name": each.name}
        topics.append(part(KEY, version, "TopicProduceResponse", **name, partition_responses=answers))
    if message.acks == 0:
        if failed:
            raise HangUp
        return None
    return encode_response(
        KEY,
        version,
        request.header.correlation_id,
        responses=topics,
        throttle_time_ms=0,
        node_endpoints=[
            part(KEY, version, "NodeEndpoint", node_id=each.node_id, host=each.host, port=each.port, rack=each.rack)
            for each in node.cluster.alive()
            if each.node_id in leaders
        ],
    )


def _append(
    node: "Node", topic: "FakeTopic | None", unknown: ErrorCode, index: int, records: bytes
) -> tuple[ErrorCode, int, int]:
    """(error, base offset, log start)"""
    if topic is None:
        return unknown, -1, -1
    partition = topic.partition(index)
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1
    if partition.leader != node.node_id:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER, -1, -1
    if not all(crc_ok(batch) for _, batch in walk(memoryview(records))):
        return ErrorCode.CORRUPT_MESSAGE, -1, -1
    return ErrorCode.NONE, partition.append(records), partition.log.start
