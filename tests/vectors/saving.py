"""What both halves of `capture` need."""

import socket

from tests.vectors import HERE


def save(name: str, payload: bytes) -> None:
    """Keep one message, without its four size bytes."""
    (HERE / f"{name}.bin").write_bytes(payload)


def receive(source: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)
