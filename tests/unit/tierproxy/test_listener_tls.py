"""TLS on both sides of the shell, over real sockets, with certificates made for the occasion."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from tests.kit.certificates import Authority
from tests.unit.tierproxy.stage import HEARTBEAT, HEARTBEAT_ANSWER, Stage, Streams, echo_heartbeats, talk
from tests.unit.tierproxy.talk import answer
from tierproxy.access import client_tls
from tierproxy.addresses import ServerNames
from tierproxy.config import BrokerTlsConfig, LimitsConfig, ListenTlsConfig, SecurityConfig

pytestmark = pytest.mark.both_loops

NAMES = ServerNames("kafka.test", "broker-{node}.kafka.test")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def tls(authority: Authority) -> ListenTlsConfig:
    issued = authority.issue("server", ["localhost", "kafka.test", "*.kafka.test"])
    return ListenTlsConfig(cert_file=issued.cert_file, key_file=issued.key_file)


@pytest.fixture
def trust(authority: Authority) -> ssl.SSLContext:
    """What a client of ours is configured with."""
    return ssl.create_default_context(cafile=authority.ca_file)


@pytest.fixture
async def stage(tls: ListenTlsConfig) -> AsyncIterator[Stage]:
    async with Stage(tls=tls) as made:
        yield made


async def close(*streams: Streams) -> None:
    for _, writer in streams:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def refused(stage: Stage, context: ssl.SSLContext, name: str) -> OSError:
    """What a client is told whose handshake fails; with TLS 1.3 it may hear of it only when it reads."""
    try:
        reader, writer = await stage.client(context, name)
        try:
            assert await reader.read(1) == b""
        finally:
            writer.close()
    except OSError as error:
        return error
    return ConnectionResetError("closed without a word")


async def refuses(stage: Stage, context: ssl.SSLContext) -> ssl.SSLError:
    """A client that does not like our certificate, by OpenSSL alone: asyncio's clients leave without saying why."""

    def connect() -> ssl.SSLError:
        with socket.create_connection(("127.0.0.1", stage.port)) as plain, pytest.raises(ssl.SSLError) as caught:
            context.wrap_socket(plain, server_hostname="localhost")
        return caught.value

    return await asyncio.to_thread(connect)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [message for record in caplog.records if words in (message := record.getMessage())]


# -- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_talks_to_its_broker(stage: Stage, trust: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    trust.minimum_version = trust.maximum_version = version
    first, second = await stage.client(trust, "localhost"), await stage.client(trust, "localhost")
    for streams in (first, second, first):
        await talk(streams)
    await close(first, second)


async def test_what_a_client_says_with_its_last_handshake_message_is_heard(stage: Stage, trust: ssl.SSLContext) -> None:
    """Both in one segment: done by hand, because no library waits so little."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(received, to_send, server_hostname="localhost")
    while True:
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(to_send.read())
            received.write(await reader.read(1 << 16))
        else:
            break
    client.write(HEARTBEAT)
    writer.write(to_send.read())
    heard = b""
    while len(heard) < len(HEARTBEAT_ANSWER):
        with contextlib.suppress(ssl.SSLWantReadError):
            heard += client.read(1 << 16)
            continue
        received.write(await reader.read(1 << 16))
    assert heard == HEARTBEAT_ANSWER
    await close((reader, writer))


async def test_many_handshakes_at_once(stage: Stage, trust: ssl.SSLContext) -> None:
    async def one() -> None:
        streams = await stage.client(trust, "localhost")
        await talk(streams)
        await close(streams)

    await asyncio.gather(*(one() for _ in range(100)))


async def test_megabytes_arrive_as_they_were_sent(tls: ListenTlsConfig, trust: ssl.SSLContext) -> None:
    size = 24 << 20
    head = answer(ApiKey.HEARTBEAT, 4, 1)
    body = bytes(range(256)) * ((size - len(head)) // 256 + 1)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HEARTBEAT))
        writer.write(struct.pack(">i", size) + head + body[: size - len(head)])
        await writer.drain()
        await reader.read()

    async with Stage(pour, tls=tls) as stage:
        reader, writer = await stage.client(trust, "localhost")
        writer.write(HEARTBEAT)
        received = await reader.readexactly(size + 4)
        assert received == struct.pack(">i", size) + head + body[: size - len(head)]
        await close((reader, writer))


async def test_a_client_that_does_not_read_holds_up_its_broker_and_not_our_memory(
    tls: ListenTlsConfig, trust: ssl.SSLContext
) -> None:
    size = 64 << 20
    stuck = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HEARTBEAT))
        writer.write(struct.pack(">i", size) + answer(ApiKey.HEARTBEAT, 4, 1))
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            try:
                await asyncio.wait_for(asyncio.shield(writer.drain()), 0.5)
            except TimeoutError:
                stuck.set()
                return

    async with Stage(flood, tls=tls) as stage:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", stage.port, limit=1 << 16, ssl=trust, server_hostname="localhost"
        )
        writer.write(HEARTBEAT)
        await stuck.wait()
        writer.transport.abort()


async def test_failed_handshakes_harm_nobody_and_are_said_seldom(
    stage: Stage, trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    good = await stage.client(trust, "localhost")
    await talk(good)
    stranger = ssl.create_default_context()
    stranger.minimum_version = ssl.TLSVersion.TLSv1_3
    for _ in range(5):
        assert isinstance(await refuses(stage, stranger), ssl.SSLCertVerificationError)
        reader, writer = await stage.client()
        writer.write(HEARTBEAT)  # plaintext
        await reader.read()
        await close((reader, writer))
        _, writer = await stage.client()  # a health check
        await close((_, writer))
    await talk(good)
    await close(good)
    failures = said(caplog, "TLS handshake with 127.0.0.1:")
    assert sorted(message.partition("failed: ")[2] for message in failures) == [
        "the client does not speak TLS",
        "the client does not trust our certificate",
    ]
    assert not said(caplog, "Traceback")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # this client is meant to be old
async def test_old_versions_of_tls_are_refused(
    stage: Stage, trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    trust.set_ciphers("DEFAULT:@SECLEVEL=0")
    trust.minimum_version, trust.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    assert "PROTOCOL_VERSION" in str(await refused(stage, trust, "localhost"))
    assert said(caplog, "the client speaks no TLS version from 1.2 on")


async def test_a_handshake_that_stops_is_ended(tls: ListenTlsConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierproxy")
    async with Stage(tls=tls, limits=LimitsConfig(handshake_timeout_ms=200)) as stage:
        silent, half = await stage.client(), await stage.client()
        half[1].write(b"\x16\x03\x01\x02\x00\x01\x00")
        assert (await silent[0].read(), await half[0].read()) == (b"", b"")
        await close(silent, half)
        assert said(caplog, "it was not over within 0.2 s (limits.handshake_timeout)")


async def test_handshakes_under_way_count_as_connections(tls: ListenTlsConfig, trust: ssl.SSLContext) -> None:
    async with Stage(tls=tls, limits=LimitsConfig(connections=2)) as stage:
        good, silent = await stage.client(trust, "localhost"), await stage.client()
        await talk(good)
        assert isinstance(await refused(stage, trust, "localhost"), ConnectionError)
        await talk(good)
        await close(silent)
        for _ in range(100):  # until the closed one was noticed
            with contextlib.suppress(OSError):
                another = await stage.client(trust, "localhost")
                await talk(another)
                break
        else:
            pytest.fail("the place was not given free")
        await close(good, another)


async def test_closing_breaks_handshakes_off(tls: ListenTlsConfig) -> None:
    async with Stage(tls=tls) as stage:
        silent = await stage.client()
        silent[1].write(b"\x16")
        await asyncio.sleep(0)
    with contextlib.suppress(ConnectionResetError):
        assert await silent[0].read() == b""
    await close(silent)


async def test_a_certificate_is_replaced_without_a_restart(
    stage: Stage, authority: Authority, trust: ssl.SSLContext
) -> None:
    def serial(streams: Streams) -> object:
        certificate = streams[1].get_extra_info("peercert")
        return certificate["serialNumber"]

    old = await stage.client(trust, "localhost")
    authority.issue("server", ["localhost"])
    follow = stage.listener.certificate
    assert follow is not None
    follow.check()
    follow.check()
    new = await stage.client(trust, "localhost")
    assert serial(old) != serial(new)
    await talk(old)
    await talk(new)
    await close(old, new)


# -- server names -----------------------------------------------------------------------------------------------------


async def test_the_server_name_chooses_the_broker(tls: ListenTlsConfig, trust: ssl.SSLContext) -> None:
    async def other_broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(len(HEARTBEAT))
        writer.write(HEARTBEAT_ANSWER[:-1] + b"\x07")
        await reader.read()
        writer.close()

    other = await asyncio.start_server(other_broker, "127.0.0.1", 0)
    async with Stage(tls=tls, names=NAMES) as stage:
        stage.addresses.real[0] = stage.broker_address
        stage.addresses.real[12] = other.sockets[0].getsockname()
        for name, last in [("broker-0.kafka.test", 0), ("broker-12.kafka.test", 7), ("BROKER-12.kafka.test", 7)]:
            reader, writer = await stage.client(trust, name)
            writer.write(HEARTBEAT)
            assert (await reader.readexactly(len(HEARTBEAT_ANSWER)))[-1] == last, name
            await close((reader, writer))
        streams = await stage.client(trust, "kafka.test")
        streams[1].write(HEARTBEAT)
        assert len(await streams[0].readexactly(len(HEARTBEAT_ANSWER))) == len(HEARTBEAT_ANSWER)
        await close(streams)
    other.close()


async def test_unknown_server_names_are_refused_and_said_seldom(
    tls: ListenTlsConfig, trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    async with Stage(tls=tls, names=NAMES) as stage:
        stage.addresses.real[0] = stage.broker_address
        for name in ("localhost", "broker-1.kafka.test", "broker-00.kafka.test", "broker-0.kafka.test.evil"):
            error = await refused(stage, trust, name)
            assert "UNRECOGNIZED_NAME" in str(error), name
        trust.check_hostname = False
        assert "UNRECOGNIZED_NAME" in str(await refused(stage, trust, "127.0.0.1"))  # addresses are no names
        assert len(said(caplog, "it asks for server 'localhost', which is none of listen.sni")) == 1
        assert len(said(caplog, "it names no server in TLS (SNI)")) == 1
        assert not said(caplog, "callback")
        good = await stage.client(trust, "kafka.test")
        await talk(good)
        await close(good)


async def test_with_server_names_no_other_port_is_opened(tls: ListenTlsConfig) -> None:
    async with Stage(tls=tls, names=NAMES) as stage:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", stage.port + 1)


# -- brokers ----------------------------------------------------------------------------------------------------------


def broker_context(authority: Authority, *hosts: str, days: int = 30) -> ssl.SSLContext:
    issued = authority.issue("broker", hosts, days=days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    return context


def encrypted(authority: Authority, **about: object) -> SecurityConfig:
    return SecurityConfig(protocol="SSL", tls=BrokerTlsConfig.model_validate({"ca_file": authority.ca_file, **about}))


async def test_brokers_are_spoken_to_in_tls_and_shown_no_certificate(authority: Authority) -> None:
    shown: list[object] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("peercert"))
        await echo_heartbeats(reader, writer)

    context = broker_context(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(authority.ca_file)
    own = authority.issue("tierproxy")
    security = encrypted(authority, cert_file=own.cert_file, key_file=own.key_file)
    async with Stage(look, broker_context=context, broker_tls=client_tls(security)) as stage:
        streams = await stage.client()
        await talk(streams)
        await close(streams)
    assert shown in ([None], [{}])


@pytest.mark.parametrize(
    ("hosts", "days", "about", "why"),
    [
        (["kafka-1"], 30, {}, "its certificate is for another host"),
        (["127.0.0.1"], -1, {}, "its certificate is not trusted: certificate has expired"),
        (
            ["127.0.0.1"],
            30,
            {"ca_file": None},
            "its certificate is not trusted: unable to get local issuer certificate",
        ),
        (["kafka-1"], 30, {"server_name": "kafka-2"}, "its certificate is for another host"),
        (["kafka-1"], 30, {"server_name": "kafka-1"}, None),
        (["kafka-1"], 30, {"verify_hostname": False}, None),
    ],
)
async def test_a_broker_has_to_be_who_it_says(
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    hosts: list[str],
    days: int,
    about: dict[str, object],
    why: str | None,
) -> None:
    caplog.set_level("INFO", "tierproxy")
    context = broker_context(authority, *hosts, days=days)
    async with Stage(broker_context=context, broker_tls=client_tls(encrypted(authority, **about))) as stage:
        if why is None:
            streams = await stage.client()
            await talk(streams)
            await close(streams)
            return
        for _ in range(3):
            reader, writer = await stage.client()
            assert await reader.read() == b""
            await close((reader, writer))
    assert len(said(caplog, why)) == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_broker_that_wants_certificates_of_clients_is_said_once(
    authority: Authority, caplog: pytest.LogCaptureFixture, version: ssl.TLSVersion
) -> None:
    """The broker is OpenSSL alone: asyncio's servers hang up without saying why."""
    caplog.set_level("INFO", "tierproxy")
    context = broker_context(authority, "127.0.0.1")
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED

    def broker(listening: socket.socket, connections: int) -> None:
        for _ in range(connections):
            plain, _ = listening.accept()
            with plain.dup() as rest:
                with plain, contextlib.suppress(ssl.SSLError):
                    context.wrap_socket(plain, server_side=True)
                # Closed with the client's next bytes unread, the connection would be reset and the alert lost with it.
                rest.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    while rest.recv(1 << 16):
                        pass

    async with Stage(broker_tls=client_tls(encrypted(authority))) as stage:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            stage.addresses.real[1] = listening.getsockname()
            serving = asyncio.ensure_future(asyncio.to_thread(broker, listening, 3))
            for _ in range(3):
                reader, writer = await stage.client()
                writer.write(HEARTBEAT)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                await close((reader, writer))
            await serving
    (once,) = said(caplog, "can't be reached: it")
    assert "want" in once
    assert "client certificate" in once


async def test_a_broker_that_does_not_speak_tls_is_said_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)  # as Kafka does, which takes a ClientHello for a huge request

    async with Stage(hang_up, broker_tls=client_tls(encrypted(authority))) as stage:
        for _ in range(3):
            reader, writer = await stage.client()
            assert await reader.read() == b""
            await close((reader, writer))
    (once,) = said(caplog, "can't be reached:")
    assert "TLS" in once


async def test_a_broker_whose_handshake_stops_is_given_up(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        gone.set()

    limits = LimitsConfig(connect_timeout_ms=200)
    async with Stage(silent, limits=limits, broker_tls=client_tls(encrypted(authority))) as stage:
        reader, writer = await stage.client()
        assert await reader.read() == b""
        await gone.wait()
        await close((reader, writer))
    assert said(caplog, "no answer within 200 ms")


async def test_tls_on_both_sides(authority: Authority, tls: ListenTlsConfig, trust: ssl.SSLContext) -> None:
    context = broker_context(authority, "127.0.0.1")
    async with Stage(broker_context=context, tls=tls, broker_tls=client_tls(encrypted(authority))) as stage:
        streams = await stage.client(trust, "localhost")
        for _ in range(3):
            await talk(streams)
        await close(streams)
