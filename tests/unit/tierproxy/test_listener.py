"""The shell, over real sockets."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

from protocol.apis import ApiKey
from tests.kit.processes import free_ports
from tests.unit.tierproxy.stage import HEARTBEAT, HEARTBEAT_ANSWER, Stage, Streams, talk
from tests.unit.tierproxy.talk import answer, catalog
from tierproxy.config import LimitsConfig
from tierproxy.listener import Listener, PortTaken

FLOOD = 64 << 20
"""Bytes."""


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as made:
        yield made


async def test_a_client_talks_to_its_broker_on_one_connection_of_their_own(stage: Stage) -> None:
    first, second = await stage.client(), await stage.client()
    for streams in (first, second, first):
        await talk(streams)
    for _, writer in (first, second):
        writer.close()


async def test_malformed_bytes_close_that_connection_and_no_other(stage: Stage) -> None:
    good, bad = await stage.client(), await stage.client()
    await talk(good)
    before = REGISTRY.get_sample_value("tierproxy_connections_closed_total")
    assert before is not None
    bad[1].write(b"GET / HTTP/1.1\r\n\r\n")
    assert await bad[0].read() == b""
    assert REGISTRY.get_sample_value("tierproxy_connections_closed_total") == before + 1
    await talk(good)
    for _, writer in (good, bad):
        writer.close()


async def test_when_the_broker_goes_so_does_the_client() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HEARTBEAT))
        writer.write(HEARTBEAT_ANSWER)

    async with Stage(hang_up) as stage:
        reader, writer = await stage.client()
        writer.write(HEARTBEAT)
        assert await reader.read() == HEARTBEAT_ANSWER
        writer.close()


async def test_when_the_client_goes_so_does_the_brokers_connection() -> None:
    gone = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with Stage(watch) as stage:
        _, writer = await stage.client()
        writer.write(HEARTBEAT)
        await writer.drain()
        writer.close()
        await gone.wait()


async def test_an_unreachable_broker_closes_its_clients_and_is_said_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    stage.addresses.real[1] = ("127.0.0.1", free_ports(1))
    for _ in range(3):
        reader, writer = await stage.client()
        assert await reader.read() == b""
        writer.close()
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == 1
    assert "can't be reached" in said[0]
    stage.addresses.real[1] = stage.broker_address
    streams = await stage.client()
    await talk(streams)
    streams[1].close()


async def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    async with Stage(limits=LimitsConfig(connections=1)) as stage:
        first = await stage.client()
        await talk(first)
        reader, writer = await stage.client()
        assert await reader.read() == b""
        writer.close()
        await talk(first)
        first[1].close()


async def test_a_client_that_does_not_read_holds_up_its_broker_and_not_our_memory() -> None:
    size = 64 << 20
    stuck = asyncio.Event()
    done = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HEARTBEAT))
        writer.write(struct.pack(">i", size) + answer(ApiKey.HEARTBEAT, 4, 1))
        sent = len(answer(ApiKey.HEARTBEAT, 4, 1))
        while sent < size:
            portion = bytes(min(1 << 16, size - sent))
            writer.write(portion)
            try:
                await asyncio.wait_for(asyncio.shield(writer.drain()), 0.5)
            except TimeoutError:
                stuck.set()
                await writer.drain()
            sent += len(portion)
        done.set()

    async with Stage(flood) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, limit=1 << 16)
        writer.write(HEARTBEAT)
        await stuck.wait()
        assert not done.is_set()
        received = 0
        while received < size + 4:
            received += len(await reader.read(1 << 20))
        await done.wait()
        writer.close()


async def _flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A broker that answers with more than sockets and buffers hold."""
    await reader.readexactly(len(HEARTBEAT))
    head = answer(ApiKey.HEARTBEAT, 4, 1)
    writer.write(struct.pack(">i", FLOOD) + head + bytes(FLOOD - len(head)))
    await writer.drain()
    await reader.read()


async def test_a_client_that_is_just_coming_in_is_not_idle(stage: Stage) -> None:
    session = stage.listener._session(lambda: stage.broker_address)
    session.check_idle(asyncio.get_running_loop().time())
    assert session in stage.listener.sessions


async def test_who_never_takes_an_answer_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise its answers' memory would never come back."""
    caplog.set_level("INFO", "tierproxy")
    async with Stage(_flood, limits=LimitsConfig(idle_ms=1000)) as stage:
        _, writer = await asyncio.open_connection("127.0.0.1", stage.port, limit=1 << 16)
        writer.write(HEARTBEAT)
        while not any("limits.idle" in record.getMessage() for record in caplog.records):
            await asyncio.sleep(0.05)
        writer.close()


async def test_who_takes_an_answer_slowly_is_not_idle() -> None:
    """What the broker has sent already waits in our memory: no byte of it comes while the client takes that."""
    async with Stage(_flood) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, limit=1 << 16)
        writer.write(HEARTBEAT)
        while not any(session.client.full for session in stage.listener.sessions):
            await asyncio.sleep(0.01)
        (session,) = stage.listener.sessions
        now, transport = asyncio.get_running_loop().time(), session.client.transport
        session.check_idle(now)
        waiting = transport.get_write_buffer_size()
        while transport.get_write_buffer_size() == waiting:
            await reader.read(1 << 16)
        idle = stage.limits.idle_ms / 1000
        session.check_idle(now + 2 * idle)
        assert not transport.is_closing()
        session.check_idle(now + 4 * idle)
        assert transport.is_closing()
        writer.close()


async def test_a_taken_port_is_said_with_its_number(stage: Stage) -> None:
    other = Listener("127.0.0.1", stage.addresses, [stage.broker_address], catalog(), LimitsConfig(), stage.tasks)
    other.connect(stage.shared())
    with pytest.raises(PortTaken, match=str(stage.port)):
        await other.open_bootstrap()


async def test_a_brokers_port_leads_to_that_broker_wherever_it_moves(stage: Stage) -> None:
    stage.addresses.real[0] = stage.broker_address
    await stage.listener.open([0])
    streams = await asyncio.open_connection("127.0.0.1", stage.port + 1)
    await talk(streams)
    streams[1].close()
    stage.addresses.real[0] = ("127.0.0.1", free_ports(1))
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port + 1)
    assert await reader.read() == b""
    writer.close()


async def test_open_answers_finish_when_it_closes() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HEARTBEAT))
        asked.set()
        await may_answer.wait()
        writer.write(HEARTBEAT_ANSWER)
        await reader.read()

    async with Stage(slow) as stage:
        reader, writer = await stage.client()
        writer.write(HEARTBEAT)
        await asked.wait()
        closing = asyncio.ensure_future(stage.listener.close(drain=30))
        may_answer.set()
        assert await reader.read() == HEARTBEAT_ANSWER
        await closing
        writer.close()


async def test_a_client_that_never_stops_asking_has_all_answers_that_the_broker_gives() -> None:
    """What it asks too late never reaches the broker, so it may ask that again somewhere else."""
    heard = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        with suppress(asyncio.IncompleteReadError):
            while await reader.readexactly(len(HEARTBEAT)):
                heard += 1
                await asyncio.sleep(0.01)
                writer.write(HEARTBEAT_ANSWER)

    async with Stage(counts) as stage:
        reader, writer = await stage.client()
        writer.write(5 * HEARTBEAT)  # there is always something that has not been answered
        got, closing = b"", None
        with suppress(ConnectionError):
            while more := await reader.read(len(HEARTBEAT_ANSWER)):
                got += more
                writer.write(HEARTBEAT)
                closing = closing or asyncio.ensure_future(stage.listener.close(drain=10))
        assert closing is not None
        await closing
        writer.close()
    assert got == HEARTBEAT_ANSWER * heard


@pytest.mark.parametrize(
    ("limits", "sent", "why"),
    [
        (LimitsConfig(stall_ms=100), b"", None),
        (LimitsConfig(stall_ms=100), struct.pack(">ih", 50_000, ApiKey.FETCH), "limits.stall"),
        (LimitsConfig(idle_ms=1000), HEARTBEAT, "limits.idle"),
    ],
)
async def test_who_stops_is_closed_in_the_middle_of_a_message_sooner(
    limits: LimitsConfig, sent: bytes, why: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    async with Stage(limits=limits) as stage:
        reader, writer = await stage.client()
        writer.write(sent)
        if why is None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(), 2.5)
        else:
            await reader.read()
            assert any(why in record.getMessage() for record in caplog.records)
        writer.close()


async def test_who_sends_a_request_byte_by_byte_is_closed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierproxy")
    async with Stage(limits=LimitsConfig(stall_ms=500)) as stage:
        reader, writer = await stage.client()
        other = await stage.client()
        closed = asyncio.ensure_future(reader.read())
        writer.write(struct.pack(">ih", 50_000, ApiKey.FETCH))
        while not closed.done():
            writer.write(b"\0")
            await talk(other)  # one request after the other is no stall
            await asyncio.wait([closed], timeout=0.02)
        assert any("limits.stall" in record.getMessage() for record in caplog.records)
        for each in (writer, other[1]):
            each.close()


async def test_many_closed_connections_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierproxy")
    async with Stage() as stage:
        for number in range(50):
            reader, writer = await stage.client()
            writer.write(struct.pack(">ihhi", 100, 1, 100 + number, 0) + bytes(100))
            assert await reader.read() == b""
            writer.close()
    assert len([record for record in caplog.records if record.levelname != "DEBUG"]) <= 3


async def test_who_comes_and_goes_at_the_limit_is_not_told_of_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierproxy")
    async with Stage(limits=LimitsConfig(connections=30)) as stage:
        clients = [await _taken_in(stage) for _ in range(30)]
        for _ in range(5):
            reader, writer = await stage.client()
            assert await reader.read() == b""
            writer.close()
            clients.pop()[1].close()
            clients.append(await _taken_in(stage))
        for _, writer in clients:
            writer.close()
    refusals = [record for record in caplog.records if "are refused" in record.getMessage()]
    assert len(refusals) == 1


async def _taken_in(stage: Stage) -> Streams:
    """A client that is talked to, once there is a place for it."""
    while True:
        streams = await stage.client()
        try:
            await talk(streams)
        except (asyncio.IncompleteReadError, ConnectionError):
            streams[1].close()
        else:
            return streams
