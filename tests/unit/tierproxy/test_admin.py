import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tierproxy.admin import Admin, Health, PartHealth
from tierproxy.config import AdminConfig
from tierproxy.errors import TierproxyError
from tierproxy.telemetry import COLD_FETCHES


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def url(health: Health) -> AsyncIterator[str]:
    admin = Admin(AdminConfig(port=free_port()), health)
    await admin.start()
    ((host, port),) = admin.addresses
    yield f"http://{host}:{port}"
    await admin.close()


async def ask(url: str) -> tuple[int, object]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.json()


async def test_ready_says_who_is_not_and_why(url: str, health: Health) -> None:
    assert await ask(f"{url}/ready") == (503, {"ready": False, "parts": {}})
    health.set("gateway", True)
    health.set("archiver", False, "no broker answers")
    parts = {"gateway": {"ok": True}, "archiver": {"ok": False, "reason": "no broker answers"}}
    assert await ask(f"{url}/ready") == (503, {"ready": False, "parts": parts})
    health.set("archiver", True)
    status, answer = await ask(f"{url}/ready")
    assert (status, answer) == (200, {"ready": True, "parts": {"gateway": {"ok": True}, "archiver": {"ok": True}}})


def test_what_changes_is_passed_on_and_nothing_else() -> None:
    told: list[tuple[str, PartHealth]] = []
    health = Health(lambda *news: told.append(news))
    for ok, reason in ((True, ""), (True, ""), (False, "no broker answers"), (False, "stopping"), (True, "")):
        health.set("gateway", ok, reason)
    assert [part for _, part in told] == [
        PartHealth(True, ""),
        PartHealth(False, "no broker answers"),
        PartHealth(False, "stopping"),
        PartHealth(True, ""),
    ]


async def test_live_does_not_depend_on_being_ready(url: str) -> None:
    assert await ask(f"{url}/live") == (200, {"live": True})


async def test_metrics_are_in_prometheus_text(url: str) -> None:
    COLD_FETCHES.inc()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/metrics") as answer:
            text = await answer.text()
            assert answer.content_type == "text/plain"
        async with session.get(f"{url}/") as answer:
            assert "/metrics" in await answer.text()
        async with session.post(f"{url}/ready") as answer:
            assert answer.status == 405
    assert "# TYPE tierproxy_cold_fetches_total counter" in text


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        admin = Admin(AdminConfig(port=holder.getsockname()[1]), Health())
        with pytest.raises(TierproxyError, match=r"the admin port 127\.0\.0\.1:\d+ can't be opened"):
            await admin.start()
        await admin.close()


async def test_what_is_no_http_is_answered_and_not_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    host, port = url.removeprefix("http://").split(":")
    for request in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\x10\0\x12\0\3\n\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        assert b" 400 " in await reader.readline()
        writer.close()
    assert caplog.records == []
    assert (await ask(f"{url}/live"))[0] == 200
