"""Workers are asked what they are at: those that answer are heard, those that don't are not waited for."""

import asyncio
import socket
from typing import Any

import pytest

from tierproxy.insight.told import Told
from tierproxy.workers import answers as module
from tierproxy.workers.answers import Answers
from tierproxy.workers.channel import Channel


def told(who: str) -> Told:
    return Told(who, {"copy": 1}, {}, ())


class Worker:
    """The other end of a channel, which answers or doesn't."""

    def __init__(self, name: str, answers: Answers, answering: bool = True) -> None:
        self.name = name
        self.asked: list[int] = []
        self._answering = answering
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours, lambda said, _: answers.heard(name, said["told"], said["asked"]), lambda: None)
        self._end = Channel(theirs, self._heard, lambda: None)

    def _heard(self, message: dict[str, Any], _: socket.socket | None) -> None:
        self.asked.append(message["tell"])
        if self._answering:
            self.answer(message["tell"])

    def answer(self, asked: int) -> None:
        self._end.say({"told": told(self.name).to_json(), "asked": asked})

    def close(self) -> None:
        self.channel.close()
        self._end.close()


async def test_all_are_heard_in_their_order() -> None:
    answers = Answers()
    workers = [Worker(name, answers) for name in ("gateway-1", "gateway-2", "archiver")]
    found = await answers.of({worker.name: worker.channel for worker in workers})
    assert found == [told("gateway-1"), told("gateway-2"), told("archiver")]
    assert await answers.of({}) == []
    for worker in workers:
        worker.close()


async def test_who_is_late_is_left_out_and_does_not_answer_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WITHIN", 0.05)
    answers = Answers()
    quick, late = Worker("quick", answers), Worker("late", answers, answering=False)
    channels = {worker.name: worker.channel for worker in (quick, late)}
    assert await answers.of(channels) == [told("quick")]
    asking = asyncio.create_task(answers.of(channels))
    while len(late.asked) < 2:
        await asyncio.sleep(0)
    late.answer(late.asked[0])
    assert await asking == [told("quick")]
    for worker in (quick, late):
        worker.close()
