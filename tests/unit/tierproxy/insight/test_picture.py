"""What facts mean: a table of partitions, where their history lies, and what an operator is told."""

from dataclasses import replace

import pytest

from tests.unit.tierproxy.insight.pictures import NOW, archived, facts, gap, part, policy, topic
from tierproxy.archive.manifest import Gap
from tierproxy.insight.facts import GroupFacts, PartitionFacts
from tierproxy.insight.overview import overview
from tierproxy.insight.picture import GAPS_DRAWN, Level, Where, picture_of, spans_of
from tierproxy.insight.words import duration


def shown(facts: PartitionFacts) -> list[tuple[str, int, int]]:
    return [(str(span.where), span.start, span.end) for span in spans_of(facts)]


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ("trimmed", [("archive", 0, 80), ("both", 80, 100), ("broker", 100, 120)]),
        ("nothing trimmed", [("both", 0, 100), ("broker", 100, 120)]),
        ("all trimmed", [("archive", 0, 100)]),
        ("broker deleted less than the archive", [("broker", 0, 50), ("both", 50, 100)]),
        ("nothing archived", [("broker", 40, 120)]),
        ("nothing at all", []),
        ("lost and not recorded", [("archive", 0, 100), ("lost", 100, 110), ("broker", 110, 120)]),
        ("a hole", [("archive", 0, 30), ("hole", 30, 50), ("archive", 50, 80), ("both", 80, 100)]),
        ("a hole at the end", [("archive", 0, 80), ("hole", 80, 100), ("broker", 100, 120)]),
        ("a hole at the start of the archive", [("hole", 5, 10), ("archive", 10, 100)]),
        ("a hole that is there again", [("archive", 0, 30), ("broker", 30, 50), ("both", 50, 100)]),
        ("holes that touch", [("archive", 0, 10), ("hole", 10, 30), ("archive", 30, 100)]),
        ("the broker is away", [("archive", 0, 100)]),
        ("the manifest can't be read", [("broker", 80, 120)]),
    ],
)
def test_where_history_lies(about: str, expected: list[tuple[str, int, int]]) -> None:
    cases = {
        "trimmed": part(80, 120, archived(0, 100)),
        "nothing trimmed": part(0, 120, archived(0, 100)),
        "all trimmed": part(100, 100, archived(0, 100)),
        "broker deleted less than the archive": part(0, 100, archived(50, 100)),
        "nothing archived": part(40, 120, archived(40, 40)),
        "nothing at all": part(0, 0, archived(0, 0)),
        "lost and not recorded": part(110, 120, archived(0, 100)),
        "a hole": part(80, 100, archived(0, 100, gap(30, 50))),
        "a hole at the end": part(100, 120, archived(0, 100, gap(80, 100))),
        "a hole at the start of the archive": part(100, 100, archived(5, 100, gap(0, 10))),
        "a hole that is there again": part(30, 100, archived(0, 100, gap(30, 50))),
        "holes that touch": part(100, 100, archived(0, 100, gap(10, 20), gap(20, 30))),
        "the broker is away": part(-1, -1, archived(0, 100), broker_problem="gone"),
        "the manifest can't be read": part(80, 120, None, archive_problem="damaged", damaged=True),
    }
    assert shown(cases[about]) == expected


def test_of_very_many_holes_the_widest_are_drawn() -> None:
    gaps = [gap(n * 10, n * 10 + 1 + (n % 5 == 0)) for n in range(200)]
    found = spans_of(part(2000, 2000, archived(0, 2000, *gaps)))
    holes = [span for span in found if span.where is Where.HOLE]
    assert len(holes) == GAPS_DRAWN
    assert {span.offsets for span in holes} == {2}


def verdict(
    about: PartitionFacts, *, state: str = "copy", settings: dict[str, str] | None = None, on_gap: str = "skip"
) -> tuple[Level, str]:
    facts = topic(about, policy=policy(on_gap=on_gap), settings=settings or {})
    worst = picture_of(facts, about, NOW, state).verdicts[0]
    return worst.level, worst.text


WEEK = {"retention.ms": "604800000"}
HOUR = 3_600_000


def test_what_is_as_it_should_be_is_fine() -> None:
    for about in (part(0, 100, archived(0, 100)), part(80, 120, archived(0, 100)), part(0, 0, archived(0, 0))):
        assert verdict(about, settings=WEEK) == (Level.OK, "archived")


@pytest.mark.parametrize(
    ("about", "level", "text"),
    [
        (part(0, 9, None, archive_problem="damaged", damaged=True), Level.BAD, "damaged"),
        (part(0, 9, None, archive_problem="no answer"), Level.WARNING, "no answer"),
        (part(-1, -1, archived(0, 9), broker_problem="no leader"), Level.WARNING, "no leader"),
        (part(0, 9, None), Level.OK, "not looked at yet"),
        (part(0, 9, archived(0, 0)), Level.NOTE, "nothing is archived yet"),
        (
            part(110, 120, archived(0, 100)),
            Level.BAD,
            "offsets 100 to 109 are neither archived nor on the broker",
        ),
        (
            part(100, 100, archived(0, 100, gap(10, 20))),
            Level.NOTE,
            "1 hole of 10 offsets, lost before it could be archived: expired on the broker",
        ),
        (
            part(100, 100, archived(0, 100, quarantined=2)),
            Level.NOTE,
            "2 lost histories are in quarantine: tierproxy archive ls",
        ),
        (
            part(0, 120, archived(0, 100), waiting_since_ms=NOW - HOUR),
            Level.WARNING,
            "20 offsets have waited to be archived for 1h at least",
        ),
        (part(0, 120, archived(0, 100), waiting_since_ms=NOW - HOUR // 2), Level.OK, "archived"),
        (
            part(0, 120, archived(0, 100), waiting_since_ms=NOW - 140 * HOUR),
            Level.BAD,
            "17% of the brokers' retention is left for 20 offsets that wait",
        ),
    ],
)
def test_what_an_operator_is_told(about: PartitionFacts, level: Level, text: str) -> None:
    assert verdict(about, settings=WEEK) == (level, text)


def test_who_waits_at_a_hole_needs_somebody_until_it_is_accepted() -> None:
    text = "readers wait at 1 hole of 10 offsets: tierproxy archive accept-gap lets them go on"
    assert verdict(part(100, 100, archived(0, 100, gap(10, 20))), on_gap="halt") == (Level.BAD, text)
    assert verdict(part(100, 100, archived(0, 100, gap(10, 20, NOW))), on_gap="halt")[0] is Level.NOTE


def test_a_partition_that_was_stopped_needs_somebody() -> None:
    assert verdict(part(0, 100, archived(0, 100)), state="stopped")[0] is Level.BAD


def test_the_worst_is_told_first_and_the_rest_after_it() -> None:
    about = part(110, 120, archived(0, 100, gap(10, 20)), waiting_since_ms=NOW - HOUR)
    levels = [each.level for each in picture_of(topic(about), about, NOW, "").verdicts]
    assert levels == [Level.BAD, Level.WARNING, Level.NOTE]


@pytest.mark.parametrize(
    ("settings", "about", "left"),
    [
        ({}, part(0, 120, archived(0, 100)), None),
        (WEEK, part(0, 100, archived(0, 100)), 1.0),
        (WEEK, part(0, 120, archived(0, 100), waiting_since_ms=NOW - 84 * HOUR), 0.5),
        (WEEK, part(0, 120, archived(0, 100), waiting_since_ms=NOW - 9000 * HOUR), 0.0),
        (WEEK | {"cleanup.policy": "compact"}, part(0, 120, archived(0, 100)), None),
        ({"retention.ms": "-1", "retention.bytes": "80000"}, part(0, 120, archived(0, 100)), 0.75),
        ({"retention.ms": "soon"}, part(0, 120, archived(0, 100)), None),
        (WEEK | {"retention.bytes": "80000"}, part(0, 120, archived(0, 100)), 0.75),
    ],
)
def test_how_much_of_the_brokers_retention_is_left(
    settings: dict[str, str], about: PartitionFacts, left: float | None
) -> None:
    assert picture_of(topic(about, settings=settings), about, NOW, "").retention_left == left


def test_a_topic_is_as_bad_as_its_worst_partition() -> None:
    fine = part(80, 120, archived(0, 100), number=0, waiting_since_ms=NOW - 5000)
    holed = part(100, 100, archived(0, 100, gap(10, 20), freed_bytes=90_000), number=1)
    (found,) = overview(facts(topic(fine, holed)), NOW, {}).topics
    assert found.level is Level.NOTE
    assert found.verdict.startswith("partition 1: 1 hole of 10 offsets")
    assert (found.lag, found.waited_ms, found.freed_bytes) == (20, 5000, 90_000)
    assert (found.sums.plain_size, found.sums.stored_size, found.sums.segments) == (200_000, 50_000, 2)
    assert {str(where): count for where, count in found.offsets.items()} == {
        "archive": 170,
        "both": 20,
        "broker": 20,
        "hole": 10,
        "lost": 0,
    }


def test_one_sentence_says_how_all_of_it_stands() -> None:
    fine, lost = topic(part(0, 9, archived(0, 9)), name="a"), topic(part(20, 30, archived(0, 9)), name="b")
    late = topic(part(0, 9, archived(0, 5), waiting_since_ms=NOW - HOUR), name="c")

    def told(seen: object) -> tuple[Level, str]:
        found = overview(seen, NOW, {})  # type: ignore[arg-type]
        return found.level, found.verdict

    assert told(facts(fine)) == (Level.OK, "all is well with 1 topic")
    assert told(facts(fine, late)) == (Level.WARNING, "1 partition of 1 topic not as it should be")
    assert told(facts(fine, late, lost)) == (Level.BAD, "1 partition of 1 topic needs you")
    assert told(facts(fine, problems=("no broker answers",))) == (Level.BAD, "no broker answers")
    assert told(facts(fine, pending=3)) == (Level.NOTE, "looking: 3 manifests still to be read")
    assert told(facts()) == (Level.NOTE, "no topic is archived: no policy with an archive matches one")
    nobody = "no archiver is at work: group archivers has no members"
    assert told(facts(fine, members=[])) == (Level.BAD, nobody)
    unseen = replace(facts(fine), group=GroupFacts("archivers", problem="not authorized"))
    assert told(unseen) == (Level.OK, "all is well with 1 topic")
    assert told(replace(facts(fine), group=None)) == (Level.OK, "all is well with 1 topic")


def test_states_find_their_partitions() -> None:
    about = topic(part(0, 9, archived(0, 9)), part(0, 9, archived(0, 9), number=1), name="a-1")
    (found,) = overview(facts(about), NOW, {"a-1-1": "stopped", "a-1": "stopped"}).topics
    assert [each.state for each in found.partitions] == ["", "stopped"]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (400, "400ms"),
        (59_499, "59s"),
        (90_000, "1m30s"),
        (11 * 60_000 + 4000, "11m"),
        (90 * 60_000, "1h30m"),
        (36 * HOUR, "1d12h"),
        (40 * 24 * HOUR + HOUR, "40d"),
    ],
)
def test_durations_are_as_exact_as_is_of_use(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_gaps_are_kafkas_offsets_not_places() -> None:
    """One that lies outside of what the archive holds now (its start was raised) is not drawn."""
    about = part(100, 100, archived(50, 100, Gap(10, 20, NOW, "expired on the broker")))
    assert shown(about) == [("archive", 50, 100)]
