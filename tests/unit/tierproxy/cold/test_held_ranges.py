import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.store import Unavailable
from tierproxy.cold.held_ranges import HeldRanges
from tierproxy.tasks import Tasks

DATA = bytes(range(256)) * 4


class Shelf:
    """Reads of one object, written down; they wait while it is closed, and fail while it is broken."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False

    async def read(self, archive: str, key: str, start: int, end: int) -> bytes:
        self.reads.append((start, end))
        await self.open.wait()
        if self.broken:
            raise Unavailable("the store is down")
        return DATA[start:end]


async def get(held: HeldRanges, start: int, end: int) -> bytes:
    return b"".join(await held.get("main", "key", start, end))


async def test_what_is_on_its_way_or_held_is_not_read_again() -> None:
    shelf = Shelf()
    held = HeldRanges(shelf.read, 1 << 20, Tasks())
    shelf.open.clear()
    asked = [(100, 200), (100, 200), (120, 150), (50, 120), (150, 250), (0, 300)]
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(get(held, *each)) for each in asked]
        await asyncio.sleep(0)  # all have asked
        shelf.open.set()
    assert [answer.result() for answer in answers] == [DATA[start:end] for start, end in asked]
    assert sorted(shelf.reads) == [(0, 50), (50, 100), (100, 200), (200, 250), (250, 300)]
    assert await get(held, 10, 290) == DATA[10:290]
    assert len(shelf.reads) == 5


async def test_what_failed_is_told_and_read_again() -> None:
    shelf = Shelf()
    held = HeldRanges(shelf.read, 1 << 20, Tasks())
    await get(held, 0, 10)
    shelf.broken = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await get(held, 5, 20)
    shelf.broken = False
    assert await get(held, 5, 20) == DATA[5:20]
    assert shelf.reads == [(0, 10), (10, 20), (10, 20), (10, 20)]


async def test_what_is_damaged_is_forgotten() -> None:
    shelf = Shelf()
    held = HeldRanges(shelf.read, 1 << 20, Tasks())
    for start in (0, 10, 20):
        await get(held, start, start + 10)
    held.forget("main", "key", 12, 15)
    held.forget("main", "other", 0, 100)
    assert held.size == 20
    assert await get(held, 0, 30) == DATA[:30]
    assert shelf.reads[3:] == [(10, 20)]


async def test_who_gives_up_waiting_ends_no_read() -> None:
    shelf = Shelf()
    held = HeldRanges(shelf.read, 1 << 20, Tasks())
    shelf.open.clear()
    impatient = asyncio.get_running_loop().create_task(get(held, 0, 10))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    shelf.open.set()
    assert await get(held, 0, 10) == DATA[:10]
    assert shelf.reads == [(0, 10)]


ranges = st.tuples(st.integers(0, 1000), st.integers(1, 200)).map(lambda r: (r[0], min(r[0] + r[1], len(DATA))))


@given(st.lists(ranges, max_size=40), st.integers(0, 2_000))
def test_bytes_are_right_and_memory_is_bounded_whatever_is_asked(asked: list[tuple[int, int]], memory: int) -> None:
    async def play() -> None:
        shelf = Shelf()
        held = HeldRanges(shelf.read, memory, Tasks())
        for start, end in asked:
            assert await get(held, start, end) == DATA[start:end]
            assert held.size <= max(memory, 200)
        if memory >= len(DATA):
            assert max(Counter(at for start, end in shelf.reads for at in range(start, end)).values(), default=1) == 1

    asyncio.run(play())
