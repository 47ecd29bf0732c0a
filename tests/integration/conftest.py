"""The stage of the integration tests: one Kafka, one tierproxy in front of it, an S3 server behind it.

One suite, two routes: `pytest tests/integration --direct` runs the same reads against the broker alone,
which then trims nothing. What fails there is a fault of the tests or of a client, not of tierproxy.

What happens to a topic is said by how its name begins (`POLICIES`).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kit import admin
from tests.kit.kafka import Cluster
from tests.kit.proxy import Proxy
from tests.kit.records import Log, ends
from tests.kit.s3 import S3Server

_SMALL = {"bytes": "64KiB", "age": "10m"}
_QUICK = {"bytes": "64KiB", "age": "200ms"}
POLICIES: list[dict[str, Any]] = [
    # full segments are archived, and trimmed but for the newest 64 KiB: a seam that stands still
    {"match": "seam.*", "archive": "local", "segment": _SMALL, "keep_on_broker": {"bytes": "64KiB"}},
    # everything is archived and trimmed after a moment: a seam that follows the producer
    {"match": "cold.*", "archive": "local", "segment": _QUICK, "keep_on_broker": {"bytes": "0B"}},
    # archived, and left alone on the broker: both copies can be compared
    {"match": "kept.*", "archive": "local", "segment": _QUICK, "trim": "never"},
    {"match": "s3.*", "archive": "cloud", "segment": _SMALL, "keep_on_broker": {"bytes": "0B"}},
    {"match": "*", "archive": "none"},
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--direct", action="store_true", help="read from the broker, without tierproxy")
    parser.addoption("--workers", default=1, type=int, help="gateway processes of tierproxy")
    parser.addoption("--all-clients", action="store_true", help="the long form of the client tests, older clients too")


@dataclass
class Stage:
    """What a test needs to put on its play. `proxy` is None on the direct route."""

    kafka: Cluster
    proxy: Proxy | None

    @property
    def broker(self) -> str:
        """Where producers and operators go."""
        return self.kafka.bootstrap

    @property
    def gateway(self) -> str:
        """Where consumers go."""
        return self.proxy.bootstrap if self.proxy is not None else self.broker

    def topic(self, name: str, partitions: int = 1) -> str:
        """Creates a topic with broker segments that are small enough to be deleted while a test runs."""
        admin.create_topic(self.broker, name, partitions, internal_segment_bytes=65_536, retention_ms=-1)
        return name

    def wait_trimmed(self, topic: str, log: Log, share: float = 0.3) -> dict[int, int]:
        """Waits until the broker has given up `share` of every partition; returns its log start offsets."""
        if self.proxy is None:
            return dict.fromkeys(log, 0)
        return admin.wait_trimmed(self.broker, topic, {p: int(last * share) for p, last in ends(log).items()})


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if request.config.getoption("--direct"):
        yield Stage(kafka, None)
        return
    s3: S3Server = request.getfixturevalue("s3")
    s3.make_bucket("integration")
    directory = tmp_path_factory.mktemp("proxy")
    archives = {"local": {"url": (directory / "archive").as_uri()}, "cloud": s3.archive("integration")}
    settings = {"workers": request.config.getoption("--workers")}
    with Proxy(directory, kafka.bootstrap, POLICIES, archives=archives, settings=settings) as proxy:
        yield Stage(kafka, proxy)


@pytest.fixture(scope="session")
def proxied(stage: Stage) -> Proxy:
    """tierproxy itself; skips on the direct route, where there is none."""
    if stage.proxy is None:
        pytest.skip("this one is about tierproxy, and --direct was asked for")
    return stage.proxy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the servers said last."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        stage = item.funcargs.get("stage")
        if isinstance(stage, Stage):
            if stage.proxy is not None and stage.proxy.process is not None:
                report.sections.append(("tierproxy's log", stage.proxy.process.tail(60)))
            process = stage.kafka.nodes[0].process
            if process is not None:
                report.sections.append(("Kafka's log", process.tail(20)))
    return report
