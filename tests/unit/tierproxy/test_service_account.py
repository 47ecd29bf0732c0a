"""The service account's connections, against a broker's side of TLS and SASL that is written here.

That a real broker agrees is shown by tests/integration/test_security.py.
"""

import asyncio
import logging
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from protocol.apis import ApiKey
from protocol.headers import read_request_header, response_header
from protocol.sasl import handshake_answer, read_handshake_request
from protocol.wire import Cursor, put_compact_string, put_uvarint
from tests.kit.certificates import Authority
from tests.unit.tierproxy.scram_server import Server
from tierproxy.access import Access, service_access
from tierproxy.broker_connection import AccessRefused, BrokerConnection, Unreachable
from tierproxy.clock import ManualClock
from tierproxy.config import BrokerTlsConfig, SaslConfig, SecurityConfig
from tierproxy.connections import Connections

PASSWORD = "hunter2"
REQUEST_LIMIT = 100 << 20  # as Kafka's, so that a ClientHello is a request of a silly size
VERSIONS = {ApiKey.API_VERSIONS: 0, ApiKey.METADATA: 9, ApiKey.SASL_HANDSHAKE: 1, ApiKey.SASL_AUTHENTICATE: 2}


@dataclass
class Broker:
    """Answers ApiVersions and SASL as Kafka does, and everything else by an empty body once it is let in.

    `says(token)`: (error, message, token) for a SaslAuthenticate, in turn; `lifetime` in milliseconds.
    """

    says: Callable[[int, bytes], tuple[int, str | None, bytes]] = lambda turn, token: (0, None, b"")
    mechanisms: tuple[str, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
    lifetime: int = 0
    handshake_error: int = 0
    versions: dict[ApiKey, int] = field(default_factory=lambda: dict(VERSIONS))
    connections: int = 0
    tokens: list[bytes] = field(default_factory=list)
    certificates: list[object] = field(default_factory=list)
    hold: asyncio.Event | None = None
    """Answers to Metadata wait for it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.certificates.append(writer.get_extra_info("peercert"))
        turn = 0
        try:
            while (size := int.from_bytes(await reader.readexactly(4), "big")) <= REQUEST_LIMIT:
                request = await reader.readexactly(size)
                header = read_request_header(request)
                answer = response_header(header.api_key, header.version, header.correlation_id)
                if header.api_key == ApiKey.API_VERSIONS:
                    answer += self._versions(header.version)
                elif header.api_key == ApiKey.SASL_HANDSHAKE:
                    mechanism = read_handshake_request(request[header.body_at :])
                    error = self.handshake_error or (0 if mechanism in self.mechanisms else 33)
                    answer = handshake_answer(header.correlation_id, error, self.mechanisms)
                elif header.api_key == ApiKey.SASL_AUTHENTICATE:
                    answer += self._authenticate(turn, header.version, request[header.body_at :])
                    turn += 1
                elif self.hold is not None:
                    await self.hold.wait()
                writer.write(struct.pack(">i", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _versions(self, version: int) -> bytes:
        if version > 0:
            return struct.pack(">hi", 35, 0)
        rows = b"".join(struct.pack(">hhh", key, 0, last) for key, last in self.versions.items())
        return struct.pack(">hi", 0, len(self.versions)) + rows

    def _authenticate(self, turn: int, version: int, body: bytes) -> bytes:
        cur = Cursor(body)
        token = (cur.compact_bytes() if version >= 2 else cur.bytes_()) or b""
        self.tokens.append(token)
        error, message, said = self.says(turn, token)
        head = struct.pack(">h", error)
        if version >= 2:
            packed = put_compact_string(message) + put_uvarint(len(said) + 1) + said
            return head + packed + struct.pack(">q", self.lifetime) + b"\0"
        text = message.encode() if message is not None else None
        packed = struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text
        lifetime = struct.pack(">q", self.lifetime) if version >= 1 else b""
        return head + packed + struct.pack(">i", len(said)) + said + lifetime


class Place:
    """Where brokers of a test are started."""

    def __init__(self) -> None:
        self.servers: list[asyncio.Server] = []
        self.connections: list[BrokerConnection] = []

    async def start(self, broker: Broker, context: ssl.SSLContext | None = None) -> tuple[str, int]:
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0, ssl=context)
        self.servers.append(server)
        host, port = server.sockets[0].getsockname()
        return host, port

    async def connect(self, broker: Broker, access: Access, context: ssl.SSLContext | None = None) -> BrokerConnection:
        connection = BrokerConnection(*await self.start(broker, context), "me", access)
        self.connections.append(connection)
        await connection.connect()
        return connection


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    for connection in made.connections:
        connection.close()
    for server in made.servers:
        server.close()
        await server.wait_closed()


def account(mechanism: str = "PLAIN", **about: object) -> Access:
    given = about or ({"token": "t0ken"} if mechanism == "OAUTHBEARER" else {"username": "u", "password": PASSWORD})
    return Access(sasl=SaslConfig.model_validate({"mechanism": mechanism, **given}))


# -- getting in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_plain_gets_in_with_every_version(place: Place, version: int) -> None:
    broker = Broker(versions={**VERSIONS, ApiKey.SASL_AUTHENTICATE: version})
    connection = await place.connect(broker, account())
    assert broker.tokens == [b"\0u\0hunter2"]
    assert await connection.request(ApiKey.METADATA, 9, b"", 5)
    assert not connection.stale


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_scram_gets_in_and_the_broker_proves_itself(place: Place, mechanism: str) -> None:
    server = Server(mechanism, PASSWORD)

    def says(turn: int, token: bytes) -> tuple[int, str | None, bytes]:
        said = server.first(token) if turn == 0 else server.final(token)
        return (0, None, said) if said is not None else (58, "no", b"")

    broker = Broker(says)
    await place.connect(broker, account(mechanism))
    assert (len(broker.tokens), server.username) == (2, "u")
    assert PASSWORD.encode() not in b"".join(broker.tokens)


async def test_a_broker_that_can_not_prove_itself_is_left(place: Place) -> None:
    server = Server("SCRAM-SHA-256", PASSWORD)
    broker = Broker(lambda turn, token: (0, None, server.first(token) if turn == 0 else b"v=AAAA"))
    with pytest.raises(AccessRefused, match="can't prove that it knows the password"):
        await place.connect(broker, account("SCRAM-SHA-256"))


async def test_secrets_are_read_from_their_files_each_time(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "token"
    broker = Broker()
    address = await place.start(broker)
    access = account("OAUTHBEARER", token_file=file)
    for secret in ("first", "second"):
        file.write_text(f"{secret}\n")
        connection = BrokerConnection(*address, "me", access)
        await connection.connect()
        connection.close()
    assert broker.tokens == [b"n,,\x01auth=Bearer first\x01\x01", b"n,,\x01auth=Bearer second\x01\x01"]
    file.unlink()
    with pytest.raises(AccessRefused, match=r"token_file '.*token' can't be read: No such file"):
        await BrokerConnection(*address, "me", access).connect()


# -- not getting in ---------------------------------------------------------------------------------------------------


def refuses_the_token(turn: int, token: bytes) -> tuple[int, str | None, bytes]:
    return (0, None, b'{"status":"invalid_token"}') if turn == 0 else (58, None, b"")


@pytest.mark.parametrize(
    ("broker", "access", "words"),
    [
        (
            Broker(lambda turn, token: (58, "Authentication failed: Invalid username or password", b"")),
            account(),
            r"refuses tierproxy's account 'u' \(PLAIN\): Authentication failed: Invalid username or password",
        ),
        (
            Broker(refuses_the_token),
            account("OAUTHBEARER"),
            r"refuses tierproxy's account \(OAUTHBEARER\): SASL_AUTHENTICATION_FAILED",
        ),
        (
            Broker(mechanisms=("PLAIN", "GSSAPI")),
            account("SCRAM-SHA-512"),
            r"does not take SCRAM-SHA-512; it takes PLAIN, GSSAPI \(cluster.security.sasl.mechanism\)",
        ),
        (Broker(handshake_error=34), account(), r"takes no SASL at this port \(cluster.security.protocol\)"),
        (Broker(handshake_error=-1), account(), "refuses to authenticate: UNKNOWN_SERVER_ERROR"),
    ],
)
async def test_why_it_does_not_get_in_is_said_without_a_secret(
    place: Place, broker: Broker, access: Access, words: str
) -> None:
    with pytest.raises(AccessRefused, match=words) as caught:
        await place.connect(broker, access)
    for secret in (PASSWORD, "t0ken"):
        assert secret not in str(caught.value)
    assert place.connections[0].closed


async def test_a_broker_that_hangs_up_on_strangers_is_asked_for_sasl(place: Place) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for version in (3, 0):
            size = await reader.readexactly(4)
            header = read_request_header(await reader.readexactly(int.from_bytes(size, "big")))
            answer = response_header(ApiKey.API_VERSIONS, version, header.correlation_id) + Broker()._versions(version)
            writer.write(struct.pack(">i", len(answer)) + answer)
        await reader.read(4)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    place.servers.append(server)
    host, port = server.sockets[0].getsockname()
    connection = BrokerConnection(host, port, "me")
    await connection.connect()
    with pytest.raises(Unreachable, match=r"closed by the broker: does it want SASL \(cluster.security.protocol\)\?"):
        await connection.request(ApiKey.METADATA, 9, b"", 5)


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def broker_context(authority: Authority, host: str = "127.0.0.1") -> ssl.SSLContext:
    issued = authority.issue("broker", [host])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def over_tls(authority: Authority, **about: object) -> Access:
    tls = BrokerTlsConfig.model_validate({"ca_file": authority.ca_file, **about})
    sasl = SaslConfig(mechanism="PLAIN", username="u", password=SecretStr(PASSWORD))
    return service_access(SecurityConfig(protocol="SASL_SSL", sasl=sasl, tls=tls))


@pytest.mark.both_loops
async def test_sasl_travels_in_tls_and_the_account_shows_its_certificate(place: Place, authority: Authority) -> None:
    own = authority.issue("tierproxy")
    broker = Broker()
    access = over_tls(authority, cert_file=own.cert_file, key_file=own.key_file)
    connection = await place.connect(broker, access, broker_context(authority))
    assert await connection.request(ApiKey.METADATA, 9, b"", 5)
    assert broker.tokens == [b"\0u\0hunter2"]
    (certificate,) = broker.certificates
    assert isinstance(certificate, dict)
    assert certificate["subject"] == ((("commonName", "tierproxy"),),)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("host", "about", "words"),
    [
        ("kafka-1", {}, "its certificate is for another host"),
        ("127.0.0.1", {"ca_file": None}, "its certificate is not trusted"),
    ],
)
async def test_a_broker_that_is_not_who_it_says_gets_no_password(
    place: Place, authority: Authority, host: str, about: dict[str, object], words: str
) -> None:
    broker = Broker()
    with pytest.raises(AccessRefused, match=words):
        await place.connect(broker, over_tls(authority, **about), broker_context(authority, host))
    assert broker.tokens == []


@pytest.mark.both_loops
async def test_a_broker_without_tls_gets_no_password(place: Place, authority: Authority) -> None:
    broker = Broker()
    with pytest.raises(Unreachable, match="TLS"):
        await place.connect(broker, over_tls(authority))
    assert broker.tokens == []


@pytest.mark.both_loops
async def test_plaintext_at_a_tls_port_is_known_for_what_it_is(place: Place, authority: Authority) -> None:
    """Java's and OpenSSL's TLS answer by an alert; asyncio's servers don't, so this one is written out."""

    async def alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.write(bytes.fromhex("15030300020246"))
        writer.close()

    server = await asyncio.start_server(alert, "127.0.0.1", 0)
    place.servers.append(server)
    host, port = server.sockets[0].getsockname()
    with pytest.raises(AccessRefused, match=r"speaks TLS at this port \(cluster.security.protocol\)"):
        await BrokerConnection(host, port, "me", account()).connect()


# -- staying in -------------------------------------------------------------------------------------------------------


async def test_a_connection_is_replaced_before_its_time_is_over(place: Place) -> None:
    broker = Broker(lifetime=250, hold=asyncio.Event())
    address = await place.start(broker)
    connections = Connections(account(), "me", ManualClock())
    first = await connections.to(address, "control")
    assert await connections.to(address, "control") is first
    waiting = asyncio.ensure_future(first.request(ApiKey.METADATA, 9, b"", 5))
    while not first.stale:
        await asyncio.sleep(0.01)
    second = await connections.to(address, "control")
    assert second is not first
    assert (broker.connections, first.closed) == (2, False)  # somebody still waits on it
    assert broker.hold is not None
    broker.hold.set()
    assert await waiting
    assert first.closed
    assert not second.closed
    connections.close()


async def test_closing_closes_those_that_were_replaced_too(place: Place) -> None:
    broker = Broker(lifetime=100, hold=asyncio.Event())
    address = await place.start(broker)
    connections = Connections(account(), "me", ManualClock())
    first = await connections.to(address, "control")
    waiting = asyncio.ensure_future(first.request(ApiKey.METADATA, 9, b"", 5))
    while not first.stale:
        await asyncio.sleep(0.01)
    await connections.to(address, "control")
    connections.close()
    with pytest.raises(Unreachable, match="closed by us"):
        await waiting


async def test_a_refused_account_is_said_once_and_tried_ever_more_seldom(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = [True]
    broker = Broker(lambda turn, token: (58, "wrong", b"") if wrong[0] else (0, None, b""))
    address = await place.start(broker)
    clock = ManualClock()
    connections = Connections(account(), "me", clock)
    tried = []
    for second in range(200):
        before = broker.connections
        with pytest.raises(AccessRefused, match=r"refuses tierproxy's account 'u' \(PLAIN\): wrong"):
            await connections.to(address, "control")
        if broker.connections > before:
            tried.append(second)
        clock.advance(1)
    assert tried == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
    wrong[0] = False
    clock.advance(30)
    assert not (await connections.to(address, "control")).closed
    connections.close()
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "tierproxy.upstream"]
    assert [level for level, _ in said] == ["WARNING", "INFO"]
    assert PASSWORD not in caplog.text


async def test_one_that_becomes_refused_after_it_was_unreachable_is_said_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(lambda turn, token: (58, "wrong", b""))
    address = await place.start(broker)
    place.servers[0].close()
    await place.servers[0].wait_closed()
    clock = ManualClock()
    connections = Connections(account(), "me", clock)
    for _ in range(3):
        with pytest.raises(Unreachable, match=r"broker 127"):
            await connections.to(address, "control")
        clock.advance(1)
    again = await asyncio.start_server(broker.serve, *address)
    place.servers.append(again)
    with pytest.raises(AccessRefused):
        await connections.to(address, "control")
    assert len([record for record in caplog.records if record.name == "tierproxy.upstream"]) == 2
