"""Pace, and how a partition's batches find their way when the target's brokers fail. With Kafka: test_restore."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from protocol.records import decode_records
from tests.fakes.broker import FakeCluster, Request
from tests.fakes.broker.steering import Answer, GoOn, HangUp
from tests.unit.tierproxy.cli.archives import CLUSTER, Archive, batch
from tierproxy.access import Access
from tierproxy.archive.library import Library
from tierproxy.archive.store_file import FileStore
from tierproxy.clock import ManualClock, SystemClock
from tierproxy.errors import TierproxyError
from tierproxy.restore import outgoing
from tierproxy.restore.lane import Lane, Pace, Shared
from tierproxy.restore.state import Progress, State
from tierproxy.restore.target import Target
from tierproxy.upstream import TopicPartition

T0 = TopicPartition("copy", 0)
VALUES = [b"%d" % n for n in range(40)]


@pytest.fixture(autouse=True)
def batches_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they are."""
    monkeypatch.setattr(outgoing, "SMALL_BYTES", 0)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path).add(*(batch(2 * n, VALUES[2 * n : 2 * n + 2]) for n in range(20))).save()


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(nodes=2) as made:
        made.create_topic("copy", leaders=[1])
        yield made


@pytest.fixture
async def target(brokers: FakeCluster) -> AsyncIterator[Target]:
    made = Target(brokers.bootstrap, Access(), "test", SystemClock())
    await made.start()
    yield made
    await made.close()


def state(next_offset: int = 0, target_offset: int = 0) -> State:
    partitions = {0: Progress(0, 40, next_offset, target_offset)}
    return State("flights", "", [], "", "copy", "", 9, 0, partitions)


async def run(target: Target, archive: Archive, known: State, *, resumed: bool = False) -> None:
    shared = Shared(target, known, SystemClock(), lambda count: None, lambda: None, Pace(None, SystemClock()))
    store = await asyncio.to_thread(FileStore, archive.root)
    try:
        lane = Lane(shared, Library(store, CLUSTER), archive.manifest, T0, None)
        if resumed:
            await lane.find_place()
        await lane.run()
    finally:
        await store.close()


def written(brokers: FakeCluster) -> list[bytes | None]:
    log = brokers.topics["copy"][0].log
    batches = [data for segment in log.segments for _, data in segment.batches]
    return [record.value for data in batches for record in decode_records(data)]


async def test_everything_arrives_in_order(brokers: FakeCluster, target: Target, archive: Archive) -> None:
    known = state()
    await run(target, archive, known)
    assert written(brokers) == VALUES
    progress = known.partitions[0]
    assert (progress.next, progress.target_offset, progress.sequence, progress.records, progress.done) == (
        40,
        40,
        40,
        40,
        True,
    )


async def test_a_leader_that_moves_is_followed(brokers: FakeCluster, target: Target, archive: Archive) -> None:
    async def moves(request: Request, go_on: GoOn) -> Answer:
        brokers.elect(brokers.topics["copy"][0], 2)
        return await go_on()

    brokers.steer(ApiKey.PRODUCE, moves, times=1)
    await run(target, archive, state())
    assert written(brokers) == VALUES


async def test_a_connection_that_breaks_before_anything_was_taken(
    brokers: FakeCluster, target: Target, archive: Archive
) -> None:
    async def breaks(request: Request, go_on: GoOn) -> Answer:
        raise HangUp

    brokers.steer(ApiKey.PRODUCE, breaks, times=1)
    await run(target, archive, state())
    assert written(brokers) == VALUES


async def test_an_answer_that_is_lost_is_looked_for_in_the_target(
    brokers: FakeCluster, target: Target, archive: Archive
) -> None:
    """As the fake knows no producers, so a broker forgets those whose records are old."""
    asked = 0

    async def loses_the_answer(request: Request, go_on: GoOn) -> Answer:
        nonlocal asked
        asked += 1
        answer = await go_on()
        if asked in (2, 7, 12):
            raise HangUp
        return answer

    brokers.steer(ApiKey.PRODUCE, loses_the_answer)
    known = state()
    await run(target, archive, known)
    assert written(brokers) == VALUES
    assert (known.partitions[0].sequence, known.partitions[0].records) == (40, 40)


async def test_what_somebody_else_wrote_meanwhile_stops_it(
    brokers: FakeCluster, target: Target, archive: Archive
) -> None:
    async def is_interrupted(request: Request, go_on: GoOn) -> Answer:
        brokers.topics["copy"][0].append(batch(0, [b"0", b"x"]))
        raise HangUp

    brokers.steer(ApiKey.PRODUCE, is_interrupted, times=1)
    with pytest.raises(TierproxyError, match="somebody else writes into it"):
        await run(target, archive, state())


@pytest.mark.parametrize("there", [0, 2, 20, 40])
async def test_who_goes_on_begins_behind_what_is_there(
    brokers: FakeCluster, target: Target, archive: Archive, there: int
) -> None:
    for n in range(0, there, 2):
        brokers.topics["copy"][0].append(batch(n, VALUES[n : n + 2]))
    known = state()
    await run(target, archive, known, resumed=True)
    assert written(brokers) == VALUES
    assert known.partitions[0].sequence == 40


@pytest.mark.parametrize(
    "there",
    [batch(0, [b"0", b"x"]), batch(0, [b"0"]), batch(0, [*VALUES, b"more"])],
    ids=["another", "half a batch", "more"],
)
async def test_what_is_not_ours_stops_it(brokers: FakeCluster, target: Target, archive: Archive, there: bytes) -> None:
    brokers.topics["copy"][0].append(there)
    before = written(brokers)
    with pytest.raises(TierproxyError, match="somebody else writes into it"):
        await run(target, archive, state(), resumed=True)
    assert written(brokers) == before


async def test_a_target_that_has_lost_records_is_told(brokers: FakeCluster, target: Target, archive: Archive) -> None:
    with pytest.raises(TierproxyError, match="ends at 0 in the target, but 10 was acknowledged"):
        await run(target, archive, state(10, 10), resumed=True)


async def test_a_batch_in_the_wrong_place_stops_it(brokers: FakeCluster, target: Target, archive: Archive) -> None:
    brokers.topics["copy"][0].append(batch(0, [b"strange"]))
    with pytest.raises(TierproxyError, match="somebody else writes into it"):
        await run(target, archive, state())


async def test_a_pace_is_kept() -> None:
    clock = ManualClock()
    pace = Pace(1000, clock)
    clock.advance(10)
    await pace.take(1000)  # a second's worth at once, however long nothing was sent
    waiting = asyncio.ensure_future(pace.take(1))
    done, _ = await asyncio.wait([waiting], timeout=0)
    assert not done
    waiting.cancel()
    clock.advance(10)
    await pace.take(1)
