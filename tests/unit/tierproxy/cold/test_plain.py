import random

import pytest
import zstandard

from protocol.errors import MalformedError
from tests.unit.tierproxy.cold.shelf import BATCHES
from tierproxy.archive.errors import FormatError
from tierproxy.archive.segment_index import Chunk
from tierproxy.cold.plain import PlainChunk, unpacked
from tierproxy.cold.slabs import SLAB

PLAIN = b"".join(BATCHES[:20])
STORED = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(PLAIN)


def chunk(stored: bytes = STORED, plain: int = len(PLAIN)) -> Chunk:
    return Chunk(0, 199, 0, len(stored), plain, -1, -1)


def test_a_chunk_is_unpacked_into_a_slab_whatever_was_in_it() -> None:
    slab = bytearray(b"x" * SLAB)
    found = unpacked(STORED, chunk(), slab)
    assert bytes(found.data) == PLAIN
    assert found.lasts == list(range(9, 200, 10))
    assert [bytes(found.batch(n)) for n in range(20)] == BATCHES[:20]
    assert bytes(slab[len(PLAIN) : len(PLAIN) + 2]) == b"xx"


def test_no_wrong_bit_comes_through() -> None:
    chance = random.Random(3)
    slab = bytearray(SLAB)
    for _ in range(500):
        damaged = bytearray(STORED)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            found = unpacked(damaged, chunk(), slab)
        except FormatError:
            continue
        assert bytes(found.data) == PLAIN, "only a bit that means nothing may be another"


@pytest.mark.parametrize("stored", [STORED[:-1], STORED[:-4], STORED[: len(STORED) // 2], STORED + STORED])
def test_a_chunk_of_another_size_is_refused(stored: bytes) -> None:
    with pytest.raises(FormatError):
        unpacked(stored, chunk(stored), bytearray(SLAB))
    with pytest.raises(FormatError, match="bytes, not"):
        unpacked(stored, chunk(), bytearray(SLAB))


def test_a_size_that_the_index_does_not_say_is_refused() -> None:
    with pytest.raises(FormatError, match="another size"):
        unpacked(STORED, chunk(plain=len(PLAIN) - 1), bytearray(SLAB))


def test_what_is_no_batches_is_refused() -> None:
    with pytest.raises(MalformedError):
        PlainChunk.of(BATCHES[0] + BATCHES[1][:-1])
