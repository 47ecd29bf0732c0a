"""Asks all workers what they are at, and waits a moment for what they say."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from tierproxy.insight.told import Told
from tierproxy.workers.channel import Channel

log = logging.getLogger("tierproxy.workers")

WITHIN = 1.0
"""Seconds; who is busier than that is left out."""


class Answers:
    """Questions have numbers, so that a late answer isn't taken for one to the next question."""

    def __init__(self) -> None:
        self._asked = 0
        self._open: dict[int, dict[str, asyncio.Future[Told]]] = {}

    async def of(self, channels: Mapping[str, Channel]) -> list[Told]:
        """What those say that answer in time, in their order."""
        self._asked += 1
        asked = self._asked
        loop = asyncio.get_running_loop()
        waiting = self._open[asked] = {name: loop.create_future() for name in channels}
        for channel in channels.values():
            channel.say({"tell": asked})
        try:
            if waiting:
                await asyncio.wait(waiting.values(), timeout=WITHIN)
        finally:
            del self._open[asked]
        return [answer.result() for answer in waiting.values() if answer.done() and not answer.cancelled()]

    def heard(self, name: str, told: Mapping[str, Any], asked: int) -> None:
        answer = self._open.get(asked, {}).get(name)
        if answer is not None and not answer.done():
            answer.set_result(Told.from_json(told))
