"""Playbooks of clients that authenticate: what passes untouched, and what is refused in words a client can read."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from protocol.sasl import authenticate_request, handshake_answer, handshake_request
from tests.unit.tierproxy.talk import Talk, answer, request
from tierproxy.sasl import user_in

MECHANISMS = ["PLAIN", "GSSAPI", "SCRAM-SHA-512", "AWS_MSK_IAM"]
HEARTBEAT = request(ApiKey.HEARTBEAT, 4, 9, b"\x02g\x00\x00\x00\x01\x02m\x00\x00")


@pytest.fixture(params=[False, True], ids=["whole", "byte by byte"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(piecewise=bool(request.param))


def handshake(mechanism: str, version: int = 1, correlation_id: int = 1) -> bytes:
    return request(ApiKey.SASL_HANDSHAKE, version, correlation_id, handshake_request(mechanism))


def closing(talk: Talk) -> str:
    assert talk.conversation.closing is not None
    return talk.conversation.closing


def test_what_authenticates_passes_unread_and_nothing_is_injected(talk: Talk) -> None:
    hello = handshake("SCRAM-SHA-512")
    talk.client(hello)
    assert talk.to_broker() == [hello]
    welcome = handshake_answer(1, 0, MECHANISMS)
    talk.broker(welcome)
    assert talk.to_client() == [welcome]
    for correlation_id, version in [(2, 2), (3, 2), (4, 7)]:  # v7: Kafka's future, and none of our business
        token = request(ApiKey.SASL_AUTHENTICATE, version, correlation_id, bytes(range(256)))
        talk.client(token)
        assert talk.to_broker() == [token]
        challenge = answer(ApiKey.SASL_AUTHENTICATE, version, correlation_id, bytes(range(255, -1, -1)))
        talk.broker(challenge)
        assert talk.to_client() == [challenge]
    again = handshake("SCRAM-SHA-512", correlation_id=5)  # re-authentication (KIP-368)
    talk.client(again)
    assert talk.to_broker() == [again]
    assert talk.conversation.closing is None


@pytest.mark.parametrize("broker_says", [ErrorCode.NONE, ErrorCode.UNSUPPORTED_SASL_MECHANISM])
@pytest.mark.parametrize("mechanism", ["GSSAPI", "AWS_MSK_IAM"])
def test_a_mechanism_that_can_not_pass_is_refused_with_the_brokers_list(
    talk: Talk, mechanism: str, broker_says: ErrorCode
) -> None:
    hello = handshake(mechanism)
    talk.client(hello)
    assert talk.to_broker() == [hello]
    talk.broker(handshake_answer(1, broker_says, MECHANISMS))
    assert talk.to_client() == [handshake_answer(1, 33, ["PLAIN", "SCRAM-SHA-512"])]
    assert closing(talk).startswith(f"{mechanism} can't work through a proxy: ")


def test_a_mechanism_that_the_broker_refuses_is_the_brokers_business(talk: Talk) -> None:
    talk.client(handshake("PLAINER"))
    said = handshake_answer(1, 33, MECHANISMS)
    talk.broker(said)
    assert talk.to_client() == [said]
    assert talk.conversation.closing is None  # the broker closes


def test_handshake_v0_is_answered_in_its_turn_and_then_it_is_over(talk: Talk) -> None:
    talk.client(HEARTBEAT, handshake("PLAIN", version=0), b"\0user\0password")  # a token without a header
    assert talk.to_broker() == [HEARTBEAT]
    assert (talk.to_client(), talk.conversation.closing) == ([], None)
    beat = answer(ApiKey.HEARTBEAT, 4, 9, b"\0\0\0\0\0\0\0")
    talk.broker(beat)
    assert talk.to_client() == [beat, bytes.fromhex("00000001 0023 00000000")]
    assert "SaslHandshake v0" in closing(talk)
    talk.client(HEARTBEAT)
    assert talk.to_broker() == []


def test_handshake_v0_alone_is_answered_at_once(talk: Talk) -> None:
    talk.client(handshake("GSSAPI", version=0))
    assert talk.to_client() == [handshake_answer(1, 35, [])]
    assert "SaslHandshake v0" in closing(talk)


def test_a_raw_kerberos_token_is_known_for_what_it_is(talk: Talk) -> None:
    talk.client(b"\x60\x82\x02\x5a\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02" + bytes(587))
    assert "a raw Kerberos token, which can't work through a proxy" in closing(talk)
    assert (talk.to_broker(), talk.to_client()) == ([], [])


def test_only_a_first_frame_can_be_such_a_token(talk: Talk) -> None:
    talk.client(HEARTBEAT, struct.pack(">hhih", 0x6082, 0, 1, -1))
    assert "API 24706" in closing(talk)


def test_tls_at_a_port_without_is_known_for_what_it_is() -> None:
    talk = Talk()
    talk.conversation.from_client(bytes.fromhex("16030102 00010001fc0303") + bytes(500))
    assert closing(talk) == "the client speaks TLS, and this port does not (listen.tls)"


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x05PLAI", b"\x00\x05PLAIN?", b"\x00\x02\xff\xfe"])
def test_a_malformed_handshake_closes(talk: Talk, body: bytes) -> None:
    talk.client(request(ApiKey.SASL_HANDSHAKE, 1, 1, body))
    assert "malformed" in closing(talk)
    assert talk.to_broker() == []


def test_a_malformed_answer_to_a_refused_mechanism_closes(talk: Talk) -> None:
    talk.client(handshake("GSSAPI"))
    talk.broker(answer(ApiKey.SASL_HANDSHAKE, 1, 1, b"\x00"))
    assert "can't be understood" in closing(talk)


# -- who it is, for limits -----------------------------------------------------------------------------------------


def authenticate(mechanism: str, talk: Talk, *exchange: tuple[bytes, int, bytes], version: int = 2) -> str | None:
    """Each of `exchange` is a client's message, and the broker's error and message; who the client is then.

    What passes is compared with what was said.
    """
    talk.client(handshake(mechanism))
    talk.broker(handshake_answer(1, 0, [mechanism]))
    talk.to_broker(), talk.to_client()
    for correlation_id, (message, error, challenge) in enumerate(exchange, 2):
        said = request(ApiKey.SASL_AUTHENTICATE, version, correlation_id, authenticate_request(version, message))
        talk.client(said)
        assert talk.to_broker() == [said]
        replied = authenticated(version, correlation_id, error, challenge)
        talk.broker(replied)
        assert talk.to_client() == [replied]
    return talk.conversation.user


def authenticated(version: int, correlation_id: int, error: int, challenge: bytes) -> bytes:
    if version < 2:
        body = struct.pack(">hhi", error, -1, len(challenge)) + challenge + (bytes(8) if version else b"")
    else:
        body = struct.pack(">hB", error, 0) + bytes([len(challenge) + 1]) + challenge + bytes(8) + b"\0"
    return answer(ApiKey.SASL_AUTHENTICATE, version, correlation_id, body)


def token(claims: object, scheme: str = "Bearer") -> bytes:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    return b"n,a=x,\x01auth=" + scheme.encode() + b" eyJ9." + middle + b".c2ln\x01extension=1\x01\x01"


SERVER_FIRST, SERVER_LAST = b"r=abcdef,s=c2FsdA==,i=4096", b"v=cHJvb2Y="


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize(
    ("mechanism", "exchange", "user"),
    [
        ("PLAIN", [(b"\0alice\0secret", 0, b"")], "alice"),
        ("PLAIN", [(b"alice\0al\xc3\xafce\0secret", 0, b"")], "al\u00efce"),
        ("PLAIN", [(b"\0alice\0wrong", 58, b"")], None),
        ("PLAIN", [(b"\0al\xff\0secret", 0, b"")], None),
        ("PLAIN", [(b"alice", 0, b"")], None),
        ("SCRAM-SHA-256", [(b"n,,n=a=2Cl=3D=2C,r=a", 0, SERVER_FIRST), (b"c=biws,r=a,p=x", 0, SERVER_LAST)], "a,l=,"),
        ("SCRAM-SHA-512", [(b"n,a=bob,n=alice,r=abc", 0, SERVER_FIRST), (b"c=biws,r=a,p=x", 0, SERVER_LAST)], "alice"),
        ("SCRAM-SHA-512", [(b"n,,n=alice,r=abc", 0, SERVER_FIRST)], None),
        ("SCRAM-SHA-512", [(b"n,,n=alice,r=abc", 0, SERVER_FIRST), (b"c=biws,r=a,p=x", 58, b"")], None),
        ("SCRAM-SHA-512", [(b"n,,n=alice,r=abc", 0, SERVER_FIRST), (b"c=biws,r=a,p=x", 0, b"e=no")], None),
        (
            "SCRAM-SHA-512",
            [(b"n,,n=token-id,r=abc,tokenauth=true", 0, SERVER_FIRST), (b"c=biws,r=a,p=x", 0, SERVER_LAST)],
            None,
        ),
        ("OAUTHBEARER", [(token({"sub": "alice"}), 0, b"")], "alice"),
        ("OAUTHBEARER", [(token({"sub": "alice"}, "bearer"), 0, b"")], "alice"),
        ("OAUTHBEARER", [(token({"sub": "alice"}), 0, b'{"status":"invalid_token"}'), (b"\x01", 58, b"")], None),
        ("OAUTHBEARER", [(token({"sub": 5}), 0, b"")], None),
        ("OAUTHBEARER", [(token(["sub"]), 0, b"")], None),
        ("OAUTHBEARER", [(b"n,,\x01auth=Bearer opaque\x01\x01", 0, b"")], None),
        ("OAUTHBEARER", [(b"n,,\x01auth=Bearer a.\xff\xff.c\x01\x01", 0, b"")], None),
        ("OAUTHBEARER", [(b"n,,\x01auth=Bearer a." + b"W1tb" * 10_000 + b".c\x01\x01", 0, b"")], None),
        ("PLAIN", [(b"\0" * 100_000, 0, b"")], None),
        ("PLAIN", [(b"\0" + b"a" * 1000 + b"\0secret", 0, b"")], "a" * 256),
        ("ONE-OF-THEIR-OWN", [(b"\0alice\0secret", 0, b"")], None),
    ],
)
def test_the_user_is_who_the_broker_has_accepted(
    talk: Talk, mechanism: str, exchange: list[tuple[bytes, int, bytes]], user: str | None, version: int
) -> None:
    assert authenticate(mechanism, talk, *exchange, version=version) == user
    assert talk.conversation.closing is None


@given(st.sampled_from(["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"]), st.binary(max_size=200))
def test_whatever_a_client_says_is_no_trouble(mechanism: str, message: bytes) -> None:
    for framed in (message, b"n,,\x01auth=Bearer a." + base64.b64encode(message) + b".c\x01\x01", b"n,," + message):
        user_in(mechanism, framed)


def test_a_claim_that_follows_the_accepted_one_is_not_taken_for_it(talk: Talk) -> None:
    """All sent in one go, before the broker has answered anything."""
    first, second = (
        request(ApiKey.SASL_AUTHENTICATE, 2, n, authenticate_request(2, b"\0%s\0secret" % who))
        for n, who in ((2, b"alice"), (3, b"bob"))
    )
    talk.client(handshake("PLAIN"), first, second)
    talk.broker(handshake_answer(1, 0, ["PLAIN"]), authenticated(2, 2, 0, b""))
    assert talk.conversation.user == "alice"
    talk.broker(authenticated(2, 3, 34, b""))
    assert talk.conversation.user == "alice"


def test_no_secret_stays() -> None:
    talk = Talk()
    authenticate("PLAIN", talk, (b"\0alice\0correct-horse", 0, b""))
    assert "horse" not in repr(talk.conversation)
