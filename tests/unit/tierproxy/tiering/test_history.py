"""tierproxy.tiering.history: what leader epochs say of two logs."""

import pytest

from protocol.messages import NO_TOPIC_ID
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.tiering.history import Behind, Foreign, Judgement, Rewritten, Same, continues, data_end, judge, narrow
from tierproxy.tiering.steps import Loaded


def entry(base: int, last: int) -> SegmentEntry:
    return SegmentEntry(segment_name(base, last, "t"), base, last, 100, 500, 50, last - base + 1, 0, 0, "0" * 64, 0)


def archived(*epochs: tuple[int, int], end: int, start: int = 0, topic_id: bytes = b"i" * 16) -> Manifest:
    manifest = Manifest.empty("c", "id", PartitionId("t", topic_id, 0), start)
    return manifest.with_segment(entry(start, end - 1), epochs)


PLAIN = archived((3, 0), end=100)
EMPTIED = PLAIN.with_start(120)
GAP = PLAIN.with_gap(Gap(100, 150, 0, "?")).with_gap(Gap(150, 200, 0, "?"))
BEHIND_GAP = GAP.with_segment(entry(200, 299), [])


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (Loaded(None, 0, 10), Same),
        (Loaded(PLAIN, 50, 100, 3, 100), Same),
        (Loaded(PLAIN, 100, 100, 3, 100), Same),
        (Loaded(PLAIN, 0, 300, 4, 60), Rewritten),
        (Loaded(PLAIN, 0, 60, 4, 60, 60), Rewritten),
        # a high watermark that lags behind what the epochs say
        (Loaded(PLAIN, 0, 99, 4, 100), Behind),
        (Loaded(PLAIN, 0, 99, 4, 100, 120), Behind),
        # an epoch that the leader doesn't know: newer than its own, or forgotten, or of no use
        (Loaded(PLAIN, 0, 300, 2, -1), Foreign),
        (Loaded(PLAIN, 50, 300, 7, -1), Same),
        (Loaded(PLAIN, 50, 300, -1, -1), Same),
        (Loaded(PLAIN, 0, 99, 7, -1, 120), Behind),
        (Loaded(PLAIN, 0, 50, 7, -1, 60), Foreign),
        (Loaded(archived(end=100), 0, 99, 7), Foreign),
        # nothing is archived that could differ: a user has deleted all of it
        (Loaded(EMPTIED, 0, 50, 7, None, 60), Rewritten),
        (Loaded(EMPTIED, 0, 50, 7, None, 120), Behind),
        # behind a gap
        (Loaded(PLAIN, 250, 300, 4, 250), Same),
        (Loaded(GAP, 200, 300, 4, 100), Same),
        (Loaded(GAP, 200, 300, 4, 99), Rewritten),
        (Loaded(GAP, 0, 150, 4, 100, 150), Rewritten),
        (Loaded(GAP, 150, 150, 4, 100, 200), Behind),
    ],
)
def test_judgements(facts: Loaded, kind: type[Judgement]) -> None:
    assert type(judge(facts)) is kind


def test_where_history_was_rewritten() -> None:
    found = judge(Loaded(PLAIN, 0, 300, 4, 60))
    assert isinstance(found, Rewritten)
    assert found.offset == 60
    assert "the same up to offset 60" in found.reason
    found = judge(Loaded(GAP, 0, 150, 4, 100, 150))
    assert isinstance(found, Rewritten)
    assert found.offset == 100, "the gap is withdrawn: the log may fill it"


def test_a_topic_without_an_id_may_be_another_one() -> None:
    found = judge(Loaded(archived((3, 0), end=100, topic_id=NO_TOPIC_ID), 0, 300, 4, 60))
    assert isinstance(found, Foreign)
    assert "created again" in found.reason


def test_where_archived_records_end() -> None:
    assert (data_end(PLAIN), data_end(GAP), data_end(BEHIND_GAP)) == (100, 100, 300)


def ask(manifest: Manifest, leader: list[tuple[int, int]], log_end: int) -> tuple[int, list[int]]:
    """What the two agree on, and the epochs that were asked for. `leader`: epochs, and where they begin in its log."""
    asked, epoch, same_to = [], manifest.last_epoch, -1
    while epoch >= 0:
        asked.append(epoch)
        known = [e for e, _ in leader if e <= epoch]
        after = [start for e, start in leader if e > epoch]
        answer = (
            (-1, -1)
            if not after and epoch > leader[-1][0]
            else (
                known[-1] if known else epoch,
                after[0] if after else log_end,
            )
        )
        same_to, epoch = narrow(manifest, epoch, *answer)
    return same_to, asked


@pytest.mark.parametrize(
    ("leader", "log_end", "same_to", "asked"),
    [
        ([(0, 0), (2, 100), (5, 200)], 400, 300, [5]),
        ([(0, 0), (2, 100), (5, 200), (6, 300)], 400, 300, [5]),
        ([(0, 0), (2, 100), (5, 200), (6, 250)], 400, 250, [5]),
        ([(0, 0), (2, 100), (6, 150)], 400, 150, [5]),
        ([(0, 0), (2, 100), (6, 200)], 400, 200, [5]),
        # an epoch that the archive has never seen
        ([(0, 0), (3, 100), (6, 180)], 400, 100, [5, 2]),
        ([(0, 0), (2, 100), (3, 150), (4, 170), (6, 180)], 400, 150, [5, 2]),
        ([(0, 0), (1, 50), (4, 80), (6, 90)], 400, 50, [5, 2, 0]),
        # trimmed: what the first epoch left begins at the log start
        ([(6, 250)], 400, 250, [5]),
        ([(5, 280), (6, 290)], 400, 290, [5]),
        ([(0, 0), (2, 100)], 150, -1, [5]),
    ],
)
def test_up_to_where_two_logs_are_the_same(
    leader: list[tuple[int, int]], log_end: int, same_to: int, asked: list[int]
) -> None:
    assert ask(archived((0, 0), (2, 100), (5, 200), end=300), leader, log_end) == (same_to, asked)


def test_an_archive_that_knows_only_newer_epochs_has_nothing_in_common() -> None:
    manifest = archived((5, 200), start=200, end=300)
    assert ask(manifest, [(0, 0), (3, 100), (6, 180)], 400) == (180, [5])
    assert ask(manifest, [(0, 0), (3, 100), (6, 250)], 400) == (200, [5])


@pytest.mark.parametrize("answer", [(6, 100), (-1, -1), (2, -1)])
def test_an_answer_that_can_not_be_is_no_answer(answer: tuple[int, int]) -> None:
    assert narrow(PLAIN, 3, *answer) == (-1, -1)


def test_what_continues_a_history() -> None:
    assert continues(GAP, entry(200, 210), [(3, 200)])
    assert continues(GAP, entry(195, 210), [])
    assert not continues(GAP, entry(200, 210), [(2, 200)])
    assert not continues(GAP, entry(99, 210), [(3, 99)])
