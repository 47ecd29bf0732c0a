"""Cut a byte stream into Kafka frames without waiting for a frame to be whole.

A frame is an int32 size and that many bytes of payload. Requests and answers can be as large as 100 MiB, and most
of them only flow by, so the splitter hands on what it has: a `Piece` is a run of payload bytes of one frame. Whoever
needs a whole frame gathers its pieces; whoever doesn't passes them on as they come, uncopied.
"""

from dataclasses import dataclass

from protocol.errors import MalformedError

SIZE_BYTES = 4


@dataclass(slots=True)
class Piece:
    """A run of bytes of one frame's payload.

    `size` is the payload's size in bytes, `at` where in the payload `data` begins. A frame is one or more pieces, in
    order, without a gap; an empty frame is one piece without data.
    """

    size: int
    at: int
    data: memoryview

    @property
    def last(self) -> bool:
        return self.at + len(self.data) == self.size


class FrameSplitter:
    """Feed it bytes in any portions; it returns the pieces of frames they hold.

    Raises MalformedError for a negative size and for one above `limit` bytes: Kafka closes the connection then
    (SocketServer, NetworkReceive), and nothing behind such a size can be understood.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = bytearray()  # of a size that came in parts
        self._size = 0
        self._at = 0  # position inside the payload; equal to _size between frames

    @property
    def between_frames(self) -> bool:
        """Whether the stream may end here without cutting a frame in two."""
        return self._at == self._size and not self._prefix

    @property
    def left(self) -> int:
        """Bytes of the current frame's payload that have not come yet."""
        return self._size - self._at

    def skip(self, size: int) -> None:
        """`size` more bytes of the current frame, at most as many as are left, have come and are not to be cut."""
        self._at += size

    def feed(self, data: bytes | bytearray | memoryview) -> list[Piece]:
        view = memoryview(data)
        pos, end = 0, len(view)
        if end >= SIZE_BYTES and self._at == self._size and not self._prefix:
            size = int.from_bytes(view[:SIZE_BYTES], "big")
            if size == end - SIZE_BYTES and size <= self._limit:  # one whole frame: the usual case, made quick
                return [Piece(size, 0, view[SIZE_BYTES:])]
        pieces: list[Piece] = []
        while pos < end:
            if self._at == self._size:
                if not self._prefix and end - pos >= SIZE_BYTES:  # the usual case, made quick
                    self._begin(int.from_bytes(view[pos : pos + SIZE_BYTES], "big", signed=True))
                    pos += SIZE_BYTES
                    if self._size == 0:
                        pieces.append(Piece(0, 0, view[pos:pos]))
                    continue
                taken = min(SIZE_BYTES - len(self._prefix), end - pos)
                self._prefix += view[pos : pos + taken]
                pos += taken
                if len(self._prefix) < SIZE_BYTES:
                    break
                self._begin(int.from_bytes(self._prefix, "big", signed=True))
                if self._size == 0:
                    pieces.append(Piece(0, 0, view[pos:pos]))
                continue
            taken = min(self._size - self._at, end - pos)
            pieces.append(Piece(self._size, self._at, view[pos : pos + taken]))
            self._at += taken
            pos += taken
        return pieces

    def _begin(self, size: int) -> None:
        if size < 0 or size > self._limit:
            raise MalformedError(f"a frame of {size} bytes; the limit is {self._limit}")
        self._prefix.clear()
        self._size = size
        self._at = 0
