"""tierproxy.upstream on a fake cluster: what it asks when things change under it. With Kafka: test_upstream in
tests/integration."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker import FakeCluster, Request
from tests.fakes.broker.steering import Answer, GoOn
from tests.unit.batch_maker import make_batch, plain_records
from tierproxy import upstream
from tierproxy.access import Access
from tierproxy.clock import SystemClock
from tierproxy.upstream import LATEST, Cluster, DeletedRecords, TopicPartition

T0 = TopicPartition("t", 0)


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        made.create_topic("t")[0].append(make_batch(0, plain_records(10)))
        yield made


@pytest.fixture
async def cluster(brokers: FakeCluster) -> AsyncIterator[Cluster]:
    made = Cluster(brokers.bootstrap, Access(), "tierproxy-test", SystemClock())
    await made.start()
    yield made
    await made.close()


async def test_records_are_not_deleted_a_second_time_by_name(brokers: FakeCluster, cluster: Cluster) -> None:
    """Whoever asked must look first: after an error of this kind the name may mean another topic."""

    async def recreated_afterwards(request: Request, go_on: GoOn) -> Answer:
        brokers.delete_topic("t")
        answer = await go_on()
        brokers.create_topic("t")[0].append(make_batch(0, plain_records(10)))
        return answer

    brokers.steer(ApiKey.DELETE_RECORDS, recreated_afterwards, times=1)
    answer = await cluster.delete_records({T0: 10})
    assert answer == {T0: DeletedRecords(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)}
    assert brokers.topics["t"][0].log.start == 0
    assert len(brokers.asked(ApiKey.DELETE_RECORDS)) == 1


async def test_questions_do_not_wait_for_followers(brokers: FakeCluster, cluster: Cluster) -> None:
    with brokers.held(ApiKey.DELETE_RECORDS) as held:
        deleting = asyncio.ensure_future(cluster.delete_records({T0: 7}))
        while not held.used:
            await asyncio.sleep(0)
        assert (await cluster.list_offsets({T0: LATEST}))[T0].offset == 10
        assert not deleting.done()
        assert held.used == 1, "its connection was not given up"
    assert await deleting == {T0: DeletedRecords(ErrorCode.NONE, 7)}


async def test_a_trim_without_an_answer_spoils_no_question(
    brokers: FakeCluster, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "REQUEST_TIMEOUT", 0.0)  # what is added to the broker's own limit
    with brokers.held(ApiKey.LIST_OFFSETS) as held, brokers.held(ApiKey.DELETE_RECORDS):
        asking = asyncio.ensure_future(cluster.list_offsets({T0: LATEST}))
        while not held.used:
            await asyncio.sleep(0)
        deleted = await cluster.delete_records({T0: 7}, timeout_ms=50)
        assert deleted[T0].error == ErrorCode.NETWORK_EXCEPTION
    assert (await asking)[T0].offset == 10
    assert len(brokers.asked(ApiKey.LIST_OFFSETS)) == 1
