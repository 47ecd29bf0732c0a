"""DeleteRecords of many partitions: one request at a time to each leader, for all that came up meanwhile.

A leader answers DeleteRecords only when the followers have heard of it, which takes each of them up to half a second,
and it does one request of a connection after the other. One by one, many partitions would wait for minutes.

Waiting makes what was checked old, so the check is handed in and made right before the request.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tierproxy.cluster_view import DeletedRecords
from tierproxy.errors import TierproxyError
from tierproxy.upstream import Cluster, TopicPartition

FOLLOWERS_MS = 5_000
"""How long a leader waits for its followers. It has trimmed before that, so a short time loses nothing."""
MOST_AT_ONCE = 100
"""Partitions in a request: bounds the questions that the checks ask at the same time."""

Check = Callable[[], Awaitable[None]]
"""Raises TierproxyError if the partition must not be trimmed now."""


@dataclass(eq=False, slots=True)
class _Job:
    tp: TopicPartition
    offset: int
    check: Check
    answer: asyncio.Future[DeletedRecords] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Trims:
    """Shared by all workers. Whoever's turn it is with a leader does the work of all who wait there."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting: dict[int, list[_Job]] = {}
        self._turns: dict[int, asyncio.Lock] = {}

    async def trim(self, tp: TopicPartition, offset: int, check: Check) -> DeletedRecords:
        """Make the check, then delete what lies below `offset`. Asked once: see Cluster.delete_records.

        Raises what `check` raises; then nothing was asked.
        """
        leader = self._cluster.view.leader(tp)
        job = _Job(tp, offset, check)
        waiting = self._waiting.setdefault(leader, [])
        waiting.append(job)
        try:
            async with self._turns.setdefault(leader, asyncio.Lock()):
                while not job.answer.done():
                    await self._carry_out([each for each in waiting if not each.answer.done()][:MOST_AT_ONCE])
            return job.answer.result()
        finally:
            job.answer.cancel()  # for whoever works on it when its own caller leaves
            waiting.remove(job)

    async def _carry_out(self, batch: list[_Job]) -> None:
        """Nobody else's trouble is raised here. On cancellation, what has no answer yet is the next one's work."""
        await asyncio.gather(*(_check(job) for job in batch))
        asked = {job.tp: job.offset for job in batch if not job.answer.done()}
        answers = await self._cluster.delete_records(asked, FOLLOWERS_MS) if asked else {}
        for job in batch:
            if not job.answer.done():
                job.answer.set_result(answers[job.tp])


async def _check(job: _Job) -> None:
    try:
        await job.check()
    except TierproxyError as error:
        if not job.answer.done():
            job.answer.set_exception(error)
