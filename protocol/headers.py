"""What precedes the body of a request and of a response.

Request: api_key i16, version i16, correlation_id i32, client_id (16-bit length, never compact), then a tag
section in flexible versions (header v2). Response: correlation_id i32, then a tag section in flexible
versions (header v1), but never for ApiVersions. A *payload* here is a frame without its four size bytes.
"""

from dataclasses import dataclass
from struct import Struct

from protocol.apis import request_header_has_tags, response_header_has_tags
from protocol.wire import NO_TAGS, Buffer, Cursor, put_string

_HEAD = Struct(">hhi")
_HEAD_AND_LENGTH = Struct(">hhih")


@dataclass(slots=True)
class RequestHeader:
    """Header of one request; `body_at` is where its body starts in the payload."""

    api_key: int
    version: int
    correlation_id: int
    client_id: bytes | None
    body_at: int


def read_request_header(payload: Buffer) -> RequestHeader:
    """Header of the request in `payload`, which may be just the head of it.

    A key the table does not know is read as header v1. Raises TruncatedError if the header is not all there,
    which for a head means to ask again with more bytes, and MalformedError if it can never be one.
    """
    if len(payload) >= _HEAD_AND_LENGTH.size:  # the usual case, made quick: it is all there, and has no tags
        key, version, correlation_id, size = _HEAD_AND_LENGTH.unpack_from(payload)
        name_at, end = _HEAD_AND_LENGTH.size, _HEAD_AND_LENGTH.size + size
        if size >= 0 and end <= len(payload):
            if not request_header_has_tags(key, version):
                return RequestHeader(key, version, correlation_id, bytes(payload[name_at:end]), end)
            if end < len(payload) and payload[end] == 0:
                return RequestHeader(key, version, correlation_id, bytes(payload[name_at:end]), end + 1)
    cur = Cursor(payload)
    key, version, correlation_id = cur.unpack(_HEAD)
    size = cur.i16()
    client_id = None if size == -1 else cur.raw(size)
    if request_header_has_tags(key, version):
        cur.skip_tags()
    return RequestHeader(key, version, correlation_id, client_id, cur.pos)


def response_body_at(key: int, version: int, payload: Buffer) -> int:
    """Where the body of a response to (key, version) starts in `payload`; raises as read_request_header()."""
    cur = Cursor(payload)
    cur.skip(4)
    if response_header_has_tags(key, version):
        cur.skip_tags()
    return cur.pos


def request_header(key: int, version: int, correlation_id: int, client_id: str) -> bytes:
    """The header bytes of a request of our own."""
    head = _HEAD.pack(key, version, correlation_id) + put_string(client_id)
    return head + NO_TAGS if request_header_has_tags(key, version) else head


def response_header(key: int, version: int, correlation_id: int) -> bytes:
    """The header bytes of a response of our own."""
    head = correlation_id.to_bytes(4, "big", signed=True)
    return head + NO_TAGS if response_header_has_tags(key, version) else head
