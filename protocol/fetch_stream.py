"""Patch Fetch responses, v4 to v18, while they flow by: nothing is held that is longer than a topic's name.

What changes keeps its length, because the frame's size went out first:

- In the fixed part of each partition, the error and the log start. An out-of-range error that becomes 0 leaves
  "no error, no records" behind: that partition's blob is empty already.
- NodeEndpoints (KIP-951: brokers' addresses, v16+) follow all records. Their tag number becomes UNKNOWN_TAG and
  their bytes zeros; clients skip tags they do not know.

Records are skipped by their length, never looked at. They leave as views of what came in, except that a gap
of at most COPY_BELOW bytes between two patches is copied: two more pieces would cost more than such a copy.

Each step below reads one thing that must be there as a whole: a step that runs out of bytes changes nothing
and is taken again when more have come.

    HEADER → (tags) → TOP → TOPIC → PARTITION → [ABORTED → RECORDS] → records → PARTITION_TAGS ─┐
                             ▲        ▲                                                        │
                             │        └────────────────── more partitions ─────────────────────┤
                             └── more topics ── TOPIC_TAGS ◄───────────────────────────────────┘
                                                    └─► TAIL_TAGS → DONE
"""

import struct
from collections.abc import Callable
from struct import Struct
from typing import TypeAlias

from protocol.endpoints import NODE_ENDPOINTS_TAG
from protocol.errors import MalformedError, TruncatedError
from protocol.wire import MAX_TAGS, Buffer, Cursor

UNKNOWN_TAG = 0x7F
"""A tag number Kafka has not assigned to a Fetch response, as long on the wire as the one it replaces."""

COPY_BELOW = 2048
"""Bytes between two patches up to which they leave as one piece."""

MAX_TOPIC_NAME = 0x7FFF
"""Longest topic name in bytes, as in the versions with a 16-bit length; Kafka itself allows 249."""

Decide: TypeAlias = Callable[[str | bytes, int, int, int], tuple[int, int] | None]
"""(topic name or 16-byte id, index, error, log start) → (error, log start) to show, or None to leave both.

Called once for each partition, in order. Below v5 there is no log start: -1 comes in, what comes out is
ignored.
"""

_FIXED_V4 = Struct(">ihqq")
_FIXED_V5 = Struct(">ihqqq")
_ERROR_AT = 4
_PATCH_V4 = Struct(">h")
_PATCH_V5 = Struct(">hqqq")
_I32 = Struct(">i")

_LACKS_BYTES = (IndexError, struct.error, TruncatedError)
"""How a step ends that reads behind the end of its buffer."""

_LOOK_AHEAD = 512
"""How much is joined to bytes that were held: more than any step needs, long topic names apart."""


class FetchStream:
    """One response on its way through. Feed it the payload, correlation id first, in any pieces."""

    __slots__ = (
        "_aborted_left",
        "_after_tags",
        "_blank",
        "_decide",
        "_fixed",
        "_flexible",
        "_held",
        "_partitions_left",
        "_patches",
        "_skip",
        "_step",
        "_tags_left",
        "_topic",
        "_topics_left",
        "_version",
    )

    def __init__(self, version: int, decide: Decide) -> None:
        if not 4 <= version <= 18:
            raise ValueError(f"fetch version {version} is not in 4 to 18")
        self._version = version
        self._flexible = version >= 12
        self._fixed = _FIXED_V5 if version >= 5 else _FIXED_V4
        self._decide = decide
        self._step: _Step = FetchStream._on_header
        self._held = b""  # bytes of a step that is not all there
        self._skip = 0  # bytes to pass on before the next step
        self._blank = False  # whether they leave as zeros
        self._patches: list[tuple[int, bytes]] = []  # (position in the buffer being read, new bytes)
        self._topic: str | bytes = b""
        self._topics_left = 0
        self._partitions_left = 0
        self._aborted_left = 0
        self._tags_left = 0
        self._after_tags: _Step = FetchStream._on_done

    @property
    def done(self) -> bool:
        """Whether the response is complete."""
        return self._step is FetchStream._on_done and not self._skip

    def passes(self, size: int) -> bool:
        """Whether the next `size` bytes leave as they are; if so they count as fed."""
        if size > self._skip or self._blank:
            return False
        self._skip -= size
        return True

    def feed(self, data: Buffer) -> list[Buffer]:
        """The patched bytes that can leave now, as pieces: over the whole response as many as came in.

        Pieces may be views of `data`. Raises MalformedError for bytes that are no Fetch response of this
        version, and for bytes after its end; the stream is of no use afterwards.
        """
        size = len(data)
        if self.passes(size):
            return [data] if size else []
        out: list[Buffer] = []
        view = memoryview(data)
        start = 0
        if self._held:
            start = self._resume(view, out)
        if start < size:
            end = self._advance(view, start, size)
            self._emit(view, start, end, out)
            if end < size:
                self._held = bytes(view[end:])
        return out

    def finish(self) -> None:
        """The frame ends here: raises TruncatedError if the response does not."""
        if not self.done:
            raise TruncatedError("the frame ends inside a fetch response")

    def _resume(self, view: memoryview, out: list[Buffer]) -> int:
        """Complete the step whose first bytes were held; how many bytes of `view` that took."""
        held = self._held
        for ahead in (_LOOK_AHEAD, len(view)):
            joined = memoryview(held + view[:ahead])
            end = self._advance(joined, 0, len(held))
            if end:
                self._emit(joined, 0, end, out)
                self._held = b""
                return end - len(held)
            if ahead >= len(view):
                break
        self._held = bytes(joined)
        return len(view)

    def _advance(self, buf: memoryview, pos: int, until: int) -> int:
        """Take steps from `pos` until one ends at or behind `until` or lacks bytes; where the last ended."""
        end = len(buf)
        try:
            while pos < until:
                if self._skip:
                    size = min(self._skip, end - pos)
                    if self._blank:
                        self._patches.append((pos, bytes(size)))
                    self._skip -= size
                    pos += size
                else:
                    self._blank = False
                    pos = self._step(self, buf, pos)
        except _LACKS_BYTES:
            pass  # the step will be taken again
        return pos

    def _emit(self, view: memoryview, start: int, end: int, out: list[Buffer]) -> None:
        """Append bytes `start` to `end` of `view`, patched."""
        patches, self._patches = self._patches, []
        done = start
        i = 0
        while i < len(patches):
            at, new = patches[i]
            stop = at + len(new)
            first = i
            i += 1
            while i < len(patches) and patches[i][0] - stop <= COPY_BELOW:
                stop = patches[i][0] + len(patches[i][1])
                i += 1
            if at > done:
                out.append(view[done:at])
            if i - first == 1:
                out.append(new)
            else:
                run = bytearray(view[at:stop])
                for place, new in patches[first:i]:
                    run[place - at : place - at + len(new)] = new
                out.append(run)
            done = stop
        if end > done:
            out.append(view[done:end])

    # Steps: (buffer, position) → position behind what was read. Nothing may change before all reads are done.

    def _on_header(self, buf: memoryview, pos: int) -> int:
        if not self._flexible:
            buf[pos + 3]
            self._step = FetchStream._on_top
            return pos + 4
        return self._begin_tags(buf, pos + 4, FetchStream._on_top)

    def _on_top(self, buf: memoryview, pos: int) -> int:
        count, at = self._count(buf, pos + (10 if self._version >= 7 else 4))
        if count < 0:
            raise MalformedError("null instead of topics")
        self._topics_left = count
        self._step = self._next_topic()
        return at

    def _on_topic(self, buf: memoryview, pos: int) -> int:
        topic, at = self._read_topic(buf, pos)
        count, at = self._count(buf, at)
        if count < 0:
            raise MalformedError("null instead of partitions")
        self._topic = topic
        self._topics_left -= 1
        self._partitions_left = count
        self._step = self._next_partition()
        return at

    def _on_partition(self, buf: memoryview, pos: int) -> int:
        fixed = self._fixed
        numbers = fixed.unpack_from(buf, pos)
        aborted, at = self._count(buf, pos + fixed.size)
        if aborted <= 0:
            at = self._on_records(buf, at)
        elif self._flexible:
            self._aborted_left = aborted
            self._step = FetchStream._on_aborted
        else:
            self._skip = 16 * aborted
            self._step = FetchStream._on_records
        error = numbers[1]
        log_start = numbers[4] if self._version >= 5 else -1
        try:
            shown = self._decide(self._topic, numbers[0], error, log_start)
            if shown is not None and shown != (error, log_start):
                if self._version >= 5:
                    new = _PATCH_V5.pack(shown[0], numbers[2], numbers[3], shown[1])
                else:
                    new = _PATCH_V4.pack(shown[0])
                self._patches.append((pos + _ERROR_AT, new))
        except _LACKS_BYTES as fault:
            raise RuntimeError(f"nothing can be decided about partition {numbers[0]}") from fault
        return at

    def _on_aborted(self, buf: memoryview, pos: int) -> int:
        # 16 bytes and a tag section, which Kafka always sends empty: look at all those zero bytes at once.
        whole = min(self._aborted_left, (len(buf) - pos) // 17)
        if whole and not any(buf[pos + 16 : pos + 17 * whole : 17]):
            at = pos + 17 * whole
        else:
            whole = 1
            cur = Cursor(buf, pos)
            cur.skip(16)
            cur.skip_tags()
            at = cur.pos
        self._aborted_left -= whole
        if not self._aborted_left:
            self._step = FetchStream._on_records
        return at

    def _on_records(self, buf: memoryview, pos: int) -> int:
        size, at = self._count(buf, pos + (4 if self._version >= 11 else 0))
        self._skip = max(size, 0)
        self._partitions_left -= 1
        self._step = FetchStream._on_partition_tags if self._flexible else self._next_partition()
        return at

    def _on_partition_tags(self, buf: memoryview, pos: int) -> int:
        return self._begin_tags(buf, pos, self._next_partition())

    def _on_topic_tags(self, buf: memoryview, pos: int) -> int:
        return self._begin_tags(buf, pos, self._next_topic())

    def _on_tail_tags(self, buf: memoryview, pos: int) -> int:
        return self._begin_tags(buf, pos, FetchStream._on_done)

    def _on_tag(self, buf: memoryview, pos: int) -> int:
        cur = Cursor(buf, pos)
        tag = cur.uvarint()
        number_end = cur.pos
        self._skip = cur.uvarint()
        if tag == NODE_ENDPOINTS_TAG and self._after_tags is FetchStream._on_done and self._version >= 16:
            if number_end - pos != 1:
                raise MalformedError("tag number 0 in more than one byte")
            self._patches.append((pos, bytes((UNKNOWN_TAG,))))
            self._blank = True
        self._tags_left -= 1
        if not self._tags_left:
            self._step = self._after_tags
        return cur.pos

    def _on_done(self, buf: memoryview, pos: int) -> int:
        raise MalformedError(f"{len(buf) - pos} bytes after the end of a fetch response")

    def _next_topic(self) -> "_Step":
        if self._topics_left:
            return FetchStream._on_topic
        return FetchStream._on_tail_tags if self._flexible else FetchStream._on_done

    def _next_partition(self) -> "_Step":
        if self._partitions_left:
            return FetchStream._on_partition
        return FetchStream._on_topic_tags if self._flexible else self._next_topic()

    def _begin_tags(self, buf: memoryview, pos: int, after: "_Step") -> int:
        if not buf[pos]:
            self._step = after
            return pos + 1
        cur = Cursor(buf, pos)
        count = cur.uvarint()
        if count > MAX_TAGS:
            raise MalformedError(f"a section of {count} tags")
        self._tags_left = count
        self._after_tags = after
        self._step = FetchStream._on_tag
        return cur.pos

    def _read_topic(self, buf: memoryview, pos: int) -> tuple[str | bytes, int]:
        cur = Cursor(buf, pos)
        if self._version >= 13:
            return cur.raw(16), cur.pos
        size = cur.uvarint() - 1 if self._flexible else cur.i16()
        if not 0 <= size <= MAX_TOPIC_NAME:
            raise MalformedError(f"a topic's name of {size} bytes")
        try:
            return cur.raw(size).decode(), cur.pos
        except UnicodeDecodeError:
            raise MalformedError("a topic's name is not UTF-8") from None

    def _count(self, buf: memoryview, pos: int) -> tuple[int, int]:
        """A length or count, -1 for null, and the position behind it."""
        if not self._flexible:
            (count,) = _I32.unpack_from(buf, pos)
            if count < -1:
                raise MalformedError(f"a length of {count}")
            return count, pos + 4
        count = buf[pos]
        if count < 0x80:
            return count - 1, pos + 1
        cur = Cursor(buf, pos)
        return cur.uvarint() - 1, cur.pos


_Step: TypeAlias = Callable[[FetchStream, memoryview, int], int]
