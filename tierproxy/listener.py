"""The ports clients connect to: one for bootstrap, one for each broker, opened before any client hears of it.

With server names there is only the one: the name in a client's TLS handshake says whom it means (addresses.py).

Where several processes serve the same ports, a gate opens them in our place, and brings us connections (workers/).
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

from tierproxy.addresses import Address, Addresses
from tierproxy.catalog import Catalog
from tierproxy.config import LimitsConfig, ListenTlsConfig
from tierproxy.conversation import Conversation
from tierproxy.errors import TierproxyError
from tierproxy.session import Session, Shared
from tierproxy.tasks import Tasks
from tierproxy.telemetry import CONNECTIONS_ACCEPTED, CONNECTIONS_REFUSED, OncePerChange
from tierproxy.tls import FollowedContext
from tierproxy.tls_door import TlsDoor

log = logging.getLogger("tierproxy.listener")

Broker = Callable[[], Address | None]
"""Where a broker is now; None: not known."""

BACKLOG = 1024
DRAIN_POLL = 0.05
IDLE_POLL = 1.0
AT_ONCE = 100
"""Sessions that are looked at before others have their turn."""


class PortTaken(TierproxyError):
    """A port could not be opened."""


class Gate(Protocol):
    """Opens ports elsewhere and hands what is accepted there to `Listener.take`."""

    def connect(self, listener: "Listener") -> None: ...

    async def open(self, port: int) -> None:
        """Raises PortTaken."""


class Listener:
    """Opens ports, starts sessions, ends them."""

    def __init__(
        self,
        host: str,
        addresses: Addresses,
        bootstrap: Sequence[Address],
        catalog: Catalog,
        limits: LimitsConfig,
        tasks: Tasks,
        tls: ListenTlsConfig | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Raises TlsFault where the certificate can't be used."""
        self._host = host
        self._addresses = addresses
        self._bootstrap = tuple(bootstrap)
        self._turn = 0
        self._catalog = catalog
        self._limits = limits
        self._tasks = tasks
        self._servers: dict[int, asyncio.Server] = {}
        self._opening = asyncio.Lock()
        self._sessions: set[Session] = set()
        self._trouble = OncePerChange(log)
        self._shared: Shared | None = None
        self._gate = gate
        self._behind_gate: dict[int, Broker] = {}  # by port
        if gate is not None:
            gate.connect(self)
        self._door: TlsDoor | None = None
        if tls is not None:
            knows = None if addresses.names is None else self._knows
            self._door = TlsDoor(
                tls, limits.handshake_timeout_ms / 1000, tasks, lambda: self._full() is not None, knows
            )

    @property
    def certificate(self) -> FollowedContext | None:
        """Ours, to be looked after."""
        return None if self._door is None else self._door.certificate

    @property
    def sessions(self) -> Collection[Session]:
        """Those that are open."""
        return self._sessions

    @property
    def load(self) -> int:
        """Connections that are open, or in their TLS handshake."""
        return len(self._sessions) + (self._door.under_way if self._door is not None else 0)

    def connect(self, shared: Shared) -> None:
        """Hand in the parts that themselves need to open ports."""
        self._shared = shared

    async def open_bootstrap(self) -> None:
        """Raises PortTaken."""
        await self._serve(self._addresses.base_port, self._any_broker)
        self._tasks.spawn(self._end_idle_sessions(), "listener: idle connections")
        log.info("clients may connect to %s:%d", self._host, self._addresses.base_port)

    async def open(self, nodes: list[int]) -> None:
        """Open the ports of these brokers. What can't be opened is said once, and clients can't reach that broker."""
        async with self._opening:
            for node in nodes:
                if node in self._addresses.listening:
                    continue
                port = self._addresses.port_of(node)
                if port is None:
                    log.error(
                        "broker %d can't be served: its port would be above 65535; choose a lower listen.port", node
                    )
                else:
                    try:
                        await self._serve(port, partial(self._addresses.real.get, node))
                        log.info("broker %d is at %s:%d", node, self._host, port)
                    except PortTaken as error:
                        self._trouble.began(f"port {port}", f"broker {node} can't be served: {error}")
                        continue  # not marked as listening, so the next who hears of it tries again
                self._addresses.listening.add(node)

    async def _serve(self, port: int, broker: Broker) -> None:
        if self._gate is not None:
            self._behind_gate[port] = broker
            await self._gate.open(port)
            return
        try:
            if self._door is not None:
                await self._door.open(self._host, port, BACKLOG, partial(self._secured, broker))
            else:
                self._servers[port] = await asyncio.get_running_loop().create_server(
                    lambda: self._session(broker).client, self._host, port, backlog=BACKLOG
                )
        except OSError as error:
            raise PortTaken(
                f"port {port} on {self._host} can't be opened: {error.strerror or error}; is another process using it?"
            ) from error

    def take(self, port: int, accepted: socket.socket) -> None:
        """Serve a connection that the gate has accepted at `port`, which it was asked to open."""
        broker = self._behind_gate.get(port)
        try:
            peer = accepted.getpeername()
        except OSError:
            peer = None  # it has gone already
        if broker is None or peer is None:
            accepted.close()
            return
        accepted.setblocking(False)
        if self._door is not None:
            self._door.admit(accepted, peer, partial(self._secured, broker))
            return
        self._tasks.spawn(
            asyncio.get_running_loop().connect_accepted_socket(lambda: self._session(broker).client, accepted),
            "connection from the gate",
        )

    def _secured(self, broker: Broker, name: str | None) -> asyncio.BaseProtocol:
        """The TLS handshake is over: a session takes the connection."""
        return self._session(broker if name is None else self._named(name)).client

    def _full(self) -> str | None:
        """Why no more clients are taken in."""
        count, most = self.load, self._limits.connections
        if count < most:
            if count <= most * 9 // 10:  # or a crowd at the door would be told of with each who leaves
                self._trouble.ended("connections", "new connections are accepted again")
            return None
        why = f"there are {count} connections already (limits.connections)"
        CONNECTIONS_REFUSED.inc()
        self._trouble.began("connections", f"new connections are refused: {why}")
        return why

    def _session(self, broker: Broker) -> Session:
        assert self._shared is not None, "connect() comes before open()"
        CONNECTIONS_ACCEPTED.inc()
        session = Session(
            Conversation(self._catalog, self._addresses, self._limits.frame_bytes, self._limits.unanswered),
            broker,
            self._shared,
            self,
            refused=self._full(),
        )
        self._sessions.add(session)
        return session

    def _knows(self, name: str) -> bool:
        names = self._addresses.names
        assert names is not None
        node = names.node_of(name)
        if node is not None and node not in self._addresses.real and self._gate is not None:
            # Another worker may have told of it. Clients try again when they are hung up on, but not after an alert.
            self._catalog.topics_stale = True
            return True
        return names.is_bootstrap(name) or node in self._addresses.real

    def _named(self, name: str) -> Broker:
        names = self._addresses.names
        node = names.node_of(name) if names is not None else None
        return self._any_broker if node is None else partial(self._addresses.real.get, node)

    def _any_broker(self) -> Address | None:
        """Brokers in turn, so that a dead one is met at most every other time; at first the configured ones."""
        candidates = list(self._addresses.real.values()) or list(self._bootstrap)
        self._turn += 1
        return candidates[self._turn % len(candidates)]

    async def _end_idle_sessions(self) -> None:
        while True:
            await asyncio.sleep(IDLE_POLL)
            now = asyncio.get_running_loop().time()
            for n, session in enumerate(list(self._sessions)):
                if n % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)  # there may be many thousands
                session.check_idle(now)

    # -- what sessions report ---------------------------------------------------------------------------------------

    def unreachable(self, address: Address, why: str) -> None:
        host, port = address
        self._trouble.began(f"{host}:{port}", f"broker {host}:{port} can't be reached: {why}")

    def reached(self, address: Address) -> None:
        host, port = address
        self._trouble.ended(f"{host}:{port}", f"broker {host}:{port} can be reached again")

    def ended(self, session: Session) -> None:
        self._sessions.discard(session)

    # -- the end ----------------------------------------------------------------------------------------------------

    async def close(self, drain: float) -> None:
        """Accept nothing more, let open answers finish for at most `drain` seconds, close all connections.

        What is asked meanwhile is not forwarded: a client that has it closed in its face may ask again anywhere.
        """
        self._behind_gate.clear()
        for server in self._servers.values():
            server.close()
        if self._door is not None:
            self._door.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain
        for session in self._sessions:
            session.leave()
        while True:
            for session in [s for s in self._sessions if s.idle]:
                session.end(None)
            if not self._sessions or loop.time() >= deadline:
                break
            await asyncio.sleep(DRAIN_POLL)
        for session in list(self._sessions):
            session.end(None)
