"""Fixtures that every kind of test may ask for. Real servers are started once per run, on first use."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.kafka import Cluster
from tests.kit.s3 import S3Server

# A busy machine is no fault of the code's: nothing is judged by the time it takes.
settings.register_profile("tierproxy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tierproxy")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command line that a test runs in this process sets up logging; the next test must not inherit that."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {each: each.level for each in (root, *_own_loggers())}
    yield
    root.handlers[:] = handlers
    for each in (root, *_own_loggers()):
        each.setLevel(levels.get(each, logging.NOTSET))


def _own_loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict
    return [logging.getLogger(name) for name in list(known) if name.split(".")[0] == "tierproxy"]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One real Kafka broker (node id 1) for the whole run; tests use topics of their own."""
    with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole run; tests make buckets of their own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
