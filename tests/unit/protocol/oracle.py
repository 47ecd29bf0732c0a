"""kafka-python's Fetch messages to and from our dataclasses: a second opinion on every byte.

Topics are grouped as our encoders group them: neighbours of one topic share an entry. kafka-python knows nothing of
tag sections beyond Kafka's own tags, so those that Kafka doesn't define are not tested with it.
"""

from itertools import groupby
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from kafka.protocol import consumer

from protocol.fetch import FetchPartition, FetchRequest
from protocol.fetch_response import FetchedPartition, FetchResponse

_I32 = st.integers(-(2**31), 2**31 - 1)
_I64 = st.integers(-(2**63), 2**63 - 1)
_TOPICS = st.sampled_from(["a", "orders", "x" * 200, "ä"])
_TOPIC_IDS = st.sampled_from([bytes(15) + b"\x01", b"\xff" * 16, bytes(range(16))])


def encode_request(
    request: FetchRequest,
    *,
    forgotten: list[tuple[str | bytes, list[int]]] | None = None,
    cluster_id: str | None = None,
) -> bytes:
    """Header and body; correlation id 9, client id "oracle"."""
    version = request.version
    kind = consumer.FetchRequest
    topics = []
    for key, group in groupby(request.partitions, lambda p: (p.topic, p.topic_id)):
        partitions = [
            kind.FetchTopic.FetchPartition(
                version=version,
                partition=p.index,
                current_leader_epoch=p.current_leader_epoch,
                fetch_offset=p.fetch_offset,
                last_fetched_epoch=p.last_fetched_epoch,
                log_start_offset=-1,
                partition_max_bytes=p.max_bytes,
            )
            for p in group
        ]
        topics.append(kind.FetchTopic(version=version, **_topic(*key), partitions=partitions))
    names = [
        kind.ForgottenTopic(
            version=version,
            **(_topic(None, key) if isinstance(key, bytes) else _topic(key, None)),
            partitions=indexes,
        )
        for key, indexes in forgotten or []
    ]
    replica: dict[str, Any] = {"replica_id": request.replica_id}
    if version >= 15:
        replica = {"replica_state": kind.ReplicaState(version=version, replica_id=request.replica_id, replica_epoch=-1)}
    message: Any = kind(
        version=version,
        cluster_id=cluster_id,
        max_wait_ms=request.max_wait_ms,
        min_bytes=request.min_bytes,
        max_bytes=request.max_bytes,
        isolation_level=request.isolation,
        session_id=request.session_id,
        session_epoch=request.session_epoch,
        topics=topics,
        forgotten_topics_data=names,
        rack_id=request.rack,
        **replica,
    )
    message.with_header(correlation_id=9, client_id="oracle")
    return bytes(message.encode(header=True))


def decode_request(payload: bytes, version: int) -> FetchRequest:
    """Without `session_at`, which is no field."""
    message: Any = consumer.FetchRequest.decode(payload, version=version, header=True)
    assert bytes(message.encode(header=True)) == payload
    return FetchRequest(
        version=version,
        replica_id=message.replica_id if version < 15 else getattr(message.replica_state, "replica_id", -1),
        max_wait_ms=message.max_wait_ms,
        min_bytes=message.min_bytes,
        max_bytes=message.max_bytes,
        isolation=message.isolation_level,
        session_id=message.session_id,
        session_epoch=message.session_epoch,
        session_at=None,
        partitions=[
            FetchPartition(
                *_key(topic, version),
                p.partition,
                p.current_leader_epoch,
                p.fetch_offset,
                p.last_fetched_epoch,
                p.partition_max_bytes,
            )
            for topic in message.topics
            for p in topic.partitions
        ],
        rack=message.rack_id,
    )


def encode_response(
    response: FetchResponse, node_endpoints: list[tuple[int, str, int, str | None]] | None = None
) -> bytes:
    """Header and body. Tags of a partition: only a diverging epoch, given as (epoch, end offset) bytes."""
    version = response.version
    kind = consumer.FetchResponse
    topics = []
    for key, group in groupby(response.partitions, lambda p: (p.topic, p.topic_id)):
        partitions = [_partition(version, p) for p in group]
        topics.append(kind.FetchableTopicResponse(version=version, **_topic(*key), partitions=partitions))
    message: Any = kind(
        version=version,
        throttle_time_ms=response.throttle_ms,
        error_code=response.error,
        session_id=response.session_id,
        responses=topics,
        node_endpoints=[
            kind.NodeEndpoint(version=version, node_id=node, host=host, port=port, rack=rack)
            for node, host, port, rack in node_endpoints or []
        ],
    )
    message.with_header(correlation_id=response.correlation_id)
    return bytes(message.encode(header=True))


def _partition(version: int, part: FetchedPartition) -> Any:
    kind = consumer.FetchResponse.FetchableTopicResponse.PartitionData
    aborted = part.aborted
    return kind(
        version=version,
        partition_index=part.index,
        error_code=part.error,
        high_watermark=part.high_watermark,
        last_stable_offset=part.last_stable_offset,
        log_start_offset=part.log_start,
        aborted_transactions=None
        if aborted is None
        else [kind.AbortedTransaction(version=version, producer_id=pid, first_offset=first) for pid, first in aborted],
        preferred_read_replica=part.preferred_replica,
        records=None if part.records is None else bytes(part.records),
    )


def decode_response(payload: bytes, version: int) -> Any:
    """kafka-python's own object; it has the header too."""
    return consumer.FetchResponse.decode(payload, version=version, header=True)


def _topic(name: str | None, topic_id: bytes | None) -> dict[str, Any]:
    return {"topic": name} if topic_id is None else {"topic_id": UUID(bytes=topic_id)}


def _key(topic: Any, version: int) -> tuple[str | None, bytes | None]:
    return (None, topic.topic_id.bytes) if version >= 13 else (topic.topic, None)


@st.composite
def requests(draw: st.DrawFn) -> FetchRequest:
    """Any Fetch request of any version; `session_at` is None."""
    version = draw(st.integers(4, 18))
    return FetchRequest(
        version=version,
        replica_id=draw(_I32),
        max_wait_ms=draw(_I32),
        min_bytes=draw(_I32),
        max_bytes=draw(_I32),
        isolation=draw(st.integers(0, 1)),
        session_id=draw(_I32) if version >= 7 else 0,
        session_epoch=draw(_I32) if version >= 7 else -1,
        session_at=None,
        partitions=draw(st.lists(_asked(version), max_size=6)),
        rack=draw(st.sampled_from(["", "r1"])) if version >= 11 else "",
    )


def _asked(version: int) -> st.SearchStrategy[FetchPartition]:
    none = st.none()
    return st.builds(
        FetchPartition,
        topic=none if version >= 13 else _TOPICS,
        topic_id=_TOPIC_IDS if version >= 13 else none,
        index=_I32,
        current_leader_epoch=_I32 if version >= 9 else st.just(-1),
        fetch_offset=_I64,
        last_fetched_epoch=_I32 if version >= 12 else st.just(-1),
        max_bytes=_I32,
    )


@st.composite
def responses(draw: st.DrawFn, versions: st.SearchStrategy[int] | None = None) -> FetchResponse:
    """Any Fetch response of any version, without NodeEndpoints and without a partition's tags."""
    version = draw(versions if versions is not None else st.integers(4, 18))
    return FetchResponse(
        version=version,
        correlation_id=draw(_I32),
        throttle_ms=draw(_I32),
        error=draw(st.sampled_from([0, 70, -1])) if version >= 7 else 0,
        session_id=draw(_I32) if version >= 7 else 0,
        partitions=draw(st.lists(_answered(version), max_size=6)),
        tags=b"\x00" if version >= 12 else b"",
    )


def _answered(version: int) -> st.SearchStrategy[FetchedPartition]:
    none = st.none()
    return st.builds(
        FetchedPartition,
        topic=none if version >= 13 else _TOPICS,
        topic_id=_TOPIC_IDS if version >= 13 else none,
        index=_I32,
        error=st.sampled_from([0, 1, 6, 76, -1]),
        high_watermark=_I64,
        last_stable_offset=_I64,
        log_start=_I64 if version >= 5 else st.just(-1),
        aborted=none | st.lists(st.tuples(_I64, _I64), max_size=20),
        preferred_replica=_I32 if version >= 11 else st.just(-1),
        records=none | st.binary(max_size=300).map(lambda data: memoryview(data)),
        tags=st.just(b"\x00" if version >= 12 else b""),
    )
