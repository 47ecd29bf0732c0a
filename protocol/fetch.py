"""Fetch requests, v4 to v18: scan a client's, make it sessionless in place, build our own.

Positions (Kafka 4.3.1's FetchRequest.json; replica_id moved into tag 1 with v15, KIP-903):

    version  replica_id  max_wait  min_bytes  max_bytes  isolation  session id, epoch  topics
    4-6      0           4         8          12         16         -                  17
    7-14     0           4         8          12         16         17, 21             25
    15-18    tag 1       0         4          8          12         13, 17             21

Topics carry a name up to v12 and an id from v13 (KIP-516). After them: forgotten topics (v7+), rack (v11+),
tags (v12+).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from struct import Struct

from protocol.apis import ApiKey
from protocol.errors import MalformedError
from protocol.headers import RequestHeader, request_header
from protocol.wire import NO_TAGS, Buffer, Cursor, put_compact_string, put_string, put_uvarint

FULL_SESSIONLESS = b"\x00\x00\x00\x00\xff\xff\xff\xff"
"""Session id 0, epoch -1: a full fetch that opens no session and closes none (KIP-227)."""

INITIAL_EPOCH, FINAL_EPOCH = 0, -1
"""Session epochs of full fetches, which open a session and close one; all others are incremental (KIP-227)."""

MAX_TOPICS = 50_000
"""Fetches of more topics are refused: reading them would take too long, and one without partitions is three bytes."""

_LIMITS = Struct(">iiib")
_REPLICA_STATE_TAG = 1

_V4 = Struct(">iqi")
_V5 = Struct(">iqqi")
_V9 = Struct(">iiqqi")
_V12 = Struct(">iiqiqi")
_V12_UNTAGGED = Struct(">iiqiqiB")


@dataclass(slots=True)
class FetchPartition:
    """One partition asked for.

    Exactly one of `topic` and `topic_id` is set; an epoch the version has no field for is -1.
    """

    topic: str | None
    topic_id: bytes | None
    index: int
    current_leader_epoch: int
    fetch_offset: int
    last_fetched_epoch: int
    max_bytes: int


@dataclass(slots=True)
class FetchRequest:
    """A fetch as asked. Without session fields (below v7): id 0, epoch -1, `session_at` None.

    `session_at` is the position in the payload of the 8 bytes session id and epoch; `replica_id` is -1 for a
    consumer; `isolation` 0 is READ_UNCOMMITTED, 1 READ_COMMITTED; `rack` is "" if none was named.
    """

    version: int
    replica_id: int
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation: int
    session_id: int
    session_epoch: int
    session_at: int | None
    partitions: list[FetchPartition]
    rack: str


def scan_fetch_request(payload: Buffer, header: RequestHeader) -> FetchRequest:
    """Read the whole request in `payload`; raises MalformedError, also for bytes left over."""
    version = header.version
    if header.api_key != ApiKey.FETCH or not 4 <= version <= 18:
        raise MalformedError(f"API {header.api_key} version {version} is no fetch of version 4 to 18")
    cur = Cursor(payload, header.body_at)
    replica_id = cur.i32() if version < 15 else -1
    max_wait_ms, min_bytes, max_bytes, isolation = cur.unpack(_LIMITS)
    session_at, session_id, session_epoch = None, 0, -1
    if version >= 7:
        session_at, session_id, session_epoch = cur.pos, cur.i32(), cur.i32()
    partitions = _scan_topics(cur, version)
    if version >= 7:
        _skip_forgotten(cur, version)
    rack = ""
    if version >= 12:
        rack = _not_null(cur.compact_string())
        for tag, start, end in cur.tags():
            if tag == _REPLICA_STATE_TAG and version >= 15:
                if end - start < 4:
                    raise MalformedError(f"replica state of {end - start} bytes")
                replica_id = Cursor(payload, start).i32()
    elif version == 11:
        rack = _not_null(cur.string())
    cur.finish()
    return FetchRequest(
        version=version,
        replica_id=replica_id,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation=isolation,
        session_id=session_id,
        session_epoch=session_epoch,
        session_at=session_at,
        partitions=partitions,
        rack=rack,
    )


def _scan_topics(cur: Cursor, version: int) -> list[FetchPartition]:
    found: list[FetchPartition] = []
    topic: str | None = None
    topic_id: bytes | None = None
    flexible = version >= 12
    array_len = cur.compact_array_len if flexible else cur.array_len
    for _ in range(_few(array_len(3))):
        if version >= 13:
            topic_id = cur.raw(16)
        else:
            topic = _not_null(cur.compact_string() if flexible else cur.string())
        count = array_len(_partition_size(version))
        run = _untagged(cur, count) if flexible and count > 2 else None
        if run is not None:
            found += [
                FetchPartition(topic, topic_id, index, current_epoch, offset, last_epoch, limit)
                for index, current_epoch, offset, last_epoch, _, limit, _ in _V12_UNTAGGED.iter_unpack(run)
            ]
            cur.skip(len(run))
            count = 0
        for _ in range(count):
            last_epoch = current_epoch = -1
            if flexible:
                index, current_epoch, offset, last_epoch, _, limit = cur.unpack(_V12)
                cur.skip_tags()
            elif version >= 9:
                index, current_epoch, offset, _, limit = cur.unpack(_V9)
            elif version >= 5:
                index, offset, _, limit = cur.unpack(_V5)
            else:
                index, offset, limit = cur.unpack(_V4)
            found.append(FetchPartition(topic, topic_id, index, current_epoch, offset, last_epoch, limit))
        if flexible:
            cur.skip_tags()
    return found


def _few(topics: int) -> int:
    if topics > MAX_TOPICS:
        raise MalformedError(f"a fetch of {topics} topics")
    return topics


def _untagged(cur: Cursor, count: int) -> Buffer | None:
    """The next `count` partitions' bytes if none of them has a tag, which consumers never send: read at one go."""
    size = _V12_UNTAGGED.size
    run = memoryview(cur.buf)[cur.pos : cur.pos + size * count]
    return run if len(run) == size * count and not any(run[size - 1 :: size]) else None


def _partition_size(version: int) -> int:
    if version >= 12:
        return _V12.size + 1
    return (_V9 if version >= 9 else _V5 if version >= 5 else _V4).size


def _skip_forgotten(cur: Cursor, version: int) -> None:
    flexible = version >= 12
    array_len = cur.compact_array_len if flexible else cur.array_len
    for _ in range(_few(array_len(3))):
        if version >= 13:
            cur.skip(16)
        elif flexible:
            cur.skip_compact_string()
        else:
            cur.skip_string()
        cur.skip(4 * array_len(4))
        if flexible:
            cur.skip_tags()


def _not_null(text: str | None) -> str:
    if text is None:
        raise MalformedError("null in a field that may not be null")
    return text


def make_sessionless(payload: bytearray, request: FetchRequest) -> None:
    """Overwrite session id and epoch so that the broker opens no session; nothing to do below v7."""
    if request.session_at is not None:
        payload[request.session_at : request.session_at + 8] = FULL_SESSIONLESS


def build_fetch_request(
    version: int,
    correlation_id: int,
    client_id: str,
    *,
    max_wait_ms: int,
    min_bytes: int,
    max_bytes: int,
    isolation: int,
    partitions: Sequence[FetchPartition],
) -> bytes:
    """Payload of a sessionless fetch by a consumer, v4 to v17.

    Neighbouring partitions of one topic share a topic entry. Topics are named by `topic` up to v12, by
    `topic_id` from v13; ValueError if that one is not set. Fields the version does not have are left out.
    """
    if not 4 <= version <= 17:
        raise ValueError(f"fetch version {version} is not in 4 to 17")
    flexible = version >= 12
    out = bytearray(request_header(ApiKey.FETCH, version, correlation_id, client_id))
    if version < 15:
        out += b"\xff\xff\xff\xff"
    out += _LIMITS.pack(max_wait_ms, min_bytes, max_bytes, isolation)
    if version >= 7:
        out += FULL_SESSIONLESS
    topics = [(key, list(group)) for key, group in groupby(partitions, lambda p: _topic_key(version, p))]
    out += _put_count(flexible, len(topics))
    for key, group in topics:
        out += key
        out += _put_count(flexible, len(group))
        for part in group:
            out += _put_partition(version, part)
        if flexible:
            out += NO_TAGS
    if version >= 7:
        out += _put_count(flexible, 0)
    if flexible:
        out += put_compact_string("") + NO_TAGS
    elif version == 11:
        out += put_string("")
    return bytes(out)


def _topic_key(version: int, part: FetchPartition) -> bytes:
    if version >= 13:
        if part.topic_id is None or len(part.topic_id) != 16:
            raise ValueError(f"fetch version {version} needs the id of the topic of partition {part.index}")
        return part.topic_id
    if part.topic is None:
        raise ValueError(f"fetch version {version} needs the name of the topic of partition {part.index}")
    return put_compact_string(part.topic) if version >= 12 else put_string(part.topic)


def _put_partition(version: int, part: FetchPartition) -> bytes:
    # log_start is a follower's field: -1.
    if version >= 12:
        return (
            _V12.pack(
                part.index,
                part.current_leader_epoch,
                part.fetch_offset,
                part.last_fetched_epoch,
                -1,
                part.max_bytes,
            )
            + NO_TAGS
        )
    if version >= 9:
        return _V9.pack(part.index, part.current_leader_epoch, part.fetch_offset, -1, part.max_bytes)
    if version >= 5:
        return _V5.pack(part.index, part.fetch_offset, -1, part.max_bytes)
    return _V4.pack(part.index, part.fetch_offset, part.max_bytes)


def _put_count(flexible: bool, count: int) -> bytes:
    return put_uvarint(count + 1) if flexible else count.to_bytes(4, "big")
