"""When is looked: only while somebody looks, one survey at a time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from tests.unit.tierproxy.insight.pictures import CONFIG, archived, facts, part, topic
from tierproxy.archive.library import Library
from tierproxy.clock import Clock, ManualClock
from tierproxy.config.settings import Settings
from tierproxy.insight import watch as module
from tierproxy.insight.facts import Facts
from tierproxy.insight.watch import FRESH_MS, STALE, Watch

FOUND = facts(topic(part(0, 9, archived(0, 9))))


class Scripted:
    """Surveys that are over when the test says so."""

    def __init__(self, found: Facts, clock: Clock) -> None:
        self._found = found
        self.libraries: Mapping[str, Library] = {}
        self.looks = 0
        self.at_once = 0
        self.closed = False
        self.go = asyncio.Event()
        self._clock = clock

    async def look(self, before: Facts | None) -> Facts:
        self.looks += 1
        self.at_once += 1
        assert self.at_once == 1
        await self.go.wait()
        self.at_once -= 1
        return replace(self._found, at_ms=self._clock.now_ms(), proxied=self.looks)

    async def close(self) -> None:
        self.closed = True


class World:
    def __init__(self, rest_after: float = 3600.0) -> None:
        self.clock = ManualClock()
        self.found = FOUND
        self.made: list[Scripted] = []
        self.watch = Watch(Settings(CONFIG), self.clock, self._begin, rest_after)

    def _begin(self, in_force: Settings, clock: Clock) -> Scripted:
        self.made.append(Scripted(self.found, clock))
        return self.made[-1]

    async def turn(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def seen(self) -> int | None:
        """By which survey what is known was found."""
        found = await self.watch.facts()
        return found.proxied if found is not None else None


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for each in made.made:
        each.go.set()
    await made.watch.close()


async def test_nothing_is_asked_before_somebody_looks(world: World) -> None:
    await world.turn()
    assert world.made == []


async def test_who_comes_first_waits_but_not_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", 0.01)
    assert await world.seen() is None
    (survey,) = world.made
    survey.go.set()
    assert await world.seen() == 1


async def test_many_who_look_share_one_survey(world: World) -> None:
    looking = [asyncio.create_task(world.seen()) for _ in range(5)]
    await world.turn()
    world.made[0].go.set()
    assert [await each for each in looking] == [1] * 5
    assert [survey.looks for survey in world.made] == [1]


async def test_what_is_young_is_shown_at_once_and_not_asked_again(world: World) -> None:
    looking = asyncio.create_task(world.seen())
    await world.turn()
    (survey,) = world.made
    survey.go.set()
    await looking
    survey.go.clear()
    world.clock.advance(FRESH_MS / 1000 - 0.1)
    assert await world.seen() == 1
    assert survey.looks == 1
    world.clock.advance(0.2)
    assert await world.seen() == 1, "what is known is shown, and the next survey begins behind it"
    await world.turn()
    assert survey.looks == 2
    survey.go.set()
    await world.turn()
    assert await world.seen() == 2


async def test_of_very_many_partitions_is_asked_more_seldom() -> None:
    world = World()
    world.found = facts(topic(*(part(0, 9, archived(0, 9), number=n) for n in range(9000))))
    looking = asyncio.create_task(world.seen())
    await world.turn()
    (survey,) = world.made
    survey.go.set()
    await looking
    world.clock.advance(8.9)
    await world.seen()
    await world.turn()
    assert survey.looks == 1
    world.clock.advance(0.2)
    await world.seen()
    await world.turn()
    assert survey.looks == 2
    await world.watch.close()


async def test_what_is_old_is_waited_for(world: World) -> None:
    looking = asyncio.create_task(world.seen())
    await world.turn()
    world.made[0].go.set()
    await looking
    world.clock.advance(STALE * FRESH_MS / 1000)
    assert await world.seen() == 2


async def test_a_survey_that_takes_too_long_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SURVEY_WITHIN", 0.01)
    found = await world.watch.facts()
    assert found is not None
    assert found.problems == ("brokers and archives did not answer all questions within 0.01 s",)


async def test_when_nobody_looks_any_more_connections_are_closed() -> None:
    world = World(rest_after=0.02)
    looking = asyncio.create_task(world.seen())
    await world.turn()
    world.made[0].go.set()
    await looking
    world.clock.advance(1)
    while not world.made[0].closed:
        await asyncio.sleep(0.005)
    looking = asyncio.create_task(world.seen())
    await world.turn()
    assert len(world.made) == 2
    world.made[1].go.set()
    await looking
    await world.watch.close()
    assert world.made[1].closed
