"""A relay in front of a real S3 server that spoils chosen requests: what networks and stores do to us, on demand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

Forward: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]
Fault: TypeAlias = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


class Relay:
    """Passes requests on, except those that a fault is waiting for: faults are used up one by one, in order."""

    def __init__(self, target: str) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        """Methods of all requests so far."""
        self.headers: list[CIMultiDictProxy[str]] = []
        """Their headers."""
        self.most_at_once = 0
        self.endpoint_url = ""
        self._target = target
        self._now = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.method)
        self.headers.append(request.headers)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.faults:
                return await self.faults.pop(0)(request, self._forward)
            return await self._forward(request)
        finally:
            self._now -= 1

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name != "Expect"}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, self._target + request.raw_path, data=body, headers=headers) as answer,
        ):
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if request.method == "HEAD":
                return web.Response(status=answer.status, headers=kept)
            kept.pop("Content-Length", None)
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


HOP_BY_HOP = {"connection", "transfer-encoding", "server", "date"}


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    """A relay to `target`, listening on loopback."""
    one = Relay(target)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # some requests hang for ever
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    one.endpoint_url = f"http://{host}:{port}"
    try:
        yield one
    finally:
        await runner.cleanup()


def answer(status: int, code: str, message: str = "because") -> Fault:
    """S3 answers with an error instead."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        await request.read()
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        return web.Response(status=status, text=text, content_type="application/xml")

    return fault


async def forbid_silently(request: web.Request, forward: Forward) -> web.StreamResponse:
    """What S3 answers to a HEAD: no body says why."""
    return web.Response(status=403)


async def no_fault(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Passed on as it is."""
    return await forward(request)


async def slow(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Passed on after a while, so that requests meet."""
    await asyncio.sleep(0.02)
    return await forward(request)


async def drop(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection breaks before S3 has done anything."""
    await request.read()
    return _broken(request)


async def lose_answer(request: web.Request, forward: Forward) -> web.StreamResponse:
    """S3 does it, and the connection breaks before the answer is here."""
    await forward(request)
    return _broken(request)


async def cut_body(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection breaks in the middle of the answer's body."""
    whole = await forward(request)
    body = whole.body
    assert isinstance(body, bytes)
    response = web.StreamResponse(status=whole.status, headers={**whole.headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _broken(request)


async def ignore_range(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The store knows no ranges and gives the whole object."""
    return await forward(request.clone(headers={n: v for n, v in request.headers.items() if n != "Range"}))


async def ignore_conditions(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The store knows no conditional writes and writes."""
    kept = {n: v for n, v in request.headers.items() if n not in ("If-Match", "If-None-Match")}
    return await forward(request.clone(headers=kept))


async def hang(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Nothing ever comes back."""
    await request.read()
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


def _broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
