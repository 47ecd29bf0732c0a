"""How a test takes a hand in what a broker does.

A rule stands between a request and its answer: it may wait, look, change the answer, give another, or raise `HangUp`.

    cluster.steer(ApiKey.FETCH, hang_up, times=1)              # the next fetch ends in a closed connection
    with cluster.held(ApiKey.FETCH): ...                       # fetches are not answered meanwhile
    cluster.steer(ApiKey.METADATA, changed(lambda payload: payload[:-1]))

Every request that comes is in `cluster.seen`, whatever becomes of it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from protocol.headers import RequestHeader

Answer = bytes | None
"""The payload of an answer, header included; None: none is due (acks=0)."""

GoOn = Callable[[], Awaitable[Answer]]
"""What the broker would do."""

Rule = Callable[["Request", GoOn], Awaitable[Answer]]


class HangUp(Exception):
    """Close the connection instead of answering."""


@dataclass(slots=True)
class Request:
    """One request as it came: `message` is kafka-python's object, `payload` the frame without its size."""

    node_id: int
    header: RequestHeader
    payload: bytes
    message: Any

    @property
    def key(self) -> int:
        return self.header.api_key

    @property
    def version(self) -> int:
        return self.header.version


@dataclass(slots=True)
class Steer:
    """A rule at work. `used` counts the requests that it saw; `stop` ends it."""

    key: int
    rule: Rule
    node_id: int | None
    times: int | None
    used: int = 0

    def wants(self, request: Request) -> bool:
        return (
            request.key == self.key
            and self.node_id in (None, request.node_id)
            and (self.times is None or self.used < self.times)
        )

    def stop(self) -> None:
        self.times = self.used


async def hang_up(request: Request, go_on: GoOn) -> Answer:
    """Close the connection without an answer."""
    raise HangUp


async def hang_up_afterwards(request: Request, go_on: GoOn) -> Answer:
    """Do what was asked, and close the connection without saying so."""
    await go_on()
    raise HangUp


def changed(change: Callable[[bytes], bytes]) -> Rule:
    """The broker's own answer with something changed in it."""

    async def rule(request: Request, go_on: GoOn) -> Answer:
        payload = await go_on()
        return None if payload is None else change(payload)

    return rule
