"""What a client may begin its authentication with. Behind that it is between the client and the broker: bytes pass.

What can't work is refused in the protocol's words where it has some, so that the client's own log says why. Of what
passes, `Login` reads the user's name, for limits of users; nothing else of it is kept.
"""

from dataclasses import dataclass

from protocol.errors import ErrorCode, MalformedError
from protocol.headers import RequestHeader
from protocol.sasl import (
    HANDSHAKE_VERSION,
    handshake_answer,
    read_authenticate_answer,
    read_authenticate_request,
    read_handshake_answer,
    read_handshake_request,
)
from protocol.wire import Buffer
from tierproxy.sasl import SCRAM, accepted, user_in

NO_MECHANISM_FOR_PROXIES: dict[str, str] = {
    "GSSAPI": "a Kerberos ticket is for the broker's own host name",
    "AWS_MSK_IAM": "its signature covers the broker's own host name",
}
"""SASL mechanisms that a broker may know but that can't pass through a proxy, and why (kafka-protocol.md 10)."""

GSSAPI_TOKEN = b"\x60"
"""How the first frame of a client begins that sends Kerberos tokens without asking, as before Kafka 0.10."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """`answer`: what to tell the client, None: the broker is asked first. `why` is for the log."""

    why: str
    answer: bytes | None


def first_frame(head: Buffer) -> str | None:
    """What is wrong with the beginning of a connection's first request, if we know it better than a header's reader."""
    if head[:1] == GSSAPI_TOKEN:
        return f"a raw Kerberos token, which can't work through a proxy: {NO_MECHANISM_FOR_PROXIES['GSSAPI']}"
    return None


def refuse(header: RequestHeader, head: Buffer) -> Refusal | None:
    """Judge a SaslHandshake request. None: forward it, and whatever follows. Raises MalformedError."""
    mechanism = read_handshake_request(head[header.body_at :])
    if header.version < HANDSHAKE_VERSION:  # tokens without headers would follow, which look like anything
        answer = handshake_answer(header.correlation_id, ErrorCode.UNSUPPORTED_VERSION, [])
        return Refusal("the client authenticates as before Kafka 1.0 (SaslHandshake v0)", answer)
    if mechanism in NO_MECHANISM_FOR_PROXIES:
        return Refusal(f"{mechanism} can't work through a proxy: {NO_MECHANISM_FOR_PROXIES[mechanism]}", None)
    return None


def refused_answer(header: RequestHeader, payload: Buffer) -> bytes:
    """The broker's own list of mechanisms, without those that it takes and we can't carry."""
    names = [name for name in read_handshake_answer(payload).mechanisms if name not in NO_MECHANISM_FOR_PROXIES]
    return handshake_answer(header.correlation_id, ErrorCode.UNSUPPORTED_SASL_MECHANISM, names)


@dataclass(frozen=True, slots=True)
class Claim:
    """Whom a message says the client is; None: nobody, or nobody we can read."""

    mechanism: str
    user: str | None


@dataclass(slots=True)
class Login:
    """Who the client is, by its own word, once the broker has accepted that; None: nobody has told.

    Fed with what passes, in the order in which it passes. What can't be read is nobody's business but the broker's.
    """

    user: str | None = None
    _claim: Claim = Claim("", None)

    def handshake(self, header: RequestHeader, head: Buffer) -> None:
        """A SaslHandshake goes to the broker."""
        self._claim = Claim(read_handshake_request(head[header.body_at :]), None)

    def message(self, header: RequestHeader, head: Buffer) -> Claim:
        """A SaslAuthenticate goes to the broker. What it claims is to be kept for its answer: others may follow it."""
        try:
            token = read_authenticate_request(head[header.body_at :], header.version)
        except MalformedError:
            token = b""
        mechanism = self._claim.mechanism
        user = user_in(mechanism, token)
        if user is not None or mechanism not in SCRAM:  # whose later messages name nobody
            self._claim = Claim(mechanism, user)
        return self._claim

    def answer(self, claim: Claim, header: RequestHeader, payload: Buffer) -> None:
        """The broker's answer to the message that made `claim`."""
        try:
            said = read_authenticate_answer(payload, header.version)
        except MalformedError:
            return
        if said.error == ErrorCode.NONE and accepted(claim.mechanism, said.token):
            self.user = claim.user
