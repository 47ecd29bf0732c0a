"""Many bytes of S3 objects for little CPU: ranges over connections of our own, signed for by aiobotocore.

aiobotocore takes about a millisecond of CPU for a request and copies bodies several times. So it signs once for each
object (a presigned URL, which does not say the range), and the ranges come by `s3_connection`. Only the plain case is
done here. Whatever else the store answers, the caller asks once more through aiobotocore, which knows all the rest.
A store that is never plain is left alone for a while after STRIKES of that.

A presigned URL is a secret for as long as it is valid, so none is in a log line or an error's text.
"""

import asyncio
import logging
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tierproxy.archive.s3_client import is_proxied, tls_context
from tierproxy.archive.s3_connection import RangeConnection, Signed
from tierproxy.archive.s3_head import NotPlain
from tierproxy.ranges import ByteRange
from tierproxy.telemetry import STORE_BULK_READS, OncePerChange

SIGNED_SECONDS = 900
"""How long S3 takes a URL; S3 and we may differ by 15 minutes at the most in any case."""
REUSED_SECONDS = 300.0
"""How long we use it; the rest is for clocks that differ."""
SIGNED_KEPT = 1024
STRIKES = 3
"""So many answers in a row that are not plain, and all is asked for through aiobotocore for REST_SECONDS."""
REST_SECONDS = 60.0

log = logging.getLogger(__name__)
_changes = OncePerChange(log)


class Declined(Exception):
    """The answer was not plain, or there is no TLS with this host. aiobotocore must ask, and knows why."""

    def __init__(self, host: str, why: Exception) -> None:
        super().__init__(f"{host}: {why}")
        self.host = host
        self.why = why


class Overloaded(OSError):
    """The store can't just now. It is not asked again at once."""


@dataclass(frozen=True, slots=True)
class _Kept:
    signed: Signed | None
    """None: aiobotocore must ask, as a proxy is between."""
    keys: Any = field(repr=False)
    """That it was signed with: secrets; others mean that these may be withdrawn."""
    until: float


class BulkReader:
    """Reads ranges, as many at once as it is called for, which whoever calls limits.

    `sign` makes a URL for a key that is valid for so many seconds; `keys` tells what it signs with.
    """

    def __init__(
        self,
        sign: Callable[[str, int], Awaitable[str]],
        keys: Callable[[], Awaitable[Any]],
        *,
        connect_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._sign = sign
        self._keys = keys
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._idle: list[RangeConnection] = []
        self._tls: ssl.SSLContext | None = None
        self._strikes = 0
        self._rests_until = 0.0

    async def read(self, key: str, wanted: ByteRange) -> bytearray | None:
        """Exactly these bytes, or None: then it's aiobotocore's turn. Declined likewise. OSError, as it breaks."""
        if asyncio.get_running_loop().time() < self._rests_until:
            return None
        signed = await self._signed(key)
        if signed is None:
            return None
        try:
            body = await self._ask(signed, wanted)
        except (NotPlain, ssl.SSLError) as error:
            self._kept.pop(key, None)
            status = error.status if isinstance(error, NotPlain) else 0
            if status == 429 or (status >= 500 and status != 501):
                STORE_BULK_READS.labels("failed").inc()
                raise Overloaded(str(error)) from error
            STORE_BULK_READS.labels("declined").inc()
            raise Declined(signed.host, error) from error
        except OSError:
            STORE_BULK_READS.labels("failed").inc()
            raise
        STORE_BULK_READS.labels("done").inc()
        self._strikes = 0
        _changes.ended(signed.host, f"{signed.host} gives ranges as it should again")
        return body

    def strike(self, declined: Declined) -> None:
        """After it had been declined, aiobotocore got the very bytes: neither keys nor object were the reason."""
        self._strikes += 1
        if self._strikes >= STRIKES:
            self._strikes = 0
            self._rests_until = asyncio.get_running_loop().time() + REST_SECONDS
            host, why = declined.host, declined.why
            _changes.began(host, f"{host} does not give ranges as it should ({why}): reading them takes more CPU")

    def close(self) -> None:
        """End the connections that nobody uses; whoever uses one has been cancelled."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        self._kept.clear()

    async def _ask(self, signed: Signed, wanted: ByteRange) -> bytearray:
        connection = self._take_idle(signed.origin)
        if connection is not None:
            try:
                return await self._ask_on(connection, signed, wanted)
            except TimeoutError:
                raise
            except OSError:
                if connection.came:
                    raise
                # The store had hung up meanwhile, before it heard of us.
        return await self._ask_on(await self._connect(signed), signed, wanted)

    async def _ask_on(self, connection: RangeConnection, signed: Signed, wanted: ByteRange) -> bytearray:
        body = await connection.ask(signed, wanted, self._answer_seconds)
        if connection.is_idle:
            self._idle.append(connection)
        return body

    def _take_idle(self, origin: tuple[str, str, int]) -> RangeConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle and connection.origin == origin:
                return connection
            connection.abort()
        return None

    async def _connect(self, signed: Signed) -> RangeConnection:
        secure = signed.scheme == "https"
        if secure and self._tls is None:
            self._tls = await asyncio.to_thread(tls_context)
        async with asyncio.timeout(self._connect_seconds):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: RangeConnection(signed.origin),
                signed.host,
                signed.port,
                ssl=self._tls if secure else None,
                server_hostname=signed.host if secure else None,
            )
        return connection

    async def _signed(self, key: str) -> Signed | None:
        now = asyncio.get_running_loop().time()
        keys = await self._keys()
        kept = self._kept.get(key)
        if kept is None or kept.until < now or kept.keys != keys:
            kept = _Kept(parse_signed(await self._sign(key, SIGNED_SECONDS)), keys, now + REUSED_SECONDS)
            self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > SIGNED_KEPT:
            self._kept.popitem(last=False)
        return kept.signed


def parse_signed(url: str) -> Signed | None:
    """What to connect to and ask for; None where that is aiobotocore's affair: a proxy is between, or an odd URL."""
    if is_proxied(url) or not url.isascii() or not url.isprintable() or " " in url:
        return None
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    authority = f"[{host}]" if ":" in host else host
    if port != (443 if secure else 80):
        authority += f":{port}"
    lines = (
        f"GET {parts.path or '/'}?{parts.query} HTTP/1.1",
        f"Host: {authority}",
        "Accept-Encoding: identity",
        "User-Agent: tierproxy",
        "Range: ",
    )
    return Signed(parts.scheme, host, port, "\r\n".join(lines).encode("ascii"))
