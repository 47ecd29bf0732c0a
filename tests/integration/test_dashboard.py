"""The dashboard and `tierproxy status` on a real Kafka: both say what the archive says. In a real browser, if there is
one: nothing from elsewhere, nothing to complain of, room on a phone, by keyboard, readable in light and dark.

Screenshots go to `.bench/dashboard/`, for people.
"""

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.kit import PROJECT, admin
from tests.kit.browser import MISSING, Browser, Page, browser, find_browser
from tests.kit.processes import Process, wait_for
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import drafts

SHOTS = PROJECT / ".bench" / "dashboard"
QUICK = {"bytes": "64KiB", "age": "200ms"}
TOKEN = "let-me-in"
MANY = 40
CHECKS = (Path(__file__).parent / "dashboard_checks.js").read_text()


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    return {"holed": "dash.holed", "kept": "dash.kept", "broken": "dash.broken", "wide": "dash.wide"}


@pytest.fixture(scope="module")
def proxy(
    stage: Stage, proxied: Proxy, names: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """One of the tests' own, with two workers, over topics with a hole, with a damaged manifest, and with many
    partitions."""
    policies: list[dict[str, Any]] = [
        {"match": names["kept"], "archive": "local", "segment": QUICK, "trim": "never"},
        {"match": "dash.*", "archive": "local", "segment": QUICK, "keep_on_broker": {"bytes": "0B"}, "on_gap": "halt"},
        {"match": "*", "archive": "none"},
    ]
    directory = tmp_path_factory.mktemp("dashboard")
    one = Proxy(directory, stage.broker, policies, cluster="dash", settings={"workers": 2})
    one.write_config(one.config | {"admin": one.config["admin"] | {"token": TOKEN}})
    one.headers = {"Authorization": f"Bearer {TOKEN}"}
    for name, partitions in ((names["holed"], 1), (names["kept"], 2), (names["broken"], 1), (names["wide"], MANY)):
        stage.topic(name, partitions)
    with one:
        for name in (names["holed"], names["kept"], names["broken"]):
            produce(stage.broker, name, drafts(200, partition=0, seed=5))
        each = (draft for number in range(MANY) for draft in drafts(1 + number, partition=number, seed=6))
        produce(stage.broker, names["wide"], each)
        for name in (names["holed"], names["broken"]):
            admin.wait_trimmed(stage.broker, name, {0: 200})
        wait_archived(one, names["kept"], 200)
    produce(stage.broker, names["holed"], drafts(150, partition=0, seed=7))
    admin.configure_topic(stage.broker, names["holed"], retention_ms=1)
    admin.wait_trimmed(stage.broker, names["holed"], {0: 350})
    admin.configure_topic(stage.broker, names["holed"], retention_ms=-1)
    (manifest,) = (one.archive / "dash" / names["broken"]).glob("*/0/manifest.json")
    manifest.write_text(manifest.read_text().replace('"end_offset": 200', '"end_offset": 201'))
    with one:
        produce(stage.broker, names["holed"], drafts(100, partition=0, seed=8))
        wait_archived(one, names["holed"], 450)
        yield one


def wait_archived(proxy: Proxy, topic: str, end: int) -> None:
    """Of partition 0."""
    wait_for(
        lambda: proxy.manifests(topic).get(0, {}).get("end_offset") == end,
        seconds=90,
        what=f"the archive of {topic} up to {end}",
    )


def told_by(proxy: Proxy) -> dict[str, Any]:
    """What the dashboard says in JSON, when all was looked at and everything is archived."""

    def settled() -> dict[str, Any] | None:
        status, text = proxy.get("/status.json")
        found: dict[str, Any] = json.loads(text) if status == 200 else {}
        done = found and all(
            part["archive"] is not None or part["verdicts"] != ["not looked at yet"]
            for topic in found["topics"]
            for part in topic["partitions"]
        )
        return found if done and found["lag_offsets"] == 0 else None

    return wait_for(settled, seconds=120, what="a survey of everything", pause=0.3)


def test_pages_and_terminal_say_what_the_archive_says(proxy: Proxy, names: dict[str, str]) -> None:
    listed = [json.loads(line) for line in proxy.cli("archive", "ls", "--json", check=False).stdout.splitlines()]
    shelves = {(each["topic"], each["partition"]): each for each in listed}
    dashboard = told_by(proxy)
    done = proxy.cli("status", "--json", check=False)
    assert done.returncode == 1, "somebody is needed"
    terminal = json.loads(done.stdout)
    for said in (dashboard, terminal):
        assert {topic["topic"] for topic in said["topics"]} == set(names.values())
        for topic in said["topics"]:
            for part in topic["partitions"]:
                shelf = shelves.get((topic["topic"], part["partition"]))
                if topic["topic"] == names["broken"]:
                    assert part["archive"] is None
                    assert "checksum" in part["verdicts"][0]
                elif shelf is not None:
                    keys = {"records": "records", "segments": "segments", "log_bytes": "plain_bytes"}
                    keys |= {key: key for key in ("start_offset", "end_offset", "stored_bytes")}
                    assert {key: part["archive"][key] for key in keys} == {key: shelf[keys[key]] for key in keys}
                    assert len(part["archive"]["holes"]) == len(shelf["gaps"])
        assert (said["level"], said["verdict"]) == ("needs you", "2 partitions of 2 topics need you")
    (holed,) = next(topic for topic in dashboard["topics"] if topic["topic"] == names["holed"])["partitions"]
    assert [(each["where"], each["start"], each["end"]) for each in holed["spans"]] == [
        ("archive", 0, 200),
        ("hole", 200, 350),
        ("archive", 350, 450),
    ]
    assert [len(each["partitions"]) for each in dashboard["archivers"]["members"]] == [4]
    workers = {each["who"]: each for each in terminal["process"]["workers"]}
    assert set(workers) == {"supervisor", "gateway-1", "gateway-2", "archiver"}
    assert sum(workers["archiver"]["counts"].values()) == 4 + MANY
    assert any("checksum" in each["message"] for each in workers["archiver"]["troubles"])


AS_IN_A_TERMINAL = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("tierproxy", run_name="__main__")
"""
"""Whoever runs these tests in the background of a shell has SIGINT ignored, and so have all children."""


def test_the_terminal_shows_it_to_people(proxy: Proxy, names: dict[str, str], tmp_path: Path) -> None:
    shown = proxy.cli("status", names["holed"], "dash.k*", check=False)
    assert "readers wait at 1 hole of 150 offsets" in shown.stdout
    assert re.search(rf"needs you\s+{names['holed']}\s+0\s+▀+x+▀+\s+0\s+450\s+450", shown.stdout)
    assert names["wide"] not in shown.stdout
    assert shown.returncode == 1
    assert proxy.cli("status", names["kept"]).returncode == 0
    command = ["-c", AS_IN_A_TERMINAL, "status", names["kept"], "--watch", "1", "--config", str(proxy.config_file)]
    watching = Process("status", [sys.executable, *command], log=tmp_path / "status.log", cwd=PROJECT)
    watching.wait_until(
        lambda: watching.output().count("all is well with 1 topic") > 1, seconds=120, what="a second look"
    )
    os.kill(watching.pid, signal.SIGINT)
    wait_for(lambda: not watching.alive, seconds=60, what="the end of watching")
    assert watching.kill() == 0
    nobody = proxy.cli("status", "nobody", check=False)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "no archived topic is called nobody" in nobody.stderr


@pytest.fixture
async def driven(tmp_path: Path) -> AsyncIterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip(MISSING)
    async with browser(program, tmp_path) as found:
        yield found


def pages(proxy: Proxy, names: dict[str, str]) -> dict[str, str]:
    url = f"http://127.0.0.1:{proxy.admin_port}"
    return {"front": f"{url}/", **{key: f"{url}/topic?name={name}" for key, name in names.items()}}


async def opened(page: Page, url: str) -> None:
    await page.goto(url)
    await page.until("!document.querySelector('[data-soon]')")


async def test_it_works_in_a_browser(driven: Browser, proxy: Proxy, names: dict[str, str]) -> None:
    told_by(proxy)
    page = await driven.page()
    await page.headers(**proxy.headers)
    urls = pages(proxy, names)
    for width, height, device in ((1280, 900, "desktop"), (390, 844, "phone")):
        await page.window(width, height, mobile=device == "phone")
        for scheme in ("light", "dark"):
            await page.scheme(scheme)
            for name, url in urls.items():
                await opened(page, url)
                await page.screenshot(SHOTS / f"{name}-{device}-{scheme}.png")
                assert await page.js("document.documentElement.scrollWidth") <= width, (name, device)
                assert await page.js(f"{CHECKS}.faint()") == [], (name, scheme)
                assert await page.js(f"{CHECKS}.unnamed()") == [], name
    assert page.complaints == []
    assert {url.split("/")[2] for url in page.requests} == {f"127.0.0.1:{proxy.admin_port}"}


async def test_it_can_be_used_by_keyboard(driven: Browser, proxy: Proxy, names: dict[str, str]) -> None:
    """In the order in which it is read; and what is looked at stays when the page brings itself up to date."""
    told_by(proxy)
    page = await driven.page()
    await page.headers(**proxy.headers)
    await opened(page, pages(proxy, names)["front"])
    seen: list[str] = []
    for _ in range(14):
        await page.press("Tab")
        seen.append(await page.js("document.activeElement.textContent.trim() || document.activeElement.id"))
        assert await page.js("getComputedStyle(document.activeElement).outlineStyle") != "none", seen
    assert seen[:2] == ["to the content", "tierproxy"]
    assert seen[2] == "pause"
    assert seen.index("q") < seen.index("show")
    assert {names["broken"], names["holed"]} <= set(seen[3 : seen.index("q")]), "what needs somebody comes first"

    await opened(page, pages(proxy, names)["holed"])
    await page.js("document.querySelector('summary').focus()")
    await page.press("Enter")
    assert await page.js("document.querySelector('details').open")
    await page.js("document.querySelector('[data-live=state] h2').textContent = 'old'")
    await page.until("document.querySelector('[data-live=state] h2').textContent !== 'old'")
    assert await page.js("document.querySelector('details').open")
    assert await page.js("document.activeElement === document.querySelector('summary')")


async def test_it_says_when_nobody_answers(driven: Browser, proxy: Proxy, names: dict[str, str]) -> None:
    page = await driven.page()
    await page.headers(**proxy.headers)
    await opened(page, pages(proxy, names)["front"])
    await page.offline(True)
    await page.until("document.body.classList.contains('old')")
    assert "what you see is old" in await page.js("document.querySelector('#controls [role=status]').textContent")
    await page.offline(False)
    await page.until("!document.body.classList.contains('old')")
    assert await page.js("document.querySelector('#controls [role=status]').textContent") == ""


async def test_it_needs_no_script(driven: Browser, proxy: Proxy, names: dict[str, str]) -> None:
    told_by(proxy)
    page = await driven.page()
    await page.headers(**proxy.headers)
    await page.scripts(allowed=False)
    await page.goto(pages(proxy, names)["front"])
    await page.screenshot(SHOTS / "front-without-script.png")
    source = proxy.get("/")[1]
    assert "need you" in source
    assert page.complaints == []
