import asyncio

import pytest

from tierproxy.cold.budget import ByteBudget, Crowded


class Borrower:
    """Borrows `size` bytes until told to give them back."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self.has_it = asyncio.Event()
        self._give_back = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._borrow(budget, size))

    async def _borrow(self, budget: ByteBudget, size: int) -> None:
        async with budget.lend(size):
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
