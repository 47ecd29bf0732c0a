"""One HTTP connection on which ranges are asked for, one at a time, and received into their place at once.

The loop receives an answer's head into a small buffer of the connection. When it is seen that exactly the wanted
bytes follow, a buffer of their size is made, and the loop receives into what is left of that (`get_buffer`): the
kernel's copy is the only one.
"""

import asyncio
from dataclasses import dataclass, field
from typing import cast

from tierproxy.allocator import unfilled
from tierproxy.archive.s3_head import NotPlain, check_head
from tierproxy.ranges import ByteRange

HEAD_BYTES = 16 * 1024
"""The longest head of an answer; S3's own have less than 2 KiB."""
KEEP_SECONDS = 12.0
"""How long a connection that nobody uses is kept, the same as aiobotocore's."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A request for an object that S3 takes for some minutes, for any range of it."""

    scheme: str
    host: str
    port: int
    request: bytes = field(repr=False)
    """Up to the value of Range, with the signature: a secret."""

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
        self._timer: asyncio.TimerHandle | None = None  # for a byte to come, or for the end of an idle connection
        self._head = bytearray(HEAD_BYTES)
        self._wanted = ByteRange(0, 0)
        self._body: bytearray | None = None
        self._rest = memoryview(self._head)  # of the head's buffer or the body's: where the next bytes belong
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
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytearray] = loop.create_future()
        self._answer, self._wanted, self.came = answer, wanted, 0
        self._set_timer(loop.call_later(seconds, self._look, seconds, -1))
        try:
            self._transport.write(b"%b%b\r\n\r\n" % (signed.request, wanted.http.encode("ascii")))
            body = await answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer, self._body, self._rest = None, None, memoryview(self._head)
            if answer.done() and not answer.cancelled():
                answer.exception()  # nobody else looks at it if this was cancelled in that moment
        if self._close_after:
            self.abort()
        else:
            self._set_timer(loop.call_later(KEEP_SECONDS, self.abort))
        return body

    def abort(self) -> None:
        """Close it, whatever is on its way."""
        self._set_timer(None)
        if self._transport is not None:
            self._transport.abort()

    # -- called by the loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by type

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        self.came += nbytes
        self._rest = self._rest[nbytes:]
        if self._answer is None or self._answer.done():
            self.abort()  # nobody asked for these bytes
        elif self._body is not None:
            self._is_it_all()
        else:
            try:
                self._take_head()
            except NotPlain as error:
                self._answer.set_exception(error)

    def eof_received(self) -> None:
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        self._lost(exc)

    # -- the answer ----------------------------------------------------------------------------------------------

    def _take_head(self) -> None:
        end = self._head.find(b"\r\n\r\n", 0, self.came) + 4
        if end < 4:
            if not self._rest:
                raise NotPlain("answered with too long a head")
            return
        self._close_after = not check_head(bytes(memoryview(self._head)[:end]), self._wanted)
        begun = memoryview(self._head)[end : self.came]
        if len(begun) > self._wanted.size:
            raise NotPlain("sends more bytes than it says", 206)
        self._body = unfilled(self._wanted.size)
        self._rest = memoryview(self._body)
        self._rest[: len(begun)] = begun
        self._rest = self._rest[len(begun) :]
        self._is_it_all()

    def _is_it_all(self) -> None:
        if not self._rest:
            assert self._answer is not None
            assert self._body is not None
            self._answer.set_result(self._body)
            self._body, self._rest = None, memoryview(self._head)

    def _look(self, seconds: float, before: int) -> None:
        """Called every `seconds` while an answer is awaited; `before` had come at the last time."""
        if self._answer is None or self._answer.done():
            return
        if self.came == before:
            self._answer.set_exception(TimeoutError(f"no byte came for {seconds:g} s, after {before}"))
        else:
            loop = asyncio.get_running_loop()
            self._set_timer(loop.call_later(seconds, self._look, seconds, self.came))

    def _lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError(f"the store hung up after {self.came} bytes"))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
