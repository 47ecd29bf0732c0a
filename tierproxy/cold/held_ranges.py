"""Ranges of objects that never change: each byte is read once for all who ask for it while it is on its way or held.

A range is put together from the pieces that are there, or on their way; only what lies between them is read. What was
read is held until newer pieces take its room: others who read the same things are close behind. A piece that could not
be read is forgotten, and all who wait for it are told.
"""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protocol.wire import Buffer
from tierproxy.tasks import Tasks

ObjectId = tuple[str, str]
"""The archive's name and the object's key."""
Read = Callable[[str, str, int, int], Awaitable[Buffer]]
"""Archive, key, and the bytes [start, end) of the object. Raises StoreError."""


@dataclass(slots=True, eq=False)
class _Piece:
    start: int
    end: int
    data: "asyncio.Task[Buffer]"


class HeldRanges:
    """Reads by `read`, and holds at most `memory` bytes of what has come, or one piece."""

    def __init__(self, read: Read, memory: int, tasks: Tasks) -> None:
        self._read = read
        self._memory = memory
        self._tasks = tasks
        self._pieces: dict[ObjectId, list[_Piece]] = {}  # in order, without overlaps
        self._held: OrderedDict[_Piece, ObjectId] = OrderedDict()  # those that have come, the longest unused first
        self.size = 0

    async def get(self, archive: str, key: str, start: int, end: int) -> list[memoryview]:
        """The bytes [start, end), in order, in as many views as there are pieces. Raises StoreError."""
        found: list[memoryview] = []
        for piece in self._cover((archive, key), start, end):
            data = await asyncio.shield(piece.data)
            if piece in self._held:
                self._held.move_to_end(piece)
            found.append(memoryview(data)[max(0, start - piece.start) : end - piece.start])
        return found

    def forget(self, archive: str, key: str, start: int, end: int) -> None:
        """Let go of what has come of [start, end): it is damaged."""
        of = (archive, key)
        for piece in [p for p in self._pieces.get(of, ()) if p.start < end and start < p.end and p in self._held]:
            self._let_go(of, piece)

    def _cover(self, of: ObjectId, start: int, end: int) -> list[_Piece]:
        """Pieces that hold [start, end) together; those that are missing are on their way from now on."""
        pieces = self._pieces.setdefault(of, [])
        at = bisect_right(pieces, start, key=lambda piece: piece.end)
        cover: list[_Piece] = []
        while start < end:
            piece = pieces[at] if at < len(pieces) else None
            if piece is None or piece.start > start:
                stop = end if piece is None else min(end, piece.start)
                piece = self._launch(of, start, stop)
                pieces.insert(at, piece)
            cover.append(piece)
            start = piece.end
            at += 1
        return cover

    def _launch(self, of: ObjectId, start: int, end: int) -> _Piece:
        task = self._tasks.spawn(self._whole(*of, start, end), f"bytes {start}-{end} of {of[1]}", awaited=True)
        piece = _Piece(start, end, task)
        task.add_done_callback(lambda _: self._landed(of, piece))
        return piece

    async def _whole(self, archive: str, key: str, start: int, end: int) -> Buffer:
        return await self._read(archive, key, start, end)

    def _landed(self, of: ObjectId, piece: _Piece) -> None:
        if piece.data.cancelled() or piece.data.exception() is not None:
            self._remove(of, piece)
            return
        self._held[piece] = of
        self.size += piece.end - piece.start
        while self.size > self._memory and len(self._held) > 1:
            oldest, its = next(iter(self._held.items()))
            self._let_go(its, oldest)

    def _let_go(self, of: ObjectId, piece: _Piece) -> None:
        del self._held[piece]
        self.size -= piece.end - piece.start
        self._remove(of, piece)

    def _remove(self, of: ObjectId, piece: _Piece) -> None:
        pieces = self._pieces[of]
        pieces.remove(piece)
        if not pieces:
            del self._pieces[of]
