"""One HTTP connection on which ranges are asked for, one at a time, and received into their place at once.

h11 writes the request and reads the answer's head. The body goes round it: the loop receives into what
`get_buffer` gives, which is the rest of a buffer of exactly the size that was asked for, so the kernel's copy is the
only one. That is safe because only one kind of answer is taken: 206, of the very range, with its length said once and
no coding. With any other one, `NotPlain` is raised and the connection is done with.
"""

import asyncio
import re
from dataclasses import dataclass, field
from typing import cast

import h11

from tierproxy.archive.bodies import while_it_moves
from tierproxy.ranges import ByteRange

HEAD_BYTES = 16 * 1024
"""The longest head of an answer; S3's own have less than 2 KiB."""
KEEP_SECONDS = 12.0
"""How long a connection that nobody uses is kept, the same as aiobotocore's."""

_CONTENT_RANGE = re.compile(rb"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)", re.ASCII)


class NotPlain(Exception):
    """An answer that is not simply the bytes asked for. The text has nothing of the request's in it."""

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(what)
        self.status = status
        """0: not even that was understood."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A request for an object that S3 takes for some minutes, for any range of it."""

    scheme: str
    host: str
    port: int
    authority: str
    """Host and port as they were signed."""
    target: str = field(repr=False)
    """Path and query, with the signature: a secret."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Connections to the same one serve each other's requests."""
        return self.scheme, self.host, self.port


class RangeConnection(asyncio.BufferedProtocol):
    """A connection from its making to its end; `is_idle` says whether it can be asked now."""

    def __init__(self, origin: tuple[str, str, int]) -> None:
        self.origin = origin
        self.came = 0
        """Bytes that came since it was last asked."""
        self._transport: asyncio.Transport | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._head = memoryview(bytearray(HEAD_BYTES))
        self._http = h11.Connection(h11.CLIENT)
        self._wanted = ByteRange(0, 0)
        self._body = bytearray()
        self._rest: memoryview | None = None  # of the body, where the next bytes belong
        self._answer: asyncio.Future[bytearray] | None = None
        self._close_after = False

    @property
    def is_idle(self) -> bool:
        return self._transport is not None and self._answer is None and not self._transport.is_closing()

    async def ask(self, signed: Signed, wanted: ByteRange, seconds: float) -> bytearray:
        """Exactly the bytes of that range. NotPlain; OSError if it breaks or no byte moves for `seconds`.

        Unless it returns, the connection is closed: what is left of an answer is nobody else's.
        """
        assert self._transport is not None
        if self._closing is not None:
            self._closing.cancel()
        loop = asyncio.get_running_loop()
        self._wanted, self.came = wanted, 0
        answer: asyncio.Future[bytearray] = loop.create_future()
        self._answer = answer
        self._http = h11.Connection(h11.CLIENT)
        headers = [("Host", signed.authority), ("Range", wanted.http), ("Accept-Encoding", "identity")]
        headers.append(("User-Agent", "tierproxy"))
        request = self._http.send(h11.Request(method="GET", target=signed.target, headers=headers))
        try:
            self._transport.write(request or b"")
            async with while_it_moves(lambda: self.came, seconds):
                body = await answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer, self._rest, self._body = None, None, bytearray()
            if answer.done() and not answer.cancelled():
                answer.exception()  # nobody else will look, if this is cancelled just now
        if self._close_after:
            self.abort()
        elif self.is_idle:
            self._closing = loop.call_later(KEEP_SECONDS, self.abort)
        return body

    def abort(self) -> None:
        """Close it, whatever is on its way."""
        if self._closing is not None:
            self._closing.cancel()
        if self._transport is not None:
            self._transport.abort()

    # -- called by the loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not by type

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._head if self._rest is None else self._rest

    def buffer_updated(self, nbytes: int) -> None:
        self.came += nbytes
        if self._answer is None or self._answer.done():
            self.abort()  # bytes that nobody asked for
        elif self._rest is None:
            try:
                self._take_head(nbytes)
            except NotPlain as error:
                self._answer.set_exception(error)
        else:
            self._fill(nbytes)

    def eof_received(self) -> None:
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    # -- the answer ----------------------------------------------------------------------------------------------

    def _take_head(self, size: int) -> None:
        try:
            self._http.receive_data(bytes(self._head[:size]))
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise NotPlain("no HTTP, or too long a head") from error
        if event is h11.NEED_DATA:
            return
        if not isinstance(event, h11.Response):
            raise NotPlain("no answer of the usual kind")
        self._close_after = check_head(event, self._wanted)
        begun, _ = self._http.trailing_data
        if len(begun) > self._wanted.size:
            raise NotPlain("more bytes than it said", event.status_code)
        self._body = bytearray(self._wanted.size)
        self._rest = memoryview(self._body)
        self._rest[: len(begun)] = begun
        self._fill(len(begun))

    def _fill(self, size: int) -> None:
        assert self._rest is not None
        assert self._answer is not None
        self._rest = self._rest[size:]
        if not self._rest:
            self._rest = None
            self._answer.set_result(self._body)

    def _lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError(f"the store hung up after {self.came} bytes"))


def check_head(head: h11.Response, wanted: ByteRange) -> bool:
    """NotPlain unless exactly the wanted bytes follow. Whether the connection ends with them."""
    status = head.status_code
    if status != 206:
        raise NotPlain(f"answered {status} {head.reason.decode('ascii', 'replace')}".rstrip(), status)
    found: dict[bytes, bytes] = {}
    for name, value in head.headers:
        if name in (b"transfer-encoding", b"content-length", b"content-range", b"connection") and name in found:
            raise NotPlain(f"says {name.decode()} twice", status)
        found[name] = value
    if b"transfer-encoding" in found or found.get(b"content-encoding", b"identity").lower() != b"identity":
        raise NotPlain("a body that is coded", status)
    if found.get(b"content-length") != b"%d" % wanted.size:
        raise NotPlain("another length", status)
    given = _CONTENT_RANGE.fullmatch(found.get(b"content-range", b""))
    if given is None or (int(given[1]), int(given[2]) + 1) != (wanted.start, wanted.end):
        raise NotPlain("another range", status)
    return head.http_version != b"1.1" or found.get(b"connection", b"keep-alive").lower() != b"keep-alive"
