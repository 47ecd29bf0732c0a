"""tierproxy.sasl against the RFCs' own examples and against a server's side written from the RFC."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tierproxy.scram_server import Server
from tierproxy.sasl import OAuthBearer, Plain, SaslError, Scram, mechanism

SCRAM = ["SCRAM-SHA-256", "SCRAM-SHA-512"]


def test_scram_sha_256_as_in_rfc_7677() -> None:
    scram = Scram("SCRAM-SHA-256", "user", "pencil", "rOprNGfwEbeRWgbNEkqO")
    assert scram.start() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert scram.step(first) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert scram.step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") is None


@pytest.mark.parametrize("name", SCRAM)
@settings(max_examples=25)
@given(username=st.text(min_size=1, max_size=20), password=st.text(min_size=1, max_size=20))
def test_a_scram_server_is_convinced_and_convinces(name: str, username: str, password: str) -> None:
    client, server = mechanism(name, username, password, "n0nce"), Server(name, password)  # type: ignore[arg-type]
    ours = client.step(server.first(client.start()))
    assert ours is not None
    proof = server.final(ours)
    assert server.username == username
    assert proof is not None
    assert client.step(proof) is None


@pytest.mark.parametrize("name", SCRAM)
def test_a_wrong_password_proves_nothing(name: str) -> None:
    client, server = mechanism(name, "user", "pencils", "n"), Server(name, "pencil")  # type: ignore[arg-type]
    ours = client.step(server.first(client.start()))
    assert ours is not None
    assert server.final(ours) is None


@pytest.mark.parametrize("proof", [b"", b"v=", b"v=AAAA", b"e=other-error", b"v=%", b"\xff"])
def test_a_server_that_does_not_know_the_password_is_left(proof: bytes) -> None:
    client, server = Scram("SCRAM-SHA-256", "user", "pencil", "n"), Server("SCRAM-SHA-256", "pencil")
    client.step(server.first(client.start()))
    with pytest.raises(SaslError, match="can't prove"):
        client.step(proof)


def test_the_end_is_the_end() -> None:
    client, server = Scram("SCRAM-SHA-256", "user", "pencil", "n"), Server("SCRAM-SHA-256", "pencil")
    ours = client.step(server.first(client.start()))
    assert ours is not None
    proof = server.final(ours)
    assert proof is not None
    client.step(proof)
    with pytest.raises(SaslError, match="after the end"):
        client.step(proof)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"", "not an answer to ours"),
        (b"\xff\xfe", "not an answer to ours"),
        (b"r=other,s=c2FsdA==,i=4096", "not an answer to ours"),
        (b"r=n,s=c2FsdA==,i=4096", "not an answer to ours"),  # the server added nothing of its own
        (b"r=n1,s=,i=4096", "not an answer to ours"),
        (b"r=n1,s=*,i=4096", "not an answer to ours"),
        (b"r=n1,s=c2FsdA==,i=4095", "wants 4095 SCRAM iterations"),
        (b"r=n1,s=c2FsdA==,i=2000000000", "2000000000 SCRAM iterations"),
        (b"r=n1,s=c2FsdA==,i=" + b"9" * 5000, "0 SCRAM iterations"),
        (b"r=n1,s=c2FsdA==,i=-5", "0 SCRAM iterations"),
        ("r=n1,s=c2FsdA==,i=٤٠٩٦".encode(), "0 SCRAM iterations"),
        (b"r=n1,s=c2FsdA==", "0 SCRAM iterations"),
    ],
)
def test_a_server_that_breaks_the_rules_of_scram_is_left(first: bytes, words: str) -> None:
    client = Scram("SCRAM-SHA-256", "user", "pencil", "n")
    with pytest.raises(SaslError, match=words):
        client.step(first)


def test_plain_as_in_rfc_4616() -> None:
    plain = Plain("tim", "tanstaaftanstaaf")
    assert plain.start() == b"\0tim\0tanstaaftanstaaf"
    assert plain.step(b"") is None


def test_oauthbearer_as_in_rfc_7628() -> None:
    bearer = OAuthBearer("vF9dft4qmT")
    assert bearer.start() == b"n,,\x01auth=Bearer vF9dft4qmT\x01\x01"
    assert bearer.step(b"") is None
    assert bearer.step(b'{"status":"invalid_token"}') == b"\x01"
