from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.asking import Connection
from tests.fakes.broker import FakeCluster
from tests.gateway.stage import Gateway


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    """Two nodes."""
    async with FakeCluster(2) as cluster:
        yield cluster


@pytest.fixture
async def gateway(brokers: FakeCluster, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with Gateway(brokers, tmp_path) as made:
        yield made


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Connection]:
    """A client of node 1."""
    async with await gateway.connect(1) as connection:
        yield connection
