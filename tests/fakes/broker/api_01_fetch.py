"""Fetch v4-18, as consumers send it: what each partition gets, in which order, and when the answer goes out.

- Checks in Kafka's order: topic id known (100), READ allowed (29), partition known (3), leader or, from v11, follower
  (6), current leader epoch (74, 75), last fetched epoch (diverging), offset (1). The first three come before anything
  is read: those partitions stand last in the answer and don't end a long poll; failed reads stand in place and do.
- Partitions in the order asked, neighbours of one topic together; one named twice is answered once, at its first place
  with its last offset.
- max_bytes over all partitions and partition_max_bytes; the first with data may exceed both by its first batch; a
  partial batch fills the rest; a read never leaves its segment (log.py).
- min_bytes (at most max_bytes) and max_wait; a position in an old segment is answered at once; a trim wakes nobody, and
  when the wait is over everything is read again.
- v16+: node endpoints and current leader with 6 and 74 (KIP-951). v11+: preferred replica (KIP-392).
- A throttled fetch is answered at once without topics.

NOT done: followers' own fetches (replica_id >= 0 gets 6, as a stranger does), error 103, fetch sessions (a full fetch
gets session id 0, as when all slots are taken; an incremental one error 70), magic 0 and 1, and the limit of the
broker's own fetch.max.bytes.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.log import NO_EPOCH, OutOfRange, Read
from tests.fakes.broker.messages import by_topic, encode_response, part, raw_id, text_id
from tests.fakes.broker.steering import Answer, Request

if TYPE_CHECKING:
    from tests.fakes.broker.cluster import FakeTopic, Partition
    from tests.fakes.broker.node import Node

KEY = ApiKey.FETCH
_FIRST_BY_ID = 13
_FIRST_FROM_FOLLOWERS = 11
_FIRST_WITH_ENDPOINTS = 16
_READ_COMMITTED = 1


@dataclass(slots=True)
class _Asked:
    """One partition of the request; `key` is its topic's name or id, as the client named it."""

    key: str | bytes
    index: int
    offset: int
    max_bytes: int
    current_epoch: int
    last_epoch: int


@dataclass(slots=True)
class _Result:
    """What reading one partition gave. `at_once`: it ends the wait."""

    error: ErrorCode
    fields: dict[str, Any]
    records: bytes = b""
    at_once: bool = False


async def answer(node: "Node", request: Request) -> Answer:
    message, version = request.message, request.version
    if version >= 7 and message.session_epoch > 0:
        return _encode(request, [], error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
    asked = _asked(message, version)
    refused: list[tuple[_Asked, _Result]] = []
    interesting: list[tuple[_Asked, Partition]] = []
    for each in asked:
        found = _look_up(node, each, version)
        if isinstance(found, ErrorCode):
            refused.append((each, _Result(found, {"aborted_transactions": []})))
        else:
            interesting.append((each, found))
    results = await _read_until(node, request, interesting)
    return _encode(request, [*results, *refused], node=node)


def throttled(request: Request, throttle_ms: int) -> bytes:
    """What a client over its quota gets at once; then the connection is muted."""
    return _encode(request, [], throttle_ms=throttle_ms)


def _asked(message: Any, version: int) -> list[_Asked]:
    asked: dict[tuple[str | bytes, int], _Asked] = {}
    for topic in message.topics:
        key = raw_id(topic.topic_id) if version >= _FIRST_BY_ID else topic.topic
        for each in topic.partitions:
            asked[key, each.partition] = _Asked(
                key,
                each.partition,
                each.fetch_offset,
                each.partition_max_bytes,
                each.current_leader_epoch if version >= 9 else -1,
                each.last_fetched_epoch if version >= 12 else -1,
            )
    return list(asked.values())


def _look_up(node: "Node", asked: _Asked, version: int) -> "Partition | ErrorCode":
    topic: FakeTopic | None
    if isinstance(asked.key, bytes):
        topic = node.cluster.topic_of_id(asked.key)
        if topic is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
    else:
        topic = node.cluster.topics.get(asked.key)
    if topic is not None and "READ" in topic.denied:
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    partition = topic.partition(asked.index) if topic is not None else None
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if partition is None else partition


async def _read_until(
    node: "Node", request: Request, interesting: "list[tuple[_Asked, Partition]]"
) -> list[tuple[_Asked, _Result]]:
    """Read until there is enough, something fails, or max_wait is over."""
    message = request.message
    enough = min(message.min_bytes, message.max_bytes)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + message.max_wait_ms / 1000
    while True:
        change = node.cluster.changes.next()
        results = _read(node, request, interesting)
        size = sum(len(result.records) for _, result in results)
        if not results or size >= enough or any(result.at_once for _, result in results) or loop.time() >= deadline:
            return results
        try:
            async with asyncio.timeout_at(deadline):
                await change.wait()
        except TimeoutError:
            return _read(node, request, interesting)


def _read(
    node: "Node", request: Request, interesting: "list[tuple[_Asked, Partition]]"
) -> list[tuple[_Asked, _Result]]:
    left = request.message.max_bytes
    nothing_yet = True
    results = []
    for asked, partition in interesting:
        result = _read_one(node, request, asked, partition, min(asked.max_bytes, left), nothing_yet)
        left = max(0, left - len(result.records))
        nothing_yet = nothing_yet and not result.records
        results.append((asked, result))
    return results


def _read_one(
    node: "Node", request: Request, asked: _Asked, partition: "Partition", size: int, at_least_one: bool
) -> _Result:
    version, log = request.version, partition.log
    leads = partition.leader == node.node_id
    follows = version >= _FIRST_FROM_FOLLOWERS and node.node_id in partition.replicas
    if not (leads or follows) or _replica_id(request) >= 0:
        return _failed(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    error = partition.epoch_error(asked.current_epoch)
    if error:
        return _failed(error)
    committed = request.message.isolation_level == _READ_COMMITTED
    high_watermark = partition.high_watermark(node.node_id)
    bounds: dict[str, Any] = {
        "high_watermark": high_watermark,
        "last_stable_offset": min(log.last_stable, high_watermark),
        "log_start_offset": log.start,
        "aborted_transactions": [] if committed else None,
    }
    if asked.last_epoch >= 0:
        epoch, end = log.epoch_end(asked.last_epoch)
        if (epoch, end) == NO_EPOCH:
            return _failed(ErrorCode.OFFSET_OUT_OF_RANGE)
        if epoch < asked.last_epoch or end < asked.offset:
            diverging = part(
                KEY, version, "FetchableTopicResponse", "PartitionData", "EpochEndOffset", epoch=epoch, end_offset=end
            )
            return _Result(ErrorCode.NONE, {**bounds, "diverging_epoch": diverging}, at_once=True)
    preferred = _preferred(node, request, asked, partition) if leads else None
    if preferred is not None:
        return _Result(
            ErrorCode.NONE, {**bounds, "preferred_read_replica": preferred, "aborted_transactions": None}, at_once=True
        )
    try:
        read = log.read(asked.offset, size, at_least_one=at_least_one, committed=committed)
    except OutOfRange:
        return _failed(ErrorCode.OFFSET_OUT_OF_RANGE)
    if not leads and asked.offset >= high_watermark:
        read = Read(b"", [])
    if committed:
        bounds["aborted_transactions"] = [
            part(
                KEY,
                version,
                "FetchableTopicResponse",
                "PartitionData",
                "AbortedTransaction",
                producer_id=producer_id,
                first_offset=first,
            )
            for producer_id, first in read.aborted
        ]
    records = b"" if read.first_batch_incomplete else read.records
    return _Result(ErrorCode.NONE, bounds, records, at_once=read.old_segment)


def _replica_id(request: Request) -> int:
    if request.version < 15:
        return int(request.message.replica_id)
    state = request.message.replica_state
    return -1 if state is None else int(state.replica_id)


def _failed(error: ErrorCode) -> _Result:
    return _Result(error, {"aborted_transactions": None}, at_once=True)


def _preferred(node: "Node", request: Request, asked: _Asked, partition: "Partition") -> int | None:
    rack = request.message.rack_id if request.version >= 11 else ""
    if not (node.cluster.rack_aware and rack) or not partition.log.start <= asked.offset <= partition.log.end:
        return None
    if node.rack == rack:
        return None
    nodes = node.cluster.nodes
    return next((each for each in partition.replicas if nodes[each].listening and nodes[each].rack == rack), None)


def _encode(
    request: Request,
    results: list[tuple[_Asked, _Result]],
    *,
    node: "Node | None" = None,
    error: ErrorCode = ErrorCode.NONE,
    throttle_ms: int = 0,
) -> bytes:
    version = request.version
    leaders: set[int] = set()
    answers = []
    for asked, result in results:
        fields = dict(result.fields)
        moved = result.error in (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)
        if moved and version >= _FIRST_WITH_ENDPOINTS and node is not None:
            partition = _look_up(node, asked, version)
            assert not isinstance(partition, ErrorCode), "it was read a moment ago"
            fields["current_leader"] = part(
                KEY,
                version,
                "FetchableTopicResponse",
                "PartitionData",
                "LeaderIdAndEpoch",
                leader_id=partition.leader,
                leader_epoch=partition.leader_epoch,
            )
            leaders.add(partition.leader)
        body = part(
            KEY,
            version,
            "FetchableTopicResponse",
            "PartitionData",
            partition_index=asked.index,
            error_code=result.error,
            records=result.records,
            **{"high_watermark": -1, **fields},
        )
        answers.append((asked.key, body))
    topics = [
        part(
            KEY,
            version,
            "FetchableTopicResponse",
            **({"topic_id": text_id(key)} if isinstance(key, bytes) else {"topic": key}),
            partitions=partitions,
        )
        for key, partitions in by_topic(answers)
    ]
    return encode_response(
        KEY,
        version,
        request.header.correlation_id,
        throttle_time_ms=throttle_ms,
        error_code=error,
        session_id=0,
        responses=topics,
        node_endpoints=[] if node is None else _endpoints(node, version, leaders),
    )


def _endpoints(node: "Node", version: int, leaders: set[int]) -> list[Any]:
    return [
        part(KEY, version, "NodeEndpoint", node_id=each.node_id, host=each.host, port=each.port, rack=each.rack)
        for each in node.cluster.alive()
        if each.node_id in leaders
    ]
