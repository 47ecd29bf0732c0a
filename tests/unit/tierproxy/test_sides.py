"""Buffers that are used again: every byte is right, however slowly and unevenly it is taken."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from protocol.wire import Buffer
from tests.kit.certificates import Authority
from tests.unit.tierproxy.stage import Stage, framed
from tests.unit.tierproxy.talk import answer, fetch, fetch_answer, fetched, request
from tierproxy.access import client_tls
from tierproxy.config import BrokerTlsConfig, ListenTlsConfig, SecurityConfig
from tierproxy.sides import BUFFER, COPY_BELOW, SPARE, BrokerSide, Buffers, ClientSide, Side

pytestmark = pytest.mark.both_loops

Broker = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CLIENTS = 4
ROUNDS = 3


def answers(client: int, asked: int) -> bytes:
    """Unlike anybody else's, some buffers long, and either flowing by or with partitions that are looked at."""
    some = random.Random(client * 1000 + asked)
    if asked % 2 == 0:
        return framed(answer(ApiKey.HEARTBEAT, 4, client, some.randbytes(3 * BUFFER + some.randrange(BUFFER))))
    sizes = (2 * BUFFER, some.randrange(100), BUFFER + some.randrange(BUFFER))
    partitions = (fetched(at, records=some.randbytes(size), topic="plain") for at, size in enumerate(sizes))
    return framed(fetch_answer(client, *partitions))


def ask(client: int, asked: int) -> bytes:
    if asked % 2 == 0:
        return framed(request(ApiKey.HEARTBEAT, 4, client, b"\x02g\x00\x00\x00\x01\x02m\x00\x00"))
    return framed(fetch(client, (0, 0), (1, 0), (2, 0), topic="plain"))


async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends each client, told by the correlation id, its own answers, in portions of any size."""
    some = random.Random(0)
    for asked in range(ROUNDS):
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        (client,) = struct.unpack_from(">i", await reader.readexactly(size), 4)
        reply = memoryview(answers(client, asked))
        while reply:
            portion = some.choice((1, 7, COPY_BELOW, COPY_BELOW + 1, BUFFER, 2 * BUFFER))
            writer.write(reply[:portion])
            reply = reply[portion:]
            await writer.drain()
    await reader.read()


class Taker:
    """A broker that takes requests slowly and unevenly, and answers each with a digest of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lagged = 0

    @property
    def ours(self) -> list[BrokerSide]:
        return [session.broker for session in self.stage.listener.sessions if session.broker.connected]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        some = random.Random(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        for session in self.stage.listener.sessions:
            if session.broker.connected:
                session.broker.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER
                )
        for _ in range(ROUNDS):
            (left,) = struct.unpack(">i", await reader.readexactly(4))
            head = await reader.readexactly(8)
            digest = sha256(head)
            left -= len(head)
            while left:
                portion = await reader.read(min(left, some.choice((COPY_BELOW, 1 << 20))))
                digest.update(portion)
                left -= len(portion)
                self.lagged += any(each.transport.get_write_buffer_size() for each in self.ours)
                await asyncio.sleep(0)
            (client,) = struct.unpack_from(">i", head, 4)
            writer.write(framed(answer(ApiKey.HEARTBEAT, 4, client, digest.digest())))
        await reader.read()


def secured(broker: Broker, directory: Path) -> Stage:
    authority = Authority(directory)
    issued = authority.issue("server", ["localhost", "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    about = BrokerTlsConfig(ca_file=authority.ca_file)
    return Stage(
        broker,
        tls=ListenTlsConfig(cert_file=issued.cert_file, key_file=issued.key_file),
        broker_context=context,
        broker_tls=client_tls(SecurityConfig(protocol="SSL", tls=about)),
    )


@pytest.fixture(params=["plaintext", "TLS"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(broker) if request.param == "plaintext" else secured(broker, tmp_path)


async def read(stage: Stage, client: int, trust: ssl.SSLContext | None) -> int:
    """One client, between sockets that hold next to nothing. How often the proxy could not get rid of what it had."""
    some = random.Random(client)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", stage.port))
    name = "localhost" if trust else None
    reader, writer = await asyncio.open_connection(sock=sock, ssl=trust, server_hostname=name, limit=4096)
    host, port = sock.getsockname()
    while not (found := [each for each in stage.listener.sessions if each.name == f"{host}:{port}"]):
        await asyncio.sleep(0)
    (session,) = found
    session.client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    lagged = 0
    for asked in range(ROUNDS):
        writer.write(ask(client, asked))
        wanted = memoryview(answers(client, asked))
        while wanted:
            got = await reader.read(some.choice((1, 1000, 1 << 20)))
            assert got == wanted[: len(got)], f"client {client}: wrong bytes {len(wanted)} before the end"
            wanted = wanted[len(got) :]
            lagged += session.client.full
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return lagged


async def test_every_client_gets_its_own_bytes_however_slowly_it_takes_them(stage: Stage, tmp_path: Path) -> None:
    trust = ssl.create_default_context(cafile=tmp_path / "ca.pem") if stage.tls else None
    async with stage, asyncio.TaskGroup() as group:
        lagged = [group.create_task(read(stage, client, trust)) for client in range(CLIENTS)]
    assert all(each.result() for each in lagged), "nobody was slow enough to try what is tried here"


async def send(stage: Stage, client: int, trust: ssl.SSLContext | None) -> None:
    """One client that sends requests some buffers long, all at once or in portions, and looks at their digests."""
    some = random.Random(client)
    reader, writer = await stage.client(trust, "localhost" if trust else None)
    sent = []
    for _ in range(ROUNDS):
        made = request(ApiKey.HEARTBEAT, 4, client, some.randbytes(8 * BUFFER + some.randrange(BUFFER)))
        sent.append(made)
        left = memoryview(framed(made))
        while left:
            portion = some.choice((1000, BUFFER, len(left)))
            writer.write(left[:portion])
            left = left[portion:]
            await asyncio.sleep(0)
    for made in sent:
        expected = framed(answer(ApiKey.HEARTBEAT, 4, client, sha256(made).digest()))
        assert await reader.readexactly(len(expected)) == expected, f"client {client}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "TLS"])
async def test_a_broker_gets_every_byte_however_slowly_it_takes_them(tls: bool, tmp_path: Path) -> None:
    stage = secured(broker, tmp_path) if tls else Stage()
    stage.broker = taker = Taker(stage)
    trust = ssl.create_default_context(cafile=tmp_path / "ca.pem") if tls else None
    async with stage, asyncio.TaskGroup() as group:
        for client in range(CLIENTS):
            group.create_task(send(stage, client, trust))
    assert taker.lagged, "the broker was not slow enough to try what is tried here"


class Keeper:
    """A session that keeps the views it is handed until told otherwise."""

    client: ClientSide
    broker: BrokerSide

    def __init__(self, buffers: Buffers) -> None:
        self.broker = BrokerSide(self, buffers)
        self.got: list[Buffer] = []
        self.keeping = True

    def receive(self, data: bytes) -> None:
        self.broker.get_buffer(-1)[: len(data)] = data
        self.broker.buffer_updated(len(data))

    def from_broker(self, data: Buffer) -> None:
        self.got.append(data)

    def keeps_views(self, side: Side) -> bool:
        return self.keeping

    def client_connected(self) -> None: ...

    def from_client(self, data: Buffer) -> None: ...

    def pressure_changed(self) -> None: ...

    def carry_on(self) -> None: ...

    def side_lost(self, side: Side, error: Exception | None) -> None: ...


async def test_a_buffer_serves_others_only_when_nobody_has_views_of_it() -> None:
    buffers = Buffers()
    keeper, other = Keeper(buffers), Keeper(buffers)
    portions = [bytes([n]) * (BUFFER // 2 + 1) for n in range(3)]
    for portion in portions:
        keeper.receive(portion)
        other.receive(b"\xff" * BUFFER)
    assert keeper.got == portions
    keeper.keeping = False
    keeper.got.clear()
    keeper.broker.settle()
    taken = buffers.take()
    assert bytes(taken[: BUFFER // 2 + 1]) == portions[-1], "the last one is used again"
    keeper.broker.settle()
    assert buffers.take() is not taken, "it is given back once"


async def test_while_somebody_lags_his_buffers_are_at_least_half_full() -> None:
    buffers = Buffers()
    keeper = Keeper(buffers)
    some = COPY_BELOW + 1
    for n in range(8):
        keeper.receive(bytes([n]) * some)
    keeper.receive(b"\x09" * (BUFFER // 2 + 1))
    assert keeper.got == [*(bytes([n]) * some for n in range(8)), b"\x09" * (BUFFER // 2 + 1)]
    assert [isinstance(each, memoryview) for each in keeper.got] == [True, *[False] * 7, True]


async def test_a_few_bytes_never_keep_a_buffer() -> None:
    buffers = Buffers()
    keeper = Keeper(buffers)
    for n in range(3):
        keeper.receive(bytes([n]) * COPY_BELOW)
    buffer = buffers.take()
    assert bytes(buffer[:COPY_BELOW]) == b"\x02" * COPY_BELOW, "all three came by the same one, which is free"
    assert keeper.got == [bytes([n]) * COPY_BELOW for n in range(3)]


async def test_all_receive_into_the_same_buffer_until_somebody_has_views_of_it() -> None:
    buffers = Buffers()
    keeper, other = Keeper(buffers), Keeper(buffers)
    shared = keeper.broker.get_buffer(-1)  # as for a read that finds nothing
    assert other.broker.get_buffer(-1) is shared
    keeper.receive(b"x" * BUFFER)
    assert other.broker.get_buffer(-1) is not shared
    assert keeper.broker.get_buffer(-1) is other.broker.get_buffer(-1)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_who_is_gone_has_no_buffer() -> None:
    stage = Stage(silent)
    async with stage:
        _, writer = await stage.client()
        writer.write(framed(request(ApiKey.HEARTBEAT, 4, 1, bytes(40 * BUFFER))))
        while not (sessions := list(stage.listener.sessions)) or not sessions[0].broker.connected:
            await asyncio.sleep(0)
        (session,) = sessions
        while session.client._in_use is None:
            await asyncio.sleep(0)
        writer.transport.abort()
        session.end(None)
        session.broker.transport.abort()
        while session.client.connected or session.broker.connected:
            await asyncio.sleep(0)
        assert session.client._in_use is None


async def test_only_a_few_buffers_are_kept() -> None:
    buffers = Buffers()
    taken = [buffers.take() for _ in range(2 * SPARE)]
    for buffer in taken:
        buffers.give_back(buffer)
    again = [buffers.take() for _ in range(2 * SPARE)]
    assert sum(any(buffer is one for one in taken) for buffer in again) == SPARE


async def test_what_stays_on_this_machine_is_not_paced() -> None:
    stage = Stage(broker)
    async with stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(ask(1, 0))
        await reader.readexactly(4)
        (session,) = stage.listener.sessions
        for side in (session.client, session.broker):
            sock = side.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
        writer.close()
