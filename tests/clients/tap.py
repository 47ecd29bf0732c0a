"""A relay that records: clients connect to it, it connects to the same port of another address, and keeps every byte.

Of another address, because the ports are what the proxy tells its clients: a tap listens on the advertised host, the
proxy on another one of the loopback range 127.0.0.0/8 (all of which is there on Linux; elsewhere each address but the
first would have to be set up, see `can_listen`).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Thread
from types import TracebackType
from typing import Self

_AT_ONCE = 1 << 16


@dataclass(slots=True)
class Recording:
    """One connection: what went up to the server and what came down from it. `peer` is the client's own address."""

    port: int
    peer: tuple[str, int]
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens on `ports` of `host`. `admit`, asked with both ends before any byte moves, may turn a peer away."""

    def __init__(
        self,
        host: str,
        ports: Iterable[int],
        target: Callable[[int], tuple[str, int]],
        *,
        admit: Callable[[tuple[str, int], tuple[str, int]], bool] = lambda peer, here: True,
    ) -> None:
        self.host = host
        self.recordings: list[Recording] = []
        self._ports = list(ports)
        self._target = target
        self._admit = admit
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._servers: dict[int, asyncio.Server] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    def listen(self, port: int) -> None:
        """Listens on one more port."""
        asyncio.run_coroutine_threadsafe(self._open(port), self._loop).result(10)

    def leave(self, port: int) -> None:
        """No longer listens on this port; connections stay."""
        self._loop.call_soon_threadsafe(self._servers.pop(port).close)

    def __enter__(self) -> Self:
        self._thread.start()
        for port in self._ports:
            self.listen(port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self, port: int) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._relay(port, reader, writer)

        self._servers[port] = await asyncio.start_server(serve, self.host, port, backlog=256)

    async def _close(self) -> None:
        for server in self._servers.values():
            server.close()
        for writer in self._writers:
            writer.close()
        relays = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait_for(asyncio.gather(*relays, return_exceptions=True), 5)

    async def _relay(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: tuple[str, int] = writer.get_extra_info("peername")[:2]
        with self._keep(writer), contextlib.suppress(OSError):
            if not await asyncio.to_thread(self._admit, peer, (self.host, port)):
                return
            recording = Recording(port, peer)
            self.recordings.append(recording)
            up_reader, up_writer = await asyncio.open_connection(*self._target(port))
            with self._keep(up_writer):
                # Whichever side ends first ends the other, after what it had said has been passed on.
                await asyncio.wait(
                    [
                        asyncio.create_task(_pass_on(reader, up_writer, recording.up)),
                        asyncio.create_task(_pass_on(up_reader, writer, recording.down)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )

    @contextlib.contextmanager
    def _keep(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """It is closed at the end, or when the tap is."""
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_AT_ONCE):
            record += data
            writer.write(data)
            await writer.drain()


def can_listen(*hosts: str) -> bool:
    """Whether these addresses are this machine's."""
    for host in hosts:
        with socket.socket() as probe:
            try:
                probe.bind((host, 0))
            except OSError:
                return False
    return True
