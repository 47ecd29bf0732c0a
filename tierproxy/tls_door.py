"""TLS with clients: ports that accept connections, and the handshakes between that and a session.

The loop could do it alone (`create_server(ssl=…)`), but then handshakes under way could not be counted, and so not
bounded, and those that fail could not be explained: it drops them without a word. Nor would `start_tls` do: uvloop has
read the client's first bytes by then. So we accept ourselves, and `connect_accepted_socket` does one handshake and says
how it ended.

A handshake that fails on our side must be told to the client by an alert, which neither loop sends: they drop what
OpenSSL has written. What fails so early that the alert is not encrypted yet is told by us, on a copy of the socket that
is kept for the purpose: that the server name is unknown, or that there is no common version or cipher.

With server names (SNI), the name is looked at during the handshake, so that a client that asks for nobody is told so by
an alert, and `enter` learns for whom the connection is.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import cast
from weakref import WeakKeyDictionary

from tierproxy.config import ListenTlsConfig
from tierproxy.ports import listen_at
from tierproxy.tasks import Tasks
from tierproxy.telemetry import TLS_HANDSHAKES_FAILED, OncePerChange, Seldom
from tierproxy.tls import SHUTDOWN_TIMEOUT, FollowedContext, client_trouble, server_context

log = logging.getLogger("tierproxy.tls")

ACCEPT_PAUSE = 1.0
"""Seconds until the next try where the system gives us no more connections (no file descriptors, no memory)."""

_ALERTS = {
    "CALLBACK_FAILED": 112,  # unrecognized_name: the callback is the one that looks at names
    "UNSUPPORTED_PROTOCOL": 70,  # protocol_version
    "VERSION_TOO_LOW": 70,
    "NO_SHARED_CIPHER": 40,  # handshake_failure
}
"""OpenSSL's reason → its alert (RFC 8446, section 6); all of them are found in the client's first message."""

Full = Callable[[], bool]
Enter = Callable[[str | None], asyncio.BaseProtocol]
"""Makes the protocol of a secured connection, from the server name where names are looked at."""


class TlsDoor:
    """All secured ports of one listener.

    `full` says whether a connection must be turned away, `knows` whether a server name is one of ours (None: names are
    of no matter). Raises TlsFault where the certificate can't be used.
    """

    def __init__(
        self,
        about: ListenTlsConfig,
        timeout: float,
        tasks: Tasks,
        full: Full,
        knows: Callable[[str], bool] | None = None,
    ) -> None:
        self._about = about
        self._timeout = timeout
        self._tasks = tasks
        self._full = full
        self._knows = knows
        self._names: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        self._listening: list[tuple[socket.socket, asyncio.Task[None]]] = []
        self._under_way: dict[socket.socket, asyncio.Task[None]] = {}
        self._trouble = OncePerChange(log)
        self._seldom = Seldom(log, lambda: asyncio.get_running_loop().time())
        self.certificate = FollowedContext("listen.tls", [about.cert_file, about.key_file], self._make)

    @property
    def under_way(self) -> int:
        """How many handshakes are."""
        return len(self._under_way)

    async def open(self, host: str, port: int, backlog: int, enter: Enter) -> None:
        """Accept connections at every address of `host`. Raises OSError."""
        for listening in await listen_at(host, port, backlog):
            accepting = self._tasks.spawn(self._accept(listening, enter), f"accept at port {port}")
            self._listening.append((listening, accepting))

    def close(self) -> None:
        """Accept nothing more, and break off the handshakes that are under way."""
        for listening, accepting in self._listening:
            accepting.cancel()
            listening.close()
        for task in self._under_way.values():
            task.cancel()

    async def _accept(self, listening: socket.socket, enter: Enter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                self._trouble.began("accept", f"no connections can be accepted: {error.strerror or error}")
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            self._trouble.ended("accept", "connections can be accepted again")
            self.admit(accepted, peer, enter)

    def admit(self, accepted: socket.socket, peer: tuple[str, int], enter: Enter) -> None:
        """Shake hands on a connection that was accepted, here or elsewhere."""
        if self._full():
            accepted.close()
        else:
            task = self._tasks.spawn(self._secure(accepted, peer, enter), "TLS handshake")
            task.add_done_callback(partial(self._over, accepted))
            self._under_way[accepted] = task

    async def _secure(self, accepted: socket.socket, peer: tuple[str, int], enter: Enter) -> None:
        try:
            copy = accepted.dup()
        except OSError as error:
            self._trouble.began("accept", f"no connections can be accepted: {error.strerror or error}")
            return
        with copy:
            await self._shake_hands(accepted, copy, peer, enter)

    async def _shake_hands(
        self, accepted: socket.socket, copy: socket.socket, peer: tuple[str, int], enter: Enter
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Entrance(partial(self._enter, accepted, enter)),
                accepted,
                ssl=self.certificate.context,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except OSError as error:  # a fault of TLS, a reset, or no end in time
            alert = _ALERTS.get(getattr(error, "reason", None) or "")
            if alert is not None:
                with contextlib.suppress(OSError):
                    copy.send(bytes((21, 3, 3, 0, 2, 2, alert)))  # a record of type alert: fatal
            self._failed(f"{peer[0]}:{peer[1]}", error)

    def _enter(self, accepted: socket.socket, enter: Enter, secured: asyncio.Transport) -> None:
        del self._under_way[accepted]
        protocol = enter(self._names.pop(secured.get_extra_info("ssl_object"), None))
        secured.set_protocol(protocol)
        protocol.connection_made(secured)

    def _over(self, accepted: socket.socket, _: asyncio.Task[None]) -> None:
        if self._under_way.pop(accepted, None) is not None:
            accepted.close()  # nobody took it over, perhaps nobody has even begun

    def _failed(self, peer: str, error: OSError) -> None:
        TLS_HANDSHAKES_FAILED.inc()
        why = client_trouble(error)
        if isinstance(error, ConnectionAbortedError):
            why = f"it was not over within {self._timeout:g} s (limits.handshake_timeout)"
        elif not isinstance(error, ssl.SSLError):  # health checks and port scans look like this
            log.debug("%s broke off its TLS handshake: %s", peer, why)
            return
        if getattr(error, "reason", None) != "CALLBACK_FAILED":  # that one was said where it failed
            self._seldom.say(why, f"TLS handshake with {peer} failed: {why}")

    def _make(self) -> ssl.SSLContext:
        context = server_context(self._about.cert_file, self._about.key_file)
        if self._knows is not None:
            context.sni_callback = self._named
        return context

    def _named(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> int | None:
        assert self._knows is not None
        if name is not None and self._knows(name):
            self._names[cast(ssl.SSLObject, connection)] = name
            return None
        if name is None:
            self._seldom.say("no name", "a client was refused: it names no server in TLS (SNI), as listen.sni wants it")
        else:
            self._seldom.say("name", f"a client was refused: it asks for server {name!r}, which is none of listen.sni")
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


class _Entrance(asyncio.Protocol):
    """Is told when the handshake is over, and gives way to the protocol of the session."""

    def __init__(self, secured: Callable[[asyncio.Transport], None]) -> None:
        self._secured = secured

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._secured(cast(asyncio.Transport, transport))  # uvloop's isn't derived from it
