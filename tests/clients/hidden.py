"""Three brokers that only tierproxy can and may reach, at addresses that can't be mistaken for any other.

    clients ──► outer tap, 127.0.0.8 ──► tierproxy ──► inner taps, 127.0.0.2-4 ──► brokers
                 (advertised)                           (the brokers' own, as they tell them)

What the brokers tell are the inner taps' addresses, so these are the "real" ones which clients must never see. The
inner taps let nobody in but tierproxy, and keep what the brokers said: there the addresses must be found, or their
absence outside would prove nothing. Linux only: other systems have one loopback address, and no /proc.
"""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.clients.tap import Recording, Tap
from tests.kit.kafka import Cluster, Node
from tests.kit.processes import free_ports
from tests.kit.proxy import Proxy

OUTSIDE = "127.0.0.8"
HOSTS = {1: "127.0.0.2", 2: "127.0.0.3", 3: "127.0.0.4"}

_ADVERTISED = "advertised.listeners=PLAINTEXT://"


class Hidden:
    """The cluster, the proxy and the taps. `intruders` says who else came to a broker."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(directory / "kafka", nodes=3)
        self.intruders: list[str] = []
        self.told: set[tuple[str, int]] = set()
        self._ports = {node.id: node.port for node in self.cluster.nodes}  # as advertised; they really listen at .port
        internal = free_ports(3)
        for node in self.cluster.nodes:
            real, inside = f"127.0.0.1:{node.port}", f"127.0.0.1:{internal + node.id - 1}"
            self.cluster.node_properties[node.id] = {
                "listeners": f"PLAINTEXT://{real},INTERNAL://{inside},CONTROLLER://127.0.0.1:{node.controller_port}",
                "advertised.listeners": f"PLAINTEXT://{HOSTS[node.id]}:{node.port},INTERNAL://{inside}",
                "inter.broker.listener.name": "INTERNAL",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            }
            self.told |= {(HOSTS[node.id], node.port), ("127.0.0.1", node.port), ("127.0.0.1", internal + node.id - 1)}
        policies: list[dict[str, Any]] = [
            {
                **{"match": "cold.*", "archive": "local"},
                **{"segment": {"bytes": "64KiB", "age": "200ms"}, "keep_on_broker": {"bytes": "0B"}},
            },
            {"match": "*", "archive": "none"},
        ]
        bootstrap = ",".join(f"{HOSTS[node.id]}:{node.port}" for node in self.cluster.nodes)
        self.proxy = Proxy(directory / "proxy", bootstrap, policies, nodes=3)
        listen = {**self.proxy.config["listen"], "advertised_host": OUTSIDE}
        self.proxy.write_config({**self.proxy.config, "listen": listen})
        ports = range(self.proxy.port, self.proxy.port + 5)
        self.outer = Tap(OUTSIDE, ports, lambda port: ("127.0.0.1", port))
        self.inner = {node.id: self._inner_tap(node) for node in self.cluster.nodes}

    @property
    def gateway(self) -> str:
        return f"{OUTSIDE}:{self.proxy.port}"

    def gate_of(self, node_id: int) -> str:
        """Where clients find a broker."""
        return f"{OUTSIDE}:{self.proxy.port + 1 + node_id}"

    def recorded_inside(self) -> list[Recording]:
        return [recording for tap in self.inner.values() for recording in tap.recordings]

    def move(self, node: Node) -> None:
        """Starts the stopped node anew at another port of its host: as far as anybody can tell, for it is a tap's."""
        old, new = self._ports[node.id], free_ports(1)
        host = HOSTS[node.id]
        file = node.directory / "server.properties"
        before = file.read_text()
        after = before.replace(f"{_ADVERTISED}{host}:{old},", f"{_ADVERTISED}{host}:{new},")
        assert after != before
        file.write_text(after)
        self._ports[node.id] = new
        self.told.add((host, new))
        self.inner[node.id].leave(old)
        self.inner[node.id].listen(new)
        node.restart()

    def _inner_tap(self, node: Node) -> Tap:
        return Tap(HOSTS[node.id], [node.port], lambda _: ("127.0.0.1", node.port), admit=self._admit)

    def _admit(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        assert self.proxy.process is not None
        owner = owner_of(peer, here)
        if owner is None:
            return False
        if owner != self.proxy.process.pid:
            command = Path(f"/proc/{owner}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            self.intruders.append(f"{peer[0]}:{peer[1]} is process {owner}: {command}")
        return owner == self.proxy.process.pid


@contextmanager
def hidden(directory: Path) -> Iterator[Hidden]:
    """All of it, running."""
    stage = Hidden(directory)
    with ExitStack() as stack:
        for tap in [*stage.inner.values(), stage.outer]:
            stack.enter_context(tap)
        stack.enter_context(stage.cluster)
        stack.enter_context(stage.proxy)
        yield stage


def owner_of(peer: tuple[str, int], here: tuple[str, int]) -> int | None:
    """The id of the process that has the far end of the connection; None when nobody has it any more."""
    ends = [_as_in_proc(peer), _as_in_proc(here)]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1:3] == ends and row[9] != "0"}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):  # ended meanwhile, or nobody's business
            for link in (process / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    if str(link.readlink()) in sockets:
                        return int(process.name)
    return None


def _as_in_proc(address: tuple[str, int]) -> str:
    host, port = address
    return "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{port:04X}"
