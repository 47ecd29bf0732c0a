"""A front before an S3 server that can be told to spoil requests, as a process of its own."""

import http.client
import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kit import PROJECT
from tests.kit.processes import Process, free_ports
from tests.kit.s3 import S3Server


class S3Front(AbstractContextManager["S3Front"]):
    """Passes everything on to `server`, but for what `spoil` says."""

    def __init__(self, directory: Path, server: S3Server) -> None:
        self.port = free_ports(1)
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._server = server
        self._process: Process | None = None

    def archive(self, bucket: str, prefix: str = "kafka") -> dict[str, Any]:
        """What a configuration says under `archives:` to use a bucket of the server through this front."""
        return {**self._server.archive(bucket, prefix), "endpoint_url": self.endpoint_url}

    def spoil(self, fault: str, *, method: str = "", key: str = "", times: int | None = None) -> None:
        """Do `fault` (s3_front_server.FAULTS) to requests that match, after the rules that are there already."""
        self._ask("POST", {"fault": fault, "method": method, "key": key, "times": times})

    def heal(self) -> None:
        """Forget all rules. What hangs goes on hanging."""
        self._ask("DELETE")

    def counts(self) -> dict[str, int]:
        """Requests so far by kind ("PUT object", "GET list"), and faults done by name."""
        return self._ask("GET")

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.kit.s3_front_server", "127.0.0.1", str(self.port)]
        self._process = Process(
            "S3 front", [*command, self._server.endpoint_url], log=self._directory / "front.log", cwd=PROJECT
        )
        self._process.wait_until(self._answers, seconds=60, what="readiness")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()

    def _answers(self) -> bool:
        try:
            self.counts()
        except OSError:
            return False
        return True

    def _ask(self, method: str, body: object = None) -> dict[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, "/-front", json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the front refused {body}: {answer.status} {text.decode()}")
            counts: dict[str, int] = json.loads(text)
            return counts
        finally:
            connection.close()
