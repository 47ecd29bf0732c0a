"""protocol.sasl. Byte literals were laid out by hand from Kafka 4.3.1's message definitions; kafka-python's message
classes are the second opinion. That a broker agrees is shown by tests/integration/test_security.py.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol import sasl as oracle

from protocol.errors import MalformedError
from protocol.sasl import (
    AuthenticateAnswer,
    HandshakeAnswer,
    authenticate_request,
    handshake_answer,
    handshake_request,
    read_authenticate_answer,
    read_handshake_answer,
    read_handshake_request,
)
from tests.unit.protocol.reading import (
    reads_alike_from_every_buffer,
    refuses_every_truncation,
    refuses_trailing_bytes,
    survives_damage,
)

HANDSHAKE_ANSWER = bytes.fromhex("00000007 0021 00000002 0005 504c41494e 0006 475353415049")
AUTHENTICATE_ANSWERS = {
    0: bytes.fromhex("00000007 003a 0002 6e6f 00000000"),
    1: bytes.fromhex("00000007 0000 ffff 00000003 763d61 0000000000000bb8"),
    2: bytes.fromhex("00000007 00 0000 00 04 763d61 0000000000000bb8 00"),
}
SAID = {
    0: AuthenticateAnswer(58, "no", b"", 0),
    1: AuthenticateAnswer(0, None, b"v=a", 3000),
    2: AuthenticateAnswer(0, None, b"v=a", 3000),
}


def test_the_handshake_names_a_mechanism() -> None:
    body = bytes.fromhex("0005 504c41494e")
    assert handshake_request("PLAIN") == body
    assert read_handshake_request(body) == "PLAIN"
    refuses_every_truncation(read_handshake_request, body)
    refuses_trailing_bytes(read_handshake_request, body)


def test_the_handshakes_answer_names_what_is_enabled() -> None:
    said = HandshakeAnswer(33, ("PLAIN", "GSSAPI"))
    assert read_handshake_answer(HANDSHAKE_ANSWER) == said
    assert handshake_answer(7, said.error, said.mechanisms) == HANDSHAKE_ANSWER
    assert handshake_answer(7, 35, []) == bytes.fromhex("00000007 0023 00000000")
    reads_alike_from_every_buffer(read_handshake_answer, HANDSHAKE_ANSWER)
    refuses_every_truncation(read_handshake_answer, HANDSHAKE_ANSWER)
    refuses_trailing_bytes(read_handshake_answer, HANDSHAKE_ANSWER)
    survives_damage(read_handshake_answer, HANDSHAKE_ANSWER)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_answer_to_a_token(version: int) -> None:
    def read(payload: bytes | bytearray | memoryview) -> AuthenticateAnswer:
        return read_authenticate_answer(payload, version)

    payload = AUTHENTICATE_ANSWERS[version]
    assert read(payload) == SAID[version]
    reads_alike_from_every_buffer(read, payload)
    refuses_every_truncation(read, payload)
    refuses_trailing_bytes(read, payload)
    survives_damage(read, payload)


def test_a_negative_lifetime_is_none() -> None:
    payload = AUTHENTICATE_ANSWERS[1][:-8] + b"\xff" * 8
    assert read_authenticate_answer(payload, 1).session_ms == 0


@given(st.sampled_from([0, 1, 2]), st.binary(max_size=300))
def test_a_token_goes_out_as_another_writer_would_write_it(version: int, token: bytes) -> None:
    message: Any = oracle.SaslAuthenticateRequest(version=version, auth_bytes=token)
    assert authenticate_request(version, token) == bytes(message.encode(version=version))


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(-1, 100))
def test_any_answer_of_ours_is_read_back(mechanisms: list[str], error: int) -> None:
    payload = handshake_answer(1, error, mechanisms)
    assert read_handshake_answer(payload) == HandshakeAnswer(error, tuple(mechanisms))
    theirs: Any = oracle.SaslHandshakeResponse.decode(payload[4:], version=1)
    assert (theirs.error_code, list(theirs.mechanisms)) == (error, mechanisms)


def test_bytes_that_are_no_text_are_malformed() -> None:
    with pytest.raises(MalformedError):
        read_handshake_request(b"\x00\x02\xff\xfe")
