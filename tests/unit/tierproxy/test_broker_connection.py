"""tierproxy.broker_connection against a peer that speaks the wire, well and badly.

`Peer` is a real server on a loopback port. It answers ApiVersions and does something to other requests.
What a broker itself answers is shown by tests/integration/test_upstream.py.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from protocol.apis import ApiKey
from tierproxy.broker_connection import (
    LARGE_ANSWER_BYTES,
    ROOM_STEP,
    BrokerConnection,
    Unreachable,
    UnsupportedBroker,
    _words,
)

VERSIONS = bytes.fromhex("0000 00000002 0012 0000 0004 0003 0002 0009")  # v0: ApiVersions 0-4, Metadata 2-9
REFUSAL = bytes.fromhex("0023 00000001 0012 0000 0002")

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """`old`: does not know ApiVersions above v2. `answer(request, writer)` handles every other request."""

    def __init__(self, answer: Answer, *, old: bool = True) -> None:
        self.answer, self.old = answer, old
        self.api_versions_asked: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while size := await reader.readexactly(4):
                request = await reader.readexactly(int.from_bytes(size, "big"))
                if request[:2] != ApiKey.API_VERSIONS.to_bytes(2, "big"):
                    await self.answer(request, writer)
                    continue
                version = int.from_bytes(request[2:4], "big")
                self.api_versions_asked.append(version)
                if version > 2 and self.old:
                    send(writer, request[4:8] + REFUSAL)
                elif version > 2:
                    v3 = bytes.fromhex("0000 03 0012 0000 0004 00 0003 0002 000d 00 00000000 00")
                    send(writer, request[4:8] + v3)
                else:
                    send(writer, request[4:8] + VERSIONS)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def send(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(len(payload).to_bytes(4, "big") + payload)


async def echo(request: bytes, writer: asyncio.StreamWriter) -> None:
    send(writer, request[4:8] + request)


Connect = Callable[[Peer], Awaitable[BrokerConnection]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    opened: list[tuple[asyncio.Server, BrokerConnection]] = []

    async def start(peer: Peer) -> BrokerConnection:
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        connection = BrokerConnection("127.0.0.1", server.sockets[0].getsockname()[1], "me")
        opened.append((server, connection))
        await connection.connect()
        return connection

    yield start
    for server, connection in opened:
        connection.close()
        server.close()
        await server.wait_closed()


async def test_learns_the_versions_of_a_new_broker(connect: Connect) -> None:
    peer = Peer(echo, old=False)
    connection = await connect(peer)
    assert (peer.api_versions_asked, connection.versions) == ([3], {18: (0, 4), 3: (2, 13)})


async def test_learns_the_versions_of_an_old_broker(connect: Connect) -> None:
    peer = Peer(echo)
    connection = await connect(peer)
    assert (peer.api_versions_asked, connection.versions) == ([3, 0], {18: (0, 4), 3: (2, 9)})


async def test_chooses_the_highest_common_version(connect: Connect) -> None:
    connection = await connect(Peer(echo))
    assert connection.version_of(ApiKey.METADATA, 0, 12) == 9
    assert connection.version_of(ApiKey.METADATA, 0, 4) == 4
    assert connection.codec_version(ApiKey.METADATA) == 9
    for first, last in [(10, 12), (0, 1)]:
        with pytest.raises(UnsupportedBroker, match="offers versions 2 to 9 of METADATA"):
            connection.version_of(ApiKey.METADATA, first, last)
    with pytest.raises(UnsupportedBroker, match="offers nothing of FETCH"):
        connection.version_of(ApiKey.FETCH, 4, 17)


async def test_requests_at_the_same_time_get_their_own_answers(connect: Connect) -> None:
    connection = await connect(Peer(echo))
    bodies = [bytes([i]) * i for i in range(5)]
    answers = await asyncio.gather(*(connection.request(3, 1, body, 5) for body in bodies))
    assert [bytes(answer[4 + 12 :]) for answer in answers] == bodies  # header: 8 bytes, 2 + "me"


async def test_an_answer_larger_than_any_buffer(connect: Connect) -> None:
    connection = await connect(Peer(echo))
    body = bytes(range(256)) * 40_000
    answer = await connection.request(3, 1, body, 20)
    assert answer[4 + 12 :] == body


async def test_the_memory_of_a_large_answer_is_used_again_when_nobody_sees_it(connect: Connect) -> None:
    connection = await connect(Peer(echo))
    first = await connection.request(3, 1, b"1" * LARGE_ANSWER_BYTES, 20)
    memory, kept = first.obj, first[-10:]
    second = await connection.request(3, 1, b"2" * LARGE_ANSWER_BYTES, 20)
    assert (second.obj is not memory, bytes(kept)) == (True, b"1" * 10)
    memory = second.obj
    second.release()
    third = await connection.request(3, 1, b"3" * (LARGE_ANSWER_BYTES - 1), 20)
    assert third.obj is memory
    assert bytes(third[-LARGE_ANSWER_BYTES + 1 :]) == b"3" * (LARGE_ANSWER_BYTES - 1)


async def test_a_large_answers_memory_is_not_kept_for_small_ones(connect: Connect) -> None:
    connection = await connect(Peer(echo))
    for size in (LARGE_ANSWER_BYTES, 16 * LARGE_ANSWER_BYTES, LARGE_ANSWER_BYTES, 1):
        answer = await connection.request(3, 1, bytes(size), 20)
        assert memoryview(answer.obj).nbytes < 2 * size + 2 * ROOM_STEP
        answer.release()


async def test_a_caller_who_went_away_does_not_shift_the_answers(connect: Connect) -> None:
    release = asyncio.Event()

    async def when_released(request: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await echo(request, writer)

    connection = await connect(Peer(when_released))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await connection.request(3, 1, b"first", 60)
    release.set()
    answer = await connection.request(3, 1, b"second", 60)
    assert bytes(answer).endswith(b"second")


async def hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def other_id(request: bytes, writer: asyncio.StreamWriter) -> None:
    send(writer, b"\x00\x00\x99\x99")


async def silly_size(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n")


async def too_short(request: bytes, writer: asyncio.StreamWriter) -> None:
    send(writer, b"\x00")


async def silence(request: bytes, writer: asyncio.StreamWriter) -> None:
    pass


@pytest.mark.parametrize(
    ("answer", "words", "timeout"),
    [
        (hang_up, "closed by the broker", 10),
        (other_id, "was not asked for", 10),
        (silly_size, "not Kafka's protocol", 10),
        (too_short, "not Kafka's protocol", 10),
        (silence, "no answer within 0.01 s", 0.01),
    ],
)
async def test_anything_wrong_ends_the_connection_for_all_who_wait(
    connect: Connect, answer: Answer, words: str, timeout: float
) -> None:
    connection = await connect(Peer(answer))
    said = await asyncio.gather(*(connection.request(3, 1, b"", timeout) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in said] == [Unreachable, Unreachable]
    assert words in str(said[0])
    assert connection.closed
    with pytest.raises(Unreachable, match="not connected"):
        await connection.request(3, 1, b"", timeout)


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(Peer(echo).serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}: Connection refused"):
        await BrokerConnection("127.0.0.1", port).connect()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] ..."), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("something else"), "something else"),
    ],
)
def test_the_system_is_quoted_and_not_asyncio(error: OSError, words: str) -> None:
    assert _words(error) == words


async def test_someone_listens_who_is_not_a_broker() -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(web, "127.0.0.1", 0)
    connection = BrokerConnection("127.0.0.1", server.sockets[0].getsockname()[1])
    with pytest.raises(Unreachable):
        await connection.connect()
    assert connection.closed
    server.close()
    await server.wait_closed()
