import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedError
from protocol.frames import FrameSplitter


def framed(*payloads: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(p)) + p for p in payloads)


def frames_of(chunks: list[bytes], limit: int = 1 << 20) -> list[bytes]:
    """Feed the chunks one by one and put the frames together again, checking each piece's place."""
    splitter = FrameSplitter(limit)
    frames: list[bytes] = []
    current = bytearray()
    for chunk in chunks:
        for piece in splitter.feed(chunk):
            assert piece.at == len(current)
            current += piece.data
            assert piece.last == (len(current) == piece.size)
            if piece.last:
                frames.append(bytes(current))
                current.clear()
    return frames


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_any_portions_give_the_same_frames(payloads: list[bytes], data: st.DataObject) -> None:
    stream = framed(*payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert frames_of(chunks) == payloads


def test_byte_by_byte() -> None:
    stream = framed(b"abc", b"", b"z")
    assert frames_of([stream[i : i + 1] for i in range(len(stream))]) == [b"abc", b"", b"z"]


@pytest.mark.parametrize("size", [-1, -(2**31), 11, 2**31 - 1])
def test_a_size_out_of_bounds_is_malformed_before_any_payload_is_read(size: int) -> None:
    with pytest.raises(MalformedError, match=str(size)):
        FrameSplitter(limit=10).feed(struct.pack(">i", size))


def test_a_frame_of_exactly_the_limit_passes() -> None:
    assert frames_of([framed(b"x" * 10)], limit=10) == [b"x" * 10]


def test_it_knows_when_the_stream_may_end() -> None:
    splitter = FrameSplitter(100)
    assert splitter.between_frames
    for portion, may_end in [(b"\0\0", False), (b"\0\x02", False), (b"a", False), (b"b", True), (b"\0", False)]:
        splitter.feed(portion)
        assert splitter.between_frames is may_end
