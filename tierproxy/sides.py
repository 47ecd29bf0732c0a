"""The two connections of a session: bytes and pressure, no thoughts.

What arrives is received into a large buffer that all sessions share; little is copied, more is handed on as views. Such
a buffer may be used again when nobody has a view of it any more: when the conversation keeps none, and the other side's
transport has written all that it was given. Until then it stays with its connection, and others have another. As long
as a client has not taken everything, no more is read for it, so that there is one such buffer for each client that
lags. For a broker that lags, HIGH_WATER may wait with its client, in buffers at least half full.
"""

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from protocol.wire import Buffer

BUFFER = 256 << 10
"""Bytes of a buffer: large enough for few wakeups, small enough to stay in a processor's cache."""

SPARE = 16
"""Buffers that are kept for later."""

COPY_BELOW = 16 << 10
"""Bytes up to which what was received is copied, so that a few bytes never keep a buffer from others."""

HIGH_WATER = 1 << 20
"""Bytes that may wait to be written to the broker before the client is no longer read."""

TAKES_ALL = 1
"""The same for a client: any byte. Not 0: for secured connections the loops count that as always full."""

PLAIN_CONGESTION_CONTROL = b"reno"
"""What every Linux has and allows. It neither paces what is sent nor measures the way."""

LINGER = 10.0
"""Seconds that a peer has to take what was written to it before its connection is cut."""


class Owner(Protocol):
    """The session of two sides. `from_…` are called with what arrived; a view is good until all of it was written."""

    client: "ClientSide"
    broker: "BrokerSide"

    def client_connected(self) -> None: ...

    def from_client(self, data: Buffer) -> None: ...

    def from_broker(self, data: Buffer) -> None: ...

    def keeps_views(self, side: "Side") -> bool:
        """Whether something of what came from that side is still to be looked at, or to be taken by the other."""
        ...

    def pressure_changed(self) -> None: ...

    def carry_on(self) -> None: ...

    def side_lost(self, side: "Side", error: Exception | None) -> None: ...


class Buffers:
    """Those of a process. All connections of a loop receive into the same one, until somebody has views of it."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._current: memoryview | None = None

    def current(self) -> memoryview:
        """To receive into what is handed on before anybody else receives: loops do both in one go."""
        if self._current is None:
            self._current = self._free.pop() if self._free else memoryview(bytearray(BUFFER))
        return self._current

    def take(self) -> memoryview:
        """The current one, which gets views. The next one who receives has another."""
        buffer = self.current()
        self._current = None
        return buffer

    def give_back(self, buffer: memoryview) -> None:
        """Nobody has a view of it any more."""
        if len(self._free) < SPARE:
            self._free.append(buffer)


class Side(asyncio.BufferedProtocol):
    """What both have in common. `received` gets what arrives."""

    transport: asyncio.Transport
    high_water: int

    def __init__(self, session: Owner, buffers: Buffers) -> None:
        self._session = session
        self._buffers = buffers
        self._in_use: memoryview | None = None  # somebody has views of it
        self.paused = False
        self.connected = False
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)  # uvloop's isn't derived from it
        transport.set_write_buffer_limits(high=self.high_water, low=self.high_water // 4)
        self.connected = True
        _spare_what_stays_here(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffers.current()

    def buffer_updated(self, nbytes: int) -> None:
        if self._in_use is not None:
            self.settle()  # loops write what they are given a moment later
        # While the other side lags, most of what comes is copied: else a few bytes in each of many buffers would wait.
        if nbytes <= (COPY_BELOW if self._in_use is None else BUFFER // 2):
            self.received(bytes(self._buffers.current()[:nbytes]))
            return
        buffer = self._buffers.take()
        self.received(buffer[:nbytes])
        self._in_use = buffer  # one that was there before is garbage when its last view is
        self.settle()

    def received(self, data: Buffer) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """Give the buffer back if nobody has views of it any more."""
        if self._in_use is not None and not self._session.keeps_views(self):
            self._buffers.give_back(self._in_use)
            self._in_use = None

    def close(self) -> None:
        """Send what was written, for a while, and close."""
        if self.transport.is_closing():  # asyncio's with TLS can't be asked anything then
            return
        self.transport.close()
        if self.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self._in_use = None
        self._session.side_lost(self, exc)

    def pause_writing(self) -> None:
        self.full = True
        self._session.pressure_changed()

    def resume_writing(self) -> None:
        self.full = False
        self._session.carry_on()

    def pause_reading(self, pause: bool) -> None:
        if self.connected and pause != self.paused and not self.transport.is_closing():
            self.paused = pause
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()


class ClientSide(Side):
    high_water = TAKES_ALL

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._session.client_connected()

    def received(self, data: Buffer) -> None:
        self._session.from_client(data)


class BrokerSide(Side):
    high_water = HIGH_WATER

    def received(self, data: Buffer) -> None:
        self._session.from_broker(data)


def _spare_what_stays_here(transport: asyncio.BaseTransport) -> None:
    """Between two processes of one machine there is no way that could be crowded, but BBR, where it is the system's
    choice, paces and measures all the same: a third of what sending costs, and nearly the half of its speed.
    """
    ours, theirs = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    if ours and theirs and ours[0] == theirs[0] and hasattr(socket, "TCP_CONGESTION"):
        with contextlib.suppress(OSError):  # it is gone already, or the system is a special one
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_CONGESTION, PLAIN_CONGESTION_CONTROL
            )
