import asyncio
import logging
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tierproxy import tracing
from tierproxy.tracing import Tracing, active, note, traced, use


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(provider.get_tracer("test"))
    yield exporter
    use(None)
    provider.shutdown()


@traced("outer")
async def outer() -> int:
    note(topic="t", offset=5)
    inner = asyncio.get_running_loop().create_task(work(1))
    return await inner + await work(2)


@traced("inner")
async def work(number: int) -> int:
    if number < 0:
        raise ValueError("no")
    return number


async def test_what_is_awaited_is_below_who_awaits_it_tasks_too(spans: InMemorySpanExporter) -> None:
    assert await outer() == 3
    *inner, top = spans.get_finished_spans()
    assert (top.name, dict(top.attributes or {})) == ("outer", {"topic": "t", "offset": 5})
    assert top.context is not None
    assert [(each.name, each.parent and each.parent.span_id) for each in inner] == [("inner", top.context.span_id)] * 2


async def test_what_fails_is_a_span_that_says_so(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="no"):
        await work(-1)
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
    assert not span.events, "no traceback goes to strangers"


# -- off, and switched on ---------------------------------------------------------------------------------------------


async def test_off_it_is_the_work_itself() -> None:
    assert not active()
    note(topic="t")
    coroutine = work(1)
    assert coroutine.cr_code.co_name == "work", "nothing around it"  # type: ignore[attr-defined]
    assert await coroutine == 1


async def test_it_is_off_unless_the_environment_asks_for_it() -> None:
    for environ in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}):
        Tracing().start(environ)
        assert not active()


async def test_the_environment_switches_it_on_and_no_secret_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy.tracing")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@127.0.0.1:9/?key=secret"}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
    tracing = Tracing()
    tracing.start(environ)
    assert active()
    assert caplog.messages == ["traces of cold fetches go to 127.0.0.1:9/"]
    await tracing.close()
    assert not active()


async def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    came: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def collect(request: web.Request) -> web.Response:
        came.put_nowait((request.path, await request.read()))
        return web.Response()

    collector = web.Application()
    collector.router.add_post("/v1/traces", collect)
    async with TestServer(collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("/")))
        tracing = Tracing()
        tracing.start({"OTEL_EXPORTER_OTLP_ENDPOINT": str(server.make_url("/"))})
        await work(1)
        await tracing.close()
        path, body = await asyncio.wait_for(came.get(), 60)
    assert path == "/v1/traces"
    assert b"inner" in body
    assert b"tierproxy" in body


async def test_without_the_packages_a_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing = Tracing()
    tracing.start({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert not active()
    assert "install tierproxy[otel]" in caplog.text
    await tracing.close()


def test_a_collector_that_is_away_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tierproxy.tracing")
    results = [SpanExportResult.FAILURE] * 50 + [SpanExportResult.SUCCESS]

    class Away(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return results.pop(0)

    exporter = tracing._said_once(Away())
    nothing: list[ReadableSpan] = []
    for _ in range(51):
        exporter.export(nothing)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
