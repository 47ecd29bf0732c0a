"""A listener whose ports are opened elsewhere, and whose connections are brought to it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.certificates import Authority
from tests.unit.tierproxy.stage import Stage, Streams, talk
from tierproxy.addresses import ServerNames
from tierproxy.config import ListenTlsConfig
from tierproxy.listener import Listener, PortTaken

NAMES = ServerNames("kafka.test", "broker-{node}.kafka.test")


class Elsewhere:
    """A gate. What `bring` accepts goes to the listener."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.taken: set[int] = set()

    def connect(self, listener: Listener) -> None:
        self.listener = listener

    async def open(self, port: int) -> None:
        if port in self.taken:
            raise PortTaken(f"port {port} is taken")
        self.opened.append(port)

    async def bring(self, port: int, context: ssl.SSLContext | None = None, name: str | None = None) -> Streams:
        """A client's side of a connection that was accepted at `port`."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
        self.listener.take(port, accepted)
        client.setblocking(False)
        return await asyncio.open_connection(sock=client, ssl=context, server_hostname=name)


@pytest.fixture
def gate() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
async def stage(gate: Elsewhere) -> AsyncIterator[Stage]:
    async with Stage(gate=gate) as made:
        yield made


async def test_connections_that_are_brought_are_served_by_their_port(stage: Stage, gate: Elsewhere) -> None:
    stage.addresses.real[0] = stage.broker_address
    await stage.listener.open([0])
    assert gate.opened == [stage.port, stage.port + 1]
    clients = [await gate.bring(port) for port in gate.opened]
    for streams in clients:
        await talk(streams)
    assert stage.listener.load == 2
    for _, writer in clients:
        writer.close()
    while stage.listener.load:
        await asyncio.sleep(0.001)


async def test_clients_hear_of_no_broker_whose_port_is_not_open(
    stage: Stage, gate: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    gate.taken = {stage.port + 1}
    await stage.listener.open([0])
    assert 0 not in stage.addresses.listening
    assert "broker 0 can't be served" in caplog.text
    gate.taken = set()
    await stage.listener.open([0])
    assert 0 in stage.addresses.listening


async def test_what_comes_to_an_unknown_port_or_after_the_end_is_closed(stage: Stage, gate: Elsewhere) -> None:
    reader, writer = await gate.bring(stage.port + 5)
    assert await reader.read() == b""
    writer.close()
    await stage.listener.close(drain=0)
    reader, writer = await gate.bring(stage.port)
    assert await reader.read() == b""
    writer.close()


async def test_who_asks_for_a_broker_that_only_another_worker_knows_is_hung_up_on_not_refused(
    tmp_path: Path, gate: Elsewhere
) -> None:
    """An alert would be the end for a Java client."""
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("server", ["kafka.test", "*.kafka.test"])
    tls = ListenTlsConfig(cert_file=issued.cert_file, key_file=issued.key_file)
    trust = ssl.create_default_context(cafile=authority.ca_file)
    async with Stage(tls=tls, names=NAMES, gate=gate) as stage:
        reader, writer = await gate.bring(stage.port, trust, "broker-7.kafka.test")
        assert await reader.read() == b""
        writer.close()
        assert stage.catalog.topics_stale, "the scout looks at once"
        stage.addresses.real[7] = stage.broker_address
        streams = await gate.bring(stage.port, trust, "broker-7.kafka.test")
        await talk(streams)
        streams[1].close()
        trust.maximum_version = ssl.TLSVersion.TLSv1_2  # from 1.3 on it hears of the alert only when it reads
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await gate.bring(stage.port, trust, "other.kafka.test")
