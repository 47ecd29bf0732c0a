import asyncio
import logging

import pytest

from tierproxy.tasks import Tasks


async def _forever(started: asyncio.Event, ended: list[str]) -> None:
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def test_a_task_gives_its_result_and_is_forgotten() -> None:
    tasks = Tasks()

    async def answer() -> int:
        return 42

    task = tasks.spawn(answer(), "answer")
    assert task.get_name() == "answer"
    assert len(tasks) == 1
    assert await task == 42
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_crash_is_logged_with_its_traceback_and_told_to_the_owner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[tuple[str, str]] = []
    tasks = Tasks(on_crash=lambda name, error: told.append((name, str(error))))

    async def fail() -> None:
        raise ValueError("boom")

    with caplog.at_level(logging.ERROR, "tierproxy.tasks"):
        await asyncio.wait([tasks.spawn(fail(), "copier")])
        await asyncio.sleep(0)
    assert told == [("copier", "boom")]
    (record,) = caplog.records
    assert record.getMessage() == "task copier crashed"
    assert record.exc_info is not None


async def test_close_cancels_waits_and_reports_nothing(caplog: pytest.LogCaptureFixture) -> None:
    tasks, started, ended = Tasks(), asyncio.Event(), list[str]()
    task = tasks.spawn(_forever(started, ended), "loop")
    await started.wait()
    await tasks.close()
    await tasks.close()
    assert task.cancelled()
    assert ended == ["ended"]
    assert caplog.records == []


async def test_close_from_inside_spares_the_caller() -> None:
    tasks, started, ended = Tasks(), asyncio.Event(), list[str]()
    tasks.spawn(_forever(started, ended), "loop")

    async def stop_all() -> str:
        await started.wait()
        await tasks.close()
        return "survived"

    assert await tasks.spawn(stop_all(), "stopper") == "survived"
    assert ended == ["ended"]


async def test_nothing_starts_after_close() -> None:
    tasks = Tasks()
    await tasks.close()

    async def late() -> None:
        raise AssertionError("must never run")

    with pytest.raises(RuntimeError, match="'late' was started after"):
        tasks.spawn(late(), "late")


async def test_a_task_that_ignores_its_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    tasks, release, started = Tasks(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()

    task = tasks.spawn(stubborn(), "stubborn")
    await started.wait()
    await tasks.close(grace=0)
    assert "task stubborn did not stop" in caplog.text
    release.set()
    await task
