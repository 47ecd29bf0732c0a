"""tierproxy.tiering.fsm, decision by decision. What they add up to is played in test_fsm_simulation."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from protocol.messages import NO_TOPIC_ID
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.pages import Page
from tierproxy.archive.rewound import rewound
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.tiering.fsm import (
    DOUBT_PAUSE,
    DOUBTS_MOST,
    RETRY_FIRST,
    RETRY_MOST,
    REWOUND_REST_MS,
    TRIM_CHECK_MOST,
    IllegalMove,
    Machine,
)
from tierproxy.tiering.steps import (
    MOVES,
    Action,
    Commit,
    Committed,
    Conflicted,
    Copied,
    Copy,
    Damaged,
    Diverged,
    Due,
    Event,
    Failed,
    Hopeless,
    Load,
    Loaded,
    Look,
    Looked,
    Now,
    OutOfRange,
    Overlapped,
    RecordGap,
    Rewind,
    Rules,
    Spoiled,
    State,
    Stop,
    Trim,
    Trimmed,
    Upload,
    Uploaded,
    Verified,
    Verify,
)

PID = PartitionId("t", b"i" * 16, 0)
KEEP_ALL = Rules(segment_bytes=1000, segment_age=60.0, keep_time_ms=None, keep_bytes=None, trim=True)
KEEP_NOTHING = Rules(segment_bytes=1000, segment_age=60.0, keep_time_ms=None, keep_bytes=0, trim=True)
T0 = 1_700_000_000_000


def at(seconds: float) -> Now:
    return Now(seconds, T0 + round(seconds * 1000))


def entry(base: int, last: int, size: int = 1000) -> SegmentEntry:
    name = segment_name(base, last, "tag")
    return SegmentEntry(name, base, last, size // 5, size, 100, last - base + 1, T0, T0, "0" * 64, T0)


def archived(*borders: int, start: int = 0, epoch: int = 3) -> Manifest:
    """One segment between each two borders."""
    manifest = Manifest.empty("c", "id", PID, start)
    for base, end in pairwise(borders):
        manifest = manifest.with_segment(entry(base, end - 1), [(epoch, borders[0])])
    return manifest


def play(rules: Rules, *events: Event, seconds: float = 0.0) -> tuple[Machine, Action]:
    machine = Machine(rules)
    action = machine.begin()
    for event in events:
        action = machine.on(event, at(seconds))
    return machine, action


def loaded(manifest: Manifest | None, start: int, end: int, epoch: int = 3, same_to: int | None = None) -> Loaded:
    return Loaded(manifest, start, end, epoch, same_to)


# ---- where copying begins ------------------------------------------------------------------------------------


def test_begins_by_loading() -> None:
    assert Machine(KEEP_ALL).begin() == Load()


def test_a_new_archive_begins_at_the_log_start() -> None:
    machine, action = play(KEEP_ALL, loaded(None, 205, 300))
    assert isinstance(action, Copy)
    assert (action.offset, action.last_epoch, machine.archived_to) == (205, -1, 205)


def test_an_archive_goes_on_at_its_end_with_its_epoch() -> None:
    _, action = play(KEEP_ALL, loaded(archived(0, 100), 0, 300, same_to=300))
    assert isinstance(action, Copy)
    assert (action.offset, action.last_epoch) == (100, 3)


def test_behind_a_gap_no_epoch_is_claimed() -> None:
    manifest = archived(0, 100).with_gap(Gap(100, 200, T0, "?"))
    _, action = play(KEEP_ALL, loaded(manifest, 200, 300))
    assert isinstance(action, Copy)
    assert (action.offset, action.last_epoch) == (200, -1)


# ---- when the log and the archive disagree -------------------------------------------------------------------

ARCHIVED = archived(0, 100)
SAME = loaded(ARCHIVED, 0, 300, same_to=100)
REWRITTEN = loaded(ARCHIVED, 0, 300, same_to=60)
FOREIGN = loaded(ARCHIVED, 0, 300, epoch=2, same_to=-1)


def test_history_rewritten_below_the_archives_end_is_cut_off() -> None:
    _, action = play(KEEP_NOTHING, REWRITTEN)
    assert isinstance(action, Rewind)
    assert (action.manifest, action.offset, action.log_start) == (ARCHIVED, 60, 0)


def test_after_a_rewind_both_sides_are_looked_at_again() -> None:
    machine, first = play(KEEP_NOTHING, REWRITTEN)
    again = machine.on(Failed("?"), at(1))
    assert isinstance(first, Rewind)
    assert again == replace(first, not_before=1 + RETRY_FIRST)
    assert machine.on(Committed(rewound(ARCHIVED, 60, 0, T0, "?")), at(2)) == Load()
    assert play(KEEP_NOTHING, REWRITTEN, Conflicted())[1] == Load()


def test_nothing_is_trimmed_until_the_new_history_is_committed_and_known_to_gateways() -> None:
    shorter = rewound(archived(0, 50, 100), 60, 0, T0, "?")
    _, action = play(KEEP_NOTHING, loaded(shorter, 0, 300, same_to=50), seconds=REWOUND_REST_MS / 1000 + 1)
    assert isinstance(action, Copy)
    assert (action.offset, action.last_epoch) == (50, 3)
    longer = shorter.with_segment(entry(50, 299), [(4, 60)])
    _, action = play(KEEP_NOTHING, loaded(longer, 0, 300, same_to=300), seconds=REWOUND_REST_MS / 1000 - 1)
    assert isinstance(action, Copy)
    _, action = play(KEEP_NOTHING, loaded(longer, 0, 300, same_to=300), seconds=REWOUND_REST_MS / 1000)
    assert action == Trim(300)


def test_a_high_watermark_that_lags_is_waited_for() -> None:
    machine, action = play(KEEP_NOTHING, loaded(ARCHIVED, 0, 99, same_to=100))
    assert action == Load(DOUBT_PAUSE)
    assert isinstance(machine.on(SAME, at(2)), Trim)


def test_a_foreign_log_stops_the_partition_when_it_stays_so() -> None:
    machine, action = play(KEEP_NOTHING, FOREIGN)
    for _ in range(DOUBTS_MOST - 1):
        assert isinstance(action, Load)
        action = machine.on(FOREIGN, at(1))
    assert isinstance(action, Load)
    assert action.not_before > 1
    action = machine.on(FOREIGN, at(1))
    assert isinstance(action, Stop)
    assert machine.state is State.STOPPED


def test_a_leader_that_was_replaced_without_knowing_it_stops_nothing() -> None:
    machine, _ = play(KEEP_ALL, *[FOREIGN] * DOUBTS_MOST, SAME)
    for _ in range(DOUBTS_MOST):
        machine.on(Diverged(60), at(1))
        assert isinstance(machine.on(FOREIGN, at(1)), Load)
        assert isinstance(machine.on(SAME, at(1)), Copy)


def overlap_after(*then: Loaded, before: Loaded) -> tuple[Machine, Action]:
    """The leader has deleted what lies below 100, and its batch that holds offset 100 begins at 95."""
    machine, action = play(KEEP_ALL, before, Overlapped(95))
    assert action == Load(DOUBT_PAUSE)
    for event in then:
        action = machine.on(event, at(1))
    return machine, action


def test_a_batch_that_begins_below_the_archives_end_proves_that_history_was_rewritten() -> None:
    same = loaded(ARCHIVED, 100, 300, same_to=100)
    _, action = overlap_after(same, before=same)
    assert isinstance(action, Rewind)
    assert (action.manifest, action.offset, action.log_start) == (ARCHIVED, 95, 100)
    assert action.leader_epoch == same.leader_epoch


def test_such_a_batch_proves_nothing_of_another_leader() -> None:
    same = loaded(ARCHIVED, 100, 300, same_to=100)
    other = replace(same, leader_epoch=same.leader_epoch + 1)
    machine, action = overlap_after(other, before=same)
    assert isinstance(action, Copy)
    machine.on(Diverged(100), at(1))
    assert isinstance(machine.on(other, at(2)), Copy)  # the proof is forgotten, it was the old leader's


def test_such_a_batch_stops_the_partition_where_no_epochs_are_known() -> None:
    same = loaded(replace(ARCHIVED, topic_id=NO_TOPIC_ID), 100, 300, same_to=100)
    machine, action = overlap_after(*[same] * DOUBTS_MOST, before=same)
    assert isinstance(action, Load)
    assert isinstance(machine.on(same, at(1)), Stop)


@pytest.mark.parametrize("event", [Diverged(60), Diverged(150), OutOfRange(0, 150), OutOfRange(0, 99)])
def test_what_was_copied_of_a_rewritten_log_is_forgotten(event: Event) -> None:
    _, action = play(KEEP_ALL, SAME, Copied(200, 3, 500, 0), event)
    assert action == Load(DOUBT_PAUSE)


def test_records_that_were_lost_and_are_there_again_are_not_trimmed() -> None:
    manifest = archived(0, 100).with_gap(Gap(100, 200, T0, "?")).with_segment(entry(195, 299), [])
    assert play(KEEP_NOTHING, loaded(manifest, 195, 300, same_to=300))[1] == Trim(300)  # in an archived batch
    assert isinstance(play(KEEP_NOTHING, loaded(manifest, 194, 300, same_to=300))[1], Copy)
    assert play(KEEP_NOTHING, loaded(manifest, 50, 300, same_to=300))[1] == Trim(100)


def test_an_offset_that_is_in_range_again_is_asked_for_again_after_a_pause() -> None:
    _, action = play(KEEP_ALL, loaded(archived(0, 100), 0, 300, same_to=300), OutOfRange(0, 300), seconds=5)
    assert isinstance(action, Copy)
    assert (action.offset, action.not_before) == (100, 5 + RETRY_FIRST)


def test_an_offset_that_is_in_range_again_may_meet_a_trim_that_is_due() -> None:
    machine, action = play(KEEP_NOTHING, loaded(archived(0, 100, 200), 0, 300, same_to=300))
    assert isinstance(action, Trim)
    assert isinstance(machine.on(Failed("?"), at(0)), Copy)
    assert machine.on(OutOfRange(0, 300), at(5)) == action


# ---- gaps ----------------------------------------------------------------------------------------------------


def test_a_log_that_starts_behind_the_archive_is_a_gap() -> None:
    manifest = archived(0, 100)
    machine, action = play(KEEP_ALL, loaded(manifest, 250, 300))
    assert action == RecordGap(manifest, 100, 250)
    action = machine.on(Committed(manifest.with_gap(Gap(100, 250, T0, "?"))), at(1))
    assert isinstance(action, Copy)
    assert (action.offset, action.last_epoch) == (250, -1)


def test_what_was_copied_before_a_gap_is_committed_first() -> None:
    manifest = archived(0, 100)
    machine, action = play(KEEP_ALL, loaded(manifest, 0, 300, same_to=300), Copied(150, 3, 10, 0), OutOfRange(250, 300))
    assert action == Upload()
    for event in (Uploaded(), Verified()):
        action = machine.on(event, at(1))
    longer = manifest.with_segment(entry(100, 149), [])
    action = machine.on(Committed(longer), at(1))
    assert isinstance(action, Copy)
    assert action.offset == 150
    assert machine.on(OutOfRange(250, 300), at(1)) == RecordGap(longer, 150, 250)


def test_behind_a_gap_any_batch_is_segment_enough() -> None:
    manifest = archived(0, 100).with_gap(Gap(100, 200, T0, "?"))
    _, action = play(KEEP_ALL, loaded(manifest, 200, 300), Copied(210, 3, 10, 200))
    assert action == Upload()


def test_an_archive_that_holds_nothing_yet_has_no_gaps() -> None:
    machine, action = play(KEEP_ALL, loaded(None, 0, 300), OutOfRange(250, 300))
    assert action == Load()
    action = machine.on(loaded(None, 250, 300), at(1))
    assert isinstance(action, Copy)
    assert action.offset == 250


# ---- closing segments ----------------------------------------------------------------------------------------


def test_closes_by_size() -> None:
    assert isinstance(play(KEEP_ALL, loaded(None, 0, 9), Copied(5, 0, 999, 0))[1], Copy)
    assert play(KEEP_ALL, loaded(None, 0, 9), Copied(5, 0, 1000, 0))[1] == Upload()


def test_closes_by_age_of_its_first_batch_even_if_nothing_comes() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 9))
    machine.on(Copied(0, -1, 0, 0), at(5))  # nothing yet: no age
    action = machine.on(Copied(5, 0, 10, 0), at(10))
    assert isinstance(action, Copy)
    assert action.wake_at <= 70
    action = machine.on(Copied(7, 0, 20, 0), at(69))
    assert isinstance(action, Copy)
    assert action.wake_at == 70
    assert machine.on(Due(), at(70)) == Upload()


def test_is_old_enough_when_it_asked_to_be_woken_for_it_however_numbers_are_rounded() -> None:
    opened, age = 13.4, 8.5
    assert (opened + age) - opened < age
    rules = replace(KEEP_ALL, segment_age=age)
    machine, action = play(rules, loaded(None, 0, 300), Copied(10, 3, 100, 0), seconds=opened)
    assert isinstance(action, Copy)
    assert isinstance(machine.on(Due(), at(action.wake_at)), Upload)


def test_an_empty_segment_is_never_closed() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 9))
    assert isinstance(machine.on(Due(), at(1e6)), Copy)


def test_closes_by_age_also_while_the_broker_fails() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 9), Copied(5, 0, 10, 0))
    assert machine.on(Failed("?"), at(61)) == Upload()


# ---- the way into the archive --------------------------------------------------------------------------------


def to_commit(manifest: Manifest | None, rules: Rules = KEEP_ALL) -> Machine:
    machine, _ = play(rules, loaded(manifest, 0, 300, same_to=300), Copied(150, 3, 1000, 0), Uploaded(), Verified())
    assert machine.state is State.COMMIT
    return machine


def test_a_segment_goes_up_is_read_back_and_committed() -> None:
    machine, action = play(KEEP_ALL, loaded(None, 7, 300), Copied(150, 3, 1000, 7))
    assert action == Upload()
    assert machine.on(Uploaded(), at(1)) == Verify()
    assert machine.on(Verified(), at(1)) == Commit(None, 7)


def test_copying_goes_on_behind_what_was_committed() -> None:
    manifest = archived(0, 100)
    machine = to_commit(manifest)
    action = machine.on(Committed(manifest.with_segment(entry(100, 149), [(4, 120)])), at(2))
    assert isinstance(action, Copy)
    assert (action.offset, action.last_epoch) == (150, 4)


def test_a_damaged_segment_is_stored_again() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 300), Copied(150, 3, 1000, 0), Uploaded())
    action = machine.on(Damaged("?"), at(1))
    assert action == Upload(1 + RETRY_FIRST)


def test_a_lost_race_is_followed_by_reading_the_truth() -> None:
    assert to_commit(archived(0, 100)).on(Conflicted(), at(1)) == Load()


def test_a_lost_spool_is_copied_again_later() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 300), Copied(150, 3, 10, 0))
    action = machine.on(Spoiled("disk full"), at(1))
    assert isinstance(action, Load)
    assert action.not_before > 1


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((), Load),
        ((loaded(None, 0, 300),), Copy),
        ((loaded(None, 0, 300), Copied(150, 3, 1000, 0)), Upload),
        ((loaded(None, 0, 300), Copied(150, 3, 1000, 0), Uploaded()), Verify),
        ((loaded(None, 0, 300), Copied(150, 3, 1000, 0), Uploaded(), Verified()), Commit),
        ((loaded(archived(0, 100), 200, 300),), RecordGap),
    ],
)
def test_what_fails_is_tried_again_ever_more_rarely(events: Sequence[Event], kind: type) -> None:
    machine, _ = play(KEEP_ALL, *events)
    now, pauses = 0.0, []
    for _ in range(12):
        action = machine.on(Failed("?"), at(now))
        assert type(action) is kind
        pauses.append(action.not_before - now)  # type: ignore[union-attr] # every kind named above has it
        now = action.not_before  # type: ignore[union-attr] # as above
        if kind is Copy and now > 59:
            break  # then the trims are looked at again; the pause is shown by then
    assert pauses[:3] == [RETRY_FIRST, 2 * RETRY_FIRST, 4 * RETRY_FIRST]
    assert max(pauses) <= RETRY_MOST
    assert kind is Copy or pauses[-1] == RETRY_MOST


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_partitions_do_not_try_again_all_at_once(chance: float, share: float) -> None:
    for events in ([loaded(None, 0, 300), Copied(150, 3, 1000, 0)], [loaded(None, 0, 300)], []):
        machine, _ = play(KEEP_ALL, *events)
        for longest in (RETRY_FIRST, 2 * RETRY_FIRST):
            action = machine.on(Failed("?"), replace(at(10), chance=chance))
            assert isinstance(action, Upload | Copy | Load)
            assert action.not_before == 10 + longest * share


def test_a_pause_in_copying_outlives_a_look_at_the_clock() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 300))
    machine.on(Failed("?"), at(10))
    action = machine.on(Due(), at(10.1))
    assert isinstance(action, Copy)
    assert action.not_before == 10 + RETRY_FIRST
    action = machine.on(Copied(0, -1, 0, 0), at(11))
    assert isinstance(action, Copy)
    assert action.not_before == 0


# ---- trimming ------------------------------------------------------------------------------------------------


def test_trims_what_the_policy_lets_go_when_it_is_committed() -> None:
    machine = to_commit(None, KEEP_NOTHING)
    assert machine.on(Committed(archived(0, 150)), at(1)) == Trim(150)
    action = machine.on(Trimmed(150), at(2))
    assert isinstance(action, Copy)
    assert (action.offset, machine.log_start) == (150, 150)


def test_trims_nothing_that_is_only_copied() -> None:
    machine, action = play(KEEP_NOTHING, loaded(archived(0, 100), 0, 300, same_to=300))
    assert action == Trim(100)
    machine.on(Trimmed(100), at(0))
    for state_of_segment in (Copied(200, 3, 500, 100), Due(), Failed("?")):
        assert isinstance(machine.on(state_of_segment, at(31)), Copy)


@pytest.mark.parametrize(
    ("rules", "to"),
    [
        (KEEP_ALL, None),
        (Rules(1000, 60.0, None, 0, trim=False), None),
        (Rules(1000, 60.0, None, 1000, trim=True), 100),  # the newest segment stays
        (Rules(1000, 60.0, None, 2000, trim=True), None),
        (Rules(1000, 60.0, 10_000, None, trim=True), None),
    ],
)
def test_trims_as_far_as_the_rules_say(rules: Rules, to: int | None) -> None:
    _, action = play(rules, loaded(archived(0, 100, 200), 0, 300, same_to=300))
    assert action == Trim(to) if to is not None else isinstance(action, Copy)


def test_trims_no_topic_without_an_id() -> None:
    """A namesake of the archived topic, longer than the archive and in the same epoch, looks just like it."""
    manifest = replace(archived(0, 100), topic_id=NO_TOPIC_ID)
    _, action = play(KEEP_NOTHING, loaded(manifest, 0, 300, same_to=300))
    assert isinstance(action, Copy)


def test_trims_by_time_though_nothing_new_is_written() -> None:
    machine, action = play(Rules(1000, 60.0, 10_000, None, trim=True), loaded(archived(0, 100), 0, 100, same_to=100))
    assert isinstance(action, Copy)
    assert action.wake_at <= 10
    for seconds in (1, 5, 9.9):
        assert isinstance(machine.on(Due(), at(seconds)), Copy)
    assert machine.on(Due(), at(11)) == Trim(100)


def test_an_open_segment_survives_a_trim() -> None:
    machine, _ = play(Rules(1000, 60.0, 10_000, None, trim=True), loaded(archived(0, 100), 0, 300, same_to=300))
    machine.on(Copied(200, 3, 500, 0), at(1))
    assert machine.on(Due(), at(12)) == Trim(100)
    action = machine.on(Trimmed(100), at(12))
    assert isinstance(action, Copy)
    assert action.offset == 200
    assert machine.on(Copied(300, 3, 1000, 100), at(13)) == Upload()


def test_copying_does_not_wait_for_a_broker_that_will_not_trim() -> None:
    machine, action = play(KEEP_NOTHING, loaded(archived(0, 100), 0, 300, same_to=300))
    assert action == Trim(100)
    action = machine.on(Failed("POLICY_VIOLATION"), at(0))
    assert isinstance(action, Copy)
    assert action.not_before == 0
    assert machine.on(Copied(110, 3, 10, 0), at(action.wake_at)) == Trim(100)


def test_records_that_reappear_are_trimmed_again() -> None:
    machine, _ = play(KEEP_NOTHING, loaded(archived(0, 100), 0, 100, same_to=100), Trimmed(100))
    assert isinstance(machine.on(Copied(100, 3, 0, 100), at(1)), Copy)
    assert machine.on(Copied(100, 3, 0, 0), at(2)) == Trim(100)  # the broker crashed and forgot


def test_looks_at_trims_now_and_then() -> None:
    _, action = play(KEEP_ALL, loaded(archived(0, 100), 0, 100, same_to=100), seconds=5)
    assert isinstance(action, Copy)
    assert action.wake_at == 5 + TRIM_CHECK_MOST


def in_pages(manifest: Manifest, count: int) -> tuple[Manifest, Page]:
    """The same with its oldest entries in a page."""
    page = Page.of(manifest.segments[:count])
    ref, _ = page.encode(SegmentInfo("c", "t", PID.topic_id, 0), "p")
    return replace(manifest, pages=(ref,), segments=manifest.segments[count:]), page


KEEP_2500 = replace(KEEP_ALL, keep_bytes=2500)


def test_how_far_to_trim_may_be_written_in_a_page() -> None:
    manifest, page = in_pages(archived(0, 10, 20, 30, 40, 50), 4)
    machine, action = play(KEEP_2500, loaded(manifest, 0, 50))
    assert action == Look(manifest.pages[0])
    assert machine.on(Looked(manifest.pages[0], page), at(0)) == Trim(20)
    assert isinstance(machine.on(Trimmed(20), at(0)), Copy)
    assert isinstance(machine.on(Due(), at(TRIM_CHECK_MOST)), Copy), "the page is known"
    following = manifest.with_segment(entry(50, 59), [])
    machine.state = State.COMMIT
    assert machine.on(Committed(following), at(TRIM_CHECK_MOST)) == Trim(30)


def test_a_page_that_may_go_as_a_whole_is_not_read() -> None:
    manifest, _ = in_pages(archived(0, 10, 20, 30, 40, 50), 2)
    assert play(KEEP_2500, loaded(manifest, 0, 50))[1] == Trim(20)
    assert play(KEEP_NOTHING, loaded(manifest, 0, 50))[1] == Trim(50)


def test_a_page_of_what_the_broker_has_trimmed_is_not_read() -> None:
    manifest, _ = in_pages(archived(0, 10, 20, 30, 40, 50), 2)
    assert isinstance(play(KEEP_ALL, loaded(manifest, 0, 50))[1], Copy)
    assert isinstance(play(replace(KEEP_ALL, keep_bytes=5000), loaded(manifest, 20, 50))[1], Copy)


def test_copying_goes_on_when_a_page_can_not_be_read() -> None:
    manifest, page = in_pages(archived(0, 10, 20, 30, 40, 50), 4)
    machine, _ = play(KEEP_2500, loaded(manifest, 0, 50))
    action = machine.on(Failed("the store is down"), at(0))
    assert isinstance(action, Copy)
    assert action.wake_at == RETRY_FIRST
    assert machine.on(Due(), at(RETRY_FIRST)) == Look(manifest.pages[0])
    assert machine.on(Conflicted(), at(RETRY_FIRST)) == Load(), "somebody has written it anew"
    assert isinstance(machine.on(loaded(manifest, 0, 50), at(RETRY_FIRST)), Copy), "no hurry"
    later = RETRY_FIRST + TRIM_CHECK_MOST
    assert machine.on(Due(), at(later)) == Look(manifest.pages[0])
    assert machine.on(Looked(manifest.pages[0], page), at(later)) == Trim(20)


def test_a_changed_manifest_is_read_again_instead_of_trimming() -> None:
    machine, _ = play(KEEP_NOTHING, loaded(archived(0, 100), 0, 300, same_to=300))
    assert machine.on(Conflicted(), at(1)) == Load()


# ---- the table -----------------------------------------------------------------------------------------------


def test_nothing_leads_out_of_stopped() -> None:
    machine, action = play(KEEP_NOTHING, loaded(archived(0, 100), 0, 300, same_to=300), Hopeless("?"))
    assert action == Stop("?")
    for event in (Due(), Committed(archived(0, 100)), Failed("?")):
        with pytest.raises(IllegalMove):
            machine.on(event, at(1))


def test_what_a_state_does_not_list_is_refused() -> None:
    machine = Machine(KEEP_ALL)
    with pytest.raises(IllegalMove, match="Verified in state LOAD"):
        machine.on(Verified(), at(0))


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(MOVES) == set(State)
    reached = {state for row in MOVES.values() for states in row.values() for state in states}
    assert reached == set(State)


# ---- in a hurry ----------------------------------------------------------------------------------------------


def test_in_a_hurry_a_segment_is_closed_by_bytes_alone_while_there_is_more() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 900))
    machine.hurried = True
    assert isinstance(machine.on(Copied(100, 3, 100, 0, stable_end=900), at(0)), Copy)
    action = machine.on(Copied(200, 3, 200, 0, stable_end=900), at(1000))
    assert isinstance(action, Copy)
    assert machine.on(Copied(900, 3, 1000, 0, stable_end=950), at(1001)) == Upload()


def test_in_a_hurry_a_segment_is_closed_at_once_when_there_is_no_more() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 900))
    machine.hurried = True
    assert machine.on(Copied(900, 3, 100, 0, stable_end=900), at(0)) == Upload()


def test_in_a_hurry_age_counts_where_nothing_comes() -> None:
    machine, _ = play(KEEP_ALL, loaded(None, 0, 900))
    machine.hurried = True
    machine.on(Copied(100, 3, 100, 0, stable_end=900), at(0))
    assert isinstance(machine.on(Failed("?"), at(50)), Copy)
    assert machine.on(Failed("?"), at(60)) == Upload()


# ---- other rules ---------------------------------------------------------------------------------------------


def test_other_rules_hold_from_the_next_event_on() -> None:
    machine, action = play(KEEP_ALL, loaded(archived(0, 100), 0, 300, same_to=300), Copied(200, 3, 600, 0))
    assert isinstance(action, Copy)
    machine.change(replace(KEEP_ALL, segment_bytes=500))
    assert machine.on(Due(), at(0)) == Upload()
    machine, action = play(KEEP_ALL, loaded(archived(0, 100), 0, 300, same_to=300))
    machine.change(KEEP_NOTHING)
    assert machine.on(Due(), at(0)) == Trim(100)


def test_nothing_is_trimmed_before_others_know_that_it_is_archived() -> None:
    machine, action = play(replace(KEEP_NOTHING, trim_from=180.0), loaded(archived(0, 100), 0, 300, same_to=300))
    now = 0.0
    while isinstance(action, Copy):
        assert action.wake_at > now  # or it would come again at once
        now = action.wake_at
        action = machine.on(Due(), at(now))
    assert action == Trim(100)
    assert 180 <= now <= 210
