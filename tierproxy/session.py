"""One client connection and its broker connection: the shell around a `Conversation`.

Everything that waits is here: opening the broker's connection, carrying out holds, and all backpressure. Reading from
the broker pauses while the client doesn't take what it was sent, and while an answer is held; reading from the client
pauses while the broker doesn't take what it was sent, until the broker's connection is open, and while too many
requests are unanswered. So what a connection can have in memory is bounded by a few buffers, whatever either side does.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from protocol.endpoints import rewrite_endpoints
from protocol.wire import Buffer
from tierproxy.addresses import Address
from tierproxy.cold.allowance import Allowance
from tierproxy.cold.answers import ColdAnswers
from tierproxy.cold.deletions import Deletions
from tierproxy.config import LimitsConfig
from tierproxy.conversation import Conversation
from tierproxy.pressure import Pressure
from tierproxy.routing.holds import DeletesHold, EndpointsHold, FetchHold, Hold, OffsetsHold
from tierproxy.sides import BrokerSide, Buffers, ClientSide, Side
from tierproxy.tasks import Tasks
from tierproxy.telemetry import BYTES_TO_BROKERS, BYTES_TO_CLIENTS, CLIENT_CONNECTIONS, CONNECTIONS_CLOSED, Seldom
from tierproxy.tls import SHUTDOWN_TIMEOUT, BrokerTls, broker_trouble
from tierproxy.together import Together

log = logging.getLogger("tierproxy.session")

_KIND = re.compile(r"[:\d]")
"""Where the part of a reason ends that is the same for all of its kind."""


MANY = 256
"""Pieces in one write: archived records are a few for each partition, answers that were not patched one or two each.
More are joined, because in a write buffer each takes several times its size."""

UNCOUNTED = 64 << 10
"""Bytes that a connection keeps out of the metrics, for a second at the most: counting takes longer than a small answer
does to be written."""

NEARLY_READY = 0.02
"""Seconds that an answer to ListOffsets waits for others that are held. librdkafka asks for each partition by itself,
and begins to fetch with the first answer: of that partition alone, and the others would wait until that one's records
have come from the archive."""


class Ports(Protocol):
    """What a session needs of the listener that made it."""

    def open(self, nodes: list[int]) -> Awaitable[None]: ...

    def unreachable(self, address: Address, why: str) -> None: ...

    def reached(self, address: Address) -> None: ...

    def ended(self, session: "Session") -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sessions of a process share."""

    cold: ColdAnswers
    deletions: Deletions
    wake_scout: Callable[[], None]
    pressure: Pressure
    tasks: Tasks
    limits: LimitsConfig
    broker_tls: BrokerTls | None = None
    """None: brokers are spoken to in plaintext."""
    closings: Seldom = field(default_factory=lambda: Seldom(log, lambda: asyncio.get_running_loop().time()))
    """Any stranger can have a connection closed as often as they like."""
    buffers: Buffers = field(default_factory=Buffers)


class Session:
    """Lives as long as its two connections; when one ends, so does the other."""

    def __init__(
        self,
        conversation: Conversation,
        broker: Callable[[], Address | None],
        shared: Shared,
        ports: Ports,
        *,
        refused: str | None,
    ) -> None:
        """`broker` says where the broker is now, None if that isn't known; `refused` why the client is turned away."""
        self._talk = conversation
        self._broker_address = broker
        self._shared = shared
        self._limits = shared.limits
        self._ports = ports
        self._refused = refused
        self._over = False
        self._address: Address | None = None  # of the broker, from when it is connected until it says something
        self._at_rest_since = -1.0  # `_moved_at`, if nothing was begun or left over after that
        self._moved_at = 0.0  # when bytes last came, from either side, or were taken by the client
        self._gathered = 0  # bytes of unfinished messages, as was last noted
        self._untaken = 0  # bytes that the client has not taken, when that was last looked at
        self._begun: tuple[int | None, float] = (None, 0.0)  # the request that is being gathered, and since when
        self._holding: set[asyncio.Task[None]] = set()
        self._offsets = Together(NEARLY_READY)  # those held answers to ListOffsets that are not finished
        self._lent: Allowance | None = None  # for archived records that the client has not taken yet
        self._loop = asyncio.get_running_loop()
        self._passed = self._sent = 0  # bytes to the client and to the broker that are not in the metrics yet
        self.client = ClientSide(self, shared.buffers)
        self.broker = BrokerSide(self, shared.buffers)
        self.name = "?"

    # -- life -------------------------------------------------------------------------------------------------------

    def client_connected(self) -> None:
        peer = self.client.transport.get_extra_info("peername")
        self.name = f"{peer[0]}:{peer[1]}" if peer else "a client"
        self._talk.host = str(peer[0]) if peer else ""
        CLIENT_CONNECTIONS.inc()
        if self._refused is not None:
            self.end(self._refused)
            return
        # Reading is paused after the first bytes, not here: uvloop starts to read after connection_made all the same.
        self._moved_at = self._loop.time()
        self._shared.tasks.spawn(self._connect(), f"connect for {self.name}")

    async def _connect(self) -> None:
        address = self._broker_address()
        if address is None:
            self.end("no broker is known for this port")
            return
        try:
            async with asyncio.timeout(self._limits.connect_timeout_ms / 1000):
                await self._open(address)
        except OSError as error:  # TimeoutError is one
            self._ports.unreachable(address, self._why(error))
            self.end(f"its broker {address[0]}:{address[1]} can't be reached")
            return
        self._address = address
        if self._over:
            self.broker.transport.abort()
        else:
            self._carry_out()
            self._settle()

    async def _open(self, address: Address) -> None:
        loop, tls = self._loop, self._shared.broker_tls
        if tls is None:
            await loop.create_connection(lambda: self.broker, *address)
        else:
            name = tls.name_for(address[0])
            await loop.create_connection(
                lambda: self.broker,
                *address,
                ssl=tls.context,
                server_hostname=name,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )

    def _why(self, error: OSError) -> str:
        if self._shared.broker_tls is not None and isinstance(error, (ssl.SSLError, ConnectionResetError)):
            return broker_trouble(error)
        return str(error) or f"no answer within {self._limits.connect_timeout_ms} ms"

    def end(self, reason: str | None) -> None:
        """Close both sides; what was already written to the client is still sent."""
        if self._over:
            return
        self._over = True
        self._count()
        if reason:
            CONNECTIONS_CLOSED.inc()
            self._shared.closings.say(_KIND.split(reason)[0], f"connection of {self.name} closed: {reason}")
        for task in self._holding:
            task.cancel()
        for side in (self.client, self.broker):
            if side.connected:
                side.close()
        CLIENT_CONNECTIONS.dec()
        self._shared.pressure.note(self, 0)
        self._give_back()
        self._ports.ended(self)

    def side_lost(self, side: Side, error: Exception | None) -> None:
        if side is self.broker and self._address is not None and isinstance(error, ssl.SSLError):
            # From TLS 1.3 on, a broker refuses us after the handshake.
            self._ports.unreachable(self._address, broker_trouble(error))
        self.end(None)

    def leave(self) -> None:
        """Forward no more requests. Reading goes on: bytes that nobody has read would break off what was sent last."""
        self._talk.leaving = True

    @property
    def idle(self) -> bool:
        """Whether every request has been answered, and the client has taken the answers."""
        return self._talk.idle and not (self.client.connected and self.client.transport.get_write_buffer_size())

    def check_idle(self, now: float) -> None:
        """End it if nothing has moved for too long; `now` is the loop's time."""
        if self._at_rest_since == self._moved_at and (now - self._moved_at) * 1000 <= self._limits.idle_ms:
            return  # as most of thousands are
        if not self.client.connected:
            return  # not yet: it has been accepted in this very moment
        untaken = self.client.transport.get_write_buffer_size()
        if untaken != self._untaken:
            self._untaken, self._moved_at = untaken, now
        still = (now - self._moved_at) * 1000
        if still:
            self._settle()
        if self._passed or self._sent:
            self._count()
        begun, since = self._begun
        if still > self._limits.idle_ms and self._talk.held is None:
            self.end(f"nothing has moved for {still / 1000:.0f} s (limits.idle)")
        elif self.client.paused:  # it may not go on
            self._begun = begun, now
        elif begun is not None and (now - since) * 1000 > self._limits.stall_ms:
            self.end(f"a request was not complete after {now - since:.0f} s (limits.stall)")
        elif still > self._limits.stall_ms and self._talk.gathered and self._talk.held is None:
            self.end(f"it stopped in the middle of a message {still / 1000:.0f} s ago (limits.stall)")
        elif still and not untaken and begun is None and not self._talk.gathered:
            self._at_rest_since = self._moved_at  # nothing is to be done here before something moves

    # -- bytes ------------------------------------------------------------------------------------------------------

    def from_client(self, data: Buffer) -> None:
        now = self._moved_at = self._talk.now = self._loop.time()
        self._talk.from_client(data)
        if (begun := self._talk.begun) != self._begun[0]:
            self._begun = begun, now
        self._carry_out()

    def from_broker(self, data: Buffer) -> None:
        self._moved_at = self._talk.now = self._loop.time()
        if (
            self._talk.passes(len(data)) and not self._over
        ):  # the usual case by far: records, in the middle of an answer
            self._passed += len(data)
            self.client.transport.write(data)
            return
        if self._address is not None:
            self._ports.reached(self._address)
            self._address = None
        self._talk.from_broker(data)
        self._carry_out()

    def keeps_views(self, side: Side) -> bool:
        if side is self.broker:
            return self._talk.backlogged or self.client.transport.get_write_buffer_size() > 0
        return self._talk.behind or (self.broker.connected and self.broker.transport.get_write_buffer_size() > 0)

    def _carry_out(self) -> None:
        talk = self._talk
        if self._over:
            return
        if talk.to_broker and self.broker.connected:
            pieces, talk.to_broker = talk.to_broker, []
            self._sent += sum(map(len, pieces))
            self.broker.transport.writelines(pieces if len(pieces) <= MANY else [b"".join(pieces)])
        if talk.to_client:
            pieces, talk.to_client = talk.to_client, []
            self._passed += sum(map(len, pieces))
            self.client.transport.writelines(pieces if len(pieces) <= MANY else [b"".join(pieces)])
        if self._passed > UNCOUNTED or self._sent > UNCOUNTED:
            self._count()
        if talk.catalog.wanted or talk.catalog.topics_stale:
            self._shared.wake_scout()
        if talk.closing is not None:
            self.end(talk.closing)
            return
        if (gathered := talk.gathered) != self._gathered:
            self._gathered = gathered
            self._shared.pressure.note(self, gathered)
        if talk.to_carry_out and not self.client.full:
            holds, talk.to_carry_out = talk.to_carry_out, []
            for hold in holds:
                if isinstance(hold, OffsetsHold):
                    self._offsets.begin()
                task = self._shared.tasks.spawn(self._carry_out_hold(hold), f"held answer of {self.name}")
                self._holding.add(task)
                task.add_done_callback(self._hold_ended)
        self._flow()

    def _count(self) -> None:
        BYTES_TO_CLIENTS.inc(self._passed)
        BYTES_TO_BROKERS.inc(self._sent)
        self._passed = self._sent = 0

    def _flow(self) -> None:
        """Pause and resume reading, by the rules above."""
        pressed = self._gathered > 0 and self._shared.pressure.must_wait(self)
        full = pressed or self.client.full
        wait = full or self.broker.full or self._talk.crowded or not self.broker.connected
        if wait is not self.client.paused:
            self.client.pause_reading(wait)
        wait = full or (self._talk.held is not None and not self._talk.listens)
        if wait is not self.broker.paused:
            self.broker.pause_reading(wait)

    def carry_on(self) -> None:
        """One side takes bytes again: what waited for that goes on, a held answer too."""
        if not self.client.full:
            self._give_back()
        self._carry_out()
        self._settle()

    def pressure_changed(self) -> None:
        if not self._over:
            self._flow()

    async def _carry_out_hold(self, hold: Hold) -> None:
        payload = await self._finish(hold)
        self._talk.now = self._loop.time()
        self._talk.release(payload, hold)
        self._carry_out()
        self._settle()
        if not self.client.full:
            self._give_back()

    def _settle(self) -> None:
        self.client.settle()
        self.broker.settle()

    def _give_back(self) -> None:
        if self._lent is not None:
            self._lent.end()
            self._lent = None

    def _hold_ended(self, task: asyncio.Task[None]) -> None:
        self._holding.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.end("an answer could not be finished; the log says why")

    async def _finish(self, hold: Hold) -> list[Buffer]:
        match hold:
            case FetchHold():
                payload, self._lent = await self._shared.cold.fetch(hold)
                return payload
            case OffsetsHold():
                return await self._finish_offsets(hold)
            case DeletesHold():
                return await self._shared.deletions.finish(hold)
            case EndpointsHold():
                await self._ports.open(hold.nodes)
                return rewrite_endpoints(hold.key, hold.version, hold.payload, self._talk.addresses.advertised)

    async def _finish_offsets(self, hold: OffsetsHold) -> list[Buffer]:
        try:
            payload = await self._shared.cold.offsets(hold)
        except BaseException:
            self._offsets.gone()
            raise
        await self._offsets.done()
        return payload
