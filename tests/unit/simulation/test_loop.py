"""tests.simulation.loop: time that passes by itself, and processes that are stopped and killed."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.simulation.loop import Deadlock, Livelock, Process, VirtualLoop, answered


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


def test_hours_pass_in_no_time(loop: VirtualLoop) -> None:
    loop.run_until_complete(asyncio.sleep(36_000))
    assert loop.time() == 36_000


def test_work_for_threads_is_done_here(loop: VirtualLoop) -> None:
    async def work() -> int:
        return await asyncio.to_thread(sum, [1, 2])

    assert loop.run_until_complete(work()) == 3


def test_what_can_never_go_on_is_said(loop: VirtualLoop) -> None:
    waiting = loop.create_task(asyncio.Event().wait())
    with pytest.raises(Deadlock):
        loop.run_until_complete(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)


def test_what_never_waits_is_said(loop: VirtualLoop) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    task = loop.create_task(spin())
    with pytest.raises(Livelock):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


async def _tick(loop: VirtualLoop, ticks: list[float]) -> None:
    while True:
        await asyncio.sleep(1)
        ticks.append(loop.time())


def test_a_frozen_process_misses_its_timers_and_finds_them_due(loop: VirtualLoop) -> None:
    process, ticks = Process("p", loop), list[float]()
    process.begin(_tick(loop, ticks), "ticks")
    loop.run_until_complete(asyncio.sleep(2.5))
    process.freeze()
    loop.run_until_complete(asyncio.sleep(10))
    assert ticks == [1, 2]
    process.thaw()
    loop.run_until_complete(asyncio.sleep(1.2))
    assert ticks == [1, 2, 12.5, 13.5]
    process.kill()
    loop.run_until_complete(asyncio.sleep(10))
    assert ticks == [1, 2, 12.5, 13.5]


def test_what_a_process_began_has_its_effect_after_its_death(loop: VirtualLoop) -> None:
    process, effects = Process("p", loop), list[str]()

    async def ask() -> None:
        await answered(loop, 5, lambda: effects.append("written"), 1)
        effects.append("heard")

    async def asked_later() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            process.must_live()
            effects.append("said goodbye")

    process.begin(ask(), "ask")
    process.begin(asked_later(), "later")
    loop.run_until_complete(asyncio.sleep(1))
    process.kill()
    loop.run_until_complete(asyncio.sleep(100))
    assert effects == ["written"]
