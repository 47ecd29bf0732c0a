"""The shell on its stage: a listener in front of a broker that is a plain server doing what each test tells it to."""

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from protocol.apis import ApiKey
from tests.kit.processes import free_ports
from tests.unit.tierproxy.talk import answer, catalog, request
from tierproxy.addresses import Addresses, ServerNames
from tierproxy.cold.answers import ColdAnswers
from tierproxy.cold.deletions import Deletions
from tierproxy.config import LimitsConfig, ListenTlsConfig
from tierproxy.listener import Gate, Listener
from tierproxy.pressure import Pressure
from tierproxy.session import Shared
from tierproxy.tasks import Tasks
from tierproxy.tls import BrokerTls

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


HEARTBEAT = framed(request(ApiKey.HEARTBEAT, 4, 1, b"\x02g\x00\x00\x00\x01\x02m\x00\x00"))
HEARTBEAT_ANSWER = framed(answer(ApiKey.HEARTBEAT, 4, 1, b"\0\0\0\0\0\0\0"))


async def echo_heartbeats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(len(HEARTBEAT)):
        writer.write(HEARTBEAT_ANSWER)
    writer.close()


@dataclass
class Stage:
    """A listener in front of one broker. `broker` is what the broker does with each connection."""

    broker: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = echo_heartbeats
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    tls: ListenTlsConfig | None = None
    names: ServerNames | None = None
    gate: Gate | None = None
    """Who opens ports and hands connections over, as the supervisor of several workers does."""
    broker_context: ssl.SSLContext | None = None
    """The broker's own, if it speaks TLS."""
    broker_tls: BrokerTls | None = None
    """How we speak to it."""

    async def __aenter__(self) -> "Stage":
        self.tasks = Tasks()
        self.port = free_ports(3)
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.broker_context)
        self.broker_address = self.server.sockets[0].getsockname()[:2]
        self.addresses = Addresses("127.0.0.1", self.port, names=self.names)
        self.catalog = catalog()
        self.listener = Listener(
            *("127.0.0.1", self.addresses, [self.broker_address], self.catalog, self.limits, self.tasks),
            *(self.tls, self.gate),
        )
        self.listener.connect(self.shared())
        await self.listener.open_bootstrap()
        return self

    def shared(self) -> Shared:
        """Nothing in these tests is held, so nobody asks the cold side."""
        cold, deletions = object.__new__(ColdAnswers), object.__new__(Deletions)
        pressure = Pressure(self.limits.gathered_bytes)
        return Shared(cold, deletions, lambda: None, pressure, self.tasks, self.limits, self.broker_tls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.broker(reader, writer)
        except ConnectionError:
            pass  # the test, or the proxy, has closed it
        finally:
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        await self.listener.close(drain=0)
        self.server.close()
        await self.tasks.close()

    async def client(self, context: ssl.SSLContext | None = None, name: str | None = None) -> Streams:
        """A client's connection to the bootstrap port; with a context secured, and asking for server `name`."""
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)


async def talk(streams: Streams) -> None:
    reader, writer = streams
    writer.write(HEARTBEAT)
    assert await reader.readexactly(len(HEARTBEAT_ANSWER)) == HEARTBEAT_ANSWER
