import asyncio
from collections.abc import Hashable

import pytest

from tierproxy.cold.budget import TURN, ByteBudget, Crowded


class Borrower:
    """Borrows `size` bytes until told to give them back."""

    def __init__(self, budget: ByteBudget, size: int, who: Hashable = None) -> None:
        self.has_it = asyncio.Event()
        self._give_back = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._borrow(budget, size, who))

    async def _borrow(self, budget: ByteBudget, size: int, who: Hashable) -> None:
        async with budget.lend(size, who):
            self.has_it.set()
            await self._give_back.wait()

    async def give_back(self) -> None:
        self._give_back.set()
        await self.task


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_those_beyond_the_bound_wait_in_order_and_small_ones_do_not_overtake() -> None:
    budget = ByteBudget(10)
    first, large, small = Borrower(budget, 6), Borrower(budget, 9), Borrower(budget, 1)
    await turns()
    assert (first.has_it.is_set(), large.has_it.is_set(), small.has_it.is_set()) == (True, False, False)
    await first.give_back()
    await turns()
    assert (large.has_it.is_set(), small.has_it.is_set()) == (True, True)
    await large.give_back()
    await small.give_back()


async def test_a_wish_above_the_bound_is_granted_alone() -> None:
    budget = ByteBudget(10)
    huge, other = Borrower(budget, 50), Borrower(budget, 1)
    await turns()
    assert (huge.has_it.is_set(), other.has_it.is_set()) == (True, False)
    await huge.give_back()
    await other.has_it.wait()
    await other.give_back()


@pytest.mark.parametrize("after_admission", [False, True])
async def test_who_gives_up_while_waiting_leaves_nothing_behind(after_admission: bool) -> None:
    budget = ByteBudget(10)
    first, quitter, last = Borrower(budget, 10), Borrower(budget, 10), Borrower(budget, 10)
    await turns()
    if after_admission:  # admitted and cancelled in the same turn of the loop
        first._give_back.set()
        await turns(1)
    quitter.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await quitter.task
    await first.give_back()
    await last.has_it.wait()
    await last.give_back()
    assert budget._lent == 0


async def test_who_finds_too_many_waiting_is_sent_away() -> None:
    budget = ByteBudget(10, queue=1)
    first = Borrower(budget, 10)
    await turns()
    assert not budget.crowded
    second = Borrower(budget, 10)
    await turns()
    assert budget.crowded
    with pytest.raises(Crowded, match=r"limits\.cold_in_flight"):
        async with budget.lend(1):
            pass
    await first.give_back()
    await second.give_back()
    async with budget.lend(1):
        assert not budget.crowded


async def test_where_nobody_may_wait_all_are_sent_away() -> None:
    budget = ByteBudget(10, queue=0)
    async with budget.lend(8):
        for who in (None, "somebody"):
            with pytest.raises(Crowded):
                async with budget.lend(8, who):
                    pass
        async with budget.lend(2):
            pass
    assert budget._lent == 0


async def served(budget: ByteBudget, waiting: dict[str, list[int]], last: int) -> list[str]:
    """Who is admitted, in order, one at a time, where all of `waiting` came while somebody had the whole budget."""
    holder = Borrower(budget, 1 << 40)
    await turns()
    order: list[str] = []

    async def read(who: str, size: int) -> None:
        async with budget.lend(size, who):
            order.append(who)

    tasks = [asyncio.get_running_loop().create_task(read(who, size)) for who in waiting for size in waiting[who]]
    await turns()
    await holder.give_back()
    await asyncio.gather(*tasks)
    assert budget._lent == budget._waiting == 0
    assert not budget._lines
    return order[:last]


async def test_clients_take_turns_whoever_came_first_and_with_how_many() -> None:
    order = await served(ByteBudget(TURN), {"many": [TURN] * 50, "one": [TURN], "two": [TURN] * 2}, 6)
    assert order == ["many", "one", "two", "many", "two", "many"]


async def test_turns_are_counted_in_bytes() -> None:
    order = await served(ByteBudget(TURN), {"large": [TURN] * 9, "small": [TURN // 4] * 40}, 20)
    assert order.count("large") == 4
    assert order.count("small") == 16


async def test_a_wish_above_a_turn_waits_for_several_and_gets_through() -> None:
    order = await served(ByteBudget(8 * TURN), {"huge": [3 * TURN], "small": [TURN] * 9}, 10)
    assert order.index("huge") in (2, 3)


async def test_the_client_with_most_waiting_gives_way_to_others() -> None:
    budget = ByteBudget(10, queue=3)
    first = Borrower(budget, 10)
    await turns()
    many = [Borrower(budget, TURN, "many") for _ in range(3)]
    await turns()
    one = Borrower(budget, TURN, "one")  # now they have one and two
    with pytest.raises(Crowded):
        await many[2].task
    for who in ("one", "many"):
        with pytest.raises(Crowded):
            await Borrower(budget, 10, who).task
    for each in (first, many[0], one, many[1]):
        await each.has_it.wait()
        await each.give_back()
    assert budget._lent == budget._waiting == 0


async def test_who_is_sent_away_and_gives_up_in_the_same_moment_leaves_nothing_behind() -> None:
    budget = ByteBudget(10, queue=2)
    first, stays, quitter = Borrower(budget, 10), Borrower(budget, 10, "many"), Borrower(budget, 10, "many")
    await turns()
    other = Borrower(budget, 10, "one")
    await turns(1)
    quitter.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await quitter.task
    for each in (first, stays, other):
        await each.has_it.wait()
        await each.give_back()
    assert budget._lent == budget._waiting == 0
