"""`archiver.read_rate`: bytes counted against a clock that moves only when the test says so."""

import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.fakes.broker import FakeCluster
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.tiering.scene import KEEP_ALL, Scene, eventually
from tierproxy.clock import ManualClock

RATE = 128 * 1024
BATCH = make_batch(0, plain_records(1, value=random.Random(1).randbytes(30 * 1024)))


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        yield made


def read_bytes() -> float:
    return REGISTRY.get_sample_value("tierproxy_archiver_read_bytes_total") or 0.0


class Limited(Scene):
    """At the start of a virtual time; `read` is counted from there."""

    def __init__(self, brokers: FakeCluster, directory: Path) -> None:
        self.time = ManualClock()
        self.before = read_bytes()
        policy = {**KEEP_ALL, "segment": {"bytes": "1GiB", "age": "1h"}}
        super().__init__(brokers, directory, policy, clock=self.time, read_rate=RATE)

    @property
    def read(self) -> float:
        return read_bytes() - self.before

    def has_read(self, least: float) -> bool:
        return self.read >= least


async def test_the_brokers_are_read_no_faster(brokers: FakeCluster, tmp_path: Path) -> None:
    """Two brokers share the limit: each second brings about what the rate says, and is awaited if it does."""
    topic = brokers.create_topic("t", 4)
    for partition in topic.partitions:
        for _ in range(40):
            partition.append(BATCH)
    scene = Limited(brokers, tmp_path)
    async with scene:
        for second in range(6):
            # What is saved up is one second's worth; an answer of a second's worth may be on its way at each broker.
            least, most = RATE * (second + 0.5), RATE * (second + 1 + len(brokers.nodes)) + 2 * len(BATCH)
            await eventually(partial(scene.has_read, least), "progress")
            assert scene.read <= most
            scene.time.advance(1.0)
    assert scene.read < 4 * 40 * len(BATCH), "the test has to have more to read"


async def test_a_partition_in_need_is_read_at_once_and_others_wait(brokers: FakeCluster, tmp_path: Path) -> None:
    topic = brokers.create_topic("t", 2, leaders=[1, 1])
    for partition in topic.partitions:
        for _ in range(40):
            partition.append(BATCH)
    whole = 40 * len(BATCH)
    scene = Limited(brokers, tmp_path)
    async with scene:
        await eventually(partial(scene.has_read, RATE / 2), "debt")
        worker = next(worker for worker, _ in scene.archiver._workers.values() if worker.tp.partition == 0)
        worker.unlimited = True
        scene.archiver._ready(worker.tp)
        await eventually(partial(scene.has_read, whole), "the partition in need")
        assert scene.read <= whole + 3 * RATE, "the other one waits, as no time has passed"
