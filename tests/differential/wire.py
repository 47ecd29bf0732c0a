"""Frames over plain sockets. No client, no pool: what is sent is exactly what was asked for."""

import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ANSWER_WITHIN = 60.0
"""Seconds after which an answer that has not come is a failure."""


class NoAnswer(Exception):
    """One side said nothing for `ANSWER_WITHIN`, and did not close the connection either."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's payload, None if the connection was closed instead; and how long it took, in seconds."""

    payload: bytes | None
    seconds: float


@dataclass(slots=True)
class Line:
    """A connection to `address`, opened when it is needed, and again after it was closed."""

    address: tuple[str, int]
    _socket: socket.socket | None = None
    _buffer: bytearray = field(default_factory=bytearray)

    def send(self, payloads: Sequence[bytes]) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(self.address, timeout=ANSWER_WITHIN)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b"".join(struct.pack(">i", len(payload)) + payload for payload in payloads))

    @property
    def socket(self) -> socket.socket:
        assert self._socket is not None, "nothing was sent on this line"
        return self._socket

    def read(self) -> list[bytes] | None:
        """The frames that are complete now; None when the other end has closed. Blocks if nothing has come."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.close()
            return None
        self._buffer += data
        frames = []
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from(">i", self._buffer)
            if len(self._buffer) < 4 + size:
                break
            frames.append(bytes(self._buffer[4 : 4 + size]))
            del self._buffer[: 4 + size]
        return frames

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer.clear()


def exchange(
    asked: Sequence[tuple[Line, Sequence[bytes]]], meanwhile: Callable[[], None] | None = None
) -> list[list[Reply]]:
    """Sends to each line its payloads, all at once, and waits for as many answers on each.

    A line that is closed leaves the answers that were still due as `Reply(None, …)`. `meanwhile` is called when
    everything has been sent.
    """
    began = time.monotonic()
    replies: list[list[Reply]] = [[] for _ in asked]
    with selectors.DefaultSelector() as waiting:
        for number, (line, payloads) in enumerate(asked):
            line.send(payloads)
            waiting.register(line.socket, selectors.EVENT_READ, number)
        if meanwhile is not None:
            meanwhile()
        while waiting.get_map():
            ready = waiting.select(ANSWER_WITHIN)
            if not ready:
                silent = [asked[key.data][0].address for key in waiting.get_map().values()]
                for line, _ in asked:
                    line.close()
                raise NoAnswer(f"no answer from {silent} within {ANSWER_WITHIN:g} s")
            for key, _ in ready:
                line, payloads = asked[key.data]
                mine = replies[key.data]
                frames = line.read()
                now = time.monotonic() - began
                if frames is None:
                    mine.extend(Reply(None, now) for _ in range(len(payloads) - len(mine)))
                else:
                    mine.extend(Reply(frame, now) for frame in frames)
                if len(mine) >= len(payloads):
                    waiting.unregister(key.fileobj)
    return replies
