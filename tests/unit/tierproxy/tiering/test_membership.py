"""tierproxy.tiering.membership: what a member does after each answer, and what it works on meanwhile."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.consumer_protocol import NO_GENERATION, Subscription
from protocol.errors import ErrorCode
from tierproxy.cluster_view import TopicPartition
from tierproxy.tiering.membership import (
    COORDINATOR_AWAY,
    FIRST_SHARE,
    Action,
    Alive,
    Away,
    Beat,
    Changed,
    Event,
    Find,
    Found,
    Join,
    Joined,
    Membership,
    Refused,
    State,
    Sync,
    Synced,
    Unfit,
)

A0, A1, A2 = (TopicPartition("a", index) for index in range(3))
SESSION = 10.0


def joined(generation: int = 1, *, leads: bool = False) -> Joined:
    return Joined(generation, "me", leads, {}, {})


def member(*events: Event, now: float = 0.0) -> tuple[Membership, Action]:
    """One who has been given partitions 0 and 1 of topic a in generation 1, after `events` that followed."""
    one = Membership(SESSION)
    action = one.begin(now)
    for event in (
        Found(5),
        Refused(ErrorCode.MEMBER_ID_REQUIRED, "me"),
        joined(),
        Synced(frozenset({A0, A1})),
        *events,
    ):
        action = one.on(event, now)
    return one, action


def reasons(one: Membership) -> tuple[str | None, str | None]:
    return one.alone, one.trouble


def test_the_way_in() -> None:
    one = Membership(SESSION)
    assert one.begin(0.0) == Find()
    assert not one.mine(A0)
    assert one.on(Found(5), 0.0) == Join(5, "", {}, NO_GENERATION)
    assert one.on(Refused(ErrorCode.MEMBER_ID_REQUIRED, "me"), 0.0) == Join(5, "me", {}, NO_GENERATION)
    assert one.on(joined(7), 0.0) == Sync(5, 7, "me", {})
    assert not one.mine(A0)
    assert one.on(Synced(frozenset({A0})), 2.0) == Beat(5, 7, "me", 3.0)
    assert (one.mine(A0), one.mine(A1)) == (True, False)
    assert one.on(Alive(), 3.0) == Beat(5, 7, "me", 4.0)


def test_the_leader_shares_out() -> None:
    one = Membership(SESSION)
    one.begin(0.0)
    one.on(Found(5), 0.0)
    members = {"me": Subscription(("a",), {}), "you": Subscription(("a", "b"), {"a": (0, 1)}, 3)}
    action = one.on(Joined(4, "me", True, members, {"a": (0, 1, 2), "b": (0,), "not wanted": (0,)}), 0.0)
    assert isinstance(action, Sync)
    assert action.shares == {"me": {A1, A2}, "you": {A0, TopicPartition("b", 0)}}
    assert not one.outdated({"a": (0, 1, 2), "b": (0,), "not wanted": (0, 1)})
    assert one.outdated({"a": (0, 1, 2, 3), "b": (0,)})
    assert one.outdated({"a": (0, 1, 2)})
    assert not member()[0].outdated({"a": (0,)}), "that is the leader's business"


@pytest.mark.parametrize("error", [ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION])
def test_a_rebalance_takes_nothing_away_until_it_is_over(error: ErrorCode) -> None:
    one, action = member(Refused(error))
    assert action == Join(5, "me", {"a": (0, 1)}, 1)
    assert one.mine(A0)
    one.on(joined(2), 0.0)
    assert one.mine(A0)
    one.on(Refused(ErrorCode.REBALANCE_IN_PROGRESS), 0.0)  # somebody came when we waited for our share
    one.on(joined(3), 0.0)
    assert one.mine(A1)
    assert one.on(Synced(frozenset({A1, A2})), 0.0) == Beat(5, 3, "me", 1.0)
    assert (one.mine(A0), one.mine(A1), one.mine(A2)) == (False, True, True)


def test_a_zombie_joins_anew_and_says_how_old_its_share_is() -> None:
    one, action = member(Refused(ErrorCode.UNKNOWN_MEMBER_ID))
    assert action == Join(5, "", {"a": (0, 1)}, 1)
    one.on(Refused(ErrorCode.MEMBER_ID_REQUIRED, "me again"), 0.0)
    one.on(Joined(9, "me again", False, {}, {}), 0.0)
    one.on(Synced(frozenset({A2})), 0.0)
    assert (one.mine(A0), one.mine(A2)) == (False, True)


def test_another_coordinator_knows_us_as_well() -> None:
    one, action = member(Refused(ErrorCode.NOT_COORDINATOR))
    assert isinstance(action, Find)
    assert one.on(Found(6), 1.0) == Beat(6, 1, "me", 2.0)


def test_what_we_want_has_changed() -> None:
    assert member(Changed())[1] == Join(5, "me", {"a": (0, 1)}, 1)


def test_a_coordinator_that_has_just_begun_is_asked_again() -> None:
    one, _ = member(Changed())
    action = one.on(Refused(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS), 3.0)
    assert isinstance(action, Join)
    assert action.not_before == 3.5
    assert one.trouble is None


def test_a_coordinator_that_is_away_takes_nothing_away_for_long() -> None:
    one, action = member()
    now, pauses = 0.0, []
    while one.alone is None:
        action = one.on(Away("no answer"), now)
        assert isinstance(action, Find)
        pauses.append(action.not_before - now)
        assert one.mine(A0)
        now = action.not_before
    assert pauses[:6] == [0.5, 1, 2, 4, 8, 10]
    assert COORDINATOR_AWAY <= now <= COORDINATOR_AWAY + 20
    assert one.mine(A2), "perhaps nobody else lives"
    assert one.trouble == "no answer"
    one.on(Found(5), now)
    one.on(Alive(), now)
    assert reasons(one) == (None, None)
    assert (one.mine(A0), one.mine(A2)) == (True, False)


def test_one_failure_is_not_worth_a_word() -> None:
    one, _ = member(Away("cut"))
    assert one.trouble is None


def test_who_never_gets_a_share_works_on_everything() -> None:
    one = Membership(SESSION)
    now = 0.0
    one.begin(now)
    while not one.mine(A0):
        action = one.on(Refused(ErrorCode.COORDINATOR_NOT_AVAILABLE), now)
        assert isinstance(action, Find)
        now = action.not_before
    assert FIRST_SHARE <= now <= FIRST_SHARE + 20


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Refused(ErrorCode.GROUP_AUTHORIZATION_FAILED), "needs READ on the group"),
        (Refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL), "others than archivers"),
        (Refused(ErrorCode.INVALID_SESSION_TIMEOUT), r"archiver\.session_timeout"),
        (Refused(ErrorCode.GROUP_MAX_SIZE_REACHED), "GROUP_MAX_SIZE_REACHED"),
        (Unfit("too old"), "too old"),
    ],
)
def test_who_can_not_be_in_the_group_works_on_everything_and_tries_again(event: Event, words: str) -> None:
    one = Membership(SESSION)
    one.begin(0.0)
    assert one.on(event, 3.0) == Find(63.0)
    assert one.alone is not None
    assert re.search(words, one.alone)
    assert one.mine(A2)
    one.on(Found(5), 63.0)
    assert one.mine(A2), "not yet in it"
    one.on(joined(), 63.0)
    one.on(Synced(frozenset({A0})), 63.0)
    assert reasons(one) == (None, None)
    assert not one.mine(A2)


events = st.one_of(
    st.builds(Found, st.integers(1, 3)),
    st.builds(joined, st.integers(1, 9), leads=st.booleans()),
    st.builds(Synced, st.frozensets(st.sampled_from([A0, A1, A2]))),
    st.sampled_from([Alive(), Changed(), Away("cut"), Unfit("old")]),
    st.builds(Refused, st.sampled_from(list(ErrorCode)), st.sampled_from(["", "me"])),
)


@given(st.lists(st.tuples(events, st.floats(0, 400)), max_size=40))
def test_whatever_happens_a_share_is_only_taken_away_by_another(steps: list[tuple[Event, float]]) -> None:
    one, _ = member()
    now, share = 0.0, one.share
    for event, passed in steps:
        now += passed
        action = one.on(event, now)
        if isinstance(event, Synced):
            share = event.share
        assert one.share == share
        assert all(one.mine(tp) for tp in share)
        expected = {Find: State.FIND, Join: State.JOIN, Sync: State.SYNC, Beat: State.MEMBER}[type(action)]
        assert one.state is expected
