"""A real Chromium without a window, driven by its own protocol (DevTools) over a WebSocket: nothing to install but it.

Everything that a page asks for and complains of is kept: `requests`, `complaints`.
"""

import asyncio
import base64
import itertools
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit.processes import Process

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
FOUND_BY = ("CHROMIUM", "PLAYWRIGHT_CHROMIUM")
"""Variables of the environment that may name the program."""
MISSING = (
    "no Chromium found: install one (Debian: apt-get install chromium; or playwright install chromium), "
    "or name it in CHROMIUM=/path/to/it"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
ANSWER_WITHIN = 60.0


def find_browser() -> str | None:
    """The program, wherever it is; None if there is none."""
    named = [os.environ[name] for name in FOUND_BY if os.environ.get(name)]
    installed = Path.home().glob(".cache/ms-playwright/chromium*/chrome*linux*/*")
    candidates = [*named, *NAMES, *(str(each) for each in installed if each.name in NAMES)]
    return next((found for each in candidates if (found := shutil.which(each)) is not None), None)


class Page:
    """One tab. `goto` a page, ask it by `js`, look at what it asked for."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session
        self._loaded = asyncio.Event()
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def tell(self, method: str, **values: Any) -> dict[str, Any]:
        return await self._browser.tell(method, session=self._session, **values)

    async def goto(self, url: str) -> None:
        """Returns when it is loaded."""
        self._loaded.clear()
        answer = await self.tell("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        async with asyncio.timeout(ANSWER_WITHIN):
            await self._loaded.wait()

    async def js(self, expression: str) -> Any:
        """The value of an expression; of a promise, what it brings."""
        answer = await self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Waits until an expression is true."""
        async with asyncio.timeout(ANSWER_WITHIN):
            while not (value := await self.js(expression)):
                await asyncio.sleep(0.05)
        return value

    async def window(self, width: int, height: int, *, mobile: bool = False) -> None:
        await self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    async def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        await self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def headers(self, **headers: str) -> None:
        """Sent with every request from now on."""
        await self.tell("Network.setExtraHTTPHeaders", headers=headers)

    async def offline(self, is_so: bool) -> None:
        await self.tell(
            "Network.emulateNetworkConditions", offline=is_so, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    async def scripts(self, allowed: bool) -> None:
        await self.tell("Emulation.setScriptExecutionDisabled", value=not allowed)

    async def press(self, key: str) -> None:
        """`Tab`, `Enter`."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = "\r" if key == "Enter" else ""
        for kind in ("keyDown", "keyUp"):
            await self.tell(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text
            )

    async def screenshot(self, file: Path, most: int = 6000) -> None:
        """The whole page, down to `most` pixels."""
        height = min(most, await self.js("document.documentElement.scrollHeight"))
        width = await self.js("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = await self.tell("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(answer["data"]))

    def heard(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(params["entry"]))


class Browser:
    """Made by `browser()`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def page(self) -> Page:
        """A new tab, 1280 by 900."""
        context = await self.tell("Target.createBrowserContext")
        made = await self.tell("Target.createTarget", url="about:blank", browserContextId=context["browserContextId"])
        told = await self.tell("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        page = self._pages[told["sessionId"]] = Page(self, told["sessionId"])
        for domain in ("Page", "Network", "Runtime", "Log"):
            await page.tell(f"{domain}.enable")
        await page.window(1280, 900)
        return page

    async def tell(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message if session is None else message | {"sessionId": session})
        async with asyncio.timeout(ANSWER_WITHIN):
            return await answer

    async def listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            answer = self._answers.pop(said.get("id"), None)
            if answer is not None and not answer.done():
                if "error" in said:
                    answer.set_exception(AssertionError(said["error"]))
                else:
                    answer.set_result(said["result"])
            elif said.get("sessionId") in self._pages:
                self._pages[said["sessionId"]].heard(said["method"], said["params"])


@asynccontextmanager
async def browser(program: str, directory: Path) -> AsyncIterator[Browser]:
    """A browser of its own, with nothing remembered; its files are in `directory`."""
    profile = directory / "profile"
    process = Process("Chromium", [program, *FLAGS, f"--user-data-dir={profile}"], log=directory / "chromium.log")
    try:
        port_file = profile / "DevToolsActivePort"
        process.wait_until(
            lambda: port_file.exists() and port_file.read_text().count("\n") > 0, seconds=90, what="its port"
        )
        port, path = port_file.read_text().splitlines()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
        ):
            driven = Browser(socket)
            listening = asyncio.create_task(driven.listen())
            try:
                yield driven
            finally:
                listening.cancel()
    finally:
        process.kill()
