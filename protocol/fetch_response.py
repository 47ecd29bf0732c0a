"""Fetch responses held whole, v4 to v18: taken apart, and put together again with other records in them.

Positions of the fixed part of a partition: 0 index i32, 4 error i16, 6 high watermark i64, 14 last stable
offset i64, 22 log start i64 (v5+). Then aborted transactions, preferred replica (v11+), records, tags
(v12+). Records may be null: Kafka 3.9 sends that with error 76. Responses that only flow by go through
fetch_stream instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from struct import Struct

from protocol.apis import ApiKey
from protocol.endpoints import node_endpoints, replace_node_endpoints
from protocol.errors import MalformedError
from protocol.headers import response_body_at, response_header
from protocol.wire import NO_TAGS, Buffer, Cursor, put_compact_string, put_string, put_uvarint

__all__ = [
    "FetchResponse",
    "FetchedPartition",
    "diverging_epoch",
    "encode_fetch_response",
    "error_response",
    "node_endpoints",
    "parse_fetch_response",
    "replace_node_endpoints",
]

_FIXED_V4 = Struct(">ihqq")
_FIXED_V5 = Struct(">ihqqq")
_ABORTED = Struct(">qq")
_ABORTED_TAGGED = Struct(">qqB")
_TOP = Struct(">ihi")
_EPOCH_END = Struct(">iq")
_DIVERGING_EPOCH_TAG = 0


@dataclass(slots=True)
class FetchedPartition:
    """What a broker said about one partition.

    Exactly one of `topic` (v4-12) and `topic_id` (v13+, 16 bytes) is set. `aborted` lists (producer id,
    first offset). `log_start` and `preferred_replica` are -1 where the version has no such field. `records`
    is a view of the payload that was parsed. `tags` is the tag section as it came, its count included; b""
    below v12.
    """

    topic: str | None
    topic_id: bytes | None
    index: int
    error: int
    high_watermark: int
    last_stable_offset: int
    log_start: int
    aborted: list[tuple[int, int]] | None
    preferred_replica: int
    records: memoryview | None
    tags: bytes
    more: tuple[memoryview, ...] = ()
    """Records that follow those in `records`, where an answer is put together from several places."""


@dataclass(slots=True)
class FetchResponse:
    """A whole response. `error` and `session_id` are 0 below v7. `tags` as in a partition."""

    version: int
    correlation_id: int
    throttle_ms: int
    error: int
    session_id: int
    partitions: list[FetchedPartition]
    tags: bytes


def parse_fetch_response(payload: Buffer, version: int) -> FetchResponse:
    """Take a response apart; records are views into `payload`, not copies.

    Tags of the response header and of topics are dropped: Kafka defines none. Raises MalformedError, also
    for bytes left over.
    """
    _check_version(version)
    view = memoryview(payload)
    cur = Cursor(view, response_body_at(ApiKey.FETCH, version, view))
    correlation_id = int.from_bytes(view[:4], "big", signed=True)
    error = session_id = 0
    if version >= 7:
        throttle_ms, error, session_id = cur.unpack(_TOP)
    else:
        throttle_ms = cur.i32()
    partitions = list(_topics(cur, view, version))
    tags = _raw_tags(cur, view) if version >= 12 else b""
    cur.finish()
    return FetchResponse(version, correlation_id, throttle_ms, error, session_id, partitions, tags)


def _check_version(version: int) -> None:
    if not 4 <= version <= 18:
        raise ValueError(f"fetch version {version} is not in 4 to 18")


def _topics(cur: Cursor, view: memoryview, version: int) -> Iterator[FetchedPartition]:
    flexible = version >= 12
    array_len = cur.compact_array_len if flexible else cur.array_len
    fixed = _FIXED_V5 if version >= 5 else _FIXED_V4
    topic: str | None = None
    topic_id: bytes | None = None
    for _ in range(array_len(3)):
        if version >= 13:
            topic_id = cur.raw(16)
        else:
            topic = cur.compact_string() if flexible else cur.string()
            if topic is None:
                raise MalformedError("null topic name")
        for _ in range(array_len(fixed.size + 2)):
            numbers = cur.unpack(fixed)
            index, error, high_watermark, last_stable_offset = numbers[:4]
            log_start = numbers[4] if version >= 5 else -1
            aborted = _aborted(cur, flexible)
            preferred = cur.i32() if version >= 11 else -1
            size = cur.uvarint() - 1 if flexible else cur.i32()
            records = None
            if size != -1:
                start = cur.pos
                cur.skip(size)
                records = view[start : cur.pos]
            tags = _raw_tags(cur, view) if flexible else b""
            yield FetchedPartition(
                topic,
                topic_id,
                index,
                error,
                high_watermark,
                last_stable_offset,
                log_start,
                aborted,
                preferred,
                records,
                tags,
            )
        if flexible:
            cur.skip_tags()


def _aborted(cur: Cursor, flexible: bool) -> list[tuple[int, int]] | None:
    count = cur.compact_array_len(17, nullable=True) if flexible else cur.array_len(16, nullable=True)
    if count < 0:
        return None
    found = []
    for _ in range(count):
        producer_id, first_offset = cur.unpack(_ABORTED)
        found.append((producer_id, first_offset))
        if flexible:
            cur.skip_tags()
    return found


def _raw_tags(cur: Cursor, view: memoryview) -> bytes:
    start = cur.pos
    cur.skip_tags()
    return bytes(view[start : cur.pos])


def diverging_epoch(tags: bytes) -> tuple[int, int] | None:
    """(epoch, end offset) where the asker's log leaves the leader's (KIP-595); None if it does not."""
    if not tags or tags == NO_TAGS:
        return None
    cur = Cursor(tags)
    found = None
    for tag, start, _ in cur.tags():
        if tag == _DIVERGING_EPOCH_TAG:
            epoch, end_offset = Cursor(tags, start).unpack(_EPOCH_END)
            found = epoch, end_offset
    return found


def encode_fetch_response(response: FetchResponse) -> list[Buffer]:
    """The payload as pieces; records pass through uncopied.

    Neighbouring partitions of one topic share a topic entry, as a broker groups them, so what
    parse_fetch_response() made of a broker's bytes comes out as the same bytes.
    """
    version = response.version
    _check_version(version)
    flexible = version >= 12
    head = bytearray(response_header(ApiKey.FETCH, version, response.correlation_id))
    if version >= 7:
        head += _TOP.pack(response.throttle_ms, response.error, response.session_id)
    else:
        head += response.throttle_ms.to_bytes(4, "big", signed=True)
    topics = [list(group) for _, group in groupby(response.partitions, lambda p: (p.topic, p.topic_id))]
    head += _put_count(flexible, len(topics))
    out: list[Buffer] = []
    for group in topics:
        head += _put_topic(version, group[0])
        head += _put_count(flexible, len(group))
        for part in group:
            head += _put_partition_head(version, part)
            runs = [run for run in (part.records, *part.more) if run]
            if runs:
                out += (head, *runs)
                head = bytearray()
            if flexible:
                head += part.tags or NO_TAGS
        if flexible:
            head += NO_TAGS
    if flexible:
        head += response.tags or NO_TAGS
    if head:
        out.append(head)
    return out


def error_response(version: int, correlation_id: int, error: int) -> bytes:
    """A response that says no more than a top-level error (v7+): session id 0, no topics."""
    if version < 7:
        raise ValueError(f"fetch version {version} has no top-level error")
    return b"".join(encode_fetch_response(FetchResponse(version, correlation_id, 0, error, 0, [], b"")))


def _put_topic(version: int, part: FetchedPartition) -> bytes:
    if version >= 13:
        if part.topic_id is None or len(part.topic_id) != 16:
            raise ValueError(f"fetch version {version} needs the id of the topic of partition {part.index}")
        return part.topic_id
    if part.topic is None:
        raise ValueError(f"fetch version {version} needs the name of the topic of partition {part.index}")
    return put_compact_string(part.topic) if version >= 12 else put_string(part.topic)


def _put_partition_head(version: int, part: FetchedPartition) -> bytes:
    """Everything of a partition up to the size of its records."""
    flexible = version >= 12
    numbers = (part.index, part.error, part.high_watermark, part.last_stable_offset)
    head = _FIXED_V5.pack(*numbers, part.log_start) if version >= 5 else _FIXED_V4.pack(*numbers)
    if part.aborted is None:
        head += b"\x00" if flexible else b"\xff\xff\xff\xff"
    else:
        head += _put_count(flexible, len(part.aborted))
        head += b"".join(_ABORTED_TAGGED.pack(*one, 0) if flexible else _ABORTED.pack(*one) for one in part.aborted)
    if version >= 11:
        head += part.preferred_replica.to_bytes(4, "big", signed=True)
    if part.records is None and not part.more:
        return head + (b"\x00" if flexible else b"\xff\xff\xff\xff")
    size = len(part.records or b"") + sum(map(len, part.more))
    return head + (put_uvarint(size + 1) if flexible else size.to_bytes(4, "big"))


def _put_count(flexible: bool, count: int) -> bytes:
    return put_uvarint(count + 1) if flexible else count.to_bytes(4, "big")
