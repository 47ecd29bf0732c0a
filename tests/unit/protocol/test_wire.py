from collections.abc import Callable
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.schemas.fields.codecs.types import UnsignedVarInt32, VarInt32, VarInt64

from protocol.errors import MalformedError, TruncatedError
from protocol.wire import MAX_TAGS, Cursor, put_compact_string, put_string, put_uvarint
from tests.unit.protocol.reading import reads_alike_from_every_buffer

Read = Callable[[Cursor], object]

READS: list[tuple[str, Read, str, object]] = [
    ("i8", Cursor.i8, "80", -128),
    ("i16", Cursor.i16, "fffe", -2),
    ("i32", Cursor.i32, "00010203", 0x10203),
    ("u32", Cursor.u32, "ffffffff", 0xFFFFFFFF),
    ("i64", Cursor.i64, "8000000000000000", -(2**63)),
    ("unpack", lambda c: c.unpack(Struct(">hb")), "000102", (1, 2)),
    ("uvarint", Cursor.uvarint, "00", 0),
    ("uvarint of two bytes", Cursor.uvarint, "ac02", 300),
    ("uvarint of five bytes", Cursor.uvarint, "ffffffff0f", 0xFFFFFFFF),
    ("varint", Cursor.varint, "03", -2),
    ("varint, smallest", Cursor.varint, "ffffffff0f", -(2**31)),
    ("varlong", Cursor.varlong, "feffffffffffffffff01", 2**63 - 1),
    ("varlong, smallest", Cursor.varlong, "ffffffffffffffffff01", -(2**63)),
    ("string", Cursor.string, "0003e282ac", "€"),
    ("empty string", Cursor.string, "0000", ""),
    ("null string", Cursor.string, "ffff", None),
    ("compact string", Cursor.compact_string, "0461c3a4", "aä"),
    ("empty compact string", Cursor.compact_string, "01", ""),
    ("null compact string", Cursor.compact_string, "00", None),
    ("bytes", Cursor.bytes_, "00000002ff00", b"\xff\x00"),
    ("null bytes", Cursor.bytes_, "ffffffff", None),
    ("compact bytes", Cursor.compact_bytes, "03ff00", b"\xff\x00"),
    ("null compact bytes", Cursor.compact_bytes, "00", None),
    ("raw", lambda c: c.raw(3), "010203", b"\x01\x02\x03"),
    ("skip", lambda c: c.skip(3), "010203", None),
    ("skip string", Cursor.skip_string, "0002ffff", None),
    ("skip null string", Cursor.skip_string, "ffff", None),
    ("skip compact string", Cursor.skip_compact_string, "03ffff", None),
    ("skip null compact string", Cursor.skip_compact_string, "00", None),
    ("skip bytes", Cursor.skip_bytes, "00000001ff", None),
    ("skip null bytes", Cursor.skip_bytes, "ffffffff", None),
    ("tags", lambda c: list(c.tags()), "020001aa7f00", [(0, 3, 4), (127, 6, 6)]),
    ("no tags", lambda c: list(c.tags()), "00", []),
    ("skip tags", Cursor.skip_tags, "020001aa7f00", None),
    ("null array", lambda c: c.array_len(nullable=True), "ffffffff", -1),
    ("empty array", Cursor.array_len, "00000000", 0),
    ("null compact array", lambda c: c.compact_array_len(nullable=True), "00", -1),
    ("empty compact array", Cursor.compact_array_len, "01", 0),
]


@pytest.mark.parametrize(("read", "data", "value"), [row[1:] for row in READS], ids=[row[0] for row in READS])
class TestEveryRead:
    def test_whole(self, read: Read, data: str, value: object) -> None:
        cur = Cursor(bytes.fromhex(data))
        assert read(cur) == value
        cur.finish()

    def test_in_the_middle(self, read: Read, data: str, value: object) -> None:
        # Tags tell positions, so what stands before shifts them: read those from 0 only.
        before = 0 if isinstance(value, list) else 3
        cur = Cursor(b"\x55" * before + bytes.fromhex(data) + b"\xff" * 9, before)
        assert read(cur) == value
        assert cur.pos == before + len(data) // 2
        with pytest.raises(MalformedError, match="9 bytes left over"):
            cur.finish()

    def test_from_every_buffer(self, read: Read, data: str, value: object) -> None:
        reads_alike_from_every_buffer(lambda buffer: read(Cursor(buffer)), bytes.fromhex(data))

    def test_cut_at_every_byte(self, read: Read, data: str, value: object) -> None:
        whole = bytes.fromhex(data)
        for cut in range(len(whole)):
            with pytest.raises(TruncatedError):
                read(Cursor(whole[:cut]))

    def test_behind_the_end(self, read: Read, data: str, value: object) -> None:
        with pytest.raises(TruncatedError):
            read(Cursor(b"\x01", 5))


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (Cursor.uvarint, "808080808001"),
        (Cursor.uvarint, "ffffffff10"),
        (Cursor.varint, "ffffffff10"),
        (Cursor.varlong, "8080808080808080808001"),
        (Cursor.varlong, "ffffffffffffffffff02"),
        (Cursor.string, "fffe"),
        (Cursor.string, "0001ff"),
        (Cursor.compact_string, "02ff"),
        (Cursor.bytes_, "fffffffe"),
        (Cursor.skip_string, "fffe"),
        (Cursor.skip_bytes, "80000000"),
        (lambda c: c.skip(-1), "00"),
        (Cursor.array_len, "ffffffff"),
        (lambda c: c.array_len(nullable=True), "fffffffe"),
        (Cursor.compact_array_len, "00"),
        (Cursor.skip_tags, "818001" + "00" * 20000),
        (lambda c: list(c.tags()), "818001" + "00" * 20000),
    ],
)
def test_malformed_whatever_follows(read: Read, data: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read(Cursor(bytes.fromhex(data) + bytes(64)))
    assert not isinstance(caught.value, TruncatedError)


def test_an_array_that_cannot_fit_is_refused_before_it_is_read() -> None:
    assert Cursor(bytes.fromhex("00000002") + bytes(8)).array_len(4) == 2
    assert Cursor(b"\x03" + bytes(8)).compact_array_len(4) == 2
    for count, least in (("00000003", 4), ("7fffffff", 1)):
        with pytest.raises(TruncatedError):
            Cursor(bytes.fromhex(count) + bytes(8)).array_len(least)
    for count, least in (("04", 4), ("ffffffff0f", 1)):
        with pytest.raises(TruncatedError):
            Cursor(bytes.fromhex(count) + bytes(8)).compact_array_len(least)


def test_a_tag_section_may_have_so_many_entries() -> None:
    section = put_uvarint(MAX_TAGS) + bytes(2 * MAX_TAGS)
    cur = Cursor(section)
    cur.skip_tags()
    cur.finish()


def test_a_position_is_never_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        Cursor(b"abc", -1)


@given(st.integers(0, 2**32 - 1))
def test_uvarints_are_those_of_kafka_python(n: int) -> None:
    data = put_uvarint(n)
    assert data == UnsignedVarInt32.encode(n)
    assert Cursor(data).uvarint() == n


@given(st.integers(-(2**31), 2**31 - 1))
def test_varints_are_those_of_kafka_python(n: int) -> None:
    assert Cursor(VarInt32.encode(n)).varint() == n


@given(st.integers(-(2**63), 2**63 - 1))
def test_varlongs_are_those_of_kafka_python(n: int) -> None:
    assert Cursor(VarInt64.encode(n)).varlong() == n


@given(st.none() | st.text(max_size=300))
def test_strings_are_read_as_they_were_put(text: str | None) -> None:
    assert Cursor(put_string(text)).string() == text
    assert Cursor(put_compact_string(text)).compact_string() == text


@pytest.mark.parametrize("n", [-1, 2**32])
def test_no_uvarint_outside_32_bits(n: int) -> None:
    with pytest.raises(ValueError, match="varint"):
        put_uvarint(n)


def test_no_string_longer_than_its_length_can_say() -> None:
    assert Cursor(put_string("x" * 0x7FFF)).string() == "x" * 0x7FFF
    with pytest.raises(ValueError, match="32768 bytes"):
        put_string("x" * 0x8000)


@given(st.binary(max_size=40), st.lists(st.sampled_from([row[1] for row in READS]), max_size=20))
def test_no_bytes_can_lead_it_astray(data: bytes, reads: list[Read]) -> None:
    cur = Cursor(data)
    for read in reads:
        before = cur.pos
        try:
            read(cur)
        except MalformedError:
            break
        assert before <= cur.pos <= len(data)
