"""tierproxy.tiering.archiver and its workers, on a fake cluster that does what no real one does on demand."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from protocol.apis import ApiKey
from protocol.fetch_response import FetchResponse
from tests.fakes.broker import FakeCluster, Request
from tests.fakes.broker.api_18_api_versions import OFFERED
from tests.fakes.broker.steering import Answer, GoOn
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.tiering.scene import KEEP_ALL, KEEP_NOTHING, Scene, eventually
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.upstream import Cluster


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        yield made


def batch(records: int = 10) -> bytes:
    return make_batch(0, plain_records(records))


async def fetched_again(brokers: FakeCluster, times: int) -> None:
    """`times` more fetches have been answered."""
    before = len(brokers.asked(ApiKey.FETCH))
    await eventually(lambda: len(brokers.asked(ApiKey.FETCH)) > before + times, "further fetches")


def damaged(good: bytes) -> bytes:
    return good[:-1] + bytes([good[-1] ^ 1])


async def test_a_damaged_batch_that_the_broker_then_deletes_is_a_gap_and_no_end(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partition = brokers.create_topic("t")[0]
    partition.append(batch(100))
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        await scene.archived("t", 100)
        partition.append(damaged(batch(105)))
        await eventually(lambda: "does not match its checksum" in caplog.text, "word of the damage")
        partition.log.trim(205)
        manifest = await scene.archived("t", 205)
        assert [(gap.start, gap.end) for gap in manifest.gaps] == [(100, 205)]
        # Some answers without records come first: this is where the archiver's own offset shows.
        await fetched_again(brokers, 3)
        partition.append(batch(10))
        manifest = await scene.archived("t", 215)
    assert [(entry.base_offset, entry.last_offset) for entry in manifest.segments] == [(0, 99), (205, 214)]
    assert "not archived any further" not in caplog.text


async def test_a_recreated_topic_is_not_trimmed(brokers: FakeCluster, tmp_path: Path) -> None:
    """The topic is deleted while the old one's trim is on its way, and its namesake is longer than the archive."""
    brokers.create_topic("t")[0].append(batch(100))

    async def recreate(request: Request, go_on: GoOn) -> Answer:
        brokers.delete_topic("t")
        answer = await go_on()
        brokers.create_topic("t")[0].append(damaged(batch(300)))  # which can't be archived
        return answer

    brokers.steer(ApiKey.DELETE_RECORDS, recreate, times=1)
    async with Scene(brokers, tmp_path, KEEP_NOTHING):
        await eventually(lambda: len(brokers.asked(ApiKey.DELETE_RECORDS)) > 0, "trim")
        await fetched_again(brokers, 3)
        assert brokers.topics["t"][0].log.start == 0


async def test_topics_without_ids_are_archived_and_not_trimmed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeCluster(versions={**OFFERED, ApiKey.METADATA: (0, 9), ApiKey.FETCH: (4, 11)}) as brokers:
        partition = brokers.create_topic("t")[0]
        partition.append(batch())
        async with Scene(brokers, tmp_path, KEEP_NOTHING) as scene:
            manifest = await scene.archived("t", 10)
            assert manifest.topic_id == bytes(16)
            # A namesake that is longer than the archive.
            brokers.delete_topic("t")
            namesake = brokers.create_topic("t")[0]
            namesake.append(batch() * 3)
            await scene.archived("t", 30)
            await fetched_again(brokers, 3)
        assert brokers.asked(ApiKey.DELETE_RECORDS) == []
    assert caplog.text.count("topic t is archived but not trimmed: the brokers give no topic ids") == 1


async def test_brokers_that_know_no_groups_are_archived_alone(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = troubles()
    brokers.create_topic("t")[0].append(batch())
    async with Scene(brokers, tmp_path, KEEP_ALL, group="archivers-{cluster}") as scene:
        await scene.archived("t", 10)
        assert troubles() == before + 1
    assert "group archivers-c can't be used: broker 127.0.0.1:" in caplog.text
    assert "offers nothing of JOIN_GROUP" in caplog.text
    assert caplog.text.count("This archiver works on everything alone") == 1


# ---- what nobody foresaw -------------------------------------------------------------------------------------


async def test_a_worker_that_crashes_is_started_again(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Scene):
        crashed = False

        def committed(self, pid: PartitionId, manifest: Manifest) -> None:
            if not self.crashed:
                self.crashed = True
                raise RuntimeError("nobody foresaw this")
            super().committed(pid, manifest)

    partition = brokers.create_topic("t")[0]
    partition.append(batch())
    async with Clumsy(brokers, tmp_path, KEEP_ALL) as scene:
        await scene.archived("t", 10)
        partition.append(batch())
        manifest = await scene.archived("t", 20)
    assert [entry.base_offset for entry in manifest.segments] == [0, 10]
    assert caplog.text.count("task archive t-0 crashed") == 1


async def test_a_copier_that_crashes_is_started_again(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Cluster):
        crashed = False

        async def fetch(self, *args: Any, **options: Any) -> FetchResponse:
            if not self.crashed:
                self.crashed = True
                raise RuntimeError("nobody foresaw this")
            return await super().fetch(*args, **options)

    brokers.create_topic("t")[0].append(batch())
    async with Scene(brokers, tmp_path, KEEP_ALL, cluster_class=Clumsy) as scene:
        await scene.archived("t", 10)
    assert caplog.text.count("task copy from broker 1 crashed") == 1


# ---- what is said to be wrong --------------------------------------------------------------------------------


def troubles() -> float:
    return REGISTRY.get_sample_value("tierproxy_troubles_open", {"part": "archiver"}) or 0.0


async def test_a_partitions_troubles_end_with_it(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = troubles()
    brokers.create_topic("t")[0].append(damaged(batch()))
    brokers.create_topic("compacted", configs={"cleanup.policy": "compact"})
    async with Scene(brokers, tmp_path, KEEP_ALL):
        await eventually(lambda: troubles() == before + 2, "troubles")
        brokers.delete_topic("t")
        await eventually(lambda: troubles() == before + 1, "end of the partition's")
        brokers.delete_topic("compacted")
        await eventually(lambda: troubles() == before, "end of the topic's")
        assert "t-0 is copied again" not in caplog.text


async def test_a_partition_without_a_leader_is_a_trouble_until_it_has_one(brokers: FakeCluster, tmp_path: Path) -> None:
    before = troubles()
    topic = brokers.create_topic("t", 2, leaders=[-1, -1])
    for partition in topic.partitions:
        partition.append(batch())
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        await eventually(lambda: troubles() == before + 2, "troubles")
        brokers.elect(topic[0], 1)
        await scene.archived("t", 10)
        await eventually(lambda: troubles() == before + 1, "end of one")
        brokers.elect(topic[1], 1)
        await scene.archived("t", 10, 1)
        await eventually(lambda: troubles() == before, "end of both")


async def test_a_spool_that_can_be_written_again_is_no_trouble(
    brokers: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tierproxy.tiering.fsm.SPOILED_PAUSE", 0.05)
    before, spool = troubles(), tmp_path / "spool"
    spool.mkdir()
    large = make_batch(0, plain_records(1, value=random.Random(1).randbytes(3 << 20)))  # no spool in memory
    brokers.create_topic("t")[0].append(large)
    async with Scene(brokers, tmp_path / "archive", KEEP_ALL, spool=spool) as scene:
        spool.rmdir()
        await eventually(lambda: "segments can't be written on this machine" in caplog.text, "word of it")
        spool.mkdir()
        await scene.archived("t", 1)
        assert troubles() == before
