"""Whether two readings of a topic are the same, in constant memory."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

_SIZES = struct.Struct(">qqii")
_NONE = -1

Headers = Iterable[tuple[str, bytes | None]]


@dataclass
class Digest:
    """SHA-256 over what one partition's records are to a client, in the order in which they were added."""

    records: int = 0
    last_offset: int = -1
    size: int = 0  # bytes of keys and values
    _hash: Any = field(default_factory=sha256, repr=False)

    def add(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Lengths go in too, so that no two different records look alike; -1 is the length of None."""
        key_size = _NONE if key is None else len(key)
        value_size = _NONE if value is None else len(value)
        parts = [_SIZES.pack(offset, timestamp, key_size, value_size), key or b"", value or b""]
        for name, content in headers:
            text = name.encode()
            parts.append(struct.pack(">ii", len(text), _NONE if content is None else len(content)))
            parts += (text, content or b"")
        self._hash.update(b"".join(parts))
        self.records += 1
        self.last_offset = offset
        self.size += max(key_size, 0) + max(value_size, 0)

    @property
    def hex(self) -> str:
        return str(self._hash.hexdigest())
