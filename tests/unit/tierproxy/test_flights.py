import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest

from tierproxy.flights import Flights
from tierproxy.tasks import Tasks


class Source:
    """Something to fetch: every call is counted and lands, or fails, when told to."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[str]] = []
        self.called = asyncio.Condition()

    async def fetch(self) -> str:
        call: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with self.called:
            self.calls.append(call)
            self.called.notify_all()
        return await call

    async def until_called(self, times: int) -> None:
        async with self.called:
            await self.called.wait_for(lambda: len(self.calls) == times)


@pytest.fixture
async def flights() -> AsyncIterator[Flights[str, str]]:
    tasks = Tasks()
    yield Flights(tasks, "fetch of")
    await tasks.close()


def waiter(awaitable: Awaitable[str]) -> asyncio.Future[str]:
    return asyncio.ensure_future(awaitable)


async def test_one_flight_serves_all_who_wait(flights: Flights[str, str]) -> None:
    source = Source()
    first, second = waiter(flights.join("k", source.fetch)), waiter(flights.join("k", source.fetch))
    await source.until_called(1)
    source.calls[0].set_result("landed")
    assert [await first, await second] == ["landed", "landed"]
    assert len(source.calls) == 1


async def test_a_flight_that_has_not_begun_is_fresh_for_all_who_ask_until_then(flights: Flights[str, str]) -> None:
    source = Source()
    asked = [waiter(flights.fresh("k", source.fetch)) for _ in range(3)]
    await source.until_called(1)
    late = waiter(flights.fresh("k", source.fetch))
    await asyncio.sleep(0)
    source.calls[0].set_result("landed")
    assert [await each for each in asked] == ["landed"] * 3
    await source.until_called(2)
    source.calls[1].set_result("landed later")
    assert await late == "landed later"


async def test_who_gives_up_does_not_end_it(flights: Flights[str, str]) -> None:
    source = Source()
    first, second = waiter(flights.join("k", source.fetch)), waiter(flights.join("k", source.fetch))
    await source.until_called(1)
    first.cancel()
    source.calls[0].set_result("landed")
    assert await second == "landed"


async def test_a_failure_is_told_to_all_and_not_kept(flights: Flights[str, str]) -> None:
    source = Source()
    first, second = waiter(flights.join("k", source.fetch)), waiter(flights.join("k", source.fetch))
    await source.until_called(1)
    source.calls[0].set_exception(ValueError("lost"))
    for each in (first, second):
        with pytest.raises(ValueError, match="lost"):
            await each
    third = waiter(flights.join("k", source.fetch))
    await source.until_called(2)
    source.calls[1].set_result("landed")
    assert await third == "landed"


async def test_a_fresh_answer_never_comes_from_a_flight_that_began_before_the_question(
    flights: Flights[str, str],
) -> None:
    source = Source()
    old = waiter(flights.join("k", source.fetch))
    await source.until_called(1)
    fresh, also_fresh = waiter(flights.fresh("k", source.fetch)), waiter(flights.fresh("k", source.fetch))
    source.calls[0].set_result("old")
    assert await old == "old"
    await source.until_called(2)
    source.calls[1].set_result("new")
    assert [await fresh, await also_fresh] == ["new", "new"]
    assert len(source.calls) == 2


async def test_a_fresh_answer_without_a_flight_under_way_starts_one(flights: Flights[str, str]) -> None:
    source = Source()
    fresh = waiter(flights.fresh("k", source.fetch))
    await source.until_called(1)
    source.calls[0].set_result("new")
    assert await fresh == "new"


async def test_the_failure_of_the_flight_before_does_not_spoil_a_fresh_one(flights: Flights[str, str]) -> None:
    source = Source()
    old = waiter(flights.join("k", source.fetch))
    await source.until_called(1)
    fresh = waiter(flights.fresh("k", source.fetch))
    source.calls[0].set_exception(ValueError("lost"))
    with pytest.raises(ValueError, match="lost"):
        await old
    await source.until_called(2)
    source.calls[1].set_result("new")
    assert await fresh == "new"
