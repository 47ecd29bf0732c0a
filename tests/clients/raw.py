"""Single requests, for what no library can be made to ask when it is wanted."""

import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from protocol.apis import ApiKey
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import FetchedPartition, FetchResponse, parse_fetch_response
from protocol.headers import request_header

SECONDS = 90
CLIENT = "raw"


class Raw:
    """A connection to `host:port`."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), SECONDS)

    @property
    def port(self) -> int:
        """Ours."""
        port: int = self._socket.getsockname()[1]
        return port

    def ask(self, request: bytes) -> bytes:
        """Sends the payload of a request; the payload of its answer."""
        self.send(request)
        return self.receive()

    def send(self, request: bytes) -> None:
        self._socket.sendall(len(request).to_bytes(4, "big") + request)

    def receive(self) -> bytes:
        return self._receive(int.from_bytes(self._receive(4), "big"))

    def fetch(self, version: int, partitions: Sequence[FetchPartition]) -> FetchResponse:
        return parse_fetch_response(self.ask(fetch_request(version, partitions)), version)

    def produce(self, topic: str, partition: int, batch: bytes) -> bytes:
        """Version 12, acks=all; the answer as it came."""
        records = _size(len(batch)) + batch
        body = b"\0" + struct.pack(">hi", -1, 10_000)  # no transactional id
        body += b"\x02" + _text(topic) + b"\x02" + struct.pack(">i", partition) + records + b"\0\0\0"
        return self.ask(request_header(ApiKey.PRODUCE, 12, 1, CLIENT) + body)

    def share_fetch(self, group: str, epoch: int, topic_id: bytes, partitions: Sequence[int]) -> bytes:
        """Version 2; epoch 0 opens a session. The answer as it came."""
        body = _text(group) + _text(_MEMBER) + struct.pack(">i", epoch)
        body += struct.pack(">iiiii", 500, 1, 1 << 20, 500, 500) + b"\0\0"
        listed = b"".join(struct.pack(">iBB", partition, 1, 0) for partition in partitions)
        body += b"\x02" + topic_id + _size(len(partitions)) + listed + b"\0\x01\0"
        return self.ask(request_header(ApiKey.SHARE_FETCH, 2, 1, CLIENT) + body)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            more = self._socket.recv(size - len(received))
            if not more:
                raise ConnectionError("the connection was closed in the middle of an answer")
            received += more
        return bytes(received)


def fetch_request(version: int, partitions: Sequence[FetchPartition]) -> bytes:
    """One that waits for at most half a second."""
    limits = {"max_wait_ms": 500, "min_bytes": 1, "max_bytes": 8 << 20}
    return build_fetch_request(version, 1, CLIENT, **limits, isolation=0, partitions=partitions)


_MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"


def fetch_one(address: str, topic: str, partition: int, offset: int) -> FetchedPartition:
    """One partition, by a Fetch v12 on a connection of its own."""
    with Raw(address) as connection:
        (answer,) = connection.fetch(12, [FetchPartition(topic, None, partition, -1, offset, -1, 1 << 20)]).partitions
        return answer


def _text(text: str) -> bytes:
    return _size(len(text)) + text.encode()


def _size(size: int) -> bytes:
    """A compact length."""
    out = bytearray()
    size += 1
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)
