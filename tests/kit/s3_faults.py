"""A relay in front of a real S3 server that spoils chosen requests: what networks and stores do to us, on demand.

`relay` runs one in the test's own process; `s3_front` runs one as a process of its own, for whole stacks.
"""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy


class Forward(Protocol):
    def __call__(self, request: web.Request, body: bytes | None = None) -> Awaitable[web.Response]: ...


Fault: TypeAlias = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


class Relay:
    """Passes requests on, except those that a fault is waiting for: faults are used up one by one, in order.

    A subclass may choose otherwise, by what is asked (`fault_for`).
    """

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
            fault = self.fault_for(request)
            return await fault(request, self.forward)
        finally:
            self._now -= 1

    def fault_for(self, request: web.Request) -> Fault:
        return self.faults.pop(0) if self.faults else no_fault

    async def forward(self, request: web.Request, body: bytes | None = None) -> web.Response:
        """S3's own answer; with `body` another one is sent than came."""
        if body is None:
            body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name != "Expect"}
        data = body if len(body) < LONG else io.BytesIO(body)  # aiohttp warns of long bytes
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, self._target + request.raw_path, data=data, headers=headers) as answer,
        ):
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            if request.method == "HEAD":
                return web.Response(status=answer.status, headers=kept)
            kept.pop("Content-Length", None)
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


LONG = 1 << 20
HOP_BY_HOP = {"connection", "transfer-encoding", "server", "date"}


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    """A relay to `target`, listening on loopback."""
    one = Relay(target)
    runner = web.AppRunner(relaying(one), shutdown_timeout=0.1)  # some requests hang for ever
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    one.endpoint_url = f"http://{host}:{port}"
    try:
        yield one
    finally:
        await runner.cleanup()


def relaying(one: Relay, app: web.Application | None = None) -> web.Application:
    """The relay as an application, for all paths that `app` has no handler for."""
    app = app or web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", one.handle)
    return app


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


async def lag(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Passed on after a second."""
    await asyncio.sleep(1)
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
    body = _bytes(whole)
    response = web.StreamResponse(status=whole.status, headers={**whole.headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _broken(request)


async def refuse(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection breaks before anything was read."""
    return _broken(request)


async def cut_upload(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection breaks in the middle of the request's body."""
    await request.content.readany()
    return _broken(request)


async def stall_upload(request: web.Request, forward: Forward) -> web.StreamResponse:
    """A part of the request's body is read, and then nothing any more."""
    await request.content.readany()
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


async def truncate(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The answer is shorter than the object, and says that this is all."""
    whole = await forward(request)
    whole.body = _bytes(whole)[: len(_bytes(whole)) // 2]
    return whole


async def flip(request: web.Request, forward: Forward) -> web.StreamResponse:
    """One bit of the answer's body is another one; never that of flip_upload, or the two might mend each other."""
    whole = await forward(request)
    whole.body = flipped(_bytes(whole), 2)
    return whole


async def flip_upload(request: web.Request, forward: Forward) -> web.StreamResponse:
    """One bit of the request's body is another one when S3 gets it."""
    return await forward(request, flipped(await request.read()))


async def trickle(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The answer's body comes a few bytes at a time, with pauses, for ever so long."""
    whole = await forward(request)
    body = _bytes(whole)
    response = web.StreamResponse(status=whole.status, headers={**whole.headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    for at in range(0, len(body), 10):
        await response.write(body[at : at + 10])
        await asyncio.sleep(0.05)
    return response


async def list_nothing(request: web.Request, forward: Forward) -> web.StreamResponse:
    """A listing that is behind: nothing of what was written is in it."""
    whole = await forward(request)
    whole.body = re.sub(rb"<Contents>.*</Contents>", b"", _bytes(whole), flags=re.DOTALL)
    return whole


def expired_but_for(access_key: str) -> Fault:
    """Credentials have expired, but for these."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        signed_with = request.query.get("X-Amz-Credential", "")  # of a presigned URL
        if f"Credential={access_key}/" in request.headers.get("Authorization", f"Credential={signed_with}"):
            return await forward(request)
        return await answer(400, "ExpiredToken", "The provided token has expired.")(request, forward)

    return fault


def flipped(data: bytes, bit: int = 1) -> bytes:
    """With one bit of the byte in the middle turned over."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] if data else data


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


async def hang_after(request: web.Request, forward: Forward) -> web.StreamResponse:
    """S3 does it, and the answer never comes."""
    await forward(request)
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


def _bytes(whole: web.Response) -> bytes:
    assert isinstance(whole.body, bytes)
    return whole.body


def _broken(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
