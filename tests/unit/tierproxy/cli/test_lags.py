"""How far archives are behind, of a fake cluster and a real directory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.broker import FakeCluster
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.tiering.scene import KEEP_ALL, Scene
from tierproxy.cli.lags import OLD, Lag, ask_lags
from tierproxy.clock import SystemClock

DAY = 86_400_000


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        yield made


async def test_what_is_archived_is_compared_with_what_is_old(brokers: FakeCluster, tmp_path: Path) -> None:
    partition = brokers.create_topic("t")[0]
    brokers.create_topic("forever")
    now = SystemClock().now_ms()
    partition.append(make_batch(0, plain_records(10, time=now - 8 * DAY)))
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        await scene.archived("t", 10)
    partition.append(make_batch(0, plain_records(20, time=now - 6 * DAY)))
    partition.append(make_batch(0, plain_records(30, time=now)))
    settings = {"t": {"retention.ms": str(7 * DAY)}, "forever": {"retention.ms": "-1"}, "gone": {"retention.ms": "1"}}
    async with Scene(brokers, tmp_path, {"archive": "none"}) as scene:
        asked = await ask_lags(scene.config(KEEP_ALL), scene.cluster, settings, now)
    assert OLD * 7 < 6
    assert asked == {"t": [Lag(0, archived_to=10, log_start=0, log_end=60, old_to=30)]}


def test_when_it_is_a_danger() -> None:
    assert [Lag(0, end, 5, 100, 60).endangered for end in (59, 60, 100)] == [True, False, False]
    assert [Lag(0, end, 5, 100, -1).lost for end in (4, 5)] == [True, False]
