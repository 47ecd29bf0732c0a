"""Each case of the contract is put to the fake and to Apache Kafka. Where they differ, the fake is wrong.

Left out, because no real broker does them on demand here: throttled answers, unclean elections, and everything that
`steer` makes up.
"""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from tests.fakes.asking import Connection
from tests.fakes.broker import FakeCluster
from tests.fakes.subjects import Fake, Real, Subject, real_cluster
from tests.kit.kafka import Cluster

_names = (f"t{n}" for n in count())


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with real_cluster(tmp_path_factory.mktemp("contract")) as cluster:
        yield cluster


@pytest.fixture(params=["fake", "kafka"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "kafka":
        yield Real(request.getfixturevalue("apache"))
        return
    async with FakeCluster(2) as cluster:
        yield Fake(cluster)


@pytest.fixture
async def client(subject: Subject) -> AsyncIterator[Connection]:
    """A connection to node 1."""
    async with await subject.connect() as connection:
        yield connection


@pytest.fixture
def name() -> str:
    """A topic's name that no other test has."""
    return next(_names)
