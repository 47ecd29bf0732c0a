"""When the cluster is surveyed: only while somebody looks, one survey at a time, and not again for some seconds.

Who looks gets what is known at once if it is young enough, and a new survey begins behind them; else they wait for one,
but not for long. When nobody has looked for a while, all connections are closed again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from tierproxy.archive.library import Library
from tierproxy.clock import Clock
from tierproxy.config.settings import Settings
from tierproxy.insight.facts import Facts
from tierproxy.insight.survey import Survey
from tierproxy.tasks import Tasks

FRESH_MS = 4_000
"""Facts younger than this are not asked for again; or than a ms for each partition, if there are so many."""
STALE = 5
"""Facts so many times older are waited for."""
WAIT = 5.0
"""Seconds, at the most."""
SURVEY_WITHIN = 120.0
REST_AFTER = 120.0
"""Seconds without a look."""


class Looks(Protocol):
    """See Survey."""

    libraries: Mapping[str, Library]

    async def look(self, before: Facts | None) -> Facts: ...

    async def close(self) -> None: ...


class Watch:
    """`close` it. `begin` makes what looks."""

    def __init__(
        self,
        in_force: Settings,
        clock: Clock,
        begin: Callable[[Settings, Clock], Looks] = Survey,
        rest_after: float = REST_AFTER,
    ) -> None:
        self._in_force = in_force
        self._clock = clock
        self._begin = begin
        self._rest_after = rest_after
        self._tasks = Tasks()
        self._survey: Looks | None = None
        self._facts: Facts | None = None
        self._flight: asyncio.Task[Facts] | None = None
        self._looked_at = 0.0

    @property
    def survey(self) -> Looks:
        """The one at work, for what is asked about a single topic."""
        self._looked_at = self._clock.monotonic()
        if self._survey is None:
            self._survey = self._begin(self._in_force, self._clock)
            self._tasks.spawn(self._rest(), "rest of the survey")
        return self._survey

    async def facts(self) -> Facts | None:
        """What is known now; None while the first survey goes on."""
        survey = self.survey
        known = self._facts
        fresh_ms = max(FRESH_MS, known.partitions if known is not None else 0)
        age = self._clock.now_ms() - known.at_ms if known is not None else STALE * fresh_ms
        if self._flight is None and age >= fresh_ms:
            self._flight = self._tasks.spawn(self._ask(survey), "survey")
        if self._flight is not None and age >= STALE * fresh_ms:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(self._flight), WAIT)
        return self._facts

    async def close(self) -> None:
        await self._tasks.close()
        await self._end()

    async def _ask(self, survey: Looks) -> Facts:
        try:
            async with asyncio.timeout(SURVEY_WITHIN):
                self._facts = await survey.look(self._facts)
        except TimeoutError:
            late = f"brokers and archives did not answer all questions within {SURVEY_WITHIN:g} s"
            self._facts = replace(self._facts or Facts(self._clock.now_ms(), None, {}), problems=(late,))
        finally:
            self._flight = None
        return self._facts

    async def _rest(self) -> None:
        while True:
            await asyncio.sleep(self._rest_after / 4)
            if self._flight is None and self._clock.monotonic() - self._looked_at >= self._rest_after:
                break
        await self._end()

    async def _end(self) -> None:
        survey, self._survey = self._survey, None
        if survey is not None:
            await survey.close()
