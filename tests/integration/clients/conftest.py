"""The stage of the client matrix: the tests' Kafka, a tierproxy of its own, and a tap between clients and tierproxy.

On the direct route (`--direct`), and where there is one loopback address only, there is no tap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.clients.client import Client, Unavailable
from tests.clients.java import JavaClient
from tests.clients.matrix import CLIENTS, Row
from tests.clients.tap import Recording, Tap, can_listen
from tests.integration.conftest import POLICIES, Stage
from tests.kit.kafka import Cluster
from tests.kit.proxy import Proxy

OUTSIDE = "127.0.0.8"
"""Where clients find the tap, and take it for tierproxy."""


@dataclass
class TappedStage(Stage):
    """`tap` is None where there is none."""

    tap: Tap | None = None

    @property
    def gateway(self) -> str:
        if self.tap is None or self.proxy is None:
            return super().gateway
        return f"{OUTSIDE}:{self.proxy.port}"

    def recorded(self) -> list[Recording]:
        """All connections so far; skips where there is no tap."""
        if self.tap is None:
            pytest.skip("nothing is recorded: not through tierproxy, or this machine has no second loopback address")
        return self.tap.recordings


@pytest.fixture(scope="session")
def front(
    request: pytest.FixtureRequest, kafka: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TappedStage]:
    """Its topics are `matrix.seam.*` and so on: two archives of one topic would trim each other's records away."""
    if request.config.getoption("--direct"):
        yield TappedStage(kafka, None)
        return
    policies = [
        {**policy, "match": f"matrix.{policy['match']}" if policy["match"] != "*" else "*"}
        for policy in POLICIES
        if policy["archive"] != "cloud"
    ]
    proxy = Proxy(tmp_path_factory.mktemp("front"), kafka.bootstrap, policies, cluster="matrix")
    if not can_listen(OUTSIDE):
        with proxy:
            yield TappedStage(kafka, proxy)
        return
    proxy.write_config({**proxy.config, "listen": {**proxy.config["listen"], "advertised_host": OUTSIDE}})
    ports = range(proxy.port, proxy.port + 3)  # bootstrap and the nodes 0 and 1
    with proxy, Tap(OUTSIDE, ports, lambda port: ("127.0.0.1", port)) as tap:
        yield TappedStage(kafka, proxy, tap)


@pytest.fixture(scope="session")
def client_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Row], Client]]:
    """Makes each client once, on first use, and ends them all; skips where one can't be had."""
    directory = tmp_path_factory.mktemp("clients")
    running: list[Client] = []

    @cache
    def make(make: Callable[..., Client]) -> Client | str:
        try:
            client = make(directory)
        except Unavailable as why:
            return str(why)
        running.append(client)
        return client

    def client_of(row: Row) -> Client:
        found = make(row.make)
        if isinstance(found, str):
            pytest.skip(f"{row.name} is not tested: {found}")
        return found

    yield client_of
    for client in running:
        client.close()


@pytest.fixture(scope="session")
def java(client_of: Callable[[Row], Client]) -> JavaClient:
    """The newest Java client, which also runs Kafka's tools."""
    client = client_of(CLIENTS[0])
    assert isinstance(client, JavaClient)
    return client
