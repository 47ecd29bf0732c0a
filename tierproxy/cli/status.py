"""`tierproxy status`: the dashboard in a terminal. It looks for itself, whether or not a tierproxy runs.

What only a process that runs can tell (its troubles, what passes through it) is asked at the admin port of the same
configuration, if somebody answers there.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import ExitStack

import aiohttp
from rich.live import Live
from rich.text import Text

from tierproxy.admin_access import login
from tierproxy.cli.output import print_json, tables, waiting
from tierproxy.cli.status_view import Process, status_view
from tierproxy.clock import Clock, SystemClock
from tierproxy.config import Config
from tierproxy.config.patterns import takes
from tierproxy.config.settings import Settings
from tierproxy.errors import TierproxyError
from tierproxy.insight.as_json import overview_json
from tierproxy.insight.facts import Facts
from tierproxy.insight.overview import Overview, overview
from tierproxy.insight.picture import Level
from tierproxy.insight.survey import Survey
from tierproxy.insight.words import time_text
from tierproxy.telemetry import setup_logging

ADMIN_WITHIN = 3.0


def run_status(config: Config, topics: Sequence[str], as_json: bool, every: float | None) -> bool:
    """Show it, once or every so many seconds until it is interrupted; True if nothing needs anybody."""
    setup_logging("error")
    logging.getLogger("tierproxy.upstream").setLevel(logging.CRITICAL)  # the status says it better
    try:
        return asyncio.run(_run(config, topics, as_json, every, SystemClock()))
    except KeyboardInterrupt:  # the way to end --watch
        return True


async def _run(config: Config, topics: Sequence[str], as_json: bool, every: float | None, clock: Clock) -> bool:
    survey = Survey(Settings(config), clock)
    try:
        if every is None:
            with waiting("asking brokers and archives …"):
                seen, process = await _look(config, survey, None, topics, clock)
            if as_json:
                print_json(overview_json(config, seen) | {"process": process.said})
            else:
                console = tables()
                console.print(status_view(config, seen, process, console.width))
            return seen.level < Level.BAD
        await _watch(config, survey, topics, every, clock)
        return True
    finally:
        await survey.close()


async def _watch(config: Config, survey: Survey, topics: Sequence[str], every: float, clock: Clock) -> None:
    """On a screen of its own; where nobody looks, one after the other."""
    console = tables()
    before: Facts | None = None
    with ExitStack() as screen:
        live = None
        if console.is_terminal:
            live = screen.enter_context(Live(Text("asking brokers and archives …"), console=console, screen=True))
        while True:
            seen, process = await _look(config, survey, before, topics, clock)
            before, view = seen.facts, status_view(config, seen, process, console.width)
            if live is not None:
                live.update(view, refresh=True)
            else:
                console.print(f"{time_text(clock.now_ms())}\n", view, "")
            await asyncio.sleep(every)


async def _look(
    config: Config, survey: Survey, before: Facts | None, topics: Sequence[str], clock: Clock
) -> tuple[Overview, Process]:
    def asked_for(topic: str) -> bool:
        return not topics or any(takes(each, topic) for each in topics)

    facts, process = await asyncio.gather(survey.look(before, asked_for, whole=before is None), ask_process(config))
    for each in topics:
        if not facts.problems and not any(takes(each, topic) for topic in facts.topics):
            raise TierproxyError(f"no archived topic is called {each}; tierproxy check shows which policy takes which")
    states = {name: state for told in process.told for name, state in told.states.items()}
    return overview(facts, clock.now_ms(), states), process


async def ask_process(config: Config) -> Process:
    """What the tierproxy with this configuration says that runs on this machine. Raises nothing."""
    admin = config.admin
    if admin is None or not admin.shows_dashboard:
        return Process(None)
    host = admin.host if admin.is_local else {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(admin.host, admin.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{admin.port}/process.json"
    timeout = aiohttp.ClientTimeout(total=ADMIN_WITHIN)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=login(admin)) as answer:
            if answer.status != 200:
                return Process(None, f"{url} answers {answer.status}: is this configuration that of the process?")
            return Process(await answer.json())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error) or "too late"
        return Process(None, f"no tierproxy answers at {url}, so what one is at isn't shown ({why})")
