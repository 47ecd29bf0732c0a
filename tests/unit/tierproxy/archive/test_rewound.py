"""tierproxy.archive.rewound: what a cut keeps, and what it sets aside."""

import pytest

from tests.unit.tierproxy.archive.test_manifest import EMPTY, MANIFEST, STORED, entry
from tierproxy.archive.errors import ContinuityError
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.rewound import rewound

WHOLE = (
    EMPTY.with_segment(entry(0, 99), [(0, 0)])
    .with_segment(entry(100, 199), [(2, 150)])
    .with_gap(Gap(200, 250, 7, "late"))
    .with_segment(entry(250, 299), [(3, 250)])
)


def rows(manifest: Manifest) -> list[tuple[int, int]]:
    return [(each.base_offset, each.last_offset) for each in manifest.segments]


@pytest.mark.parametrize(
    ("offset", "cut", "end", "segments", "epochs", "set_aside"),
    [
        (290, None, 250, [(0, 99), (100, 199)], ((0, 0), (2, 150)), [(250, 299)]),
        (290, (250, 289), 290, [(0, 99), (100, 199), (250, 289)], ((0, 0), (2, 150), (3, 250)), [(250, 299)]),
        (250, None, 250, [(0, 99), (100, 199)], ((0, 0), (2, 150)), [(250, 299)]),
        (220, None, 200, [(0, 99), (100, 199)], ((0, 0), (2, 150)), [(250, 299)]),
        (150, (100, 149), 150, [(0, 99), (100, 149)], ((0, 0),), [(100, 199), (250, 299)]),
        (100, None, 100, [(0, 99)], ((0, 0),), [(100, 199), (250, 299)]),
        (40, None, 12, [], (), [(0, 99), (100, 199), (250, 299)]),
        (0, None, 12, [], (), [(0, 99), (100, 199), (250, 299)]),
    ],
)
def test_what_is_left(
    offset: int,
    cut: tuple[int, int] | None,
    end: int,
    segments: list[tuple[int, int]],
    epochs: tuple[tuple[int, int], ...],
    set_aside: list[tuple[int, int]],
) -> None:
    shorter = rewound(WHOLE, offset, 12, 99, "elected", entry(*cut) if cut else None)
    assert (shorter.end_offset, rows(shorter), shorter.epochs) == (end, segments, epochs)
    assert shorter.generation == WHOLE.generation + 1
    assert shorter.start_offset == (0 if segments else 12), "anew where the leader's log begins"
    (quarantine,) = shorter.quarantined
    assert (quarantine.start, quarantine.end, quarantine.at_ms, quarantine.cause) == (end, 300, 99, "elected")
    assert [(each.base_offset, each.last_offset) for each in quarantine.segments] == set_aside
    assert (shorter.gaps + quarantine.gaps) == WHOLE.gaps
    assert Manifest.from_json(shorter.to_json()) == shorter


def test_the_epochs_of_what_is_set_aside_are_kept() -> None:
    assert rewound(WHOLE, 170, 0, 0, "?", entry(100, 169)).quarantined[0].epochs == ((2, 150), (3, 250))
    assert rewound(WHOLE, 100, 0, 0, "?").quarantined[0].epochs == ((0, 0), (2, 150), (3, 250))


def test_archiving_goes_on_and_may_be_cut_again() -> None:
    shorter = rewound(WHOLE, 150, 0, 1, "once", entry(100, 149))
    longer = shorter.with_segment(entry(150, 400), [(5, 150)])
    assert longer.epochs == ((0, 0), (5, 150))
    again = rewound(longer, 150, 0, 2, "twice")
    assert [each.cause for each in again.quarantined] == ["once", "twice"]
    assert again.with_start(120).quarantined == again.quarantined, "what a user deletes is another matter"


def test_what_begins_below_the_start_is_not_kept_for_nothing() -> None:
    started = WHOLE.with_start(130)
    shorter = rewound(started, 120, 50, 0, "?", entry(100, 119))
    assert (shorter.start_offset, shorter.end_offset, shorter.segments) == (50, 50, ())


@pytest.mark.parametrize(("offset", "cut"), [(300, None), (150, (0, 149)), (150, (100, 150)), (100, (100, 149))])
def test_what_makes_no_sense_is_refused(offset: int, cut: tuple[int, int] | None) -> None:
    with pytest.raises(ContinuityError):
        rewound(WHOLE, offset, 0, 0, "?", entry(*cut) if cut else None)


def test_a_quarantine_is_stored_like_this_for_ever() -> None:
    shorter = rewound(MANIFEST, 600, 0, 1357002000000, "history was rewritten", entry(500, 599))
    assert b'"quarantined"' not in STORED
    assert b"""  "quarantined": [
    {"start": 600, "end": 700, "at_ms": 1357002000000, "cause": "history was rewritten", "epochs": [[2, 300]], \
"gaps": [], "segments": [{"name": "00000000000000000500-00000000000000000699-0a.log.zst", "base_offset": 500, \
"last_offset": 699, "stored_size": 500, "plain_size": 600, "index_size": 400, "records": 0, "min_timestamp": -1, \
"max_timestamp": -1, "sha256": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", \
"created_ms": 1357001600000}]}
  ],
""" in shorter.to_json()


def test_an_accepted_gap_says_when() -> None:
    manifest = EMPTY.with_gap(Gap(0, 5, 7, "late", accepted_ms=9))
    assert b'{"start": 0, "end": 5, "at_ms": 7, "cause": "late", "accepted_ms": 9}' in manifest.to_json()
    assert Manifest.from_json(manifest.to_json()) == manifest
