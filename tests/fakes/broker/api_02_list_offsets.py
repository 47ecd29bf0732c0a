"""ListOffsets v1-11: earliest, latest, by time, and the special timestamps of each version.

- Per partition in order: DESCRIBE allowed (29), partition known (3), leader (6; followers don't answer),
  current leader epoch (74, 75). A partition named twice gets 42. A timestamp that the version doesn't know gets 35.
- Trap (a): a lookup by time finds nothing while the trimmed segment that holds the time is still there (log.py).
- Trap (b): -3 may name an offset below the log start.
- READ_COMMITTED: latest is the LSO, and what lies at or above it is not found.
- `cluster.steer` can make it answer 78, or anything else.

NOT done: tiered storage (-5 and -6 answer -1).
"""

from typing import TYPE_CHECKING, Any

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.log import FoundRecord
from tests.fakes.broker.messages import encode_response, part
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.cluster import Partition
    from tests.fakes.broker.node import Node

KEY = ApiKey.LIST_OFFSETS
_SINCE = {-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11}
"""The first version of each special timestamp."""

_NOTHING = FoundRecord(-1, -1, -1)


async def answer(node: "Node", request: Request) -> Answer:
    version, message = request.version, request.message
    committed = version >= 2 and message.isolation_level == 1
    count: dict[tuple[str, int], int] = {}
    for topic in message.topics:
        for asked in topic.partitions:
            name = topic.name, asked.partition_index
            count[name] = count.get(name, 0) + 1
    topics = []
    for topic in message.topics:
        answers = []
        for asked in topic.partitions:
            found: FoundRecord | ErrorCode = ErrorCode.INVALID_REQUEST
            if count[topic.name, asked.partition_index] == 1:
                found = _one(node, version, topic.name, asked, committed)
            error, record = (found, _NOTHING) if isinstance(found, ErrorCode) else (ErrorCode.NONE, found)
            answers.append(
                part(
                    KEY,
                    version,
                    "ListOffsetsTopicResponse",
                    "ListOffsetsPartitionResponse",
                    partition_index=asked.partition_index,
                    error_code=error,
                    timestamp=record.timestamp,
                    offset=record.offset,
                    leader_epoch=record.epoch,
                )
            )
        topics.append(part(KEY, version, "ListOffsetsTopicResponse", name=topic.name, partitions=answers))
    return encode_response(KEY, version, request.header.correlation_id, throttle_time_ms=0, topics=topics)


def _one(node: "Node", version: int, name: str, asked: Any, committed: bool) -> FoundRecord | ErrorCode:
    topic = node.cluster.topics.get(name)
    if topic is not None and "DESCRIBE" in topic.denied:
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    if asked.timestamp < 0 and version < _SINCE.get(asked.timestamp, 1 << 15):
        return ErrorCode.UNSUPPORTED_VERSION
    partition = topic.partition(asked.partition_index) if topic is not None else None
    if partition is None:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if partition.leader != node.node_id:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    error = partition.epoch_error(asked.current_leader_epoch if version >= 4 else -1)
    return error or _look_up(partition, asked.timestamp, committed)


def _look_up(partition: "Partition", timestamp: int, committed: bool) -> FoundRecord:
    log = partition.log
    match timestamp:
        case -1:
            return FoundRecord(log.bound(committed), -1, partition.leader_epoch)
        case -2 | -4:
            return FoundRecord(log.start, -1, log.epoch_at_start())
        case -5 | -6:
            return _NOTHING
        case -3:
            found = log.latest_time()
        case _:
            found = log.first_at(timestamp)
    return _NOTHING if found is None or found.offset >= log.bound(committed) else found
