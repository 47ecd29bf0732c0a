"""The admin port: /metrics for Prometheus, /live and /ready for whoever starts and stops processes.

*Live* means that the event loop turns; a process that isn't should be killed. *Ready* means that every part
that was started does its job; a process that isn't should get no new clients, and says why. A slow or broken
archive makes nobody unready: hot traffic does not need it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from tierproxy.config import AdminConfig
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import READY
from tierproxy.telemetry.pulse import exposition

_INDEX = "tierproxy\n\n/metrics  for Prometheus\n/live     is the process alive?\n/ready    does it serve clients?\n"


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
    """The HTTP server of the admin port. `metrics` gives what /metrics shows."""

    def __init__(self, config: AdminConfig, health: Readiness, metrics: Callable[[], bytes] = exposition) -> None:
        self._config = config
        self._health = health
        self._text = metrics
        app = web.Application()
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
            raise TierproxyError(f"the admin port {host}:{port} can't be opened: {reason}") from error

    async def close(self) -> None:
        """Close the port and its connections; harmless if it was never open."""
        await self._runner.cleanup()

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
