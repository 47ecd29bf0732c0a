"""A fast S3 server, and in front of it what a real one has besides: distance, a pace, a bill.

The server is versitygw on a directory. The front (`front/main.go`) delays the first byte of every answer, caps each
connection, and counts. Both are programs in Go, built once.
"""

import http.client
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from tests.kit import golang
from tests.kit.processes import Process, free_ports

VERSITYGW, VERSION = "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"
FRONT = Path(__file__).parent / "front"
BYTES_PER_SECOND = 90_000_000
"""Of one connection: what one stream of a real S3 gives."""
BUCKET = "bench"
_ACCESS, _SECRET = "bench", "bench-secret"


@dataclass(frozen=True)
class Counts:
    """What passed the front since it was reset: requests by kind, bytes of bodies."""

    gets: int = 0
    whole: int = 0
    """Those of the GETs that ask for no range: manifests and the like."""
    lists: int = 0
    heads: int = 0
    puts: int = 0
    others: int = 0
    failed: int = 0
    asked: int = 0
    sent: int = 0
    received: int = 0
    at_once: int = 0

    @classmethod
    def of(cls, found: Mapping[str, int]) -> Self:
        return cls(**{name: int(found[name]) for name in cls.names()})

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


class Page(Protocol):
    """How a store's distance is set, and what was asked of it."""

    def set(self, *, delay_ms: float | None = None, bytes_per_second: float | None = None) -> None:
        """From now on; what is left out stays. 0 is none."""

    def counts(self) -> Counts:
        """Since the last reset."""

    def reset(self) -> None: ...


@dataclass(frozen=True)
class FrontPage:
    """The front's own page, for whoever knows its port."""

    port: int

    def set(self, *, delay_ms: float | None = None, bytes_per_second: float | None = None) -> None:
        wanted = {"delay_ms": delay_ms, "bytes_per_second": bytes_per_second}
        self._ask("POST", {name: value for name, value in wanted.items() if value is not None})

    def counts(self) -> Counts:
        return Counts.of(self._ask("GET"))

    def reset(self) -> None:
        self._ask("DELETE")

    def answers(self) -> bool:
        try:
            self._ask("GET")
        except OSError:
            return False
        return True

    def _ask(self, method: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, "/-front", json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise RuntimeError(f"the front refused {body}: {answer.status} {text}")
            return json.loads(text)
        finally:
            connection.close()


class Front(AbstractContextManager["Front"]):
    """A front before `server` (host:port), as a process of its own. Raises golang.NoGo."""

    def __init__(self, directory: Path, server: str) -> None:
        self.page = FrontPage(free_ports(1))
        command: list[str | Path] = [golang.build(FRONT, ".", "bench-front"), f"127.0.0.1:{self.page.port}", server]
        self.process = Process("S3 front", command, log=directory / "front.log")
        self.process.wait_until(self.page.answers, seconds=30, what="readiness")

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.page.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()


class Server(AbstractContextManager["Server"]):
    """versitygw with one bucket, on `directory`/objects. Raises golang.NoGo."""

    def __init__(self, directory: Path) -> None:
        self.port = free_ports(1)
        objects = directory / "objects"
        self.bucket = objects / BUCKET
        """Where the bucket's objects lie as files, by their keys."""
        self.bucket.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [golang.install(VERSITYGW, VERSION), "--port", f"127.0.0.1:{self.port}"]
        self.process = Process(
            "S3 server",
            [*command, "--keep-alive", "--quiet", "posix", objects],
            log=directory / "s3.log",
            env={**os.environ, "ROOT_ACCESS_KEY": _ACCESS, "ROOT_SECRET_KEY": _SECRET},
        )
        self.process.wait_until(self._answers, seconds=60, what="readiness")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        except OSError:
            return False
        finally:
            connection.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()


def archive(endpoint_url: str) -> dict[str, str]:
    """What a configuration says under `archives:` to use the bucket."""
    return {
        "url": f"s3://{BUCKET}/kafka",
        "region": "us-east-1",
        "endpoint_url": endpoint_url,
        "access_key": _ACCESS,
        "secret_key": _SECRET,
    }


class Store(AbstractContextManager["Store"]):
    """Server and front together."""

    def __init__(self, directory: Path) -> None:
        with ExitStack() as stack:
            self.server = stack.enter_context(Server(directory))
            self.front = stack.enter_context(Front(directory, f"127.0.0.1:{self.server.port}"))
            self._open = stack.pop_all()
        self.front.page.set(delay_ms=0, bytes_per_second=BYTES_PER_SECOND)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
