"""tierproxy.tiering.trims on a fake cluster that keeps its answers back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker import FakeCluster
from tests.unit.batch_maker import make_batch, plain_records
from tierproxy.access import Access
from tierproxy.clock import SystemClock
from tierproxy.errors import TierproxyError
from tierproxy.tiering.trims import MOST_AT_ONCE, Trims
from tierproxy.upstream import Cluster, DeletedRecords, TopicPartition

PARTITIONS = 2 * MOST_AT_ONCE + 1
DONE = DeletedRecords(ErrorCode.NONE, 5)


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        made.create_topic("t", PARTITIONS)
        for partition in made.topics["t"].partitions:
            partition.append(make_batch(0, plain_records(10)))
        yield made


@pytest.fixture
async def cluster(brokers: FakeCluster) -> AsyncIterator[Cluster]:
    made = Cluster(brokers.bootstrap, Access(), "tierproxy-test", SystemClock())
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def trims(cluster: Cluster) -> Trims:
    return Trims(cluster)


class Checks:
    """Counts, and refuses the partitions in `bad`."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad
        self.made: list[int] = []

    def trim(self, trims: Trims, partition: int) -> asyncio.Task[DeletedRecords]:
        async def check() -> None:
            self.made.append(partition)
            if partition in self.bad:
                raise TierproxyError("not this one")

        return asyncio.ensure_future(trims.trim(TopicPartition("t", partition), 5, check))


def starts(brokers: FakeCluster) -> list[int]:
    return [partition.log.start for partition in brokers.topics["t"].partitions]


async def turns(times: int = 20) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_what_comes_up_while_a_leader_works_goes_out_together(brokers: FakeCluster, trims: Trims) -> None:
    checks = Checks()
    with brokers.held(ApiKey.DELETE_RECORDS) as held:
        tasks = [checks.trim(trims, 0)]
        while not held.used:
            await asyncio.sleep(0)
        tasks += [checks.trim(trims, partition) for partition in range(1, PARTITIONS)]
        await turns()
        assert checks.made == [0], "checked when its turn comes, not before"
    assert await asyncio.gather(*tasks) == [DONE] * PARTITIONS
    asked = [sum(len(t.partitions) for t in each.message.topics) for each in brokers.asked(ApiKey.DELETE_RECORDS)]
    assert asked == [1, MOST_AT_ONCE, MOST_AT_ONCE]
    assert starts(brokers) == [5] * PARTITIONS


async def test_a_check_that_fails_concerns_its_partition_only(brokers: FakeCluster, trims: Trims) -> None:
    checks = Checks(0, 2)
    with brokers.held(ApiKey.DELETE_RECORDS):
        first, *rest = (checks.trim(trims, partition) for partition in range(4))
        with pytest.raises(TierproxyError, match="not this one"):
            await first
    results = await asyncio.gather(*rest, return_exceptions=True)
    assert (results[0], str(results[1]), results[2]) == (DONE, "not this one", DONE)
    assert starts(brokers)[:4] == [0, 5, 0, 5]


async def test_one_leader_does_not_wait_for_another(brokers: FakeCluster, cluster: Cluster, trims: Trims) -> None:
    await brokers.add_node(2)
    brokers.create_topic("u", leaders=[2])[0].append(make_batch(0, plain_records(10)))
    await cluster.refresh()
    checks = Checks()
    with brokers.held(ApiKey.DELETE_RECORDS, node_id=1):
        slow = checks.trim(trims, 0)

        async def fine() -> None: ...

        assert await trims.trim(TopicPartition("u", 0), 5, fine) == DONE
        assert not slow.done()
    assert await slow == DONE


async def test_whoever_leaves_takes_nobody_along(brokers: FakeCluster, trims: Trims) -> None:
    """The first does the work of all; the second has not been asked yet; both are cancelled."""
    checks = Checks()
    with brokers.held(ApiKey.DELETE_RECORDS) as held:
        first, second, third = (checks.trim(trims, partition) for partition in range(3))
        while not held.used:
            await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        assert (first.cancelled(), second.cancelled(), third.done()) == (True, True, False)
    assert await third == DONE
    assert await checks.trim(trims, 1) == DONE
