"""The dashboard's addresses at the admin port: who gets in, what is sent along; and nothing can be changed there."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from tests.unit.tierproxy.insight.pictures import CONFIG, NOW, archived, facts, part, topic
from tests.unit.tierproxy.test_admin import free_port
from tierproxy.admin import Admin, Health
from tierproxy.admin_access import login
from tierproxy.archive.library import Library
from tierproxy.archive.store_file import FileStore
from tierproxy.clock import Clock, ManualClock
from tierproxy.config import AdminConfig
from tierproxy.config.settings import Settings
from tierproxy.insight.facts import Facts
from tierproxy.insight.site import FILES, Site
from tierproxy.insight.told import Told, told_here
from tierproxy.insight.traffic import Traffic
from tierproxy.insight.watch import Watch

PAGES = ("/", "/topic?name=payments", "/status.json", "/process.json", *(f"/{name}" for name in FILES))
SECRET = "t0p-secret"


class Found:
    """A survey that knows already."""

    def __init__(self, in_force: Settings, clock: Clock) -> None:
        self.libraries: Mapping[str, Library] = {"main": Library(FileStore(Path("/nonexistent")), "prod")}

    async def look(self, before: Facts | None) -> Facts:
        return facts(topic(part(80, 120, archived(0, 100)), name="payments"))

    async def close(self) -> None:
        for library in self.libraries.values():
            await library.store.close()


@asynccontextmanager
async def serving(config: AdminConfig) -> AsyncIterator[str]:
    clock = ManualClock(NOW)

    async def ask() -> list[Told]:
        return [told_here("", {})]

    whole = Settings(CONFIG.model_copy(update={"admin": config}))
    site = Site(whole, clock, Watch(whole, clock, Found), Traffic(CollectorRegistry(), clock), ask)
    admin = Admin(config, Health(), site=site)
    await admin.start()
    ((host, port),) = admin.addresses
    try:
        yield f"http://{host}:{port}"
    finally:
        await admin.close()


@asynccontextmanager
async def asking(url: str, method: str = "GET", **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        yield answer


async def status(url: str, method: str = "GET", **headers: str) -> int:
    async with asking(url, method, **headers) as answer:
        return answer.status


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving(AdminConfig(port=free_port())) as found:
        yield found


async def test_every_address_may_only_be_read(url: str) -> None:
    for page in PAGES:
        assert await status(url + page) == 200, page
        assert await status(url + page, "HEAD") == 200, page
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert await status(url + page, method) == 405, page


async def test_a_browser_is_told_to_load_nothing_from_elsewhere(url: str) -> None:
    for page in (*PAGES, "/topic?name=nobody"):
        async with asking(url + page) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Content-Type"].startswith(
                ("text/html", "application/json", "text/css", "text/javascript", "image/svg+xml")
            )


async def test_a_topic_that_is_not_there_is_not_found(url: str) -> None:
    for name in ("nobody", "", "%3Cb%3E", "../etc/passwd"):
        async with asking(f"{url}/topic?name={name}") as answer:
            assert answer.status == 404
            text = await answer.text()
            assert "No such topic" in text
            assert "<b>" not in text


@pytest.mark.parametrize(
    "config",
    [{"username": "operator", "password": SECRET}, {"token": SECRET}, {"host": "0.0.0.0", "token": SECRET}],
    ids=["basic", "token", "open to the network"],
)
async def test_with_a_login_only_probes_get_in_without_it(config: dict[str, str]) -> None:
    about = AdminConfig.model_validate({"port": free_port(), **config})
    async with serving(about) as url:
        for page in (*PAGES, "/metrics", "/no/such/page"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic b3BlcmF0b3I6d3Jvbmc="}):
                async with asking(url + page, **headers) as answer:
                    assert answer.status == 401, page
                    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
                    assert await answer.text() == "a login is needed\n"
            expected = 404 if page == "/no/such/page" else 200
            async with asking(url + page, **login(about)) as answer:
                assert answer.status == expected, page
                assert SECRET not in await answer.text()
        assert await status(f"{url}/live") == 200
        assert await status(f"{url}/ready") == 503


async def test_a_strangers_page_can_not_read_it_by_a_name_of_its_own(url: str) -> None:
    for host, expected in (("evil.example.com", 403), ("localhost", 200), ("127.0.0.1:9180", 200)):
        for page in ("/", "/status.json"):
            assert await status(url + page, Host=host) == expected, (host, page)
        assert await status(f"{url}/metrics", Host=host) == 200
        assert await status(f"{url}/live", Host=host) == 200


async def test_json_says_what_the_pages_say(url: str) -> None:
    async with asking(f"{url}/status.json") as answer:
        told = await answer.json()
    assert (told["level"], told["verdict"]) == ("fine", "all is well with 1 topic")
    (about,) = told["topics"][0]["partitions"]
    assert (about["log_start"], about["archive"]["end_offset"], about["lag_offsets"]) == (80, 100, 20)
    assert about["spans"][0] == {"where": "archive", "start": 0, "end": 80}
    assert told["process"]["workers"][0]["counts"] == {}
