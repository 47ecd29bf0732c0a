"""Which port, or which server name, stands for which broker.

Clients must come back to the proxy, and every connection must stand for one broker. Port `base` is for bootstrap,
broker `n` is at `base + 1 + n`: the same on every replica and after every restart, so that nothing has to be agreed
upon. Or all are at port `base`, and clients say by the server name of their TLS handshake (SNI) whom they mean. Node
ids stay as they are.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from protocol.endpoints import Endpoint

Address = tuple[str, int]
HIGHEST_PORT = 65535
UNREACHABLE_PORT = 0


@dataclass(frozen=True, slots=True)
class ServerNames:
    """`broker` holds `{node}` once: `broker-{node}.kafka.example.com`. Case is of no matter."""

    bootstrap: str
    broker: str

    def name_of(self, node_id: int) -> str:
        return self.broker.replace("{node}", str(node_id))

    def is_bootstrap(self, name: str) -> bool:
        return name.lower() == self.bootstrap.lower()

    def node_of(self, name: str) -> int | None:
        """The node id that `name` stands for; None if it is no broker's name."""
        before, _, behind = self.broker.lower().partition("{node}")
        name = name.lower()
        digits = name[len(before) : len(name) - len(behind)]
        if not (name.startswith(before) and name.endswith(behind) and digits.isascii() and digits.isdigit()):
            return None
        return int(digits) if len(digits) <= 10 and str(int(digits)) == digits else None


@dataclass(slots=True)
class Addresses:
    """The brokers' own addresses, and the ones clients are given instead."""

    advertised_host: str
    base_port: int
    real: dict[int, Address] = field(default_factory=dict)
    listening: set[int] = field(default_factory=set)  # node ids whose port is open, or can never be
    names: ServerNames | None = None  # brokers are told apart by name, not by port

    def port_of(self, node_id: int) -> int | None:
        """The proxy's port for a broker; None when the node id is too large for there to be one."""
        port = self.base_port + 1 + node_id
        return port if node_id >= 0 and port <= HIGHEST_PORT else None

    def advertised(self, endpoint: Endpoint) -> Address:
        """What a client is told in place of `endpoint`. Never the broker's own address, whatever happens."""
        if self.names is not None:
            if endpoint.node_id < 0:
                return self.names.bootstrap, UNREACHABLE_PORT
            return self.names.name_of(endpoint.node_id), self.base_port
        return self.advertised_host, self.port_of(endpoint.node_id) or UNREACHABLE_PORT

    def keep_only(self, nodes: Collection[int]) -> None:
        """Forget brokers that have left the cluster; their ports stay, and lead nowhere until they come back."""
        for node in [node for node in self.real if node not in nodes]:
            del self.real[node]

    def note(self, endpoints: list[Endpoint]) -> list[int]:
        """Take down where brokers are; returns the node ids that clients must not hear of before a port is open."""
        for endpoint in endpoints:
            self.real[endpoint.node_id] = (endpoint.host, endpoint.port)
        if self.names is not None:
            return []  # the one port is open
        return [e.node_id for e in endpoints if e.node_id not in self.listening]
