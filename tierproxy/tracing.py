"""Traces of cold fetches by OpenTelemetry: where one was slow. Off, and for nothing, unless its variables ask for it.

A fetch is a span; what is read for it (manifests, indexes, ranges, unpacking) are spans below it. Tasks inherit the
span that is current where they are made, so what several fetches wait for is below the first of them.

The packages are optional (`tierproxy[otel]`) and imported when they are needed. Which collector, how many of the
traces, which names: all by the variables that OpenTelemetry defines, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tierproxy import __version__
from tierproxy.telemetry import OncePerChange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Tracer

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("tierproxy.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Either of these variables switches it on."""

LAST_SECONDS = 2.0
"""For what has not been sent when the process ends."""

_tracer: "Tracer | None" = None


def active() -> bool:
    """Whether somebody wants traces."""
    return _tracer is not None


def use(tracer: "Tracer | None") -> None:
    """Trace with this from now on; None: no more."""
    global _tracer
    _tracer = tracer


def traced(name: str) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Each call is a span. Where nobody wants traces the call is as it would be without this, but for one question."""

    def of(work: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
            tracer = _tracer
            return work(*args, **kwargs) if tracer is None else spanned(tracer, *args, **kwargs)

        async def spanned(tracer: "Tracer", *args: P.args, **kwargs: P.kwargs) -> T:
            with tracer.start_as_current_span(name, record_exception=False):
                return await work(*args, **kwargs)

        return run

    return of


def note(**attributes: str | int | float) -> None:
    """Say more of the span that is current."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(attributes)


class Tracing:
    """Between `start` and `close` traces go where the environment says, if it says anything."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None

    def start(self, environ: Mapping[str, str]) -> None:
        """Without the packages one line says so, and there are no traces."""
        where = next((environ[name] for name in reversed(ENDPOINTS) if environ.get(name)), None)
        if where is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return
        try:
            self._provider = _provider(environ, where)
        except ImportError as error:
            log.warning("there are no traces: %s; install tierproxy[otel], or leave OTEL_… out", error)
            return
        use(self._provider.get_tracer("tierproxy", __version__))
        log.info("traces of cold fetches go to %s", where.partition("?")[0].rpartition("@")[2])

    async def close(self) -> None:
        """Send what is left, for a moment. A thread that waits for a collector must not hold up the process's end."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        use(None)
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is gone: it took too long
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), LAST_SECONDS)


def _provider(environ: Mapping[str, str], where: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.version": __version__}
    if "OTEL_SERVICE_NAME" not in environ and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        about["service.name"] = "tierproxy"
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_said_once(OTLPSpanExporter())))
    return provider


def _said_once(exporter: "SpanExporter") -> "SpanExporter":
    """It sends by `exporter`, and says once when that fails, where OpenTelemetry would say it every five seconds."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    trouble = OncePerChange(log)

    class SaidOnce(SpanExporter):
        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = exporter.export(spans)
            if result is SpanExportResult.SUCCESS:
                trouble.ended("traces", "traces can be sent again")
            else:
                trouble.began("traces", "traces can't be sent to their collector (OTEL_EXPORTER_OTLP_…); they are lost")
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return SaidOnce()
