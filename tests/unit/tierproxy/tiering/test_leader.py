"""tierproxy.tiering.leader on fake brokers that don't all know the same."""

from collections.abc import AsyncIterator

import pytest

from protocol.apis import ApiKey
from tests.fakes.broker import FakeCluster, Request
from tests.fakes.broker.steering import Answer, GoOn
from tests.unit.batch_maker import make_batch, plain_records
from tierproxy.access import Access
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.clock import SystemClock
from tierproxy.tiering.leader import Leader, LeaderTrouble, TopicGone
from tierproxy.upstream import Cluster


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(2) as made:
        made.create_topic("t", leaders=[2])
        yield made


@pytest.fixture
async def cluster(brokers: FakeCluster) -> AsyncIterator[Cluster]:
    made = Cluster(brokers.bootstrap[:1], Access(), "tierproxy-test", SystemClock())
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def leader(brokers: FakeCluster, cluster: Cluster) -> Leader:
    return Leader(cluster, PartitionId("t", brokers.topics["t"].topic_id, 0))


async def test_a_topic_that_is_there_is_the_one(leader: Leader) -> None:
    await leader.check_topic()


async def test_a_topic_that_was_deleted_is_gone(brokers: FakeCluster, leader: Leader) -> None:
    brokers.delete_topic("t")
    with pytest.raises(TopicGone, match="does not exist any more"):
        await leader.check_topic()


async def test_a_namesake_is_noticed_though_another_broker_does_not_know_it_yet(
    brokers: FakeCluster, cluster: Cluster, leader: Leader
) -> None:
    said: list[bytes] = []

    async def behind(request: Request, go_on: GoOn) -> Answer:
        if not said:
            said.append(await go_on() or b"")
        return request.payload[4:8] + said[0][4:]

    brokers.steer(ApiKey.METADATA, behind, node_id=1)
    await cluster.refresh(["t"])
    brokers.delete_topic("t")
    brokers.create_topic("t", leaders=[2])
    with pytest.raises(TopicGone, match="created again"):
        await leader.check_topic()


async def test_a_leader_that_can_not_be_asked_says_nothing_of_its_topic(brokers: FakeCluster, leader: Leader) -> None:
    await brokers.nodes[2].stop()
    with pytest.raises(LeaderTrouble):
        await leader.check_topic()


async def test_a_namesakes_log_says_nothing_of_the_archive(
    brokers: FakeCluster, cluster: Cluster, leader: Leader
) -> None:
    """It begins behind the archive's end, as if records had been lost; and another ends before, as if rewritten."""
    old = brokers.topics["t"].topic_id
    archived = Manifest.empty("c", "id", PartitionId("t", old, 0), 5)
    brokers.delete_topic("t")
    log = brokers.create_topic("t", leaders=[2])[0].log
    with pytest.raises(TopicGone, match="created again"):
        await leader.compare(archived)
    log.append(make_batch(0, plain_records(20)), 0)
    log.trim(10)
    with pytest.raises(TopicGone, match="created again"):
        await leader.compare(archived)
