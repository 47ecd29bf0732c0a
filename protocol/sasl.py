"""SaslHandshake and SaslAuthenticate: the frames that SASL travels in, not what the mechanisms say in them.

A handshake names the mechanism; the broker answers with the ones it has enabled. Since handshake v1 (KIP-152) every
token travels in SaslAuthenticate, whose answer tells from v1 on how long the session lasts (KIP-368). Behind a
handshake v0 follow tokens with a size and nothing else.

Bodies here start behind the request header; responses are whole payloads, as everywhere in this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from protocol.apis import ApiKey, is_flexible
from protocol.errors import MalformedError
from protocol.headers import response_body_at, response_header
from protocol.wire import NO_TAGS, Buffer, Cursor, put_string, put_uvarint

HANDSHAKE_VERSION = 1
"""The one we speak, and let through: see above what v0 does to those who look for headers."""

AUTHENTICATE_VERSIONS = (0, 2)

_I16 = Struct(">h")
_I32 = Struct(">i")


@dataclass(frozen=True, slots=True)
class HandshakeAnswer:
    """`mechanisms` are those that the broker has enabled, in its order."""

    error: int
    mechanisms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuthenticateAnswer:
    """`session_ms`: how long this authentication lasts, 0 for ever (and below v1, where nobody says)."""

    error: int
    message: str | None
    token: bytes
    session_ms: int


def read_handshake_request(body: Buffer) -> str:
    """The mechanism a client wants, from the body of a SaslHandshake request. Raises MalformedError."""
    cur = Cursor(body)
    mechanism = cur.string()
    cur.finish()
    return mechanism or ""


def handshake_request(mechanism: str) -> bytes:
    """The body of a SaslHandshake request."""
    return put_string(mechanism)


def read_handshake_answer(payload: Buffer) -> HandshakeAnswer:
    """Raises MalformedError, also for bytes left over."""
    cur = Cursor(payload, response_body_at(ApiKey.SASL_HANDSHAKE, HANDSHAKE_VERSION, payload))
    error = cur.i16()
    mechanisms = tuple(cur.string() or "" for _ in range(cur.array_len(2)))
    cur.finish()
    return HandshakeAnswer(error, mechanisms)


def handshake_answer(correlation_id: int, error: int, mechanisms: Sequence[str]) -> bytes:
    """The payload of an answer of our own; v0 has the same layout."""
    head = response_header(ApiKey.SASL_HANDSHAKE, HANDSHAKE_VERSION, correlation_id)
    names = b"".join(put_string(name) for name in mechanisms)
    return head + _I16.pack(error) + _I32.pack(len(mechanisms)) + names


def authenticate_request(version: int, token: bytes) -> bytes:
    """The body of a SaslAuthenticate request that carries one message of the mechanism's."""
    if is_flexible(ApiKey.SASL_AUTHENTICATE, version):
        return put_uvarint(len(token) + 1) + token + NO_TAGS
    return _I32.pack(len(token)) + token


def read_authenticate_request(body: Buffer, version: int) -> bytes:
    """The mechanism's message in the body of a SaslAuthenticate request. Raises MalformedError, also for versions that
    are not known."""
    if version > AUTHENTICATE_VERSIONS[1]:
        raise MalformedError(f"SaslAuthenticate in version {version}")
    cur = Cursor(body)
    flexible = is_flexible(ApiKey.SASL_AUTHENTICATE, version)
    token = cur.compact_bytes() if flexible else cur.bytes_()
    if flexible:
        cur.skip_tags()
    cur.finish()
    return token or b""


def read_authenticate_answer(payload: Buffer, version: int) -> AuthenticateAnswer:
    """Raises MalformedError, also for bytes left over."""
    cur = Cursor(payload, response_body_at(ApiKey.SASL_AUTHENTICATE, version, payload))
    flexible = is_flexible(ApiKey.SASL_AUTHENTICATE, version)
    error = cur.i16()
    message = cur.compact_string() if flexible else cur.string()
    token = cur.compact_bytes() if flexible else cur.bytes_()
    session_ms = cur.i64() if version >= 1 else 0
    if flexible:
        cur.skip_tags()
    cur.finish()
    return AuthenticateAnswer(error, message, token or b"", max(0, session_ms))
