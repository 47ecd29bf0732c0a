import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.errors import ContinuityError, FormatError, UnknownVersionError
from tierproxy.archive.manifest import Gap, Manifest, PageRef, SegmentEntry, Sums
from tierproxy.archive.names import PartitionId, segment_name

PID = PartitionId("flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 3)
EMPTY = Manifest.empty("prod", "5L6g3nShT-eMCtK--X86sw", PID, 0)

# A manifest of version 1, as it was stored. It may never change, and must be readable for ever.
STORED_1 = b"""{
  "format": "tierproxy-manifest",
  "version": 1,
  "generation": 4,
  "cluster": "prod",
  "cluster_id": "5L6g3nShT-eMCtK--X86sw",
  "topic": "flights",
  "topic_id": "M9CPOOS9QO-GUEYCwLk2pw",
  "partition": 3,
  "start_offset": 205,
  "end_offset": 700,
  "epochs": [[0, 200], [2, 300]],
  "gaps": [
    {"start": 400, "end": 500, "at_ms": 1357000900000, "cause": "retention.ms passed"}
  ],
  "pages": [],
  "segments": [
    {"name": "00000000000000000200-00000000000000000399-5f1c9a3e.log.zst", "base_offset": 200, "last_offset": 399, \
"stored_size": 9000, "plain_size": 100000, "index_size": 436, "records": 200, "min_timestamp": 1357000000000, \
"max_timestamp": 1357000000199, \
"sha256": "7691b866866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb", "created_ms": 1357000600000},
    {"name": "00000000000000000500-00000000000000000699-0a.log.zst", "base_offset": 500, "last_offset": 699, \
"stored_size": 500, "plain_size": 600, "index_size": 400, "records": 0, "min_timestamp": -1, \
"max_timestamp": -1, \
"sha256": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "created_ms": 1357001600000}
  ]
}
"""
# The same of version 2, and with a page of what lay before. It may never change either.
STORED = (
    STORED_1.replace(b'"version": 1', b'"version": 2')
    .replace(b'"start_offset": 205', b'"start_offset": 105')
    .replace(b"[[0, 200], ", b"[[0, 100], ")
    .replace(
        b'"pages": []',
        b""""pages": [
    {"name": "manifest/00000000000000000100-00000000000000000199-77aa01cd.json.zst", "base_offset": 100, \
"last_offset": 199, "segments": 2, "stored_size": 7000, "plain_size": 9000, "records": 98, \
"min_timestamp": 1356000000000, "max_timestamp": 1356000000199, "newest_ms": 1356000000150, \
"created_ms": 1356000600000, "sha256": "8a0b21e1866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb"}
  ]""",
    )
)
PAGE = PageRef(
    "manifest/00000000000000000100-00000000000000000199-77aa01cd.json.zst",
    100,
    199,
    Sums(2, 7000, 9000, 98, 1356000000000, 1356000000199, 1356000000150, 1356000600000),
    "8a0b21e1866604cb68e18ee966afe3cf90d398143d4e547fd3660ebc96aa3afb",
)
FIRST = SegmentEntry(
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
)
SECOND = SegmentEntry(
    "00000000000000000500-00000000000000000699-0a.log.zst", 500, 699, 500, 600, 400, 0, -1, -1, "f" * 64, 1357001600000
)
MANIFEST = (
    Manifest.empty("prod", "5L6g3nShT-eMCtK--X86sw", PID, 205)
    .with_segment(FIRST, [(0, 200), (2, 300)])
    .with_gap(Gap(400, 500, 1357000900000, "retention.ms passed"))
    .with_segment(SECOND, [(2, 500)])
)
PAGED = replace(MANIFEST, pages=(PAGE,), start_offset=105, epochs=((0, 100), (2, 300)))


def entry(base: int, last: int, plain_size: int = 10) -> SegmentEntry:
    return SegmentEntry(segment_name(base, last, "t"), base, last, 5, plain_size, 2, last - base + 1, 1, 2, "0" * 64, 3)


def test_a_manifest_is_stored_like_this_for_ever() -> None:
    assert PAGED.to_json() == STORED
    assert Manifest.from_json(STORED) == PAGED


def test_the_stored_manifest_of_version_1_is_read() -> None:
    assert Manifest.from_json(STORED_1) == MANIFEST


def test_pages_are_unknown_to_version_1() -> None:
    with pytest.raises(FormatError, match="pages is not empty"):
        Manifest.from_json(STORED.replace(b'"version": 2', b'"version": 1'))


def test_the_first_manifest_of_a_partition() -> None:
    empty = Manifest.empty("prod", "id", PID, 7)
    assert (empty.start_offset, empty.end_offset, empty.generation, empty.pid) == (7, 7, 1, PID)
    assert (empty.last_epoch, empty.resume_epoch, empty.epoch_at(7), empty.find(7)) == (-1, -1, -1, None)
    assert not empty.holds(7)
    assert Manifest.from_json(empty.to_json()) == empty


def test_sums() -> None:
    times = 1357000000000, 1357000000199, 1357001600000, 1357001600000
    assert MANIFEST.sums == Sums(2, 9500, 100600, 200, *times)
    assert EMPTY.sums == Sums()


# -- looking things up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "held", "segment", "epoch", "in_gap"),
    [
        (199, False, 0, -1, False),
        (200, False, 0, 0, False),
        (205, True, 0, 0, False),
        (299, True, 0, 0, False),
        (300, True, 0, 2, False),
        (399, True, 0, 2, False),
        (400, True, 1, 2, True),
        (499, True, 1, 2, True),
        (500, True, 1, 2, False),
        (699, True, 1, 2, False),
        (700, False, None, 2, False),
    ],
)
def test_what_lies_at_an_offset(offset: int, held: bool, segment: int | None, epoch: int, in_gap: bool) -> None:
    assert MANIFEST.holds(offset) == held
    assert MANIFEST.find(offset) == (MANIFEST.segments[segment] if segment is not None else None)
    assert MANIFEST.epoch_at(offset) == epoch
    assert MANIFEST.gap_at(offset) == (MANIFEST.gaps[0] if in_gap else None)


@pytest.mark.parametrize(
    ("offset", "found"), [(0, PAGE), (100, PAGE), (199, PAGE), (200, FIRST), (399, FIRST), (400, SECOND), (700, None)]
)
def test_what_lies_at_an_offset_may_be_in_a_page(offset: int, found: SegmentEntry | PageRef | None) -> None:
    assert PAGED.find(offset) == found


def test_sums_with_pages() -> None:
    assert PAGED.sums == Sums(4, 16500, 109600, 298, 1356000000000, 1357000000199, 1357001600000, 1357001600000)
    assert replace(PAGED, segments=()).last_archived == 199
    assert (PAGED.last_archived, EMPTY.last_archived) == (699, -1)


# -- adding segments ----------------------------------------------------------------------------------------------


def test_segments_are_added_at_the_end() -> None:
    one = EMPTY.with_segment(entry(0, 9), [(0, 0)])
    two = one.with_segment(entry(10, 19), [(0, 10), (1, 15)])
    assert (one.end_offset, two.end_offset) == (10, 20)
    assert (one.generation, two.generation) == (2, 3)
    assert two.epochs == ((0, 0), (1, 15))
    assert [e.base_offset for e in two.segments] == [0, 10]
    assert EMPTY.segments == ()  # values do not change


@pytest.mark.parametrize(
    ("base", "last", "fetched_at", "fits"),
    [
        (10, 19, None, True),
        (10, 10, 10, True),
        (11, 19, None, False),  # a hole that nobody accounts for
        (11, 19, 10, True),  # the broker itself has nothing at 10
        (11, 19, 11, False),  # what was at 10?
        (10, 19, 9, False),
        (9, 19, None, False),  # 9 is archived already
        (9, 19, 10, False),
        (0, 9, None, False),
        (10, 9, None, False),
    ],
)
def test_what_continues_an_archive_that_ends_at_10(base: int, last: int, fetched_at: int | None, fits: bool) -> None:
    manifest = EMPTY.with_segment(entry(0, 9), [(0, 0)])
    added = replace(entry(0, 0), base_offset=base, last_offset=last)
    if fits:
        assert manifest.with_segment(added, [(0, base)], fetched_at=fetched_at).end_offset == last + 1
    else:
        with pytest.raises(ContinuityError, match="flights-3"):
            manifest.with_segment(added, [(0, base)], fetched_at=fetched_at)


@pytest.mark.parametrize(
    ("base", "last", "fits"), [(200, 209, True), (205, 209, True), (200, 204, False), (206, 209, False)]
)
def test_the_first_batch_may_begin_below_where_the_broker_was_trimmed(base: int, last: int, fits: bool) -> None:
    for start in (
        Manifest.empty("prod", "id", PID, 205),
        EMPTY.with_segment(entry(0, 99), []).with_gap(Gap(100, 205, 0, "trimmed")),
    ):
        if fits:
            assert start.with_segment(entry(base, last), []).end_offset == 210
        else:
            with pytest.raises(ContinuityError):
                start.with_segment(entry(base, last), [])


@pytest.mark.parametrize("epochs", [[(1, 10)], [(3, 5)], [(2, 10), (1, 15)], [(2, 10), (4, 0)]])
def test_leader_epochs_that_go_back_are_refused(epochs: list[tuple[int, int]]) -> None:
    manifest = EMPTY.with_segment(entry(0, 9), [(2, 5)])
    with pytest.raises(ContinuityError, match="leader epoch"):
        manifest.with_segment(entry(10, 19), epochs)


# -- gaps and the epoch to resume with ------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(9, 20), (11, 20), (10, 10), (10, 9)])
def test_gaps_begin_where_the_archive_ends(start: int, end: int) -> None:
    with pytest.raises(ContinuityError):
        EMPTY.with_segment(entry(0, 9), []).with_gap(Gap(start, end, 0, "lost"))


def test_the_epoch_to_resume_with_is_not_known_behind_a_gap() -> None:
    archived = EMPTY.with_segment(entry(0, 9), [(4, 0)])
    behind = archived.with_gap(Gap(10, 20, 0, "lost"))
    assert (archived.resume_epoch, archived.last_epoch) == (4, 4)
    assert (behind.resume_epoch, behind.last_epoch) == (-1, 4)
    assert behind.with_segment(entry(20, 29), [(4, 20)]).resume_epoch == 4


def test_a_gap_before_anything_is_archived() -> None:
    manifest = EMPTY.with_gap(Gap(0, 50, 0, "lost"))
    assert (manifest.start_offset, manifest.end_offset, manifest.resume_epoch) == (0, 50, -1)
    assert manifest.find(0) is None


# -- raising the start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "start", "end", "segments", "gaps", "epochs"),
    [
        (0, 205, 700, 2, 1, ((0, 200), (2, 300))),
        (205, 205, 700, 2, 1, ((0, 200), (2, 300))),
        (299, 299, 700, 2, 1, ((0, 200), (2, 300))),
        (300, 300, 700, 2, 1, ((2, 300),)),
        (399, 399, 700, 2, 1, ((2, 300),)),
        (400, 400, 700, 1, 1, ((2, 300),)),
        (501, 501, 700, 1, 0, ((2, 300),)),
        (700, 700, 700, 0, 0, ((2, 300),)),
        (900, 900, 900, 0, 0, ()),
    ],
)
def test_what_is_left_when_the_start_is_raised(
    offset: int, start: int, end: int, segments: int, gaps: int, epochs: tuple[tuple[int, int], ...]
) -> None:
    raised = MANIFEST.with_start(offset)
    assert (raised.start_offset, raised.end_offset) == (start, end)
    assert (len(raised.segments), len(raised.gaps), raised.epochs) == (segments, gaps, epochs)
    assert raised.generation == MANIFEST.generation + (0 if start == 205 else 1)
    assert Manifest.from_json(raised.to_json()) == raised


def test_nothing_is_known_of_what_lies_before_a_start_beyond_the_end() -> None:
    assert MANIFEST.with_start(700).resume_epoch == 2
    assert MANIFEST.with_start(900).resume_epoch == -1
    lost = MANIFEST.with_gap(Gap(700, 800, 0, "lost"))
    assert lost.with_start(800).resume_epoch == -1


def test_archiving_goes_on_after_everything_was_deleted() -> None:
    assert MANIFEST.with_start(900).with_segment(entry(900, 909), [(2, 900)]).end_offset == 910


def test_a_page_goes_when_the_start_is_above_all_of_it() -> None:
    assert PAGED.with_start(199).pages == (PAGE,)
    assert PAGED.with_start(200).pages == ()
    assert PAGED.with_start(200).segments == PAGED.segments


def test_a_segment_continues_an_archive_whose_entries_are_all_in_pages() -> None:
    paged = replace(PAGED, segments=(), gaps=(), end_offset=200)
    assert paged.with_segment(entry(200, 209), []).end_offset == 210
    with pytest.raises(ContinuityError):
        paged.with_segment(entry(199, 209), [], fetched_at=200)


# -- the stored form ------------------------------------------------------------------------------------------------


OVER_THE_PAGE = {"name": segment_name(199, 199, "a"), "base_offset": 199, "last_offset": 199}


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(STORED)
    change(fields)
    return json.dumps(fields).encode()


def test_the_order_of_fields_and_the_space_between_them_mean_nothing() -> None:
    fields = json.loads(STORED)
    assert Manifest.from_json(json.dumps(dict(reversed(fields.items()))).encode()) == PAGED


@pytest.mark.parametrize("version", [3, 0, "1", None, True, 1.5])
def test_other_versions_are_refused_by_their_number(version: object) -> None:
    with pytest.raises(UnknownVersionError, match="version"):
        Manifest.from_json(changed(lambda m: m.update(version=version)))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, STORED[:-5], changed(lambda m: m.pop("format"))],
    ids=["empty", "cut", "a list", "null", "no fields", "no text", "too deep", "cut at the end", "without format"],
)
def test_what_is_no_manifest_at_all(data: bytes) -> None:
    with pytest.raises(FormatError):
        Manifest.from_json(data)


@pytest.mark.parametrize("name", sorted(json.loads(STORED)))
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        Manifest.from_json(changed(lambda m: m.pop(name)))


@pytest.mark.parametrize("name", sorted(json.loads(STORED)["segments"][0]))
def test_a_missing_field_of_a_segment_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match=rf"segments\[1\]: {name} is missing"):
        Manifest.from_json(changed(lambda m: m["segments"][1].pop(name)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(extra=1), "unknown fields extra"),
        (lambda m: m["segments"][0].update(extra=1), r"segments\[0\]: unknown fields extra"),
        (lambda m: m["gaps"][0].update(extra=1), r"gaps\[0\]: unknown fields extra"),
        (lambda m: m.update(pages=["0-9.json.zst"]), r"pages\[0\] is no JSON object"),
        (lambda m: m["pages"][0].update(extra=1), r"pages\[0\]: unknown fields extra"),
        (lambda m: m["pages"][0].update(name="../x"), "no page's name"),
        (lambda m: m["pages"][0].update(last_offset=198), "can't be right"),
        (lambda m: m["pages"][0].update(sha256="F" * 64), "can't be right"),
        (lambda m: m["pages"][0].update(segments=0), "segments is 0"),
        (lambda m: m["pages"].append(m["pages"][0]), "page .* overlaps another"),
        (lambda m: m["segments"].insert(0, m["segments"][0] | OVER_THE_PAGE), "segment .* overlaps another"),
        (lambda m: m.update(start_offset=200), "page .* lies below start_offset"),
        (lambda m: m.update(topic=5), "topic is 5"),
        (lambda m: m.update(topic_id="flights"), "no topic id"),
        (lambda m: m.update(partition=-1), "partition is -1"),
        (lambda m: m.update(partition=True), "partition is True"),
        (lambda m: m.update(partition=1.0), "partition is 1.0"),
        (lambda m: m.update(end_offset=1 << 63), "end_offset is"),
        (lambda m: m.update(end_offset=701), "end_offset is 701"),
        (lambda m: m.update(end_offset=600), "end_offset is 600"),
        (lambda m: m.update(start_offset=701), "end_offset is 700"),
        (lambda m: m.update(start_offset=400, pages=[]), "segment .* lies below start_offset"),
        (lambda m: m.update(segments={}), "segments is no list"),
        (lambda m: m.update(segments=[5]), r"segments\[0\] is no JSON object"),
        (lambda m: m["segments"].reverse(), "overlaps another"),
        (lambda m: m["segments"][1].update(base_offset=501), "not what its offsets say"),
        (lambda m: m["segments"][1].update(name="../x"), "no segment's name"),
        (lambda m: m["segments"][1].update(index_size=501), "can't be right"),
        (lambda m: m["segments"][1].update(sha256="F" * 64), "can't be right"),
        (lambda m: m["segments"][1].update(min_timestamp=-2), "min_timestamp is -2"),
        (lambda m: m.update(epochs=[[0, 200], [0, 300]]), "epochs do not ascend"),
        (lambda m: m.update(epochs=[[0, 200], [1, 200]]), "epochs do not ascend"),
        (lambda m: m.update(epochs=[[0, 200, 1]]), "not a pair of numbers"),
        (lambda m: m.update(epochs=[[0, -1]]), "not a pair of numbers"),
        (lambda m: m["gaps"][0].update(end=400), "a gap is empty"),
        (lambda m: m["gaps"].append(m["gaps"][0]), "gaps do not ascend"),
        (lambda m: m["gaps"][0].update(cause=None), "cause is None"),
    ],
)
def test_a_manifest_that_is_wrong_somewhere_is_refused_with_the_reason(
    change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(FormatError, match=words):
        Manifest.from_json(changed(change))


@st.composite
def histories(draw: st.DrawFn) -> Manifest:
    """A manifest as archiving, losses and deletions make it."""
    topic = draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
    pid = PartitionId(topic, draw(st.binary(min_size=16, max_size=16)), draw(st.integers(0, 1000)))
    manifest = Manifest.empty(draw(st.text("abc", min_size=1)), "id", pid, draw(st.integers(0, 1 << 40)))
    for _ in range(draw(st.integers(0, 8))):
        end, size = manifest.end_offset, draw(st.integers(1, 1 << 30))
        match draw(st.sampled_from(["segment", "segment", "gap", "start", "hole"])):
            case "segment":
                epochs = [(manifest.last_epoch + draw(st.integers(0, 1)), end)]
                manifest = manifest.with_segment(entry(end, end + size - 1), epochs if epochs[0][0] >= 0 else [])
            case "gap":
                manifest = manifest.with_gap(Gap(end, end + size, draw(st.integers(0, 1 << 50)), draw(st.text())))
            case "start":
                manifest = manifest.with_start(draw(st.integers(0, end + 5)))
            case _:
                manifest = manifest.with_segment(entry(end + size, end + 2 * size), [], fetched_at=end)
    return manifest


@given(histories())
def test_a_manifest_there_and_back(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(histories(), st.integers(-5, 10))
def test_every_offset_belongs_to_the_right_segment(manifest: Manifest, step: int) -> None:
    for border in [e.base_offset for e in manifest.segments] + [e.last_offset for e in manifest.segments]:
        offset = border + step
        found = manifest.find(offset)
        expected = [e for e in manifest.segments if e.last_offset >= offset]
        assert found == (expected[0] if expected else None)
