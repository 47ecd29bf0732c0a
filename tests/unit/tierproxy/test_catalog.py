import pytest

from tests.unit.tierproxy.talk import OTHER_ID, TOPIC_ID, archived, catalog
from tierproxy.archive.names import PartitionId
from tierproxy.catalog import ArchivedTopic, Catalog, Tier

NEW_ID = bytes(reversed(range(16)))


def test_a_topic_is_found_by_name_and_by_id_as_the_same_tier() -> None:
    known = catalog()
    assert known.find("flights", 2) is known.find(TOPIC_ID, 2)


def test_a_tier_that_is_new_is_wanted() -> None:
    known = catalog()
    known.wanted.clear()
    tier = known.find("flights", 1)
    assert list(known.wanted.values()) == [tier]


@pytest.mark.parametrize("key", ["plain", OTHER_ID])
def test_a_topic_that_passes_is_no_news(key: str | bytes) -> None:
    known = catalog()
    assert known.find(key, 0) is None
    assert not known.topics_stale
    assert not known.might_be_archived(key)


@pytest.mark.parametrize(("key", "index"), [(NEW_ID, 0), ("flights", 3), ("flights", -1)])
def test_a_topic_or_partition_nobody_has_heard_of_makes_the_metadata_stale(key: str | bytes, index: int) -> None:
    known = catalog()
    assert known.find(key, index) is None
    assert known.topics_stale
    assert known.might_be_archived(key)


def test_a_name_no_policy_archives_is_no_news_even_if_unheard_of() -> None:
    known = catalog()
    assert known.find("unheard-of", 0) is None
    assert not known.topics_stale


def test_a_recreated_topic_does_not_inherit_the_archive_of_its_namesake() -> None:
    known = catalog(manifest=archived(0, 100), broker_start=50)
    known.set_topics([ArchivedTopic("flights", NEW_ID, 3, "main", "skip")], [])
    tier = known.find("flights", 0)
    assert tier is not None
    assert (tier.pid.topic_id, tier.manifest_known) == (NEW_ID, False)
    assert known.find(TOPIC_ID, 0) is None


def test_what_is_known_survives_fresh_metadata() -> None:
    known = catalog(manifest=archived(0, 100), broker_start=50)
    before = known.find("flights", 0)
    known.set_topics([ArchivedTopic("flights", TOPIC_ID, 5, "main", "skip")], [])
    assert known.find("flights", 0) is before
    assert known.find("flights", 4) is not None


def test_nothing_is_archived_where_no_policy_archives() -> None:
    known = Catalog(lambda name: False, False)
    assert known.find(NEW_ID, 0) is None
    assert not known.might_be_archived(NEW_ID)
    assert known.shown_start(NEW_ID, 0, 7) == 7


# -- the log start clients see ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest_from", "log_start", "shown"),
    [
        (100, 400, 100),  # trimmed: the archive goes further back
        (100, 100, 100),
        (100, 50, 50),  # the broker has more than the archive: after a crash, or a restored log
        (100, -1, -1),  # with an error the broker says none
    ],
)
def test_the_log_start_shown_is_the_earlier_of_the_two(manifest_from: int, log_start: int, shown: int) -> None:
    known = catalog(manifest=archived(manifest_from, 500), broker_start=manifest_from)
    assert known.shown_start("flights", 0, log_start) == shown


def test_the_brokers_log_start_is_taken_down() -> None:
    known = catalog(manifest=archived(100, 500), broker_start=100)
    known.shown_start(TOPIC_ID, 0, 400)
    tier = known.find("flights", 0)
    assert tier is not None
    assert tier.broker_start == 400


def test_where_nothing_is_archived_yet_the_brokers_log_start_stands_until_it_moves() -> None:
    known = catalog(broker_start=10)
    assert known.shown_start("flights", 0, 10) == 10
    assert known.wanted == {}
    assert known.shown_start("flights", 0, 30) == -1, "it may have been archived and trimmed since"
    assert [pid.partition for pid in known.wanted] == [0]


def test_an_unknown_topic_that_may_be_archived_shows_no_log_start() -> None:
    assert catalog().shown_start(NEW_ID, 0, 30) == -1


def test_what_the_archiver_of_this_process_commits_counts_at_once() -> None:
    known = catalog(broker_start=100)
    manifest = archived(100, 500)
    known.committed(manifest.pid, manifest, 5)
    known.trimmed("flights", 0, 400)
    tier = known.find("flights", 0)
    assert tier is not None
    assert tier.expects_cold(399)


def test_of_two_commits_the_later_one_counts_whatever_is_heard_first() -> None:
    known, manifest = catalog(broker_start=100), archived(100, 500)
    later = manifest.with_start(500)
    known.committed(manifest.pid, later, 1)
    known.committed(manifest.pid, manifest, 2)
    found = known.find("flights", 0)
    assert found is not None
    assert (found.manifest, found.manifest_at_ms) == (later, 1)


@pytest.mark.parametrize(
    ("offset", "cold"), [(99, False), (100, True), (399, True), (400, False), (499, False), (500, False)]
)
def test_cold_is_what_the_archive_holds_and_the_broker_does_not(offset: int, cold: bool) -> None:
    tier = Tier(PartitionId("flights", TOPIC_ID, 0), "main", "skip", archived(100, 500), True, broker_start=400)
    assert tier.expects_cold(offset) is cold


# -- policies change ---------------------------------------------------------------------------------------------------


def test_a_topic_that_passed_and_may_be_archived_now_is_unknown_until_it_is_learned() -> None:
    archive = {"flights"}
    known = Catalog(lambda name: name in archive, False)
    known.set_topics([], [("plain", OTHER_ID), ("other", NEW_ID)])
    assert not known.might_be_archived(OTHER_ID)
    archive.add("plain")
    known.policies_changed(True)
    assert known.topics_stale
    assert known.might_be_archived(OTHER_ID)
    assert known.might_be_archived("plain")
    assert not known.might_be_archived(NEW_ID)
    known.set_topics([ArchivedTopic("plain", OTHER_ID, 1, "main", "skip")], [("other", NEW_ID)])
    assert known.find(OTHER_ID, 0) is not None


def test_a_tier_follows_its_policy() -> None:
    known = catalog(manifest=archived(0, 100), broker_start=50)
    before = known.find("flights", 0)
    known.set_topics([ArchivedTopic("flights", TOPIC_ID, 3, "main", "halt")], [])
    assert before is known.find("flights", 0)
    assert before is not None
    assert before.on_gap == "halt"
    known.set_topics([ArchivedTopic("flights", TOPIC_ID, 3, "other", "halt")], [])
    after = known.find("flights", 0)
    assert after is not None
    assert (after.archive, after.manifest_known) == ("other", False)
