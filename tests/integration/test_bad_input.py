"""What is malformed, too large or not supported gets the answer that Kafka gives, and harms nobody else."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient

from tests.integration.conftest import Stage
from tests.kit.clients import READERS
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same, drafts

API_VERSIONS, FETCH, METADATA = 18, 1, 3


@contextmanager
def _connection(address: str) -> Iterator[socket.socket]:
    host, port = address.split(",")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=90) as sock:
        yield sock


def _request(key: int, version: int, body: bytes = b"", correlation: int = 7) -> bytes:
    """A frame with header v1: size, key, version, correlation id, client id "kit", body."""
    payload = struct.pack(">hhih", key, version, correlation, 3) + b"kit" + body
    return struct.pack(">i", len(payload)) + payload


def _answer(sock: socket.socket) -> bytes | None:
    """The next frame's payload; None when the connection is closed instead."""
    size = _exactly(sock, 4)
    return None if size is None else _exactly(sock, struct.unpack(">i", size)[0])


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except ConnectionResetError:
            part = b""
        if not part:
            return None
        data += part
    return data


BAD = {
    "negative size": struct.pack(">i", -5),
    "more than the limit": struct.pack(">i", 2**31 - 1),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "too short for a header": struct.pack(">i", 3) + b"abc",
    "an unknown API": _request(9999, 0),
    "a fetch that ends too early": _request(FETCH, 11, b"\xff\xff\xff\xff\x00\x00\x01"),
    "a fetch with two thousand million topics": _request(
        FETCH, 4, struct.pack(">iiiibi", -1, 500, 1, 1 << 20, 0, 2_000_000_000)
    ),
    "a fetch of an unknown version": _request(FETCH, 99, b"\x00" * 40),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_frame_closes_that_connection_only(stage: Stage, what: str) -> None:
    with _connection(stage.gateway) as bystander, _connection(stage.gateway) as culprit:
        culprit.sendall(BAD[what])
        assert _answer(culprit) is None, "the broker closes without a word"
        bystander.sendall(_request(API_VERSIONS, 0))
        answer = _answer(bystander)
        assert answer is not None
        assert answer[:6] == b"\x00\x00\x00\x07\x00\x00", "correlation id 7, no error"


def test_bad_frames_do_not_disturb_a_reader(stage: Stage) -> None:
    topic = stage.topic("seam.bystander")
    log = produce(stage.broker, topic, drafts(800, partition=0, seed=11))
    stage.wait_trimmed(topic, log)
    for frame in BAD.values():
        with _connection(stage.gateway) as culprit:
            culprit.sendall(frame)
    assert_same(log, READERS["librdkafka"](stage.gateway, topic, log))


def test_unsupported_version_of_api_versions(stage: Stage) -> None:
    """Error 35 in the oldest schema, naming what is supported; the connection stays usable."""
    with _connection(stage.gateway) as sock:
        sock.sendall(_request(API_VERSIONS, 99, b"\x00"))  # the empty tag section of header v2
        answer = _answer(sock)
        assert answer is not None
        assert answer[:10] == b"\x00\x00\x00\x07\x00\x23\x00\x00\x00\x01"
        key, least, most = struct.unpack(">hhh", answer[10:16])
        assert (key, least) == (API_VERSIONS, 0)
        assert most >= 3
        sock.sendall(_request(API_VERSIONS, 0, correlation=8))
        second = _answer(sock)
        assert second is not None
        assert second[:6] == b"\x00\x00\x00\x08\x00\x00"


def test_no_broker_address_is_shown(stage: Stage, proxied: Proxy) -> None:
    """Metadata names tierproxy's ports only: broker n at port + 1 + n."""
    metadata = AdminClient({"bootstrap.servers": stage.gateway, "log_level": 2}).list_topics(timeout=90)
    found = {(broker.id, str(broker.host), broker.port) for broker in metadata.brokers.values()}
    assert found == {(node.id, "127.0.0.1", proxied.port + 1 + node.id) for node in stage.kafka.nodes}
