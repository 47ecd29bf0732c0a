"""Work that may never end, and what becomes of those who wait for it."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierproxy.cold.disk_threads import DiskThreads


@pytest.fixture
async def threads() -> AsyncIterator[DiskThreads]:
    made = DiskThreads(1, "test")
    yield made
    made.close()


async def test_it_gives_what_the_work_gives_or_raises(threads: DiskThreads) -> None:
    assert await threads.answer(lambda: threading.current_thread().name, 60) == "test-0"
    with pytest.raises(ZeroDivisionError):
        await threads.answer(lambda: 1 // 0, 60)
    assert threads.hanging == 0


async def test_what_hangs_is_given_up_and_seen_until_it_ends(threads: DiskThreads) -> None:
    release, behind = threading.Event(), list[int]()
    for work in (release.wait, lambda: behind.append(1)):
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            await threads.answer(work, 0.05)
    assert threads.hanging == 2
    release.set()
    assert await threads.answer(lambda: 5, 60) == 5
    assert threads.hanging == 0


async def test_who_leaves_is_not_hanging(threads: DiskThreads) -> None:
    release = threading.Event()
    waiting = asyncio.create_task(threads.answer(release.wait, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    assert await threads.answer(lambda: 5, 60) == 5
    assert threads.hanging == 0


async def test_after_the_end_nothing_is_begun() -> None:
    threads, done = DiskThreads(1, "test"), list[int]()
    begun, release = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return release.wait()

    first = asyncio.create_task(threads.answer(work, 60))
    second = asyncio.create_task(threads.answer(lambda: done.append(1), 60))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    threads.close()
    release.set()
    assert await first
    with pytest.raises(OSError, match="not used any more"):
        await second
    assert done == []


def test_the_process_ends_though_a_thread_does_not() -> None:
    program = """
import asyncio, threading
from tierproxy.cold.disk_threads import DiskThreads
async def main():
    try:
        await DiskThreads(1, "test").answer(threading.Event().wait, 0.05)
    except TimeoutError:
        print("late")
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[4],
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.returncode) == ("late\n", 0)
