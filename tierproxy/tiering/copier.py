"""Fetching from one broker for all partitions that it leads: one long poll names all that want to be copied.

An answer's bytes are held until every worker has taken its part, and only then the next fetch goes out: so a
broker's share of memory is one answer. Partitions take turns at the head of the request, because a broker fills the
answer from there on, and only its first partition with data may exceed the limits with one large batch. Those that are
hurried come before all others, and may fill the answer.

All copiers together keep `archiver.read_rate`: what an answer brought must be paid for with time before the next fetch
goes out. A partition that is hurried is fetched meanwhile and costs nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from protocol.errors import ErrorCode, error_name
from protocol.fetch import FetchPartition
from protocol.fetch_response import FetchResponse
from tierproxy import telemetry
from tierproxy.clock import Clock
from tierproxy.rates import TokenBucket
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.worker import PartitionWorker
from tierproxy.upstream import Cluster, Unreachable, UnsupportedBroker

log = logging.getLogger("tierproxy.archiver")

MIN_BYTES = 64 * 1024
"""Fewer, fuller answers from a quiet broker: what there is comes when the long poll ends."""
PARTITION_LEAST_BYTES = 1024 * 1024
AT_ONCE = 8
"""Partitions whose answers are handed out before others have their turn: clients of this process, too."""
RETRY_FIRST = 0.25
RETRY_MOST = 10.0


class Copier:
    """The fetch loop of one broker. `lead` says whose partitions it leads, `wake` that one of them is ready.

    `stale` is called when the broker is away: perhaps others lead its partitions by now.
    """

    def __init__(
        self,
        node_id: int,
        cluster: Cluster,
        clock: Clock,
        troubles: OncePerChange,
        max_wait_ms: int,
        stale: Callable[[], None],
        reading: TokenBucket,
    ) -> None:
        self.node_id = node_id
        self.max_bytes = PARTITION_LEAST_BYTES
        """Most bytes of an answer, one large batch aside."""
        self._cluster = cluster
        self._clock = clock
        self._troubles = troubles
        self._max_wait_ms = max_wait_ms
        self._stale = stale
        self._reading = reading
        self._workers: list[PartitionWorker] = []
        self._wake = asyncio.Event()

    def lead(self, workers: Iterable[PartitionWorker]) -> None:
        self._workers = list(workers)
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            owing = self._reading.wait(self._clock.monotonic())
            asked = self._asks(owing > 0)
            if not asked:
                await self._until_ready(owing)
                continue
            most = self._most_bytes(asked)
            try:
                response = await self._cluster.fetch(
                    self.node_id,
                    [part for _, part in asked],
                    max_wait_ms=self._max_wait_ms,
                    max_bytes=most,
                    min_bytes=min(MIN_BYTES, most),
                )
            except (Unreachable, UnsupportedBroker) as error:
                self._troubles.began(
                    f"broker {self.node_id}", f"broker {self.node_id} can't be fetched from: {error}; trying again"
                )
                self._stale()
                failures += 1
            else:
                failures = 0 if response.error == ErrorCode.NONE else failures + 1
                self._judge(response)
                self._count(asked, response)
                await _deliver(asked, response)
                del response  # nobody sees its bytes now, so the next answer gets their memory
            if failures:
                await asyncio.sleep(min(RETRY_FIRST * 2.0 ** min(failures - 1, 10), RETRY_MOST))

    def _asks(self, owing: bool) -> list[tuple[PartitionWorker, FetchPartition]]:
        """Who wants what now, and may have it; whoever was first goes to the end for the next time."""
        most = max(PARTITION_LEAST_BYTES, self.max_bytes // max(1, len(self._workers)))
        allowed = [worker for worker in self._workers if worker.hurried or not owing]
        in_order = sorted(allowed, key=lambda worker: not worker.hurried)
        asked = [
            (worker, part)
            for worker in in_order
            if (part := worker.ask(self.max_bytes if worker.hurried else most)) is not None
        ]
        if asked:
            at = self._workers.index(asked[0][0]) + 1
            self._workers = self._workers[at:] + self._workers[:at]
        return asked

    def _most_bytes(self, asked: list[tuple[PartitionWorker, FetchPartition]]) -> int:
        """Of an answer: under a limit no more than some second's worth, or brokers would see bursts."""
        rate = self._reading.rate
        if rate is None or all(worker.hurried for worker, _ in asked):
            return self.max_bytes
        return min(self.max_bytes, max(MIN_BYTES, rate))

    def _count(self, asked: list[tuple[PartitionWorker, FetchPartition]], response: FetchResponse) -> None:
        free = {worker.tp for worker, _ in asked if worker.hurried}
        for answer in response.partitions:
            size = len(answer.records or b"")
            telemetry.ARCHIVER_READ_BYTES.inc(size)
            if (answer.topic, answer.index) not in free:
                self._reading.spend(size, self._clock.monotonic())

    async def _until_ready(self, owing: float) -> None:
        now = self._clock.monotonic()
        pauses = [until - now for worker in self._workers if (until := worker.resting_until) is not None]
        if owing > 0:
            pauses.append(owing)
        pause = max(0.0, min(pauses)) if pauses else None
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass
        telemetry.RATE_WAITS.labels("read").inc(min(owing, self._clock.monotonic() - now))

    def _judge(self, response: FetchResponse) -> None:
        trouble = f"broker {self.node_id}"
        if response.error != ErrorCode.NONE:
            self._troubles.began(
                trouble, f"broker {self.node_id} refuses to be fetched from: {error_name(response.error)}; trying again"
            )
        else:
            self._troubles.ended(trouble, f"broker {self.node_id} can be fetched from again")


async def _deliver(asked: list[tuple[PartitionWorker, FetchPartition]], response: FetchResponse) -> None:
    """Hand out the answers. Partitions that are not in it, as when the broker throttles us, ask again."""
    answers = {(answer.topic, answer.index): answer for answer in response.partitions}
    taken = []
    for n, (worker, part) in enumerate(asked):
        if n % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        answer = answers.get((part.topic, part.index))
        if answer is not None and (event := worker.deliver(part, answer, response.version)) is not None:
            taken.append(event)
    for event in taken:
        await event.wait()
