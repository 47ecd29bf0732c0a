"""One connection of our own to one broker: requests out, answers back in order.

A broker answers a connection's requests one after the other, so a queue of waiting callers is all there is to
match. Whatever goes wrong with one answer (none in time, not asked for, a silly size) makes every later one
doubtful: the connection is closed, everyone who waits gets `Unreachable`, and whoever wants to go on connects
anew.

The service account authenticates here (SASL, after ApiVersions, which brokers answer to strangers). A broker may give
its authentication a lifetime (KIP-368). Questions are asked at the same time and any of them may be a long poll, so a
connection is not authenticated anew: in good time it is `stale`, its owner opens another one and lets it `retire`.

Clients' own connections are not these: their bytes flow through `tierproxy.session`.
"""

import asyncio
import os
import re
import ssl
from collections import deque
from typing import cast

from protocol import sasl
from protocol.apis import ApiKey
from protocol.codec import CODEC_VERSIONS, decode_api_versions_response, encode_api_versions_request
from protocol.errors import ErrorCode, MalformedError, error_name
from protocol.headers import request_header
from tierproxy import __version__
from tierproxy.access import Access, NoCredentials
from tierproxy.errors import TierproxyError
from tierproxy.sasl import SaslError
from tierproxy.tls import SHUTDOWN_TIMEOUT, broker_trouble

Address = tuple[str, int]

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""A broker takes no request above 100 MiB by default, so a batch, and with it a fetch, stays below this."""

LARGE_ANSWER_BYTES = 256 * 1024
"""From here on an answer's memory is worth being used again."""
ROOM_STEP = 1024 * 1024

TLS_ALERT = b"\x15\x03"
"""How the answer begins that a TLS port gives to plaintext."""

FRESH_FOR = 0.8
"""Of an authentication's lifetime; the rest is for answers still awaited (Java's clients begin at 0.85)."""


class Unreachable(TierproxyError):
    """A broker that can't be connected to, or that broke off or stopped answering. Worth trying again."""


class AccessRefused(Unreachable):
    """A broker that is there but won't do with what we show it, or with whom we won't do. Worth trying again, seldom:
    it takes a person to change it, and some brokers lock accounts that try too often."""


class UnsupportedBroker(TierproxyError):
    """A broker that does not speak any version of an API that we need."""


class BrokerConnection:
    """`connect` once, `request` as often as wanted (also at the same time), `close` in the end."""

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str = "tierproxy",
        access: Access | None = None,
        *,
        connect_timeout: float = 5.0,
    ) -> None:
        """Without `access` it is plaintext, and nobody in particular who asks."""
        self.host = host
        self.port = port
        self.client_id = client_id
        self.versions: dict[int, tuple[int, int]] = {}
        """What the broker offers, by API key; known once connected."""
        self._access = access or Access()
        self._connect_timeout = connect_timeout
        self._wire = _Wire(f"{host}:{port}")
        self._last_id = 0
        self._fresh_until: float | None = None  # the loop's time

    @property
    def closed(self) -> bool:
        """True before `connect` as well."""
        return self._wire.transport is None

    @property
    def stale(self) -> bool:
        """Whether the broker will soon want a new authentication: then it is time for a new connection."""
        return self._fresh_until is not None and asyncio.get_running_loop().time() >= self._fresh_until

    async def connect(self) -> None:
        """Open the connection, learn the broker's versions, authenticate. Raises Unreachable (or AccessRefused)."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._open()
                self.versions = await self._ask_versions()
                if self._access.sasl is not None:
                    await self._authenticate()
                else:
                    self._wire.hint = ": does it want SASL (cluster.security.protocol)?"
        except ssl.SSLError as error:  # also an OSError
            self.close()
            raise AccessRefused(f"broker {self.host}:{self.port}: {broker_trouble(error)}") from None
        except TimeoutError:
            self.close()
            raise Unreachable(
                f"broker {self.host}:{self.port}: no connection within {self._connect_timeout:g} s"
            ) from None
        except OSError as error:
            self.close()
            raise Unreachable(f"broker {self.host}:{self.port}: {_words(error)}") from error
        except BaseException:  # also on cancellation: nobody else knows this transport
            self.close()
            raise

    def version_of(self, key: int, first: int, last: int) -> int:
        """The highest version that the broker and `first`..`last` share. Raises UnsupportedBroker."""
        offered = self.versions.get(key)
        if offered is not None:
            version = min(offered[1], last)
            if version >= max(offered[0], first):
                return version
        shown = "nothing" if offered is None else f"versions {offered[0]} to {offered[1]}"
        raise UnsupportedBroker(
            f"broker {self.host}:{self.port} offers {shown} of {ApiKey(key).name}; "
            f"tierproxy needs one of {first} to {last} (Kafka 2.1 or newer has them)"
        )

    def codec_version(self, key: int) -> int:
        """The highest version that the broker and `protocol.codec` share. Raises UnsupportedBroker."""
        return self.version_of(key, *CODEC_VERSIONS[key])

    async def request(self, key: int, version: int, body: bytes, timeout: float) -> memoryview:
        """Send a request and return the payload of its answer, header included. Its memory is used again for a later
        answer once there is no view of it any more.

        Raises Unreachable when the connection ends first or `timeout` seconds pass, which closes it.
        """
        correlation_id = self.next_id()
        payload = request_header(key, version, correlation_id, self.client_id) + body
        return await self.exchange(correlation_id, payload, timeout)

    def next_id(self) -> int:
        """A correlation id for `exchange`."""
        self._last_id = (self._last_id + 1) & 0x7FFFFFFF
        return self._last_id

    async def exchange(self, correlation_id: int, payload: bytes, timeout: float) -> memoryview:
        """As `request`, for a payload that has its header already."""
        try:
            async with asyncio.timeout(timeout):
                return await self._wire.send(correlation_id, payload)
        except TimeoutError:
            error = Unreachable(f"broker {self.host}:{self.port}: no answer within {timeout:g} s")
            self._wire.fail(error)
            raise error from None

    def close(self) -> None:
        self._wire.fail(Unreachable(f"broker {self.host}:{self.port}: connection closed by us"))

    def retire(self) -> None:
        """Close it as soon as everyone who waits has their answer. Nothing more may be asked."""
        self._wire.retire()

    async def _open(self) -> None:
        loop, tls = asyncio.get_running_loop(), self._access.tls
        if tls is None:
            await loop.create_connection(lambda: self._wire, self.host, self.port)
            return
        try:
            await loop.create_connection(
                lambda: self._wire,
                self.host,
                self.port,
                ssl=tls.context,
                server_hostname=tls.name_for(self.host),
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except ConnectionResetError as error:
            raise Unreachable(f"broker {self.host}:{self.port}: {broker_trouble(error)}") from None

    async def _ask_versions(self) -> dict[int, tuple[int, int]]:
        version = CODEC_VERSIONS[ApiKey.API_VERSIONS][1]
        while True:
            body = encode_api_versions_request(version, "tierproxy", __version__)
            payload = await self.request(ApiKey.API_VERSIONS, version, body, self._connect_timeout)
            try:
                error, versions = decode_api_versions_response(payload, version)
            except MalformedError as malformed:
                raise Unreachable(f"{self.host}:{self.port} does not answer as Kafka: {malformed}") from malformed
            if error == ErrorCode.UNSUPPORTED_VERSION and version > 0:
                version = 0  # before Kafka 2.4 v3 was unknown, and the connection lives on
                continue
            if error:
                raise Unreachable(f"broker {self.host}:{self.port} refused ApiVersions with error {error}")
            return versions

    async def _authenticate(self) -> None:
        """Raises AccessRefused. What is said is who we are and what the broker says, never a secret."""
        assert self._access.sasl is not None
        name, account = f"broker {self.host}:{self.port}", self._access.account
        try:
            await self._shake_hands(self._access.sasl.mechanism)
            version = self.version_of(ApiKey.SASL_AUTHENTICATE, *sasl.AUTHENTICATE_VERSIONS)
            mechanism = self._access.begin()
            message: bytes | None = mechanism.start()
            while message is not None:
                body = sasl.authenticate_request(version, message)
                payload = await self.request(ApiKey.SASL_AUTHENTICATE, version, body, self._connect_timeout)
                answer = sasl.read_authenticate_answer(payload, version)
                if answer.error != ErrorCode.NONE:
                    raise AccessRefused(f"{name} refuses {account}: {answer.message or error_name(answer.error)}")
                message = mechanism.step(answer.token)
        except (NoCredentials, SaslError) as error:
            raise AccessRefused(f"{name}, {account}: {error}") from None
        except MalformedError as error:
            raise Unreachable(f"{name} does not answer as Kafka: {error}") from None
        if answer.session_ms:
            lifetime = answer.session_ms / 1000
            self._fresh_until = asyncio.get_running_loop().time() + lifetime * FRESH_FOR

    async def _shake_hands(self, mechanism: str) -> None:
        body = sasl.handshake_request(mechanism)
        payload = await self.request(ApiKey.SASL_HANDSHAKE, sasl.HANDSHAKE_VERSION, body, self._connect_timeout)
        answer = sasl.read_handshake_answer(payload)
        name = f"broker {self.host}:{self.port}"
        if answer.error == ErrorCode.UNSUPPORTED_SASL_MECHANISM:
            offered = ", ".join(answer.mechanisms) or "none"
            raise AccessRefused(
                f"{name} does not take {mechanism}; it takes {offered} (cluster.security.sasl.mechanism)"
            )
        if answer.error == ErrorCode.ILLEGAL_SASL_STATE:
            raise AccessRefused(f"{name} takes no SASL at this port (cluster.security.protocol)")
        if answer.error != ErrorCode.NONE:
            raise AccessRefused(f"{name} refuses to authenticate: {error_name(answer.error)}")


def _words(error: OSError) -> str:
    """What the system says. asyncio says instead what it tried, at each of a name's addresses."""
    number = error.errno if error.errno is not None else next(map(int, re.findall(r"\[Errno (\d+)\]", str(error))), 0)
    return os.strerror(number) if number > 0 else error.strerror or str(error)


class _Room:
    """Memory for one connection's answers. Fresh memory is mapped page by page and zeroed, in the loop, which costs
    more than to receive into it: so a large answer gets that of the last one, unless somebody still has a view of it.
    """

    def __init__(self) -> None:
        self._memory = bytearray()

    def give(self, size: int) -> memoryview:
        """Room for an answer of `size` bytes. Nothing is kept when answers have become small."""
        if size < LARGE_ANSWER_BYTES:
            self._memory = bytearray()
            return memoryview(bytearray(size))
        if not size <= len(self._memory) <= 4 * size + ROOM_STEP or self._is_seen():
            self._memory = bytearray(-(-size // ROOM_STEP) * ROOM_STEP)
        return memoryview(self._memory)[:size]

    def _is_seen(self) -> bool:
        """Whether there is a view of the memory: Python lets no bytearray be resized then."""
        try:
            self._memory.append(self._memory.pop())
        except BufferError:
            return True
        return False


class _Wire(asyncio.BufferedProtocol):
    """Frames over one transport: answers are received straight into the buffer that the caller gets."""

    def __init__(self, name: str) -> None:
        self.transport: asyncio.Transport | None = None
        self._name = name
        self._waiting: deque[tuple[int, asyncio.Future[memoryview]]] = deque()
        self._size = bytearray(4)
        self._room = _Room()
        self._body: memoryview | None = None  # None: still reading the size
        self._have = 0
        self._retired = False
        self.hint = ""  # what it may mean if the broker closes before it has answered anything more

    async def send(self, correlation_id: int, payload: bytes) -> memoryview:
        if self.transport is None:
            raise Unreachable(f"broker {self._name}: not connected")
        answer: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append((correlation_id, answer))
        self.transport.write(len(payload).to_bytes(4, "big") + payload)
        return await answer

    def retire(self) -> None:
        self._retired = True
        if not self._waiting:
            self.fail(Unreachable(f"broker {self._name}: connection closed by us"))

    def fail(self, error: Unreachable) -> None:
        """Close, and tell everyone who waits why."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's isn't derived from it

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):  # from TLS 1.3 on, it says no after the handshake
            self.fail(AccessRefused(f"broker {self._name}: {broker_trouble(exc)}"))
            return
        why = f"connection lost: {exc}" if exc is not None else f"connection closed by the broker{self.hint}"
        self.fail(Unreachable(f"broker {self._name}: {why}"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return (memoryview(self._size) if self._body is None else self._body)[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._body is None:
            if self._have < 4:
                return
            size = int.from_bytes(self._size, "big", signed=True)
            if not 4 <= size <= MAX_ANSWER_BYTES:
                self.fail(self._not_kafka(size))
                self._have = 0
                return
            self._body = self._room.give(size)
            self._have = 0
        elif self._have == len(self._body):
            payload, self._body, self._have = self._body, None, 0
            self._answered(payload)

    def _not_kafka(self, size: int) -> Unreachable:
        if self._size[:2] == TLS_ALERT:
            return AccessRefused(f"broker {self._name} speaks TLS at this port (cluster.security.protocol)")
        return Unreachable(f"broker {self._name}: an answer of {size} bytes is not Kafka's protocol")

    def _answered(self, payload: memoryview) -> None:
        correlation_id = int.from_bytes(payload[:4], "big", signed=True)
        if not self._waiting or self._waiting[0][0] != correlation_id:
            self.fail(Unreachable(f"broker {self._name}: an answer that was not asked for ({correlation_id})"))
            return
        _, answer = self._waiting.popleft()
        self.hint = ""
        if not answer.done():  # its caller may have been cancelled meanwhile
            answer.set_result(payload)
        if self._retired:
            self.retire()
