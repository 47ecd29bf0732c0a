"""Ranges over connections of our own: what a server may do to them, and what aiobotocore is then asked for.

`Wire` is a server that answers each request with bytes out of a test's hands, so it can do what no decent one does.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from prometheus_client import REGISTRY

from tests.kit.certificates import Authority
from tests.kit.processes import free_ports
from tierproxy.archive import s3_bulk, s3_connection
from tierproxy.archive.s3_bulk import SIGNED_KEPT, STRIKES, BulkReader, Declined, Overloaded, parse_signed
from tierproxy.archive.s3_client import tls_context
from tierproxy.ranges import ByteRange

pytestmark = pytest.mark.both_loops

OBJECT = bytes(range(256)) * 4096
"""1 MiB."""
Answer: TypeAlias = Callable[[asyncio.StreamWriter, ByteRange], Awaitable[None]]


def head_of(wanted: ByteRange, *, length: int | None = None, more: bytes = b"") -> bytes:
    length = wanted.size if length is None else length
    spoken = b"bytes %d-%d/%d" % (wanted.start, wanted.end - 1, len(OBJECT))
    return b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nContent-Range: %b\r\n%b\r\n" % (length, spoken, more)


async def plain(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    writer.write(head_of(wanted) + OBJECT[wanted.start : wanted.end])


def raw(data: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
        writer.write(data)

    return answer


class Wire:
    """Answers are used up one by one, then `plain` follows."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(request)
                first, last = request.partition(b"bytes=")[2].strip().split(b"-")
                answer = self.answers.pop(0) if self.answers else plain
                await answer(writer, ByteRange(int(first), int(last) + 1))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
def wire() -> Wire:
    return Wire()


class Ring:
    """Signs, and says what with."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: object = "first"
        self.signed = 0

    async def sign(self, key: str, seconds: int) -> str:
        self.signed += 1
        return f"{self.url}/bucket/{key}?X-Amz-Signature=secret{self.signed}"

    async def current(self) -> object:
        return self.keys


@pytest.fixture
async def ring(wire: Wire) -> AsyncIterator[Ring]:
    port = free_ports(1)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", port)
    yield Ring(f"http://127.0.0.1:{port}")
    for writer in wire.writers:
        writer.close()
    server.close()
    await server.wait_closed()


@pytest.fixture
async def bulk(ring: Ring) -> AsyncIterator[BulkReader]:
    reader = BulkReader(ring.sign, ring.current, connect_seconds=5, answer_seconds=5)
    yield reader
    reader.close()


def reads(end: str) -> float:
    return REGISTRY.get_sample_value("tierproxy_store_bulk_reads_total", {"end": end}) or 0.0


async def is_right(bulk: BulkReader, start: int, end: int, key: str = "a") -> None:
    body = await bulk.read(key, ByteRange(start, end))
    assert body is not None
    assert bytes(body) == OBJECT[start:end]


# -- plain answers ----------------------------------------------------------------------------------------------------


async def test_ranges_come_over_one_connection_signed_once(bulk: BulkReader, ring: Ring, wire: Wire) -> None:
    before = reads("done")
    for start, end in [(0, 1), (0, len(OBJECT)), (1000, 500_000), (len(OBJECT) - 1, len(OBJECT))]:
        await is_right(bulk, start, end)
    assert (wire.connections, ring.signed, reads("done") - before) == (1, 1, 4)
    assert wire.requests[0].startswith(b"GET /bucket/a?X-Amz-Signature=secret1 HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_many_at_once_do_not_mix(bulk: BulkReader, wire: Wire) -> None:
    await asyncio.gather(*(is_right(bulk, at, at + 30_000 + at) for at in range(0, 50_000, 1000)))
    connections = wire.connections
    await asyncio.gather(*(is_right(bulk, at, at + 40_000) for at in range(0, 50_000, 1000)))
    assert wire.connections == connections == 50


async def test_a_body_that_comes_byte_by_byte(bulk: BulkReader, wire: Wire) -> None:
    async def dribble(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
        for byte in head_of(wanted) + OBJECT[wanted.start : wanted.end]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    wire.answers = [dribble]
    await is_right(bulk, 77, 377)
    await is_right(bulk, 0, 1000)
    assert wire.connections == 1


async def test_a_connection_that_the_server_wants_closed_is_not_used_again(bulk: BulkReader, wire: Wire) -> None:
    async def closing(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
        writer.write(head_of(wanted, more=b"Connection: close\r\n") + OBJECT[wanted.start : wanted.end])

    wire.answers = [closing]
    await is_right(bulk, 0, 1000)
    await is_right(bulk, 0, 1000)
    assert wire.connections == 2


# -- connections that break -------------------------------------------------------------------------------------------


async def hang_up(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    writer.close()


async def test_a_kept_connection_that_was_closed_meanwhile(bulk: BulkReader, wire: Wire) -> None:
    await is_right(bulk, 0, 1000)
    wire.answers = [hang_up]  # closed just when the request is on its way
    await is_right(bulk, 0, 1000)
    assert wire.connections == 2
    for writer in wire.writers:
        writer.close()
    while wire.ended < 2:
        await asyncio.sleep(0)
    await is_right(bulk, 0, 1000)
    assert wire.connections == 3


async def test_a_new_connection_that_is_closed_fails(bulk: BulkReader, wire: Wire) -> None:
    wire.answers = [hang_up]
    before = reads("failed")
    with pytest.raises(ConnectionResetError, match="hung up after 0 bytes"):
        await bulk.read("a", ByteRange(0, 10))
    assert reads("failed") - before == 1


@pytest.mark.parametrize("cut", [1, 50, 120, 600])
async def test_an_answer_that_is_cut(bulk: BulkReader, wire: Wire, cut: int) -> None:
    async def cutting(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
        writer.write((head_of(wanted) + OBJECT[wanted.start : wanted.end])[:cut])
        writer.close()

    await is_right(bulk, 0, 10)
    wire.answers = [cutting]
    with pytest.raises(ConnectionResetError, match=f"hung up after {cut} bytes"):
        await bulk.read("a", ByteRange(0, 1000))
    await is_right(bulk, 0, 1000)


async def stall(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    writer.write(head_of(wanted) + OBJECT[wanted.start : wanted.end - 1])
    await writer.drain()
    await asyncio.Event().wait()


@pytest.mark.parametrize("answer", [stall, raw(b""), raw(b"HTTP/1.1 206 Par")])
async def test_no_byte_for_long_is_given_up(ring: Ring, wire: Wire, answer: Answer) -> None:
    bulk = BulkReader(ring.sign, ring.current, connect_seconds=5, answer_seconds=0.1)
    wire.answers = [answer]
    with pytest.raises(TimeoutError, match=r"no byte came for 0\.1 s"):
        await bulk.read("a", ByteRange(0, 1000))
    await is_right(bulk, 0, 1000)
    assert wire.connections == 2
    bulk.close()


async def test_what_is_cancelled_leaves_nothing_to_the_next(bulk: BulkReader, wire: Wire) -> None:
    halfway = asyncio.Event()

    async def half(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
        body = OBJECT[wanted.start : wanted.end]
        writer.write(head_of(wanted) + body[: len(body) // 2])
        await writer.drain()
        halfway.set()
        await asyncio.sleep(0.01)
        writer.write(body[len(body) // 2 :])

    for begin in (False, True):
        if begin:
            await is_right(bulk, 0, 10)
        halfway.clear()
        wire.answers = [half]
        reading = asyncio.ensure_future(bulk.read("a", ByteRange(0, 20_000)))
        await halfway.wait()
        await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.gather(*(is_right(bulk, at, at + 20_000) for at in (0, 20_000, 40_000)))


async def test_bytes_after_the_answer_end_the_connection(bulk: BulkReader, wire: Wire) -> None:
    more = asyncio.Event()

    async def talkative(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
        await plain(writer, wanted)
        await more.wait()
        writer.write(head_of(ByteRange(0, 100)) + b"x" * 100)

    wire.answers = [talkative]
    await is_right(bulk, 0, 100_000)
    more.set()
    while not wire.ended:
        await asyncio.sleep(0)
    await is_right(bulk, 0, 100)
    assert wire.connections == 2


async def test_idle_connections_are_closed_after_a_while(
    bulk: BulkReader, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_connection, "KEEP_SECONDS", 0.05)
    await is_right(bulk, 0, 10)
    while not wire.ended:
        await asyncio.sleep(0.01)
    await is_right(bulk, 0, 10)
    assert wire.connections == 2


# -- answers that are not plain ---------------------------------------------------------------------------------------


async def short(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    writer.write(head_of(wanted, length=wanted.size - 1) + OBJECT[wanted.start : wanted.end - 1])


async def elsewhere(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    await plain(writer, ByteRange(wanted.start + 1, wanted.end + 1))


async def too_much(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    writer.write(head_of(wanted) + OBJECT[wanted.start : wanted.end] + b"x")


async def huge_head(writer: asyncio.StreamWriter, wanted: ByteRange) -> None:
    writer.write(b"HTTP/1.1 206 Partial Content\r\n" + b"X-Long: y\r\n" * 100_000)


NOT_PLAIN: list[Answer] = [
    short,
    elsewhere,
    too_much,
    huge_head,
    raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    raw(b"HTTP/1.1 307 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"),
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + OBJECT),
    raw(b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    raw(b"\x16\x03\x01" + bytes(20_000)),
    raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
]


@pytest.mark.parametrize("answer", NOT_PLAIN)
async def test_answers_that_are_not_plain_are_left_to_aiobotocore(
    bulk: BulkReader, ring: Ring, wire: Wire, answer: Answer
) -> None:
    before = reads("declined")
    await is_right(bulk, 0, 10)
    wire.answers = [answer]
    with pytest.raises(Declined):
        await bulk.read("a", ByteRange(5, 105))
    assert reads("declined") - before == 1
    await is_right(bulk, 5, 105)
    assert (wire.connections, ring.signed) == (2, 2), "connection and URL are not trusted any more"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_an_overloaded_store_is_not_asked_again_at_once(bulk: BulkReader, wire: Wire, status: int) -> None:
    wire.answers = [raw(b"HTTP/1.1 %d Slow Down\r\nContent-Length: 0\r\n\r\n" % status)]
    before = reads("failed")
    with pytest.raises(Overloaded, match=f"{status} Slow Down"):
        await bulk.read("a", ByteRange(0, 10))
    assert reads("failed") - before == 1


async def test_a_store_that_is_never_plain_is_left_alone(
    bulk: BulkReader, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.answers = [short] * 100
    with caplog.at_level(logging.DEBUG):
        for _ in range(STRIKES):
            with pytest.raises(Declined) as caught:
                await bulk.read("a", ByteRange(0, 10))
            bulk.strike(caught.value)
        for _ in range(5):
            assert await bulk.read("a", ByteRange(0, 10)) is None
    assert len(wire.requests) == STRIKES
    assert "gives another length than was asked for" in caplog.text
    assert "secret" not in caplog.text


# -- signatures -------------------------------------------------------------------------------------------------------


async def test_other_keys_sign_anew(bulk: BulkReader, ring: Ring, wire: Wire) -> None:
    await is_right(bulk, 0, 10)
    ring.keys = "second"
    await is_right(bulk, 0, 10)
    await is_right(bulk, 0, 10)
    assert [b"secret2" in request for request in wire.requests] == [False, True, True]


async def test_a_signature_is_used_for_some_minutes(
    bulk: BulkReader, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    await is_right(bulk, 0, 10)
    await is_right(bulk, 0, 10)
    assert ring.signed == 1
    monkeypatch.setattr(s3_bulk, "REUSED_SECONDS", -1)
    for signed in (2, 3):
        await is_right(bulk, 0, 10, key="b")
        assert ring.signed == signed


async def test_signatures_kept_are_bounded(bulk: BulkReader, ring: Ring) -> None:
    for number in range(SIGNED_KEPT + 10):
        await bulk._signed(f"key-{number}")
    assert len(bulk._kept) == SIGNED_KEPT
    await bulk._signed(f"key-{SIGNED_KEPT}")
    assert ring.signed == SIGNED_KEPT + 10
    await bulk._signed("key-0")
    assert ring.signed == SIGNED_KEPT + 11


@pytest.mark.parametrize(
    ("url", "origin", "host", "target"),
    [
        (
            "https://b.s3.eu-central-1.amazonaws.com/k?X=1",
            ("https", "b.s3.eu-central-1.amazonaws.com", 443),
            None,
            "/k",
        ),
        ("http://[::1]:9000/b/k%25?X=1", ("http", "::1", 9000), "[::1]:9000", "/b/k%25"),
        ("http://store:80/b/k?X=1", ("http", "store", 80), "store", "/b/k"),
        ("https://store:444/b/k?X=1", ("https", "store", 444), "store:444", "/b/k"),
    ],
)
def test_urls(url: str, origin: tuple[str, str, int], host: str | None, target: str) -> None:
    signed = parse_signed(url)
    assert signed is not None
    assert signed.origin == origin
    assert signed.request.startswith(f"GET {target}?X=1 HTTP/1.1\r\nHost: {host or origin[1]}\r\n".encode())
    assert "X=1" not in repr(signed)


@pytest.mark.parametrize("url", ["http://h/a b", "http://h/a\r\nX: y", "http://h/ä"])
def test_odd_urls_are_left_to_aiobotocore(url: str) -> None:
    assert parse_signed(url) is None


def test_proxies_are_left_to_aiobotocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "near")
    assert parse_signed("http://far/b/k?X=1") is None
    assert parse_signed("http://near/b/k?X=1") is not None
    assert parse_signed("https://far/b/k?X=1") is not None


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "trusted"), [("localhost", True), ("localhost", False), ("elsewhere", True)])
async def test_tls(wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("server", [host])
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    port = free_ports(1)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", port, ssl=context)
    ring = Ring(f"https://localhost:{port}")
    bulk = BulkReader(ring.sign, ring.current, connect_seconds=5, answer_seconds=5)
    if trusted and host == "localhost":
        await is_right(bulk, 0, len(OBJECT))
        await is_right(bulk, 5, 100_000)
        assert wire.connections == 1
    else:
        with pytest.raises(Declined, match=r"localhost: .*certificate verify failed"):
            await bulk.read("a", ByteRange(0, 10))
        assert not wire.requests
    bulk.close()
    server.close()
    await server.wait_closed()


def test_whom_botocore_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    everybody = len(tls_context().get_ca_certs())
    assert everybody > 10
    for variable in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
        authority = Authority(tmp_path / variable)
        monkeypatch.setenv(variable, str(authority.ca_file))
        assert len(tls_context().get_ca_certs()) == 1
