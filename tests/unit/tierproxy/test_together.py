"""tierproxy.together: who is done first waits for the others, and not for ever."""

import asyncio

from tierproxy.together import Together


async def test_all_go_on_with_the_last_one() -> None:
    together = Together(patience=3600)
    for _ in range(3):
        together.begin()
    first, second = asyncio.ensure_future(together.done()), asyncio.ensure_future(together.done())
    await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    await together.done()
    await asyncio.gather(first, second)


async def test_nobody_waits_for_who_is_gone() -> None:
    together = Together(patience=3600)
    together.begin()
    together.begin()
    first = asyncio.ensure_future(together.done())
    await asyncio.sleep(0)
    together.gone()
    await first


async def test_one_alone_does_not_wait_nor_do_those_of_another_time() -> None:
    together = Together(patience=3600)
    for _ in range(2):
        together.begin()
        await together.done()


async def test_a_slow_one_is_not_waited_for() -> None:
    together = Together(patience=0.001)
    together.begin()
    together.begin()
    await together.done()
    together.begin()
    await together.done()  # the slow one still isn't
    await together.done()
