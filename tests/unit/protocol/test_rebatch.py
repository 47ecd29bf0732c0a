"""Batches made of other batches' records, read back by kafka-python and by our own decoder."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch

from protocol import rebatch
from protocol.batches import CODEC_NAMES, crc_ok, read_batch_header
from protocol.errors import MalformedError
from protocol.records import Record, decode_records
from protocol.wire import Cursor
from tests.unit.tierproxy.cli.archives import TIME, batch

CODECS = range(len(CODEC_NAMES))
VALUES = [b"one", None, b"", b"four" * 1000]


def seen(data: bytes | bytearray) -> list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    return [(r.timestamp, r.key, r.value, r.headers) for r in decode_records(bytes(data))]


def by_kafka_python(data: bytes | bytearray) -> list[Record]:
    found = DefaultRecordBatch(bytes(data))
    assert found.validate_crc()
    return [Record(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in found]


@pytest.mark.parametrize("codec", CODECS)
def test_a_whole_batch_keeps_its_records_byte_for_byte(codec: int) -> None:
    source = batch(100, VALUES, epoch=7, codec=codec, producer=42)
    header = read_batch_header(source)
    assert header is not None
    assert rebatch.keeps_its_records(header)
    sent = rebatch.as_produced(source, header)
    rebatch.stamp(sent, 5, 3, 77)
    now = read_batch_header(sent)
    assert now is not None
    assert (now.base_offset, now.leader_epoch, now.producer_id, now.producer_epoch, now.base_sequence) == (
        0,
        -1,
        5,
        3,
        77,
    )
    assert (now.is_transactional, now.is_control, now.codec) == (False, False, codec)
    assert (now.size, now.record_count, now.max_timestamp) == (header.size, 4, header.max_timestamp)
    assert crc_ok(sent)
    assert sent[61:] == source[61:]
    assert seen(sent) == seen(source)


@pytest.mark.parametrize("codec", CODECS)
def test_some_of_a_batchs_records_make_a_batch(codec: int) -> None:
    source = batch(100, VALUES, codec=codec)
    built = rebatch.build([r for r in rebatch.raw_records(source) if r.offset >= 101], codec)
    assert seen(built) == seen(source)[1:]
    assert [r.offset for r in decode_records(bytes(built))] == [0, 1, 2]
    assert [(r.key, r.value) for r in by_kafka_python(built)] == [(r.key, r.value) for r in decode_records(source)[1:]]
    header = read_batch_header(built)
    assert header is not None
    assert rebatch.keeps_its_records(header)
    assert (header.base_timestamp, header.max_timestamp, header.codec) == (TIME + 101, TIME + 103, codec)


def test_a_header_is_added_behind_the_others() -> None:
    source = batch(100, VALUES[:2])
    first, second = (rebatch.with_header(r, "from", str(r.offset).encode()) for r in rebatch.raw_records(source))
    built = rebatch.build([first, second], 0)
    assert [headers for _, _, _, headers in seen(built)] == [[("h", b"\x00"), ("from", b"100")], [("from", b"101")]]
    with pytest.raises(MalformedError, match="-1 headers"):
        rebatch.with_header(rebatch.RawRecord(0, 0, b"\x01\x01\x01"), "a", b"")


def test_names_of_headers_that_are_no_text_stay_as_they_are() -> None:
    (record,) = rebatch.raw_records(batch(0, [b"v"]))
    odd = rebatch.RawRecord(0, TIME, record.body.replace(b"\x02h\x02\x00", b"\x02\xff\x02\x00"))
    assert odd.body != record.body
    (again,) = rebatch.raw_records(bytes(rebatch.build([odd], 4)))
    assert again.body == odd.body


@pytest.mark.parametrize(
    ("at", "change"), [(57, 1), (21, 0x0008), (21, 0x0040)], ids=["compacted", "append", "horizon"]
)
def test_what_a_broker_would_not_take_or_would_change_must_be_written_anew(at: int, change: int) -> None:
    source = bytearray(batch(0, [b"a", b"b"]))
    if at == 57:
        struct.pack_into(">i", source, 57, change)
    else:
        struct.pack_into(">h", source, at, change)
    header = read_batch_header(source)
    assert header is not None
    assert not rebatch.keeps_its_records(header)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_are_read_back(number: int) -> None:
    data = rebatch.put_varint(number)
    cursor = Cursor(data)
    assert cursor.varlong() == number
    cursor.finish()


def test_there_is_no_batch_of_nothing() -> None:
    with pytest.raises(ValueError, match="without records"):
        rebatch.build([], 0)
