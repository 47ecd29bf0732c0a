"""Kafka's primitive types, read one after the other from bytes that nobody has checked yet.

A reader promises two things. It never looks past the end of its buffer: a short buffer is a TruncatedError,
never an IndexError or struct.error. And it never believes a length: a count is compared with the bytes that
are left before anybody allocates or loops by it.

Compact types carry length + 1 as unsigned varint, with 0 for null (KIP-482). Varints are those of
org.apache.kafka.common.utils.ByteUtils: at most 5 bytes for 32 bits, 10 for 64, signed ones in zigzag.
"""

from collections.abc import Iterator
from struct import Struct, error
from typing import TypeAlias

from protocol.errors import MalformedError, TruncatedError

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_TAGS = 1024
"""Tag sections with more entries are refused. Kafka defines a handful of tags; only an attack needs more."""

NO_TAGS = b"\x00"
"""An empty tag section."""

_I8 = Struct(">b")
_I16 = Struct(">h")
_I32 = Struct(">i")
_U32 = Struct(">I")
_I64 = Struct(">q")


class Cursor:
    """A position in a buffer that moves forward with each value read."""

    __slots__ = ("buf", "end", "pos")

    def __init__(self, buf: Buffer, pos: int = 0) -> None:
        """`buf` is read from byte `pos` on and never copied as a whole."""
        if pos < 0:
            raise ValueError(f"position {pos} is negative")
        self.buf = buf
        self.pos = pos
        self.end = len(buf)

    def i8(self) -> int:
        """Signed byte."""
        return self._fixed(_I8, 1)

    def i16(self) -> int:
        """Signed 16 bits."""
        return self._fixed(_I16, 2)

    def i32(self) -> int:
        """Signed 32 bits."""
        return self._fixed(_I32, 4)

    def u32(self) -> int:
        """Unsigned 32 bits."""
        return self._fixed(_U32, 4)

    def i64(self) -> int:
        """Signed 64 bits."""
        return self._fixed(_I64, 8)

    def _fixed(self, kind: Struct, size: int) -> int:
        pos = self.pos
        try:
            (value,) = kind.unpack_from(self.buf, pos)
        except error:
            raise self._short(size) from None
        self.pos = pos + size
        return int(value)

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        """All fields of a fixed layout at once: much cheaper than one call a field."""
        pos = self.pos
        try:
            values = layout.unpack_from(self.buf, pos)
        except error:
            raise self._short(layout.size) from None
        self.pos = pos + layout.size
        return values

    def uvarint(self) -> int:
        """Unsigned varint of at most 32 bits."""
        pos = self.pos
        if pos < self.end and (byte := self.buf[pos]) < 0x80:  # the usual case, made quick
            self.pos = pos + 1
            return byte
        return self._varint(32)

    def varint(self) -> int:
        """Signed (zigzag) varint of at most 32 bits."""
        value = self._varint(32)
        return (value >> 1) ^ -(value & 1)

    def varlong(self) -> int:
        """Signed (zigzag) varint of at most 64 bits."""
        value = self._varint(64)
        return (value >> 1) ^ -(value & 1)

    def _varint(self, bits: int) -> int:
        buf, pos, end = self.buf, self.pos, self.end
        value = shift = 0
        while pos < end:
            byte = buf[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> bits:
                    raise MalformedError(f"varint at byte {self.pos} exceeds {bits} bits")
                self.pos = pos
                return value
            shift += 7
            if shift >= bits:
                raise MalformedError(f"varint at byte {self.pos} is longer than {bits} bits need")
        raise self._short(pos - self.pos + 1)

    def string(self) -> str | None:
        """String with a 16-bit length; None for null."""
        size = self._nullable(self.i16())
        return None if size is None else self._text(size)

    def compact_string(self) -> str | None:
        """String with a compact length; None for null."""
        size = self._nullable(self.uvarint() - 1)
        return None if size is None else self._text(size)

    def bytes_(self) -> bytes | None:
        """Bytes with a 32-bit length, copied; None for null."""
        size = self._nullable(self.i32())
        return None if size is None else self.raw(size)

    def compact_bytes(self) -> bytes | None:
        """Bytes with a compact length, copied; None for null."""
        size = self._nullable(self.uvarint() - 1)
        return None if size is None else self.raw(size)

    def raw(self, size: int) -> bytes:
        """The next `size` bytes, copied."""
        start = self.pos
        self.skip(size)
        return bytes(self.buf[start : self.pos])

    def skip(self, size: int) -> None:
        """Move over `size` bytes, which must be there."""
        if size < 0:
            raise MalformedError(f"negative length {size} at byte {self.pos}")
        if size > self.end - self.pos:
            raise self._short(size)
        self.pos += size

    def skip_string(self) -> None:
        """Move over a string with a 16-bit length, null or not, without decoding it."""
        self.skip(self._nullable(self.i16()) or 0)

    def skip_compact_string(self) -> None:
        """Move over a string or bytes with a compact length, null or not, without decoding it."""
        self.skip(self._nullable(self.uvarint() - 1) or 0)

    def skip_bytes(self) -> None:
        """Move over bytes with a 32-bit length, null or not."""
        self.skip(self._nullable(self.i32()) or 0)

    def tags(self) -> Iterator[tuple[int, int, int]]:
        """Move over a tag section; for each entry its tag number and where its bytes start and end.

        Run it to the end before reading on: while an entry is out, the cursor stands behind its bytes.
        """
        for _ in range(self._tag_count()):
            tag = self.uvarint()
            size = self.uvarint()
            start = self.pos
            self.skip(size)
            yield tag, start, self.pos

    def skip_tags(self) -> None:
        """Move over a tag section."""
        pos = self.pos
        if pos < self.end and not self.buf[pos]:  # the usual case, made quick
            self.pos = pos + 1
            return
        for _ in range(self._tag_count()):
            self.uvarint()
            self.skip(self.uvarint())

    def _tag_count(self) -> int:
        count = self.uvarint()
        if count > MAX_TAGS:
            raise MalformedError(f"{count} tags at byte {self.pos}")
        return count

    def array_len(self, least: int = 1, *, nullable: bool = False) -> int:
        """Count of an array with a 32-bit length; -1 for null where that is allowed.

        `least` is the smallest size of an element in bytes; a count that cannot fit is refused.
        """
        return self._count(self.i32(), least, nullable)

    def compact_array_len(self, least: int = 1, *, nullable: bool = False) -> int:
        """Count of an array with a compact length; as array_len()."""
        return self._count(self.uvarint() - 1, least, nullable)

    def finish(self) -> None:
        """The message must end here."""
        if self.pos != self.end:
            raise MalformedError(f"{self.end - self.pos} bytes left over at byte {self.pos}")

    def _count(self, count: int, least: int, nullable: bool) -> int:
        if count < 0 and not (count == -1 and nullable):
            raise MalformedError(f"array of {count} elements at byte {self.pos}")
        if count * least > self.end - self.pos:
            raise self._short(count * least)
        return count

    def _nullable(self, size: int) -> int | None:
        if size >= 0:
            return size
        if size == -1:
            return None
        raise MalformedError(f"negative length {size} at byte {self.pos}")

    def _text(self, size: int) -> str:
        start = self.pos
        self.skip(size)
        try:
            return str(self.buf[start : self.pos], "utf-8")
        except UnicodeDecodeError:
            raise MalformedError(f"string at byte {start} is not UTF-8") from None

    def _short(self, size: int) -> TruncatedError:
        return TruncatedError(f"{size} bytes expected at byte {self.pos} of {self.end}")


def put_uvarint(n: int) -> bytes:
    """`n` as unsigned varint; 0 <= n < 2**32."""
    if 0 <= n < 0x80:
        return bytes((n,))
    if not 0 <= n < 1 << 32:
        raise ValueError(f"{n} is no unsigned varint of 32 bits")
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def put_string(text: str | None) -> bytes:
    """String with a 16-bit length."""
    if text is None:
        return b"\xff\xff"
    data = text.encode()
    if len(data) > 0x7FFF:
        raise ValueError(f"string of {len(data)} bytes")
    return _I16.pack(len(data)) + data


def put_compact_string(text: str | None) -> bytes:
    """String with a compact length."""
    if text is None:
        return b"\x00"
    data = text.encode()
    return put_uvarint(len(data) + 1) + data
