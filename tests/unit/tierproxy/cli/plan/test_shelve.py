"""How far trimming would go: of what is archived, and of what will be."""

import pytest

from protocol.messages import NO_TOPIC_ID
from tests.unit.tierproxy.cli.plan.making import DAY, ID, KIB, NOW, log, manifest, policy
from tierproxy.archive.manifest import Manifest, PageRef, Sums
from tierproxy.cli.plan.shelve import bytes_between, first_since, offset_bytes, trim_to, with_backlog

ARCHIVED = manifest((100, 100 * KIB, 72), (200, 100 * KIB, 48), (300, 100 * KIB, 24))


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("keep_on_broker: {time: 60h}", 100),
        ("keep_on_broker: {time: 1d}", 300),
        ("keep_on_broker: {time: 73h}", 0),
        ("keep_on_broker: {bytes: 0B}", 300),
        ("keep_on_broker: {bytes: 100KiB}", 200),
        ("keep_on_broker: {bytes: 101KiB}", 100),
        ("keep_on_broker: {time: 73h, bytes: 100KiB}", 200),
        ("", 0),
        ("keep_on_broker: {bytes: 0B}, trim: never", 0),
    ],
)
def test_what_is_archived_is_trimmed_as_the_archiver_does(keep: str, expected: int) -> None:
    assert trim_to(ARCHIVED, policy(keep), log(0, 300), NOW, {}, ID) == expected


def test_nothing_goes_back_and_nothing_goes_without_a_topic_id() -> None:
    keep = policy("keep_on_broker: {time: 60h}")
    assert trim_to(ARCHIVED, keep, log(150, 300), NOW, {}, ID) == 150
    assert trim_to(ARCHIVED, keep, log(0, 300), NOW, {}, NO_TOPIC_ID) == 0


@pytest.mark.parametrize(
    ("keep", "kept_from", "expected"),
    [
        ("keep_on_broker: {bytes: 0B}", None, 1000),
        ("keep_on_broker: {bytes: 100KiB}", None, 900),
        ("keep_on_broker: {bytes: 600KiB}", None, 300),
        ("keep_on_broker: {bytes: 601KiB}", None, 300),
        ("keep_on_broker: {bytes: 701KiB}", None, 200),
        ("keep_on_broker: {time: 12h}", 650, 600),
        ("keep_on_broker: {time: 12h}", 1000, 1000),
        ("keep_on_broker: {time: 12h}", None, 300),
        ("keep_on_broker: {time: 60h}", 0, 100),
    ],
)
def test_what_will_be_archived_counts_by_whole_segments(keep: str, kept_from: int | None, expected: int) -> None:
    """700 offsets of 1 KiB make three full segments of 300 KiB, of which the last has 100."""
    known = log(0, 1000, kept_from=kept_from)
    rules = policy(f"{keep}, segment: {{bytes: 300KiB}}")
    later = with_backlog(ARCHIVED, rules, known, 1024.0, NOW)
    assert [each.last_offset + 1 for each in later.segments[3:]] == [600, 900, 1000]
    assert sum(each.plain_size for each in later.segments[3:]) == 700 * KIB
    assert trim_to(later, rules, known, NOW, {}, ID) == expected


def test_a_long_backlog_is_thought_of_in_larger_pieces() -> None:
    known = log(0, 10**9)
    later = with_backlog(manifest(), policy("segment: {bytes: 1KiB}"), known, 1024.0, NOW)
    assert len(later.segments) <= 1000
    assert (later.segments[-1].last_offset, later.end_offset) == (10**9 - 1, 10**9)
    assert sum(each.plain_size for each in later.segments) == 10**9 * KIB


def test_where_nothing_is_left_to_archive_nothing_is_added() -> None:
    assert with_backlog(ARCHIVED, policy(), log(0, 300), 1.0, NOW) is ARCHIVED
    assert with_backlog(ARCHIVED, policy(), log(0, 250), 1.0, NOW) is ARCHIVED


def test_a_backlog_behind_lost_records_begins_where_the_log_does() -> None:
    later = with_backlog(ARCHIVED, policy(), log(400, 500), 1.0, NOW)
    assert (later.segments[-1].base_offset, later.segments[-1].last_offset) == (400, 499)


@pytest.mark.parametrize(
    ("first", "stop", "expected"),
    [(0, 300, 300), (0, 0, 0), (50, 100, 50), (150, 250, 100), (250, 900, 50), (900, 950, 0)],
)
def test_bytes_of_a_part(first: int, stop: int, expected: int) -> None:
    assert bytes_between(ARCHIVED, first, stop, {}) == expected * KIB


def paged() -> tuple[Manifest, PageRef]:
    older = manifest((100, 100 * KIB, 72), (200, 300 * KIB, 48))
    page = PageRef("manifest/p", 0, 199, Sums.of(older.segments), "")
    newer = manifest((300, 100 * KIB, 24), start=200)
    return Manifest("prod", "id", "t", ID, 0, 0, 300, newer.segments, pages=(page,)), page


def test_a_page_is_looked_into_where_the_limit_lies_in_it() -> None:
    whole, page = paged()
    keep = policy("keep_on_broker: {time: 60h}")
    assert trim_to(whole, keep, log(0, 300), NOW, {}, ID) == page
    known = {page: manifest((100, 100 * KIB, 72), (200, 300 * KIB, 48)).segments}
    assert trim_to(whole, keep, log(0, 300), NOW, known, ID) == 100
    assert bytes_between(whole, 0, 100, {}) == 200 * KIB
    assert bytes_between(whole, 0, 100, known) == 100 * KIB


def test_the_newest_segments_say_how_large_an_offset_is() -> None:
    assert offset_bytes(ARCHIVED) == KIB
    assert offset_bytes(manifest()) is None


def test_where_the_last_day_begins_in_a_segment() -> None:
    (entry,) = manifest((100, KIB, 24)).segments  # from 25 to 24 hours ago
    assert first_since(entry, NOW - DAY - DAY // 48) == 50
    assert first_since(entry, NOW - 2 * DAY) == 0
