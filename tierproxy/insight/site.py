"""The dashboard's addresses, as part of the admin port's server: read-only, nothing from elsewhere, nothing kept.

What takes long (pictures of many thousands of partitions, HTML) is made in a thread.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.clock import Clock
from tierproxy.config.settings import Settings
from tierproxy.errors import TierproxyError
from tierproxy.insight import pages
from tierproxy.insight.as_json import overview_json, process_json
from tierproxy.insight.overview import Overview, overview
from tierproxy.insight.picture import TopicPicture
from tierproxy.insight.told import Ask, Told
from tierproxy.insight.traffic import Traffic
from tierproxy.insight.watch import Watch

log = logging.getLogger("tierproxy.insight")
MANIFEST_WITHIN = 10.0
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FILES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Site:
    """`mount` it, and `close` it. `ask` has this tierproxy's processes tell of themselves."""

    def __init__(self, in_force: Settings, clock: Clock, watch: Watch, traffic: Traffic, ask: Ask) -> None:
        self._in_force = in_force
        self._clock = clock
        self._watch = watch
        self._traffic = traffic
        self._ask = ask
        self._seen: tuple[Overview, Mapping[str, str]] | None = None  # and the states that it was made with

    def mount(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self._front)
        router.add_get("/topic", self._topic)
        router.add_get("/status.json", self._status)
        router.add_get("/process.json", self._process)
        folder = files("tierproxy.insight") / "static"
        for name, kind in FILES.items():
            router.add_get(f"/{name}", partial(_file, (folder / name).read_bytes(), kind))

    async def close(self) -> None:
        await self._watch.close()

    async def _look(self) -> tuple[Overview | None, list[Told]]:
        told = [*await self._ask()]
        facts = await self._watch.facts()
        if facts is None:
            return None, told
        states = {name: state for each in told for name, state in each.states.items()}
        seen = self._seen
        if seen is None or seen[0].facts is not facts or seen[1] != states:
            seen = self._seen = await asyncio.to_thread(overview, facts, self._clock.now_ms(), states), states
        return seen[0], told

    async def _front(self, request: web.Request) -> web.Response:
        seen, told = await self._look()
        choice = pages.Choice.of(request.query)
        passing = self._traffic.look()
        return await self._html(pages.front, self._in_force.now, seen, passing, told, choice, self._clock.now_ms())

    async def _topic(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        seen, told = await self._look()
        found = None if seen is None else next((each for each in seen.topics if each.name == name), None)
        number = pages.page_number(request.query)
        detail = await self._detail(found, number)
        now_ms = self._clock.now_ms()
        if seen is not None and found is None:
            text = f"No archived topic is called {name!r}. Topics whose policy has no archive are not shown."
            return await self._html(pages.message_page, self._in_force.now, "No such topic", text, now_ms, status=404)
        about = seen, found, name, self._traffic.look(), told, detail
        return await self._html(pages.topic_page, self._in_force.now, *about, number, now_ms)

    async def _detail(self, topic: TopicPicture | None, page: int) -> pages.TopicDetail:
        """Manifests of what is shown; those that can't be read are left out, and the picture says why."""
        if topic is None:
            return pages.TopicDetail({})
        archive, topic_id = topic.facts.policy.archive, topic.facts.topic_id
        library = self._watch.survey.libraries.get(archive or "")
        if library is None:
            return pages.TopicDetail({})

        async def load(partition: int) -> tuple[int, Manifest | None]:
            try:
                async with asyncio.timeout(MANIFEST_WITHIN):
                    found = await library.load(PartitionId(topic.name, topic_id, partition))
            except (TierproxyError, TimeoutError) as error:
                log.debug("the manifest of %s-%d can't be shown: %s", topic.name, partition, error)
                return partition, None
            return partition, found.manifest if found is not None else None

        shown = pages.shown_partitions(topic, page)
        loaded = await asyncio.gather(*(load(part.partition) for part in shown))
        return pages.TopicDetail({number: manifest for number, manifest in loaded if manifest is not None})

    async def _status(self, _: web.Request) -> web.Response:
        seen, told = await self._look()
        passing = process_json(self._traffic.look(), told)
        if seen is None:
            return web.json_response({"looking": True, "process": passing}, status=503, headers=HEADERS)
        status = await asyncio.to_thread(overview_json, self._in_force.now, seen)
        return web.json_response(status | {"process": passing}, headers=HEADERS)

    async def _process(self, _: web.Request) -> web.Response:
        """What no survey is needed for: `tierproxy status` makes its own."""
        told = await self._ask()
        return web.json_response(process_json(self._traffic.look(), told), headers=HEADERS)

    async def _html(self, render: Callable[..., str], *values: Any, status: int = 200) -> web.Response:
        text = await asyncio.to_thread(render, *values)
        return web.Response(text=text, content_type="text/html", status=status, headers=HEADERS)


async def _file(data: bytes, kind: str, _: web.Request) -> web.Response:
    return web.Response(body=data, content_type=kind, charset="utf-8", headers=HEADERS)


def site(in_force: Settings, clock: Clock, registry: CollectorRegistry, ask: Ask) -> Site | None:
    """The dashboard that the configuration wants, if it wants one; `registry` has the metrics of all processes."""
    admin = in_force.now.admin
    if admin is None or not admin.shows_dashboard:
        return None
    return Site(in_force, clock, Watch(in_force, clock), Traffic(registry, clock), ask)
