"""The admin port: /metrics for Prometheus, /live and /ready for whoever starts and stops processes, the dashboard.

*Live* means that the event loop turns; a process that isn't should be killed. *Ready* means that every part
that was started does its job; a process that isn't should get no new clients, and says why. A slow or broken
archive makes nobody unready: hot traffic does not need it.

Where a login is configured, all but /live and /ready ask for it. Where none is, the dashboard at least is not for pages
of strangers (`is_own_name`).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from tierproxy.admin_access import is_own_name, may_look
from tierproxy.config import AdminConfig
from tierproxy.errors import TierproxyError
from tierproxy.insight.site import Site
from tierproxy.telemetry import READY
from tierproxy.telemetry.pulse import exposition

_INDEX = "tierproxy\n\n/metrics  for Prometheus\n/live     is the process alive?\n/ready    does it serve clients?\n"
_OPEN = ("/live", "/ready")
"""For whoever asks: those who start processes can't always log in."""
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class PartHealth:
    ok: bool
    reason: str


class Readiness(Protocol):
    """What /ready shows."""

    @property
    def parts(self) -> Mapping[str, PartHealth]: ...

    @property
    def ready(self) -> bool: ...


class Health:
    """What each part last said of itself. Nobody is ready before some part has said so.

    `changed` is told what is new.
    """

    def __init__(self, changed: Callable[[str, PartHealth], None] = lambda name, part: None) -> None:
        self._parts: dict[str, PartHealth] = {}
        self._changed = changed

    def set(self, name: str, ok: bool, reason: str = "") -> None:
        """Part `name` does its job, or does not because of `reason` (a sentence for a person)."""
        part = PartHealth(ok, reason)
        if self._parts.get(name) != part:
            self._parts[name] = part
            READY.labels(name).set(ok)
            self._changed(name, part)

    @property
    def parts(self) -> Mapping[str, PartHealth]:
        return self._parts

    @property
    def ready(self) -> bool:
        return bool(self._parts) and all(part.ok for part in self._parts.values())


def _log() -> logging.Logger:
    log = logging.getLogger("tierproxy.admin")
    log.addFilter(_is_our_fault)
    return log


def _is_our_fault(record: logging.LogRecord) -> bool:
    """aiohttp logs a traceback for each request that is no HTTP: strangers would fill the log with them."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


class Admin:
    """The HTTP server of the admin port. `metrics` gives what /metrics shows; `site` is the dashboard, if there is to
    be one, and closed with the port."""

    def __init__(
        self,
        config: AdminConfig,
        health: Readiness,
        metrics: Callable[[], bytes] = exposition,
        site: Site | None = None,
    ) -> None:
        self._config = config
        self._health = health
        self._text = metrics
        self._site = site
        app = web.Application(middlewares=[self._let_in])
        if site is not None:
            site.mount(app.router)
        else:
            app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, logger=_log())

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, once started."""
        return [(address[0], address[1]) for address in self._runner.addresses]

    async def start(self) -> None:
        """Open the port. Raises TierproxyError when it can't be opened."""
        host, port = self._config.host, self._config.port
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            reason = error.strerror or error
            raise TierproxyError(f"the admin port {host}:{port} can't be opened: {reason} (admin.port)") from error

    async def close(self) -> None:
        """Close the port and its connections; harmless if it was never open."""
        await self._runner.cleanup()
        if self._site is not None:
            await self._site.close()

    @web.middleware
    async def _let_in(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path in _OPEN:
            return await handler(request)
        if not may_look(self._config, request.headers.get("Authorization")):
            challenge = {"WWW-Authenticate": 'Basic realm="tierproxy", charset="UTF-8"'}
            return web.Response(text="a login is needed\n", status=401, headers=challenge)
        open_to_all = self._config.asks_for_login or request.path == "/metrics"
        if self._site is not None and not open_to_all and self._config.is_local and not is_own_name(request.host):
            return web.Response(text="call this port by its address, or configure a login for it\n", status=403)
        return await handler(request)

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=_INDEX)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        parts = {
            name: {"ok": part.ok} | ({"reason": part.reason} if part.reason else {})
            for name, part in self._health.parts.items()
        }
        answer = {"ready": self._health.ready, "parts": parts}
        return web.json_response(answer, status=200 if self._health.ready else 503)
