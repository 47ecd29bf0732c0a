"""`tierproxy serve` as a real process, with a configuration made for the test."""

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.kit import PROJECT
from tests.kit.processes import Process, free_ports

HOST = "127.0.0.1"


class Proxy:
    """One tierproxy in front of `bootstrap`. Everything of it lies below `directory`.

    `topics` are policies as in the configuration file; without `archives` there is one, `local`, a
    directory. `settings` are further top-level keys, which replace the ones made here. `nodes` is how many
    broker ids have to find a port (ids 0 to `nodes`).
    """

    def __init__(
        self,
        directory: Path,
        bootstrap: str,
        topics: Sequence[Mapping[str, Any]],
        *,
        archives: Mapping[str, Mapping[str, Any]] | None = None,
        cluster: str = "kit",
        nodes: int = 3,
        settings: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> None:
        self.wait = wait
        self.directory = directory
        self.cluster = cluster
        self.admin_port = free_ports(nodes + 3)  # admin, bootstrap, a port for each of the ids 0 to `nodes`
        self.port = self.admin_port + 1
        self.archive = directory / "archive"
        self.config_file = directory / "tierproxy.yaml"
        self.process: Process | None = None
        self.options: list[str] = []
        """Of `tierproxy serve`, besides the configuration."""
        self.headers: dict[str, str] = {}
        """Of requests to the admin port."""
        self.module = "tierproxy"
        """What is run."""
        (directory / "spool").mkdir(parents=True, exist_ok=True)
        self.write_config(
            {
                "cluster": {"name": cluster, "bootstrap": bootstrap.split(",")},
                "listen": {"host": HOST, "port": self.port, "advertised_host": HOST},
                "admin": {"host": HOST, "port": self.admin_port},
                "archives": dict(archives or {"local": {"url": self.archive.as_uri()}}),
                "topics": [dict(policy) for policy in topics],
                "archiver": {
                    "metadata_interval": "200ms",
                    "fetch_wait": "100ms",
                    "spool": str(directory / "spool"),
                    "session_timeout": "3s",
                },
                **(settings or {}),
            }
        )

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.port}"

    def write_config(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def start(self, *, wait: bool = True) -> Self:
        """Starts it and, unless told otherwise, waits until `/ready` says yes."""
        self.process = Process(
            "tierproxy",
            [sys.executable, "-m", self.module, "serve", "--config", self.config_file, *self.options],
            log=self.directory / "tierproxy.log",
            cwd=PROJECT,
        )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 90) -> None:
        assert self.process is not None
        self.process.wait_until(lambda: self.get("/ready")[0] == 200, seconds=seconds, what="readiness")

    def stop(self) -> int:
        """SIGTERM. Returns the exit status."""
        assert self.process is not None
        return self.process.stop()

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """Starts it again with the same configuration, ports and archive."""
        self.kill()
        self.start()

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an admin page; status 0 while nobody answers."""
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=5)
        try:
            connection.request("GET", path, headers=self.headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def log(self) -> str:
        """What the running (or last) process has written."""
        return self.process.output() if self.process is not None else ""

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`tierproxy <arguments> --config <this one's>`, run to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "tierproxy", *arguments, "--config", str(self.config_file)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"tierproxy {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def manifests(self, topic: str) -> dict[int, dict[str, Any]]:
        """Per partition the newest manifest of the topic in the directory archive, straight from its file."""
        found: dict[int, dict[str, Any]] = {}
        for file in (self.archive / self.cluster / topic).glob("*/*/manifest.json"):
            try:
                manifest = json.loads(file.read_text())
            except FileNotFoundError:
                continue  # being replaced
            found[int(file.parent.name)] = manifest
        return found

    def __enter__(self) -> Self:
        return self.start(wait=self.wait)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            if error is not None:
                error.add_note(f"the end of {self.process.log}:\n{self.process.tail(60)}")
            self.process.stop()
