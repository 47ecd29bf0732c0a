"""What a chart renders, run without Kubernetes: pods as processes, and a Service as a balancer of connections.

A pod has an address of its own on loopback, so nothing in it has to give way: ports are those of the chart. Its files
lie below a directory, and paths in its configuration lead there.
"""

import asyncio
import http.client
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import yaml

from tests.kit.chart import Manifest, of_kind
from tests.kit.image import Image
from tests.kit.processes import Process, wait_for

Secrets = Mapping[str, Mapping[str, str]]
"""What is in each Secret."""

PATIENCE = 120.0
"""Seconds: for a machine that does much else."""

_numbers = count(10)


class Pod:
    """The container `tierproxy` of a pod template, with the ConfigMaps that came with it."""

    def __init__(
        self,
        template: Mapping[str, Any],
        manifests: Sequence[Manifest],
        secrets: Secrets,
        image: Image,
        directory: Path,
    ) -> None:
        spec = template["spec"]
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        self._container = next(each for each in containers if each["name"] == "tierproxy")
        self.grace: float = spec.get("terminationGracePeriodSeconds", 30)
        number = next(_numbers)
        self.address = f"127.0.1.{number}"
        self._root = directory / f"pod-{number}"
        configs = {name: each["data"] for name, each in of_kind(list(manifests), "ConfigMap").items()}
        volumes = {each["name"]: each for each in spec["volumes"]}
        mounts = {each["mountPath"]: volumes[each["name"]] for each in self._container["volumeMounts"]}
        self._mounts = sorted(mounts, key=len, reverse=True)
        for path, volume in mounts.items():
            at = self._here(path)
            at.mkdir(parents=True)
            if "configMap" in volume:
                for name, text in configs[volume["configMap"]["name"]].items():
                    (at / name).write_text(self._config(text))
            elif "secret" in volume:
                for name, text in secrets[volume["secret"]["secretName"]].items():
                    (at / name).write_text(text)
        self._image = image
        self._environment = image.environment | {"TMPDIR": str(self._here("/tmp"))}
        for each in self._container["env"]:
            if "valueFrom" in each:
                reference = each["valueFrom"]["secretKeyRef"]
                self._environment[each["name"]] = secrets[reference["name"]][reference["key"]]
            else:
                self._environment[each["name"]] = str(self._moved(each["value"]))
        self.process: Process | None = None

    def start(self) -> None:
        command = [*self._image.entrypoint, *self._container["args"]]
        self.process = Process(
            self.address, command, log=self._root / "log", env=self._environment, cwd=self._image.root
        )

    def wait_ready(self) -> None:
        assert self.process is not None
        self.process.wait_until(self.ready, seconds=PATIENCE, what="readiness")

    def ready(self) -> bool:
        """As the readiness probe sees it."""
        return self._probe("readinessProbe") == 200

    def pre_stop(self) -> None:
        """The hook, to its end."""
        hook = self._container.get("lifecycle", {}).get("preStop")
        if hook is not None:
            subprocess.run(hook["exec"]["command"], check=True)

    def wait_unready(self) -> None:
        """Until it says no; `Died` if it doesn't before it ends."""
        assert self.process is not None
        self.process.wait_until(
            lambda: self._probe("readinessProbe") == 503, seconds=self.grace, what="/ready that says no"
        )

    def wait_end(self) -> None:
        """Kubernetes kills what isn't over in time; here that is a failure, and so is a status that isn't 0."""
        process = self.process
        assert process is not None
        wait_for(lambda: not process.alive, seconds=self.grace, what=f"end of {self.address}")
        assert process.kill() == 0, process.tail()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`kubectl exec`: the command `tierproxy` in there."""
        return self._image.run(*arguments, **self._environment)

    def _probe(self, which: str) -> int:
        """Its status; 0 if nobody answers."""
        probe = self._container[which]["httpGet"]
        connection = http.client.HTTPConnection(self.address, probe["port"], timeout=5)
        try:
            connection.request("GET", probe["path"])
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _here(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _moved(self, node: Any) -> Any:
        """The same, with our paths in place of the container's."""
        if isinstance(node, dict):
            return {key: self._moved(each) for key, each in node.items()}
        if isinstance(node, list):
            return [self._moved(each) for each in node]
        if isinstance(node, str) and any(node == path or node.startswith(f"{path}/") for path in self._mounts):
            return str(self._here(node))
        return node

    def _config(self, text: str) -> str:
        """A pod's `0.0.0.0` is its own address only."""
        config = self._moved(yaml.safe_load(text))
        for section in ("listen", "admin"):
            if config[section].get("host", "0.0.0.0") == "0.0.0.0":
                config[section]["host"] = self.address
        return yaml.safe_dump(config)


class Service:
    """Hands connections to the pods that it was told of, in turn. As in Kubernetes, those that are open stay open."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.address = f"127.0.2.{next(_numbers)}"
        self.failed = 0
        """Connections that no pod took."""
        self._ports = ports
        self._pods: list[str] = []
        self._turn = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._over = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def add(self, pod: Pod) -> None:
        self._pods = [*self._pods, pod.address]

    def remove(self, pod: Pod) -> None:
        self._pods = [each for each in self._pods if each != pod.address]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(PATIENCE), f"{self.address} has no ports {self._ports}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        clients: set[asyncio.Task[None]] = set()

        def came(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            clients.add(task := asyncio.create_task(self._client(port, reader, writer)))
            task.add_done_callback(clients.discard)

        servers = [await asyncio.start_server(partial(came, port), self.address, port) for port in self._ports]
        self._up.set()
        await self._over.wait()
        for server in servers:
            server.close()
        for writer in self._open:
            writer.transport.abort()
        if clients:
            await asyncio.wait(clients)

    async def _client(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        pods = self._pods
        writers = [writer]
        try:
            pod_reader, pod_writer = await asyncio.open_connection(pods[self._turn % len(pods)], port)
            writers.append(pod_writer)
            self._open.update(writers)
            await asyncio.gather(_pass(reader, pod_writer), _pass(pod_reader, writer))
        except (OSError, ZeroDivisionError):
            self.failed += 1
        finally:
            for each in writers:
                each.close()
            self._open.difference_update(writers)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
