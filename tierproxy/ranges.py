"""Half-open ranges, and the one place where they meet a protocol that counts otherwise.

Inside tierproxy a range is [start, end): its size is end - start, and neighbours share a number. HTTP
includes the last byte; convert there and nowhere else.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to but not including `end`; ValueError if there can be no such range."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"[{self.start}, {self.end}) is no range of bytes")

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.end - self.start

    @property
    def http(self) -> str:
        """The value of an HTTP Range header (RFC 9110, 14.1.2): "bytes=0-99" for [0, 100).

        ValueError for an empty range: HTTP can't say it.
        """
        if self.start == self.end:
            raise ValueError("HTTP has no way to ask for no bytes")
        return f"bytes={self.start}-{self.end - 1}"

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"
