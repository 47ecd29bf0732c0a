"""What facts about logs and archives come to: offsets, bytes, requests and money."""

from dataclasses import replace

import pytest

from protocol.errors import ErrorCode
from protocol.messages import NO_TOPIC_ID
from tests.unit.tierproxy.cli.plan.making import DAY, KIB, NOW, T0, config, facts, log, planned
from tierproxy.cli.plan.facts import Sample
from tierproxy.cli.plan.judge import judge
from tierproxy.cli.plan.numbers import ARCHIVE, MEASURED, OTHERS, SAMPLE, Estimate
from tierproxy.cli.plan.shelve import LogFacts, Shelved
from tierproxy.cluster_view import LogSizes, TopicPartition
from tierproxy.costs import GIB, MONTH_MS

KEEP_NOTHING = "match: '*', archive: a, keep_on_broker: {bytes: 0B}"
HALF = Sample(1000, 500, 10)


def shelved(end: int, *, plain: int = 0, stored: int = 0, trim_now: int = 0, trim_later: int = 0) -> Shelved:
    plain = plain or end * KIB
    return Shelved(
        archive="a",
        start=0,
        end=end,
        segments=3,
        plain_bytes=plain,
        stored_bytes=stored or plain // 4,
        offset_bytes=plain / end,
        trim_now=trim_now,
        trim_now_bytes=trim_now * KIB,
        trim_later=trim_later or trim_now,
        trim_later_bytes=(trim_later or trim_now) * KIB,
        first_ms=NOW - 20 * DAY,
        day_from=None,
        expire_to=0,
    )


def test_nothing_is_archived_yet() -> None:
    configured = config(KEEP_NOTHING + ", segment: {bytes: 300KiB}")
    found = facts(configured, {T0: log(100, 1100)}, sizes={T0: 1000 * KIB}, samples={"t": HALF})
    plan, part = planned(configured, found)
    assert plan.ok
    assert plan.topics[0].ratio == Estimate(2.0, SAMPLE)
    assert (part.log_start, part.archived_to, part.stable_end) == (100, 100, 1100)
    assert (part.trim_now, part.trim_to, part.exact, part.sized) == (100, 1100, True, Estimate(KIB, MEASURED))
    numbers = part.numbers
    assert (numbers.backlog_offsets, numbers.backlog_bytes, numbers.backlog_objects) == (1000, 1000 * KIB, 4)
    assert numbers.backlog_stored == 500 * KIB
    assert (numbers.trim_bytes, numbers.freed_bytes) == (1000 * KIB, 3000 * KIB)
    assert numbers.freed_least == 0, "a log segment of Kafka has 1 GiB by default, and the newest one stays"
    assert (numbers.disk_bytes, numbers.lost_offsets) == (3000 * KIB, 0)
    assert (numbers.once.lists, round(numbers.once.puts)) == (1, 9)
    assert (numbers.unsized, numbers.unpressed, numbers.unpaced) == (0, 0, 0)


def test_brokers_free_whole_log_segments() -> None:
    configured = config(KEEP_NOTHING)
    small = {"t": {"segment.bytes": str(100 * KIB)}}
    found = facts(configured, {T0: log(0, 1000)}, sizes={T0: 1000 * KIB}, settings=small)
    _, part = planned(configured, found)
    assert (part.numbers.freed_bytes, part.numbers.freed_least) == (3000 * KIB, 2700 * KIB)


def test_what_is_archived_says_how_large_and_how_small_the_rest_is() -> None:
    configured = config(KEEP_NOTHING)
    shelf = shelved(1000, trim_now=800, trim_later=1200)
    found = facts(configured, {T0: log(0, 1200)}, sizes={T0: 5000 * KIB}, shelves={T0: shelf})
    plan, part = planned(configured, found)
    assert plan.topics[0].ratio == Estimate(4.0, ARCHIVE)
    assert (part.archived_to, part.trim_now, part.trim_to, part.sized) == (1000, 800, 1200, Estimate(KIB, ARCHIVE))
    numbers = part.numbers
    assert (numbers.backlog_offsets, numbers.backlog_bytes, numbers.backlog_stored) == (200, 200 * KIB, 50 * KIB)
    assert (numbers.archived_objects, numbers.archived_bytes) == (3, 1000 * KIB)
    assert (numbers.trim_bytes, numbers.freed_bytes, numbers.freed_now) == (1200 * KIB, 3600 * KIB, 2400 * KIB)
    assert numbers.once.lists == 0, "there is a manifest already"


@pytest.mark.parametrize(
    ("trim_now", "trim_later", "end", "exact"),
    [(500, 500, 1200, True), (500, 900, 1200, True), (500, 1100, 1200, False), (500, 1200, 1200, True)],
)
def test_whether_it_is_known_to_the_offset(trim_now: int, trim_later: int, end: int, exact: bool) -> None:
    configured = config(KEEP_NOTHING)
    shelf = shelved(1000, trim_now=trim_now, trim_later=trim_later)
    _, part = planned(configured, facts(configured, {T0: log(0, end)}, sizes={T0: KIB}, shelves={T0: shelf}))
    assert part.exact is exact


def test_lost_records_are_told() -> None:
    configured = config()
    found = facts(configured, {T0: log(1500, 2000)}, sizes={T0: KIB}, shelves={T0: shelved(1000)})
    plan, part = planned(configured, found)
    assert (part.numbers.lost_offsets, part.numbers.backlog_offsets) == (500, 500)
    assert "500 offsets were deleted before they were archived: gaps will be recorded" in plan.notes


def test_what_expires_is_not_paid_for() -> None:
    configured = config("match: '*', archive: a, keep_in_archive: {time: 1d}", PRICES)
    shelf = shelved(1000, plain=4 * GIB, stored=2 * GIB)
    shelf = replace(shelf, expire_to=500, expire_segments=1, expire_bytes=2 * GIB, expire_stored=GIB)
    found = facts(configured, {T0: log(500, 1000)}, sizes={T0: 2 * GIB}, shelves={T0: shelf})
    _, part = planned(configured, found)
    assert (part.expire_to, part.numbers.expire_objects, part.numbers.expire_bytes) == (500, 1, 2 * GIB)
    assert part.numbers.now.storage == pytest.approx(1.0)
    assert part.numbers.now.alone == pytest.approx(60)


def test_time_limits_count_what_is_old_enough() -> None:
    configured = config("match: '*', archive: a, keep_on_broker: {time: 1d}, segment: {bytes: 100KiB}")
    found = facts(configured, {T0: log(0, 1000, kept_from=750)}, sizes={T0: 1000 * KIB})
    _, part = planned(configured, found)
    assert (part.trim_to, part.exact) == (700, False)
    assert part.numbers.trim_bytes == 700 * KIB


@pytest.mark.parametrize("trimming", ["trim: never, keep_on_broker: {bytes: 0B}", ""])
def test_who_keeps_everything_frees_nothing(trimming: str) -> None:
    configured = config(f"match: '*', archive: a, {trimming}")
    _, part = planned(configured, facts(configured, {T0: log(0, 1000)}, sizes={T0: 1000 * KIB}))
    assert (part.trim_to, part.numbers.freed_bytes) == (0, 0)


def test_without_topic_ids_nothing_is_trimmed() -> None:
    configured = config(KEEP_NOTHING)
    found = facts(configured, {T0: log(0, 1000)}, sizes={T0: 1000 * KIB}, topic_id=NO_TOPIC_ID)
    plan, part = planned(configured, found)
    assert (part.trim_to, part.numbers.freed_bytes) == (0, 0)
    assert any("t would not be trimmed: the brokers give no topic ids" in note for note in plan.notes)


def test_a_topic_that_can_not_be_archived_counts_for_nothing() -> None:
    configured = config(KEEP_NOTHING)
    found = facts(configured, {T0: log(0, 1000)}, sizes={T0: 1000 * KIB})
    found.unfit["t"] = "it is compacted"
    plan = judge(configured, found, 12)
    assert (plan.ok, plan.topics[0].excluded, plan.numbers.partitions) == (True, "it is compacted", 0)


# ---- what is not known -------------------------------------------------------------------------------------


def test_without_sizes_a_sample_says_how_large_it_is() -> None:
    configured = config(KEEP_NOTHING)
    found = facts(configured, {T0: log(0, 1000)}, samples={"t": HALF})
    found.sizes.update({1: LogSizes(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, {}), 2: "no answer", 3: "no answer"})
    plan, part = planned(configured, found)
    assert part.sized == Estimate(100, SAMPLE)
    assert (part.numbers.backlog_bytes, part.numbers.disk_bytes) == (100_000, 300_000)
    assert "broker 1 does not tell how large its logs are (CLUSTER_AUTHORIZATION_FAILED)" in plan.notes
    assert "broker 2, 3 does not tell how large its logs are (no answer)" in plan.notes


def test_without_either_nothing_is_guessed() -> None:
    configured = config(KEEP_NOTHING)
    found = facts(configured, {T0: log(0, 1000)}, samples={"t": "can't be fetched: TOPIC_AUTHORIZATION_FAILED"})
    plan, part = planned(configured, found)
    assert (part.sized, part.numbers.backlog_bytes, part.numbers.unsized, part.trim_to) == (None, 0, 1, 0)
    assert part.numbers.backlog_offsets == 1000
    assert "no sample of t: can't be fetched: TOPIC_AUTHORIZATION_FAILED" in plan.notes


def test_without_a_sample_stored_bytes_are_unknown() -> None:
    configured = config(KEEP_NOTHING)
    _, part = planned(configured, facts(configured, {T0: log(0, 1000)}, sizes={T0: 1000 * KIB}))
    assert (part.numbers.backlog_stored, part.numbers.unpressed) == (0, 1)


def test_a_topic_that_was_not_sampled_is_like_those_that_were() -> None:
    configured = config(KEEP_NOTHING)
    u0 = TopicPartition("u", 0)
    logs = {T0: log(0, 1000), u0: log(0, 10)}
    plan = judge(configured, facts(configured, logs, sizes={T0: KIB, u0: KIB}, samples={"t": HALF}), 12)
    assert [topic.ratio for topic in plan.topics] == [Estimate(2.0, SAMPLE), Estimate(2.0, OTHERS)]


@pytest.mark.parametrize(
    ("found_log", "shelf", "told"),
    [
        (LogFacts(ErrorCode.NETWORK_EXCEPTION), None, "t-0: the leader does not tell of its log: NETWORK_EXCEPTION"),
        (log(0, 9), "it is on fire", "t-0: archive a: it is on fire"),
    ],
)
def test_whom_nobody_tells_of_is_missing(found_log: LogFacts, shelf: str | None, told: str) -> None:
    configured = config()
    plan, part = planned(configured, facts(configured, {T0: found_log}, shelves={T0: shelf}))
    assert (plan.ok, plan.troubles) == (False, [told])
    assert (part.numbers.unknown, part.numbers.partitions) == (1, 1)
    assert part.numbers.backlog_offsets == 0


def test_settings_that_can_not_be_read_are_told() -> None:
    configured = config()
    found = facts(configured, {T0: log(0, 9)}, sizes={T0: 9})
    found.settings.clear()
    plan, _ = planned(configured, found)
    assert any(note.startswith("settings of t can't be read") for note in plan.notes)


# ---- how it grows, and what it costs -----------------------------------------------------------------------

PRICES = """
prices:
  {broker_disk: 10, storage: 1, puts: 0, gets: 0, lists: 0}
"""
A_DAY = GIB // 1000
"""Offsets of 1,000 bytes that make a GiB."""


def test_growth_is_what_came_in_the_last_day() -> None:
    configured = config(KEEP_NOTHING)
    grown = log(0, 1000, day_from=900)
    plan, part = planned(configured, facts(configured, {T0: grown}, sizes={T0: 1000 * KIB}, samples={"t": HALF}))
    a_month = 100 * KIB * MONTH_MS / DAY
    assert part.numbers.month_bytes == pytest.approx(a_month)
    assert part.numbers.month_stored == pytest.approx(a_month / 2)
    assert plan.topics[0].window_ms == DAY


def test_a_young_log_grows_by_what_it_has() -> None:
    configured = config(KEEP_NOTHING)
    young = LogFacts(0, 0, 100, 100, None, NOW - DAY // 24, 0)
    plan, part = planned(configured, facts(configured, {T0: young}, sizes={T0: 100 * KIB}))
    assert part.numbers.month_bytes == pytest.approx(100 * KIB * MONTH_MS / (DAY // 24))
    assert plan.topics[0].window_ms == DAY // 24


@pytest.mark.parametrize(
    "found", [LogFacts(0, 0, 100, 100, None, NOW - 1000, 0), LogFacts(0, 0, 100, 100, None, NOW - DAY, None)]
)
def test_nobody_knows_how_fast_a_log_grows_that_has_just_begun_or_does_not_tell(found: LogFacts) -> None:
    configured = config(KEEP_NOTHING)
    _, part = planned(configured, facts(configured, {T0: found}, sizes={T0: 100 * KIB}))
    assert (part.numbers.month_bytes, part.numbers.unpaced) == (0, 1)


def test_what_the_brokers_have_let_go_counts_for_growth_too() -> None:
    configured = config(KEEP_NOTHING)
    shelf = replace(shelved(1000, trim_now=1000), day_from=800)
    found = facts(configured, {T0: LogFacts(0, 1000, 1000, 1000, None, -1, 1000)}, sizes={T0: 0}, shelves={T0: shelf})
    _, part = planned(configured, found)
    assert part.numbers.month_bytes == pytest.approx(200 * KIB * MONTH_MS / DAY)


def grown(policy: str, months: int, settings: dict[str, str] | None = None) -> tuple[float, float, float]:
    """Costs in so many months of 1 GiB a day, stored at half its size: on the brokers, in the archive, without it."""
    configured = config(f"match: '*', archive: a, {policy}", PRICES)
    known = LogFacts(0, 0, A_DAY, A_DAY, None, NOW - DAY, 0)
    sample = Sample(1000, 500, 1)
    found = facts(
        configured,
        {T0: known},
        sizes={T0: A_DAY * 1000},
        samples={"t": sample},
        settings={"t": {"retention.ms": "-1", **(settings or {})}},
    )
    costs = planned(configured, found, months)[1].numbers.later
    return costs.brokers, costs.storage, costs.alone


YEAR = 1 + 12 * MONTH_MS / DAY
"""GiB that there are in a year."""


@pytest.mark.parametrize(
    ("policy", "settings", "brokers", "archive", "alone"),
    [
        # three copies of a day at 10, half of all at 1
        ("keep_on_broker: {time: 1d}", {}, 1, YEAR, YEAR),
        ("keep_on_broker: {bytes: 2GiB}", {}, 2, YEAR, YEAR),
        ("keep_on_broker: {time: 7d, bytes: 2GiB}", {}, 2, YEAR, YEAR),
        ("keep_on_broker: {time: 1d}, keep_in_archive: {time: 100d}", {}, 1, 100, 100),
        ("keep_on_broker: {time: 1d}, keep_in_archive: {bytes: 50GiB}", {}, 1, 50, 50),
        ("", {}, YEAR, YEAR, YEAR),
        ("", {"retention.ms": str(3 * DAY)}, 3, YEAR, YEAR),
        ("trim: never", {"retention.bytes": str(5 * GIB)}, 5, YEAR, YEAR),
        ("keep_on_broker: {time: 7d}", {"retention.ms": str(3 * DAY)}, 3, YEAR, YEAR),
        # what the brokers keep longer than the archive is there without it as well
        ("keep_on_broker: {time: 7d}, keep_in_archive: {time: 1d}", {}, 7, 1, 7),
    ],
)
def test_what_it_costs_in_a_year(
    policy: str, settings: dict[str, str], brokers: float, archive: float, alone: float
) -> None:
    found = grown(policy, 12, settings)
    assert found[0] == pytest.approx(brokers * 30, rel=0.001)
    assert found[1] == pytest.approx(archive / 2, rel=0.001)
    assert found[2] == pytest.approx(alone * 30, rel=0.001)


@pytest.mark.parametrize(("months", "left"), [(1, 1.0), (3, 0.4875), (5, 0.0)])
def test_what_has_not_expired_by_then_is_still_paid_for(months: int, left: float) -> None:
    """A quiet topic, written evenly in the last 100 days, kept for 140."""
    configured = config("match: '*', archive: a, keep_in_archive: {time: 140d}", PRICES)
    shelf = replace(shelved(1000, plain=4 * GIB, stored=GIB), first_ms=NOW - 100 * DAY)
    found = facts(configured, {T0: log(1000, 1000)}, sizes={T0: 0}, shelves={T0: shelf})
    costs = planned(configured, found, months)[1].numbers.later
    assert costs.storage == pytest.approx(left)


def test_what_it_costs_once_all_is_archived() -> None:
    configured = config(KEEP_NOTHING, PRICES)
    shelf = replace(shelved(1000, plain=2 * GIB, stored=GIB // 2, trim_later=1000), trim_later_bytes=2 * GIB)
    found = facts(configured, {T0: log(0, 1500)}, sizes={T0: 3 * GIB}, shelves={T0: shelf})
    costs = planned(configured, found)[1].numbers.now
    assert costs.brokers == pytest.approx(30)  # 1 GiB is left of 3
    assert costs.storage == pytest.approx(0.75)  # 2 GiB and 1 more, a quarter of its size
    assert costs.alone == pytest.approx(90)
    assert costs.saved == pytest.approx(90 - 30.75)


def test_requests_cost_what_the_prices_say() -> None:
    configured = config(KEEP_NOTHING + ", segment: {bytes: 300KiB}", "prices: {puts: 1000, gets: 0, lists: 0}")
    found = facts(configured, {T0: log(0, 1000)}, sizes={T0: 1000 * KIB}, samples={"t": HALF})
    numbers = planned(configured, found)[1].numbers
    assert numbers.cost_once == pytest.approx(numbers.once.puts)


def test_quiet_topics_close_a_segment_for_each_age() -> None:
    """One record an hour, segments of 10 minutes: a segment for each record, which are merged then."""
    merged, apart = (config(f"{KEEP_NOTHING}", f"archiver: {{merge: {word}}}") for word in ("true", "false"))
    hours = MONTH_MS / (DAY / 24)
    known = {T0: log(0, 2400, day_from=2376)}
    with_merging = planned(merged, facts(merged, known, sizes={T0: 2400 * KIB}))[1].numbers
    without = planned(apart, facts(apart, known, sizes={T0: 2400 * KIB}))[1].numbers
    assert with_merging.month_objects == pytest.approx(hours * 6 / 7)
    assert with_merging.monthly.puts > without.monthly.puts
    assert with_merging.monthly.gets > without.monthly.gets


def test_sums() -> None:
    configured = config(KEEP_NOTHING)
    logs = {TopicPartition(name, number): log(0, 100) for name in "tu" for number in range(2)}
    plan = judge(configured, facts(configured, logs, sizes=dict.fromkeys(logs, 100 * KIB)), 12)
    assert (plan.numbers.partitions, plan.numbers.backlog_offsets, plan.numbers.freed_bytes) == (4, 400, 1200 * KIB)
    assert [topic.numbers.once.puts for topic in plan.topics] == [plan.numbers.once.puts / 2] * 2
