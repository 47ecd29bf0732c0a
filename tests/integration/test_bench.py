"""The parts that `make bench` measures with: the front before S3, the meters, programs that wait for their turn.

Times have a lower bound here and no upper one: a front that doesn't wait is found out, a slow machine isn't.
"""

import http.client
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.bench import s3
from tests.bench.meters import Meter, cpu_seconds
from tests.bench.programs import Program
from tests.bench.s3 import Counts, Front
from tests.kit import golang
from tests.kit.golang import NoGo
from tests.kit.processes import Process, wait_for
from tests.kit.proxy import Proxy

BODY = bytes(range(256)) * 4096  # 1 MiB


class _Objects(BaseHTTPRequestHandler):
    """Answers GETs with (a range of) BODY, and PUTs with what it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = 0, len(BODY) - 1
        if asked := self.headers["Range"]:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
        self._answer(500 if self.path == "/broken" else 200, BODY[first : last + 1])

    def do_HEAD(self) -> None:
        self._answer(200, BODY, send=False)

    def do_PUT(self) -> None:
        if self.headers["Transfer-Encoding"] == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, body)

    def _answer(self, status: int, body: bytes, *, send: bool = True) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Objects) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with Front(tmp_path, f"127.0.0.1:{server.server_port}") as found:
                yield found
        except NoGo as no:
            pytest.skip(str(no))
        finally:
            server.shutdown()


@pytest.fixture
def client(front: Front) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", front.page.port, timeout=60)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, method: str, path: str = "/o", **more: object) -> bytes:
    client.request(method, path, **more)  # type: ignore[arg-type]
    return client.getresponse().read()


def test_the_front_passes_bodies_as_they_are_both_ways(front: Front, client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET") == BODY
    assert ask(client, "GET", headers={"Range": "bytes=10-300009"}) == BODY[10:300010]
    assert ask(client, "PUT", body=BODY) == BODY
    assert ask(client, "HEAD") == b""
    assert ask(client, "PUT", body=iter([BODY[:70_000], BODY[70_000:]]), encode_chunked=True) == BODY
    assert ask(client, "PUT", body=b"x" * 100_000, headers={"Expect": "100-continue"}) == b"x" * 100_000


def test_the_front_counts_until_it_is_reset(front: Front, client: http.client.HTTPConnection) -> None:
    front.page.reset()
    ask(client, "GET", headers={"Range": "bytes=0-99999"})
    ask(client, "GET")
    ask(client, "GET", "/bucket?list-type=2&prefix=x", headers={"Range": "bytes=0-9"})
    ask(client, "GET", "/broken", headers={"Range": "bytes=0-0"})
    ask(client, "PUT", body=b"12345")
    ask(client, "HEAD")
    sent = 100_000 + len(BODY) + 10 + 1 + 5
    assert front.page.counts() == Counts(
        gets=3, whole=1, lists=1, heads=1, puts=1, failed=1, asked=100_001, sent=sent, received=5, at_once=1
    )
    front.page.reset()
    assert front.page.counts() == Counts()


def test_the_front_adds_its_delay_to_each_request(front: Front, client: http.client.HTTPConnection) -> None:
    front.page.set(delay_ms=150)
    began = time.perf_counter()
    for _ in range(2):
        ask(client, "GET", headers={"Range": "bytes=0-0"})
    assert time.perf_counter() - began >= 0.3


def test_the_front_holds_each_connection_to_its_pace(front: Front, client: http.client.HTTPConnection) -> None:
    front.page.set(bytes_per_second=4_000_000)
    began = time.perf_counter()
    assert ask(client, "GET") == BODY
    assert time.perf_counter() - began >= len(BODY) / 4_000_000


def test_the_real_server_takes_our_signed_requests_through_the_front(tmp_path: Path) -> None:
    if not golang.installed(s3.VERSITYGW, s3.VERSION).exists():
        pytest.skip("versitygw is built by the first `make bench`, in a minute or two")
    with s3.Store(tmp_path) as store:
        places = {"s3": s3.archive(store.front.endpoint_url)}
        proxy = Proxy(tmp_path / "proxy", "127.0.0.1:1", [], archives=places)
        assert proxy.cli("archive", "ls").returncode == 0
        counts = store.front.page.counts()
        assert (counts.failed, counts.lists > 0) == (0, True)


def test_the_meter_counts_children_and_their_memory(tmp_path: Path) -> None:
    burn = "x = bytearray(80 << 20)\nwhile True: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = Process("burner", [sys.executable, "-c", script], log=tmp_path / "log")
    try:
        meter = Meter({"burner": process.pid})
        meter.begin()
        wait_for(lambda: cpu_seconds({"burner": process.pid})["burner"] > 0.5, seconds=60, what="CPU time")
        usage = meter.end()
    finally:
        process.kill()
    assert usage.cpu["burner"] > 0.3
    assert usage.peaks["burner"] > 80 << 20
    assert 0 <= usage.idle < 1
    assert 0 <= usage.others < 1


def test_a_program_works_when_it_is_told_to_and_not_before(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = (
        "import sys; print('ready', flush=True); sys.stdin.readline(); "
        f"open({str(mark)!r}, 'w').close(); print('42'); print('done', flush=True); sys.stdin.read()"
    )
    with Program("a program", [sys.executable, "-c", script]) as program:
        assert not mark.exists()
        program.begin()
        assert program.result() == "42\n"
        assert mark.exists()
    with pytest.raises(RuntimeError, match="no such thing"):
        Program("a program", [sys.executable, "-c", "raise SystemExit('no such thing')"])
