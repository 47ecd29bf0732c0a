"""What every reader of bytes must do, whatever it reads; `read` is the reader, `payload` bytes it accepts."""

import contextlib
import tracemalloc
from collections.abc import Callable

import pytest

from protocol.errors import MalformedError

Read = Callable[[bytes], object]


def refuses_every_truncation(read: Read, payload: bytes, *, accepts_from: int | None = None) -> None:
    """Cut anywhere (or anywhere before `accepts_from`), it is malformed: no IndexError, no struct.error."""
    read(payload)
    for cut in range(len(payload) if accepts_from is None else accepts_from):
        with pytest.raises(MalformedError):
            read(payload[:cut])


def refuses_trailing_bytes(read: Read, payload: bytes) -> None:
    for extra in (b"\x00", b"\xff" * 9, payload):
        with pytest.raises(MalformedError):
            read(payload + extra)


def reads_alike_from_every_buffer(read: Callable[[bytes | bytearray | memoryview], object], payload: bytes) -> None:
    expected = read(payload)
    assert read(bytearray(payload)) == expected
    assert read(memoryview(payload)) == expected
    assert read(memoryview(b"??" + payload + b"??")[2:-2]) == expected


def survives_damage(read: Read, payload: bytes, *, most_bytes: int = 1 << 20) -> None:
    """Whatever single place is overwritten, it reads something or says so, and never allocates by a length it read."""
    values = (b"\x00", b"\x7f", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\x0f")
    tracemalloc.start()
    try:
        for at in range(len(payload)):
            for value in values:
                damaged = payload[:at] + value + payload[at + len(value) :]
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                with contextlib.suppress(MalformedError):
                    read(damaged)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < most_bytes, f"{peak - before} bytes after damage at {at}"
    finally:
        tracemalloc.stop()
