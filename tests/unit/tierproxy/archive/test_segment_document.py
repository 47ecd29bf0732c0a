"""A reader of segments written from the layout in segment_index.py's docstring alone: struct, hashlib and zstandard.

It shares no code with tierproxy, so what the document leaves out, or says wrongly, fails here. Whoever has an archive
and no tierproxy can begin with this file.
"""

import hashlib
import io
import struct
from dataclasses import dataclass

import pytest
import zstandard

from tests.unit.vectors import SEGMENT_LOG
from tests.vectors import HERE

SEGMENT = (HERE / "segment-v1.log.zst").read_bytes()


@dataclass
class Chunk:
    base_offset: int
    last_offset: int
    position: int
    stored_size: int
    plain_size: int
    min_timestamp: int
    max_timestamp: int


@dataclass
class Segment:
    cluster: str
    topic: str
    topic_id: bytes
    partition: int
    writer: str
    records: int
    batches: int
    plain_size: int
    sha256: bytes
    chunks: list[Chunk]
    epochs: list[tuple[int, int]]
    aborted: list[tuple[int, int, int]]


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, reflected: bit by bit, as the document only names it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def read(data: bytes) -> Segment:
    """The index of a segment, found from its last 40 bytes."""
    magic, size, position, index_size, index_crc, version, zero, crc, mark = struct.unpack("<II QIIHHI 8s", data[-40:])
    assert (magic, size, version, zero, mark) == (0x184D2A5B, 32, 1, 0, b"TIERSEG1")
    assert crc32c(data[-32:-12]) == crc
    frame = data[position : position + index_size]
    assert position + index_size + 40 == len(data)
    magic, size = struct.unpack_from("<II", frame)
    assert (magic, size) == (0x184D2A5A, index_size - 8)
    payload = io.BytesIO(frame[8:])
    assert struct.unpack("<I", frame[-4:]) == (index_crc,)
    assert crc32c(frame[8:-4]) == index_crc

    def take(layout: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, payload.read(struct.calcsize("<" + layout)))

    def text() -> str:
        (length,) = take("H")
        return payload.read(length).decode()

    layout, codec, _, zero = take("BBBB")
    assert (layout, codec, zero) == (1, 1, 0)
    cluster, topic, topic_id = text(), text(), payload.read(16)
    (partition,) = take("I")
    writer = text()
    records, batches, plain_size = take("QQQ")
    sha256 = payload.read(32)
    chunks = [Chunk(*take("qqQIIqq")) for _ in range(*take("I"))]
    epochs = [(epoch, start) for epoch, start in (take("iq") for _ in range(*take("I")))]
    aborted = [(producer, first, marker) for producer, first, marker in (take("qqq") for _ in range(*take("I")))]
    assert payload.read() == frame[-4:], "nothing but the checksum is left"
    return Segment(
        cluster, topic, topic_id, partition, writer, records, batches, plain_size, sha256, chunks, epochs, aborted
    )


def plain(data: bytes, chunk: Chunk) -> bytes:
    frame = data[chunk.position : chunk.position + chunk.stored_size]
    parameters = zstandard.get_frame_parameters(frame)
    assert parameters.content_size == chunk.plain_size
    assert parameters.has_checksum
    return zstandard.ZstdDecompressor().decompress(frame)


def batches_of(log: bytes) -> list[tuple[int, int, int, int]]:
    """(base offset, last offset, leader epoch, records) of each record batch, by Kafka's own layout (magic 2)."""
    found, at = [], 0
    while at < len(log):
        base, length, epoch, magic = struct.unpack_from(">qiib", log, at)
        assert magic == 2
        (last_delta,) = struct.unpack_from(">i", log, at + 23)
        (count,) = struct.unpack_from(">i", log, at + 57)
        found.append((base, base + last_delta, epoch, count))
        at += 12 + length
    assert at == len(log)
    return found


@pytest.fixture(scope="module")
def segment() -> Segment:
    return read(SEGMENT)


def test_the_chunks_hold_the_log(segment: Segment) -> None:
    log = b"".join(plain(SEGMENT, chunk) for chunk in segment.chunks)
    assert log == SEGMENT_LOG
    assert (segment.plain_size, segment.sha256) == (len(log), hashlib.sha256(log).digest())


def test_each_chunk_can_be_read_alone_and_is_where_it_says(segment: Segment) -> None:
    at = 0
    for chunk in segment.chunks:
        assert chunk.position == at
        at += chunk.stored_size
        batches = batches_of(plain(SEGMENT, chunk))
        assert (batches[0][0], batches[-1][1]) == (chunk.base_offset, chunk.last_offset)


def test_the_totals_and_epochs_are_those_of_the_batches(segment: Segment) -> None:
    batches = batches_of(SEGMENT_LOG)
    assert segment.batches == len(batches)
    assert segment.records == sum(count for *_, count in batches)
    starts: dict[int, int] = {}
    for base, _, epoch, _ in batches:
        starts.setdefault(epoch, base)
    assert segment.epochs == sorted(starts.items())


def test_zstd_alone_gives_the_log() -> None:
    """As `zstd -d` does, which skips the frames that it need not understand."""
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(SEGMENT), read_across_frames=True)
    assert reader.read() == SEGMENT_LOG


def test_a_changed_byte_of_index_or_trailer_shows(segment: Segment) -> None:
    start = segment.chunks[-1].position + segment.chunks[-1].stored_size
    for at in range(start, len(SEGMENT)):
        damaged = bytearray(SEGMENT)
        damaged[at] ^= 0x10
        with pytest.raises((AssertionError, struct.error, IndexError)):
            read(bytes(damaged))
