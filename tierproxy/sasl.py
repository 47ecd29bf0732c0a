"""What a client says in the SASL mechanisms that Kafka clusters use. Pure: messages in, messages out.

One object is one authentication: `start` gives the first message, each answer of the server's goes into `step`, which
gives the next message, or None when there is nothing more to say and the server has proved what it must.

    PLAIN          RFC 4616                 user and password, readable
    SCRAM-SHA-*    RFC 5802, RFC 7677       the server proves as well that it knows the password; no channel binding
    OAUTHBEARER    RFC 7628, KIP-255        a token from elsewhere

Kafka takes user names and passwords as UTF-8 without SASLprep (ScramFormatter.normalize), and so do we.

That the *server* says no is an error code of Kafka's (58) and the business of whoever carries the messages. `SaslError`
here means that it did not keep to the mechanism. No message of an error holds a secret, nor what the server sent.
"""

import base64
import binascii
import hashlib
import hmac
import json
from typing import Final, Literal, Protocol

from tierproxy.errors import TierproxyError

MechanismName = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")

LEAST_ITERATIONS: Final = 4096
"""What RFC 7677 and Kafka's own client ask for: with less, passwords are cheap to try on a captured proof."""
MOST_ITERATIONS: Final = 500_000
"""Counting takes time on our event loop; Kafka itself stores at most 16,384."""

_NO_CHANNEL_BINDING = b"n,,"


class SaslError(TierproxyError):
    """The server broke the mechanism's rules, or could not prove that it knows the password."""


class Mechanism(Protocol):
    """One authentication under way."""

    def start(self) -> bytes: ...

    def step(self, challenge: bytes) -> bytes | None: ...


def mechanism(name: MechanismName, username: str, secret: str, nonce: str) -> Mechanism:
    """`secret` is the password, or the token of OAUTHBEARER. `nonce`: printable, no comma, never used before."""
    match name:
        case "PLAIN":
            return Plain(username, secret)
        case "OAUTHBEARER":
            return OAuthBearer(secret)
        case "SCRAM-SHA-256" | "SCRAM-SHA-512":
            return Scram(name, username, secret, nonce)


class Plain:
    def __init__(self, username: str, password: str) -> None:
        self._message = b"\0".join((b"", username.encode(), password.encode()))

    def start(self) -> bytes:
        return self._message

    def step(self, challenge: bytes) -> bytes | None:
        return None


class OAuthBearer:
    """A server that refuses the token says why in a challenge, and refuses only after we have taken note (RFC 7628)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def start(self) -> bytes:
        return _NO_CHANNEL_BINDING + b"\x01auth=Bearer " + self._token.encode() + b"\x01\x01"

    def step(self, challenge: bytes) -> bytes | None:
        return b"\x01" if challenge else None


class Scram:
    def __init__(
        self, name: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"], username: str, password: str, nonce: str
    ) -> None:
        self._hash = "sha256" if name == "SCRAM-SHA-256" else "sha512"
        self._password = password.encode()
        self._nonce = nonce
        self._first = f"n={_escaped(username)},r={nonce}".encode()
        self._expected: bytes | None = None  # the server's proof, once ours was sent
        self._proved = False

    def start(self) -> bytes:
        return _NO_CHANNEL_BINDING + self._first

    def step(self, challenge: bytes) -> bytes | None:
        if self._expected is None:
            return self._prove(challenge)
        if self._proved:
            raise SaslError("the server goes on talking after the end of SCRAM")
        said = _attributes(challenge)
        if not hmac.compare_digest(_decoded(said.get("v", "")), self._expected):
            raise SaslError("the server can't prove that it knows the password: is it the broker that is meant?")
        self._proved = True
        return None

    def _prove(self, challenge: bytes) -> bytes:
        said = _attributes(challenge)
        nonce, salt = said.get("r", ""), _decoded(said.get("s", ""))
        count = said.get("i", "")
        iterations = int(count) if count.isascii() and count.isdigit() and len(count) <= 10 else 0
        if not nonce.startswith(self._nonce) or nonce == self._nonce or not salt:
            raise SaslError("the server's first SCRAM message is not an answer to ours")
        if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise SaslError(
                f"the server wants {iterations} SCRAM iterations; {LEAST_ITERATIONS} to {MOST_ITERATIONS} are accepted"
            )
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, iterations)
        client_key = self._mac(salted, b"Client Key")
        unproved = b"c=" + base64.b64encode(_NO_CHANNEL_BINDING) + b",r=" + nonce.encode()
        transcript = self._first + b"," + challenge + b"," + unproved
        signature = self._mac(hashlib.new(self._hash, client_key).digest(), transcript)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._expected = self._mac(self._mac(salted, b"Server Key"), transcript)
        return unproved + b",p=" + base64.b64encode(proof)

    def _mac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self._hash)


# -- what a passing client says -------------------------------------------------------------------------------------


MOST_MESSAGE: Final = 64 << 10
"""Bytes of a message that is looked into: anybody may send one. Tokens that list a user's groups have some KiB."""
MOST_NAME: Final = 256
"""Letters of a user's name, or bytes of a client id, that tell one from another."""


def user_in(mechanism: str, message: bytes) -> str | None:
    """The user that one of a client's messages names; None if it names none, or not in a way that is known here."""
    found = None
    if len(message) <= MOST_MESSAGE:
        match mechanism:
            case "PLAIN":
                parts = message.split(b"\0")
                found = _text(parts[1]) if len(parts) == 3 else None
            case "SCRAM-SHA-256" | "SCRAM-SHA-512":
                found = _scram_user(message)
            case "OAUTHBEARER":
                found = _token_subject(message)
    return found[:MOST_NAME] if found is not None else None


def accepted(mechanism: str, challenge: bytes) -> bool:
    """Whether a broker's answer without an error is its last word, by which the client is in.

    Of SCRAM that is the proof, not the salt; of OAUTHBEARER nothing at all, for why a token is refused comes without an
    error, too.
    """
    match mechanism:
        case "SCRAM-SHA-256" | "SCRAM-SHA-512":
            return challenge.startswith(b"v=")
        case "OAUTHBEARER":
            return not challenge
        case _:
            return True


def _scram_user(message: bytes) -> str | None:
    """Who logs in with a delegation token names the token, so nobody but the broker knows who it is (KIP-48)."""
    if not message.startswith((b"n,", b"y,", b"p=")):
        return None
    said = _attributes(message)
    name = said.get("n")
    if not name or said.get("tokenauth", "").lower() == "true":
        return None
    return name.replace("=2C", ",").replace("=3D", "=")


def _token_subject(message: bytes) -> str | None:
    """The `sub` of a JSON web token. That it is true is what the broker says by accepting it."""
    for part in message.split(b"\x01"):
        scheme, _, token = part.removeprefix(b"auth=").partition(b" ")
        if part.startswith(b"auth=") and scheme.lower() == b"bearer" and token.count(b".") == 2:
            claims = token.split(b".")[1]
            try:
                found = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
            except (ValueError, RecursionError):
                return None
            subject = found.get("sub") if isinstance(found, dict) else None
            return subject if isinstance(subject, str) and subject else None
    return None


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode() or None
    except UnicodeDecodeError:
        return None


def _escaped(username: str) -> str:
    return username.replace("=", "=3D").replace(",", "=2C")


def _attributes(message: bytes) -> dict[str, str]:
    """`r=…,s=…` as {"r": …, "s": …}; what is not of that shape is left out, and missed by whoever needs it."""
    parts = (part.partition("=") for part in message.decode("utf-8", "replace").split(","))
    return {name: value for name, equals, value in parts if equals}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
