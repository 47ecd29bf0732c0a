import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.errors import FormatError, UnknownVersionError
from tierproxy.archive.names import segment_name
from tierproxy.archive.pages import Page, PageRef
from tierproxy.archive.segment_entry import SegmentEntry, Sums
from tierproxy.archive.segment_index import SegmentInfo

ABOUT = SegmentInfo("prod", "flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 3)

# A page of version 1, as it is stored. It may never change, and must be readable for ever.
PLAIN = b"""{
  "format": "tierproxy-manifest-page",
  "version": 1,
  "cluster": "prod",
  "topic": "flights",
  "topic_id": "M9CPOOS9QO-GUEYCwLk2pw",
  "partition": 3,
  "tag": ["5f1c9a3e", "0a"],
  "base_offset": [200, 500],
  "last_offset": [399, 699],
  "stored_size": [9000, 500],
  "plain_size": [100000, 600],
  "index_size": [436, 400],
  "records": [200, 0],
  "min_timestamp": [1357000000000, -1],
  "max_timestamp": [1357000000199, -1],
  "created_ms": [1357000600000, 1357001600000],
  "sha256": ["7691b866866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb", \
"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"]
}
"""
STORED = bytes.fromhex(
    "28b52ffd647c01b50a00b6933f24208be801f89fb4a24bf1cedd60d8e4df08559425e16e0211411a7c97d2ca890006447020"
    "3600380033003d00e5636f0422a3f8249d17ce4aeb5fab10bda6166b9ad2d65f50d6439c2ed77e94934b0bc364565a5fdea5"
    "16ebba54675c4a211c024ae976d77ac458a314c6128eb731cee7ad438fe56c2965bdf37e2d36cba1160be2d75d79ab53094d"
    "24084818080007014ba3a00d1a0d0246d203fffad7d7dd26de16a53045e3a8e4d7be24ef3349c9c23adf574629ec98c9c349"
    "b252589ba44794f53748fbc0aff3da6e0e8807c4634528ba73e77ed0336607a382699e818e694e3bc83a3ef7d199fbdf69ef"
    "30f418c6cc0eb303b5660537098f34b60125208082098eb203244480c234d394f6f33903b36c18746628a6b38d005ee30879"
    "0466f1aa1c2415f32545d1426940c0a042fb0e1f3c076708d039410201bed1265071b1328d0d233763048d1ab211669c87b2"
    "7c19e0d9f68c"
)
ENTRIES = [
    SegmentEntry(
        key_name="00000000000000000200-00000000000000000399-5f1c9a3e.log.zst",
        base_offset=200,
        last_offset=399,
        stored_size=9000,
        plain_size=100000,
        index_size=436,
        records=200,
        min_timestamp=1357000000000,
        max_timestamp=1357000000199,
        sha256="7691b866866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb",
        created_ms=1357000600000,
    ),
    SegmentEntry(
        "00000000000000000500-00000000000000000699-0a.log.zst", 500, 699, 500, 600, 400, 0, -1, -1, "f" * 64,
        1357001600000,
    ),
]  # fmt: skip
REF = PageRef(
    "manifest/00000000000000000200-00000000000000000699-77aa01cd.json.zst",
    200,
    699,
    Sums(2, 9500, 100600, 200, 1357000000000, 1357000000199, 1357001600000, 1357001600000),
    "6f6a1663ad1f6b8af90e69ad98a1d3bda9f200d89260d384941b96e4b4067766",
)


def test_the_stored_page_is_read() -> None:
    assert list(Page.decode(STORED, REF, ABOUT)) == ENTRIES
    assert Page.read(STORED, "it") == (ABOUT, Page.of(ENTRIES))


def test_a_page_is_stored_like_this_for_ever() -> None:
    ref, data = Page.of(ENTRIES).encode(ABOUT, "77aa01cd")
    assert zstandard.decompress(data) == PLAIN  # zstd may come to pack it otherwise
    assert replace(ref, sha256="") == replace(REF, sha256="")
    assert Page.decode(data, ref, ABOUT) == Page.of(ENTRIES)


# -- looking things up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "place"), [(0, 0), (200, 0), (399, 0), (400, 1), (500, 1), (699, 1), (700, 2)])
def test_what_lies_at_an_offset(offset: int, place: int) -> None:
    assert Page.of(ENTRIES).place(offset) == place


def test_a_page_is_a_sequence_of_entries() -> None:
    page = Page.of(ENTRIES)
    assert (page[0], page[-1], page[0:1], len(page)) == (ENTRIES[0], ENTRIES[1], ENTRIES[:1], 2)
    assert (page.base_offset, page.last_offset) == (200, 699)
    with pytest.raises(IndexError):
        page[2]


def entry(base: int, last: int, lowest: int, highest: int, created: int, size: int, digest: bytes) -> SegmentEntry:
    name = segment_name(base, last, "t1")
    return SegmentEntry(name, base, last, size + 5, size, 5, last - base, lowest, highest, digest.hex(), created)


@st.composite
def runs(draw: st.DrawFn) -> list[SegmentEntry]:
    """Some neighbouring segments."""
    entries: list[SegmentEntry] = []
    at = draw(st.integers(0, 1 << 40))
    times = st.integers(-1, 1 << 42)
    for _ in range(draw(st.integers(1, 6))):
        base = at + draw(st.integers(0, 5))
        at = base + draw(st.integers(1, 1 << 20))
        size, digest = draw(st.integers(1, 1 << 40)), draw(st.binary(min_size=32, max_size=32))
        lowest, highest = draw(times), draw(times)
        entries.append(entry(base, at - 1, lowest, highest, draw(st.integers(0, 1 << 42)), size, digest))
    return entries


@given(runs())
def test_a_page_there_and_back(entries: list[SegmentEntry]) -> None:
    ref, data = Page.of(entries).encode(ABOUT, "ab")
    assert list(Page.decode(data, ref, ABOUT)) == entries
    assert (ref.base_offset, ref.last_offset) == (entries[0].base_offset, entries[-1].last_offset)
    assert ref.sums == Sums.of(entries)


@given(runs(), st.integers(0, 6))
def test_sums_of_parts_add_up(entries: list[SegmentEntry], cut: int) -> None:
    assert Sums.of(entries[:cut]) + Sums.of(entries[cut:]) == Sums.of(entries)
    assert Sums.of(entries).newest_ms == max(each.newest_ms for each in entries)


# -- what is wrong ------------------------------------------------------------------------------------------------


def packed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(PLAIN)
    change(fields)
    return zstandard.compress(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "ref",
    [
        replace(REF, sha256="0" * 64),
        replace(REF, base_offset=201),
        replace(REF, last_offset=700),
        replace(REF, sums=replace(REF.sums, records=201)),
        replace(REF, sums=replace(REF.sums, segments=3)),
    ],
)
def test_a_page_that_is_not_what_the_root_says(ref: PageRef) -> None:
    with pytest.raises(FormatError, match=REF.name):
        Page.decode(STORED, ref, ABOUT)


@pytest.mark.parametrize("about", [replace(ABOUT, partition=4), replace(ABOUT, cluster="x"), replace(ABOUT, topic="x")])
def test_a_page_of_another_partition(about: SegmentInfo) -> None:
    with pytest.raises(FormatError, match="is of flights-3"):
        Page.decode(STORED, REF, about)


@pytest.mark.parametrize("version", [2, 0, "1", None, True])
def test_other_versions_are_refused_by_their_number(version: object) -> None:
    with pytest.raises(UnknownVersionError, match="version"):
        Page.read(packed(lambda page: page.update(version=version)), "it")


@pytest.mark.parametrize(
    "data",
    [b"", PLAIN, STORED[:-1], STORED[:50], zstandard.compress(b""), zstandard.compress(b"[]"), b"\x00" + STORED],
)
def test_what_is_no_page_at_all(data: bytes) -> None:
    with pytest.raises(FormatError):
        Page.read(data, "it")


def test_a_page_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(FormatError, match="too large"):
        Page.read(zstandard.compress(bytes((64 << 20) + 1)), "it")


@pytest.mark.parametrize("name", sorted(json.loads(PLAIN)))
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        Page.read(packed(lambda page: page.pop(name)), "it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda page: page.update(extra=1), "unknown fields extra"),
        (lambda page: page["tag"].pop(), "not of one length"),
        (lambda page: page["records"].pop(), "not of one length"),
        (lambda page: [page.update({name: []}) for name, value in page.items() if isinstance(value, list)], "empty"),
        (lambda page: page.update(tag=["A", "0"]), "a tag in it is none"),
        (lambda page: page.update(tag=[1, 2]), "something else than strings"),
        (lambda page: page.update(records=[True, 0]), "something else than numbers"),
        (lambda page: page.update(records=[1.0, 0]), "something else than numbers"),
        (lambda page: page.update(records=[1 << 63, 0]), "has a number from"),
        (lambda page: page.update(records=[-1, 0]), "records has -1"),
        (lambda page: page.update(min_timestamp=[-2, 0]), "min_timestamp has -2"),
        (lambda page: page.update(records={}), "records is no list"),
        (lambda page: page.update(base_offset=[200, 399]), "entry 1 can't be right"),
        (lambda page: page.update(last_offset=[199, 699]), "entry 0 can't be right"),
        (lambda page: page.update(index_size=[436, 501]), "entry 1 can't be right"),
        (lambda page: page.update(sha256=["F" * 64, "f" * 64]), "SHA-256 in it is none"),
    ],
)
def test_a_page_that_is_wrong_somewhere_is_refused_with_the_reason(
    change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        Page.read(packed(change), "it")
