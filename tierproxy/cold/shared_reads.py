"""Reads of archives that several workers share: what one has read, the others need not.

Every stretch of an object has an *owner*, the same for all workers, and only the owner reads it from the store (or the
disk cache) and holds it for a while (held_ranges.py). The others ask the owner, over a Unix socket in a directory that
is the workers' own. Whoever gets no good answer in time, because the owner is dead, slow or has enough to do, reads for
itself: an owner makes reads cheaper, and is needed for none.

On the wire, for each request: whether it must be read anew (1 byte), start, end (8 bytes each), the lengths of the
archive's name and the key (2 bytes each), both names. The answer: one byte, 1 for "here it is", then the bytes; 0 for
"read it yourself". A connection carries one request at a time.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from protocol.wire import Buffer
from tierproxy.allocator import unfilled
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.held_ranges import HeldRanges, Read
from tierproxy.cold.meter import came_from
from tierproxy.errors import TierproxyError
from tierproxy.tasks import Tasks
from tierproxy.telemetry import MEMORY_CACHE_BYTES, MEMORY_CACHE_LIMIT, OncePerChange

log = logging.getLogger("tierproxy.reads")

STRETCH = 16 << 20
"""Bytes of an object that have one owner."""
LONGEST = 64 << 20
"""Bytes that may be asked for at once; more are read without asking."""
PATIENCE = 5.0
"""Seconds for an owner's answer, besides a second for each `SLOWEST` bytes; without one, it is not asked again for as
long."""
SLOWEST = 8 << 20
COPIED = 1 << 20
"""Bytes that are copied before others have their turn on the event loop."""
CONNECTIONS = 32
"""Kept to one owner while they are not used."""

Forget = Callable[[str, str, int, int], Awaitable[None]]
"""Told of a range of (archive, key) that came damaged."""

_REQUEST = struct.Struct(">?QQHH")
_YES, _NO = b"\1", b"\0"


def owner_of(archive: str, key: str, start: int, workers: int) -> int:
    """Who owns the stretch in which a range starts: 0 to `workers` - 1, the same in every process."""
    return (crc32(f"{archive}\0{key}".encode()) + start // STRETCH) % workers


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The workers' sockets, and which is ours, from 0 on."""

    sockets: Sequence[Path]
    me: int


class SharedReads:
    """One of the workers.

    `read` reads for itself; what it keeps, `forget` drops. `memory` bytes are held of what is our own to read; `lent`
    bytes may be on their way to others at one time, who wants more is told to read for itself. `patience` in seconds.
    """

    def __init__(
        self,
        read: Read,
        neighbours: Neighbours,
        memory: int,
        lent: int,
        tasks: Tasks,
        patience: float = PATIENCE,
        forget: Forget | None = None,
    ) -> None:
        self._read = read
        self._forget = forget
        self._sockets = tuple(neighbours.sockets)
        self._me = neighbours.me
        self._tasks = tasks
        self._patience = patience
        self._memory = memory
        self._held = HeldRanges(read, memory, tasks)
        self._lent = ByteBudget(lent, queue=0)
        self._idle: dict[int, list[socket.socket]] = {}
        self._shunned: dict[int, float] = {}  # by owner: until when, by the loop's clock
        self._trouble = OncePerChange(log)
        self._listening: socket.socket | None = None
        self._served: set[socket.socket] = set()

    async def get_range(self, archive: str, key: str, start: int, end: int, *, anew: bool = False) -> Buffer:
        """Bytes [start, end) of an object that never changes; `anew` where those that came were damaged.

        Raises StoreError.
        """
        if end <= start:
            return b""
        owner = owner_of(archive, key, start, len(self._sockets))
        if owner == self._me:
            return await _joined(await self._own(archive, key, start, end, anew))
        if end - start <= LONGEST and self._may_ask(owner):
            data = await self._ask(owner, archive, key, start, end, anew)
            if data is not None:
                came_from("worker", len(data))
                return data
        return await self._read(archive, key, start, end)

    # -- asking an owner --------------------------------------------------------------------------------------------

    def _may_ask(self, owner: int) -> bool:
        return asyncio.get_running_loop().time() >= self._shunned.get(owner, 0.0)

    async def _ask(self, owner: int, archive: str, key: str, start: int, end: int, anew: bool) -> Buffer | None:
        """None: it has to be read by ourselves."""
        connection: socket.socket | None = None
        try:
            async with asyncio.timeout(self._patience + (end - start) / SLOWEST):
                connection = await self._connection(owner)
                names = archive.encode(), key.encode()
                request = _REQUEST.pack(anew, start, end, *map(len, names)) + b"".join(names)
                await asyncio.get_running_loop().sock_sendall(connection, request)
                verdict = await _receive(connection, 1)
                data = await _receive(connection, end - start) if verdict == _YES else None
        except (OSError, EOFError) as error:  # TimeoutError is one
            if connection is not None:
                connection.close()
            self._shun(owner, error)
            return None
        except asyncio.CancelledError:
            if connection is not None:
                connection.close()  # an answer would come to whoever uses it next
            raise
        self._trouble.ended(f"{owner}", f"reads are shared with worker {owner + 1} again")
        idle = self._idle.setdefault(owner, [])
        if len(idle) < CONNECTIONS:
            idle.append(connection)
        else:
            connection.close()
        return data

    async def _connection(self, owner: int) -> socket.socket:
        """Raises OSError."""
        if idle := self._idle.get(owner):
            return idle.pop()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, str(self._sockets[owner]))
        except BaseException:
            made.close()
            raise
        return made

    def _shun(self, owner: int, error: Exception) -> None:
        """Its other connections are no better."""
        for each in self._idle.pop(owner, []):
            each.close()
        self._shunned[owner] = asyncio.get_running_loop().time() + self._patience
        why = str(error) or "no answer in time"
        self._trouble.began(f"{owner}", f"reads are not shared with worker {owner + 1}: {why}", logging.INFO)

    # -- being an owner ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Be asked by others from now on. Raises TierproxyError."""
        path = self._sockets[self._me]
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # of one who had our place before and was killed
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(path))
            listening.listen()
        except OSError as error:
            listening.close()
            raise TierproxyError(f"{path}: other workers can't ask at this socket: {error}") from error
        listening.setblocking(False)
        self._listening = listening
        self._tasks.spawn(self._accept(listening), "shared reads")

    def measure(self) -> None:
        """Have the metrics show how much is held."""
        MEMORY_CACHE_BYTES.labels("shared").set(self._held.size)
        MEMORY_CACHE_LIMIT.labels("shared").set(self._memory)

    def close(self) -> None:
        """The tasks are ended by their owner."""
        if self._listening is not None:
            self._listening.close()
        for each in [*self._served, *(each for idle in self._idle.values() for each in idle)]:
            each.close()
        self._idle.clear()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
            except OSError as error:  # no file descriptors are left, for now
                self._trouble.began("accept", f"other workers can't ask for reads: {error}")
                await asyncio.sleep(self._patience)
                continue
            self._trouble.ended("accept", "other workers can ask for reads again")
            accepted.setblocking(False)
            self._served.add(accepted)
            self._tasks.spawn(self._serve(accepted), "shared reads for a worker")

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                anew, start, end, *sizes = _REQUEST.unpack(await _receive(connection, _REQUEST.size))
                archive, key = [(await _receive(connection, size)).decode() for size in sizes]
                try:
                    async with self._lent.lend(end - start):
                        views = await self._own(archive, key, start, end, anew)
                        await loop.sock_sendall(connection, _YES)
                        for view in views:
                            await loop.sock_sendall(connection, view)
                except TierproxyError:  # whoever asks sees for itself what is wrong
                    await loop.sock_sendall(connection, _NO)
        except (OSError, EOFError):
            pass  # it has gone, or has waited long enough
        finally:
            self._served.discard(connection)
            connection.close()

    async def _own(self, archive: str, key: str, start: int, end: int, anew: bool) -> list[memoryview]:
        if anew:
            self._held.forget(archive, key, start, end)
            if self._forget is not None:
                await self._forget(archive, key, start, end)
        return await self._held.get(archive, key, start, end)


async def _joined(views: list[memoryview]) -> Buffer:
    """A part of a piece is copied: a view would keep all of the piece in memory, uncounted."""
    if len(views) == 1 and isinstance(views[0].obj, bytes | bytearray) and len(views[0]) == len(views[0].obj):
        return views[0].obj
    data = unfilled(sum(map(len, views)))
    rest = memoryview(data)
    for view in views:
        for start in range(0, len(view), COPIED):
            part = view[start : start + COPIED]
            rest[: len(part)] = part
            rest = rest[len(part) :]
            await asyncio.sleep(0)
    return data


async def _receive(connection: socket.socket, size: int) -> bytearray:
    """Raises EOFError, OSError."""
    data = unfilled(size)
    view = memoryview(data)
    loop = asyncio.get_running_loop()
    while view:
        count = await loop.sock_recv_into(connection, view)
        if not count:
            raise EOFError("the connection was closed")
        view = view[count:]
    return data
