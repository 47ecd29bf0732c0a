"""Consumer groups in memory, played move by move."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from protocol.errors import ErrorCode
from protocol.serving_groups import Committed, JoinAnswer, JoinAsked, SyncAnswer
from tierproxy.alone.groups import LONGEST_METADATA, MOST_GROUPS, Groups

LONG = 600_000


def asked(
    member_id: str = "",
    *,
    protocols: tuple[str, ...] = ("range",),
    instance_id: str | None = None,
    session_ms: int = LONG,
    rebalance_ms: int = LONG,
    kind: str = "consumer",
) -> JoinAsked:
    said = [(name, f"{name} of {member_id}".encode()) for name in protocols]
    return JoinAsked(member_id, "c", instance_id, kind, said, session_ms, rebalance_ms)


@pytest.fixture
def groups() -> Groups:
    return Groups()


async def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Started, and waiting for what somebody else does, or done."""
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def stable(groups: Groups) -> tuple[JoinAnswer, JoinAnswer]:
    """Two members with an assignment; the first leads."""
    alone = await groups.join("g", asked())
    second = await begun(groups.join("g", asked()))
    assert groups.heartbeat("g", alone.member_id, 1) == ErrorCode.REBALANCE_IN_PROGRESS
    first = await groups.join("g", asked(alone.member_id))
    follower: JoinAnswer = await second
    waiting = await begun(groups.sync("g", follower.member_id, 2, []))
    assert not waiting.done()
    shares = [(first.member_id, b"one"), (follower.member_id, b"two")]
    assert await groups.sync("g", first.member_id, 2, shares) == SyncAnswer(0, "consumer", "range", b"one")
    assert await waiting == SyncAnswer(0, "consumer", "range", b"two")
    return first, follower


async def test_two_members_agree(groups: Groups) -> None:
    first, second = await stable(groups)
    assert (first.error, first.generation, first.protocol, first.leader) == (0, 2, "range", first.member_id)
    assert (second.leader, second.members) == (first.member_id, [])
    assert {member_id for member_id, _, _ in first.members} == {first.member_id, second.member_id}
    for member in (first, second):
        assert groups.heartbeat("g", member.member_id, 2) == ErrorCode.NONE
    assert (await groups.sync("g", second.member_id, 2, [])).assignment == b"two"


async def test_who_leaves_is_replaced(groups: Groups) -> None:
    first, second = await stable(groups)
    assert groups.leave("g", first.member_id, None) == ErrorCode.NONE
    assert groups.heartbeat("g", first.member_id, 2) == ErrorCode.UNKNOWN_MEMBER_ID
    assert groups.heartbeat("g", second.member_id, 2) == ErrorCode.REBALANCE_IN_PROGRESS
    assert (await groups.sync("g", second.member_id, 2, [])).error == ErrorCode.REBALANCE_IN_PROGRESS
    again = await groups.join("g", asked(second.member_id))
    assert (again.generation, again.leader) == (3, second.member_id)


async def test_who_is_not_heard_of_is_left_behind(groups: Groups) -> None:
    silent = await groups.join("g", asked(session_ms=1_000))
    other = await begun(groups.join("g", asked()))
    assert not other.done()
    answer: JoinAnswer = await other  # when the session of the first is over
    assert (answer.generation, answer.leader) == (2, answer.member_id)
    assert groups.heartbeat("g", silent.member_id, 1) == ErrorCode.UNKNOWN_MEMBER_ID


async def test_who_does_not_join_again_in_time_is_left_behind(groups: Groups) -> None:
    slow = await groups.join("g", asked(rebalance_ms=10))
    answer = await groups.join("g", asked(rebalance_ms=10))
    assert (answer.error, answer.generation, len(answer.members)) == (0, 2, 1)
    assert groups.heartbeat("g", slow.member_id, 2) == ErrorCode.UNKNOWN_MEMBER_ID


async def test_a_rebalance_ends_waiting_for_the_leader(groups: Groups) -> None:
    first, second = await stable(groups)
    joins = [await begun(groups.join("g", asked(each.member_id))) for each in (first, second)]
    generation = (await joins[0]).generation
    waiting = await begun(groups.sync("g", second.member_id, generation, []))
    third = await begun(groups.join("g", asked()))
    assert (await waiting).error == ErrorCode.REBALANCE_IN_PROGRESS
    assert not third.done()
    third.cancel()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (asked(protocols=("range",)), asked(protocols=("sticky",))),
        (asked(), asked(kind="connect")),
        (asked(), asked(protocols=())),
    ],
)
async def test_members_need_a_protocol_in_common(groups: Groups, one: JoinAsked, other: JoinAsked) -> None:
    await groups.join("g", one)
    assert (await groups.join("g", other)).error == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


async def test_the_first_protocol_that_all_support_is_taken(groups: Groups) -> None:
    first = await groups.join("g", asked(protocols=("a", "b", "c")))
    second = await begun(groups.join("g", asked(protocols=("c", "b"))))
    again = await groups.join("g", asked(first.member_id, protocols=("a", "b", "c")))
    assert again.protocol == "b"
    assert (await second).protocol == "b"


async def test_a_static_member_takes_the_place_of_its_former_self(groups: Groups) -> None:
    before = await groups.join("g", asked(instance_id="i"))
    after = await groups.join("g", asked(instance_id="i"))
    assert (after.error, len(after.members)) == (0, 1)
    assert groups.heartbeat("g", before.member_id, 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert groups.leave("g", "", "i") == ErrorCode.NONE


async def test_strangers_are_told(groups: Groups) -> None:
    assert (await groups.join("g", asked("nobody"))).error == ErrorCode.UNKNOWN_MEMBER_ID
    assert (await groups.join("g", asked(session_ms=1))).error == ErrorCode.INVALID_SESSION_TIMEOUT
    assert (await groups.sync("g", "nobody", 1, [])).error == ErrorCode.UNKNOWN_MEMBER_ID
    assert groups.heartbeat("other", "nobody", 1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert groups.leave("other", "nobody", None) == ErrorCode.UNKNOWN_MEMBER_ID


async def test_commits_are_a_members_or_those_of_an_empty_group(groups: Groups) -> None:
    offset = Committed(5, 0, "m")

    def commit(member_id: str, generation: int, committed: Committed = offset) -> list[ErrorCode]:
        return groups.commit("g", member_id, generation, [("t", 0, committed)])

    assert commit("", -1) == [ErrorCode.NONE]
    assert groups.committed("g") == {("t", 0): offset}
    member = await groups.join("g", asked())
    assert commit("", -1) == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert commit(member.member_id, 2) == [ErrorCode.ILLEGAL_GENERATION]
    assert commit(member.member_id, 1, Committed(6, 0, None)) == [ErrorCode.NONE]
    assert commit(member.member_id, 1, Committed(7, 0, "x" * (LONGEST_METADATA + 1))) == [
        ErrorCode.OFFSET_METADATA_TOO_LARGE
    ]
    groups.leave("g", member.member_id, None)
    assert groups.committed("g") == {("t", 0): Committed(6, 0, None)}


async def test_there_is_an_end_to_groups(groups: Groups) -> None:
    for number in range(MOST_GROUPS):
        groups.commit(f"g{number}", "", -1, [("t", 0, Committed(1, 0, None))])
    assert (await groups.join("one more", asked())).error == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert groups.commit("one more", "", -1, [("t", 0, Committed(1, 0, None))]) == [ErrorCode.COORDINATOR_NOT_AVAILABLE]


async def test_a_group_without_members_and_offsets_is_forgotten(groups: Groups) -> None:
    for _ in range(MOST_GROUPS + 1):
        member = await groups.join("g", asked())
        groups.leave("g", member.member_id, None)
    for number in range(MOST_GROUPS):
        member = await groups.join(f"g{number}", asked())
        assert groups.leave(f"g{number}", member.member_id, None) == ErrorCode.NONE
    assert (await groups.join("one more", asked())).error == ErrorCode.NONE
