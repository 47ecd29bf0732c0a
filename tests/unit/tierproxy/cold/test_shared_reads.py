"""Two workers in one process, over real Unix sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierproxy.archive.store import NotFound
from tierproxy.cold.shared_reads import STRETCH, Neighbours, SharedReads, owner_of
from tierproxy.tasks import Tasks

KEY = "cluster/topic/segment"
SIZE = 3 << 20


class Worker:
    """Its reads are written down, and wait while it is closed."""

    def __init__(self, sockets: list[Path], me: int, lent: int = 16 << 20, patience: float = 60) -> None:
        self.tasks = Tasks()
        self.reads: list[tuple[int, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.shared = SharedReads(self._read, Neighbours(sockets, me), 32 << 20, lent, self.tasks, patience)

    async def _read(self, archive: str, key: str, start: int, end: int) -> bytes:
        self.reads.append((start, end))
        await self.open.wait()
        if key != KEY or archive != "main":
            raise NotFound(key)
        return bytes_of(start, end)

    async def get(self, start: int, end: int, anew: bool = False) -> bytes:
        return bytes(await self.shared.get_range("main", KEY, start, end, anew=anew))

    async def close(self) -> None:
        await self.tasks.close()
        self.shared.close()


def bytes_of(start: int, end: int) -> bytes:
    """Each four bytes say where they are."""
    return b"".join(at.to_bytes(4, "big") for at in range(start // 4, end // 4))


def of(owner: int) -> int:
    """The start of a stretch that this worker of two owns."""
    return next(start for start in range(0, 100 * STRETCH, STRETCH) if owner_of("main", KEY, start, 2) == owner)


@pytest.fixture
def sockets(tmp_path: Path) -> list[Path]:
    return [tmp_path / "0", tmp_path / "1"]


@pytest.fixture
async def workers(sockets: list[Path]) -> AsyncIterator[list[Worker]]:
    made = [Worker(sockets, 0), Worker(sockets, 1)]
    for worker in made:
        worker.shared.open()
    yield made
    for worker in made:
        await worker.close()


def test_every_worker_owns_its_part_and_all_agree() -> None:
    owners = [owner_of("main", f"segment-{n}", block * STRETCH, 4) for n in range(50) for block in range(8)]
    assert {owners.count(owner) for owner in range(4)} == {100}
    assert owner_of("main", KEY, 5, 4) == owner_of("main", KEY, STRETCH - 1, 4)


async def test_only_the_owner_reads_whoever_asks(workers: list[Worker]) -> None:
    """Megabytes, so that they come in many pieces; in the middle of a read, and when it is over."""
    first, second = workers
    at = of(1)
    second.open.clear()
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(worker.get(at, at + SIZE)) for worker in (first, second, first, first)]
        while not second.reads:
            await asyncio.sleep(0.001)
        second.open.set()
    assert all(answer.result() == bytes_of(at, at + SIZE) for answer in answers)
    assert await first.get(at + 400, at + 800) == bytes_of(at + 400, at + 800)
    assert (first.reads, second.reads) == ([], [(at, at + SIZE)])


async def test_what_was_damaged_is_read_anew_by_the_owner(workers: list[Worker]) -> None:
    first, second = workers
    at = of(1)
    await first.get(at, at + 400)
    assert await first.get(at, at + 400, anew=True) == bytes_of(at, at + 400)
    assert (first.reads, second.reads) == ([], [(at, at + 400)] * 2)


async def test_without_its_owner_one_reads_for_oneself(sockets: list[Path]) -> None:
    """The owner has never been there; then it is; then it was killed, and another has its seat."""
    first, owner = Worker(sockets, 0), Worker(sockets, 1)
    at = of(1)
    assert await first.get(at, at + 400) == bytes_of(at, at + 400)
    assert first.reads == [(at, at + 400)]
    owner.shared.open()
    patient = Worker(sockets, 0)
    assert await patient.get(at, at + 400) == bytes_of(at, at + 400)
    assert patient.reads == []
    await owner.close()
    successor = Worker(sockets, 1)
    successor.shared.open()  # at a socket that is still in the way
    assert await patient.get(at, at + 400) == bytes_of(at, at + 400)
    assert patient.reads == [(at, at + 400)], "the connection that it had kept leads nowhere"
    newcomer = Worker(sockets, 0)
    assert await newcomer.get(at, at + 400) == bytes_of(at, at + 400)
    assert (newcomer.reads, successor.reads) == ([], [(at, at + 400)])
    for worker in (first, patient, newcomer, successor):
        await worker.close()


async def test_a_slow_owner_is_not_waited_for_and_not_asked_again_at_once(sockets: list[Path]) -> None:
    hasty, owner = Worker(sockets, 0, patience=0.05), Worker(sockets, 1)
    owner.shared.open()
    owner.open.clear()
    at = of(1)
    assert await hasty.get(at, at + 400) == bytes_of(at, at + 400)
    assert (hasty.reads, owner.reads) == ([(at, at + 400)], [(at, at + 400)])
    await hasty.close()
    await owner.close()


async def test_an_owner_lends_no_more_than_it_may(sockets: list[Path]) -> None:
    first, owner = Worker(sockets, 0), Worker(sockets, 1, lent=1_000)
    owner.shared.open()
    owner.open.clear()
    at = of(1)
    waiting = asyncio.get_running_loop().create_task(first.get(at, at + 800))
    while not owner.reads:
        await asyncio.sleep(0.001)
    assert await first.get(at + 800, at + 1_600) == bytes_of(at + 800, at + 1_600)
    assert (first.reads, owner.reads) == ([(at + 800, at + 1_600)], [(at, at + 800)])
    owner.open.set()
    assert await waiting == bytes_of(at, at + 800)
    await first.get(at + 1_600, at + 2_000)
    assert owner.reads[1:] == [(at + 1_600, at + 2_000)], "it was not given up for having had enough to do"
    await first.close()
    await owner.close()


async def test_what_is_wrong_is_seen_by_whoever_asks(workers: list[Worker]) -> None:
    for worker in workers:
        with pytest.raises(NotFound):
            await worker.shared.get_range("main", "gone", 0, 400)
        with pytest.raises(NotFound):
            await worker.shared.get_range("elsewhere", KEY, 0, 400)
    assert await workers[0].get(0, 400) == await workers[1].get(0, 400) == bytes_of(0, 400)


async def test_who_gives_up_leaves_no_answer_for_the_next(workers: list[Worker]) -> None:
    first, owner = workers
    at = of(1)
    owner.open.clear()
    waiting = asyncio.get_running_loop().create_task(first.get(at, at + 400))
    while not owner.reads:
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    owner.open.set()
    assert await first.get(at + 400, at + 800) == bytes_of(at + 400, at + 800)
    assert first.reads == []
