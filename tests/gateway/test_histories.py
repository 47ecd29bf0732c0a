"""Archives that are not one unbroken history: holes that readers skip or wait at, and elections that rewrote it."""

import asyncio
from pathlib import Path

import pytest

from protocol.errors import ErrorCode
from tests.fakes.asking import Ask, Connection
from tests.fakes.broker import FakeCluster, Partition
from tests.gateway.stage import Gateway, fill, read_until
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.rewound import rewound
from tierproxy.catalog import Tier

NONE = ErrorCode.NONE
OUT_OF_RANGE = ErrorCode.OFFSET_OUT_OF_RANGE


def pid(partition: Partition) -> PartitionId:
    return PartitionId(partition.topic.name, partition.topic.topic_id, partition.index)


async def change(gateway: Gateway, partition: Partition, new: Manifest) -> None:
    found = await gateway.library.load(pid(partition))
    assert found is not None
    await gateway.library.save(pid(partition), new, found.version)


async def manifest_of(gateway: Gateway, partition: Partition) -> Manifest:
    found = await gateway.library.load(pid(partition))
    assert found is not None
    return found.manifest


def tier_of(gateway: Gateway, partition: Partition) -> Tier:
    tier = gateway.catalog.find(partition.topic.topic_id, partition.index)
    assert tier is not None
    return tier


# ---- holes ---------------------------------------------------------------------------------------------------


async def with_hole(gateway: Gateway, brokers: FakeCluster) -> tuple[Partition, list[bytes]]:
    """Batches of ten: 0 archived, 10 and 20 lost, 30 and 40 archived behind the hole, 50 on the broker."""
    partition = brokers.create_topic("cold.t", leaders=[1])[0]
    batches = fill(partition, 6)
    await gateway.archive(partition, upto=10)
    manifest = await manifest_of(gateway, partition)
    await change(gateway, partition, manifest.with_gap(Gap(10, 30, 1, "retention.ms passed")))
    await gateway.archive(partition, upto=50)
    return partition, batches


async def test_a_reader_is_led_across_a_hole(brokers: FakeCluster, gateway: Gateway, client: Connection) -> None:
    partition, batches = await with_hole(gateway, brokers)
    ask = partition.topic.topic_id
    assert (await read_until(client, 17, Ask(ask, 0, 0))).records == batches[0]
    for offset in (10, 25):
        found = await read_until(client, 17, Ask(ask, 0, offset, 1))
        assert (found.error, found.records) == (NONE, batches[3])


async def test_a_reader_that_halts_at_a_hole_goes_on_when_it_is_accepted(brokers: FakeCluster, tmp_path: Path) -> None:
    async with Gateway(brokers, tmp_path, on_gap="halt") as gateway:
        partition, batches = await with_hole(gateway, brokers)
        ask = Ask(partition.topic.topic_id, 0, 10, 1)
        async with await gateway.connect(1) as client:
            found = await read_until(client, 17, ask)
            assert (found.error, found.records) == (ErrorCode.KAFKA_STORAGE_ERROR, b""), "retriable, for all clients"
            found = await read_until(client, 17, Ask(partition.topic.topic_id, 0, 30, 1))
            assert found.records == batches[3], "who is behind it is not held back"
            manifest = await manifest_of(gateway, partition)
            await change(gateway, partition, manifest.with_gaps_accepted(5))
            await gateway.scout.manifest_now(tier_of(gateway, partition))  # as it does by itself, within seconds
            found = await read_until(client, 17, ask)
            assert (found.error, found.records) == (NONE, batches[3])


# ---- elections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [17, 10])
async def test_what_a_new_leader_has_disowned_is_not_served(
    brokers: FakeCluster, gateway: Gateway, version: int
) -> None:
    """The archive holds 0 to 29, and the broker had given that up; the new leader has 0 to 9, and 5 records more."""
    partition = brokers.create_topic("cold.t", leaders=[1])[0]
    batches = fill(partition, 4)
    topic = partition.topic.topic_id if version == 17 else "cold.t"
    await gateway.archive(partition, upto=30)
    async with await gateway.connect(1) as client:
        assert (await read_until(client, version, Ask(topic, 0, 20, 1))).records == batches[2]
    async with asyncio.timeout(60):
        while gateway.scout._in_use:  # while it is, its facts are asked for each second
            await asyncio.sleep(0.05)
        await gateway.scout.broker_now(tier_of(gateway, partition))
    brokers.elect(partition, 2, truncate_to=10)
    partition.log.start = 0
    fill(partition, 1)
    async with asyncio.timeout(60):
        while tier_of(gateway, partition).leadership != (2, 1):
            await asyncio.sleep(0.05)
    async with await gateway.connect(2) as client:
        found = await read_until(client, version, Ask(topic, 0, 25, 1))
        assert (found.error, found.records) == (OUT_OF_RANGE, b"")
        found = await read_until(client, version, Ask(topic, 0, 10, 1))
        assert found.records == list(partition.log.batches())[1][1]
        # Later the archive is cut, and the new history archived and trimmed in its place.
        manifest = await manifest_of(gateway, partition)
        await change(gateway, partition, rewound(manifest, 10, 0, 1, "elected"))
        await gateway.archive(partition, upto=20)
        await gateway.scout.manifest_now(tier_of(gateway, partition))
        truth = [data for _, data in partition.log.batches()]
        for at in (0, 1):
            found = await read_until(client, version, Ask(topic, 0, 10 * at, 1))
            assert (found.error, found.records) == (NONE, truth[at])
        found = await read_until(client, version, Ask(topic, 0, 25, 1))
        assert (found.error, found.records) == (OUT_OF_RANGE, b"")
