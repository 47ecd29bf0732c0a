"""An S3 server on loopback: moto's, as a process of its own, spoken to over real HTTP."""

import http.client
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kit.processes import Process, free_ports


class S3Server:
    """moto's server; its objects live in its memory and end with it. Any credentials are accepted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_ports(1)
        self.process: Process | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def archive(self, bucket: str, prefix: str = "kafka") -> dict[str, Any]:
        """What a configuration says under `archives:` to use a bucket here."""
        return {
            "url": f"s3://{bucket}/{prefix}",
            "region": "us-east-1",
            "endpoint_url": self.endpoint_url,
            "access_key": "kit",
            "secret_key": "kit-secret",
        }

    def make_bucket(self, name: str) -> None:
        status = self._put(f"/{name}")
        if status != 200:
            raise RuntimeError(f"S3 refused the bucket {name!r}: {status}")

    def start(self) -> Self:
        command = [sys.executable, "-m", "tests.kit.s3_server", "127.0.0.1", str(self.port)]
        project = Path(__file__).parents[2]
        self.process = Process("S3 server", command, log=self.directory / "s3.log", cwd=project)
        self.process.wait_until(lambda: self._put("/", method="GET") == 200, seconds=90, what="readiness")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()

    def _put(self, path: str, method: str = "PUT") -> int:
        """The answer's status; 0 while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
