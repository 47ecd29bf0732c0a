"""What archived records cost that are in memory, by how many segments their partition has, and by how many partitions a
fetch asks for: everything that is done between the broker's refusal and the answer, in this process, over archives in a
directory.

Seconds are of CPU, threads included; of several rounds the least, as other work only ever adds to it.
"""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from protocol.fetch import FetchRequest
from protocol.fetch_response import FetchedPartition, FetchResponse
from tests.kit.large_archive import OFFSETS, build
from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, PID, batch
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store_file import FileStore
from tierproxy.catalog import ArchivedTopic, Catalog, Tier
from tierproxy.cold.allowance import AnswerMemory
from tierproxy.cold.answers import ColdAnswers
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.reader import ColdReader
from tierproxy.routing.fetch import Refused
from tierproxy.routing.holds import FetchHold
from tierproxy.tasks import Tasks

SEGMENTS = (10, 10_000, 1_000_000)
PARTITIONS = (1, 10, 100, 1_000)
READ = 10
"""The newest segments, which are there; all but the last of them in a page, where there are pages."""
BATCHES = 16
"""In each of them, each a chunk; of which an answer has one."""
BATCH_BYTES = 4096
PARTS = 1_600
"""Of answers, one for each partition in it: so many at the least are measured at a time."""
Then = Callable[[int | None], int]
"""From the offset of one fetch to the next one's."""
_PART_BYTES = 2 * BATCH_BYTES
"""Asked for of each partition: one batch fits, with its head, and not two."""
_MEMORY = 256 << 20
_VERSION = 17


class Growth(NamedTuple):
    """CPU seconds: of an answer by how many segments there are, of a partition's part by how many are asked for."""

    sequential: dict[int, float]
    random: dict[int, float]
    partitions: dict[int, float]


class _Known:
    """A scout that is asked for nothing but what it knows: see FactFinder."""

    async def broker_now(self, tier: Tier) -> tuple[int, int]:
        raise NotImplementedError

    async def manifest_now(self, tier: Tier) -> Manifest | None:
        raise NotImplementedError

    async def manifest_coming(self, tier: Tier) -> Manifest | None:
        raise NotImplementedError

    async def topics_now(self) -> None:
        raise NotImplementedError

    async def same_topic_now(self, tier: Tier) -> bool:
        raise NotImplementedError

    async def highest_time(self, tier: Tier) -> int:
        raise NotImplementedError

    async def owner(self, tier: Tier) -> str:
        return CLUSTER_ID

    def trusts(self, tier: Tier) -> bool:
        return True

    def used(self, tier: Tier) -> None:
        pass


@dataclass
class _Gateway:
    """The cold parts of one, over the archives of one topic's partitions in `root`."""

    root: Path
    manifests: Sequence[Manifest]
    tasks: Tasks = field(default_factory=Tasks)

    async def __aenter__(self) -> Self:
        self._store = FileStore(self.root)
        library = Library(self._store, CLUSTER, self.tasks)
        self._chunks = Chunks(self.tasks, _MEMORY, ByteBudget(_MEMORY))
        catalog = Catalog(lambda name: True, True)
        catalog.set_topics([ArchivedTopic(PID.topic, PID.topic_id, len(self.manifests), "local", "skip")], [])
        self._tiers: list[Tier] = []
        for manifest in self.manifests:
            tier = catalog.find(PID.topic_id, manifest.pid.partition)
            assert tier is not None
            tier.manifest, tier.manifest_known, tier.broker_start = manifest, True, manifest.end_offset
            tier.high_watermark = tier.last_stable = manifest.end_offset
            self._tiers.append(tier)
        reader, memory = ColdReader(self._chunks, self.tasks), AnswerMemory(16 << 30)
        self._answers = ColdAnswers(catalog, _Known(), reader, memory, {"local": library}, self.tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.close()
        self._chunks.close()
        await self._store.close()

    async def cost(self, partitions: int, parts: int, then: Then) -> float:
        """CPU seconds for each of so many parts of answers, for a client that reads the first so many partitions: at
        `then` of nothing, and after each part at `then` of where that was."""
        offsets = [then(None)] * partitions
        given, used = 0, 0.0
        while given < parts:
            hold = self._hold(offsets)
            began = time.process_time()
            _, allowance = await self._answers.fetch(hold)
            allowance.end()
            await asyncio.sleep(0)  # it comes back for the next one; others have their turn
            used += time.process_time() - began
            for at, answer in enumerate(hold.response.partitions):
                if answer.records:
                    given += 1
                    offsets[at] = then(offsets[at])
        return used / given

    def _hold(self, offsets: Sequence[int]) -> FetchHold:
        """A fetch there, one batch of each, that the broker has refused."""
        empty, now = memoryview(b""), asyncio.get_running_loop().time()
        request = FetchRequest(_VERSION, -1, 500, 1, 2**31 - 1, 0, 0, -1, None, [], "")
        partitions = [
            FetchedPartition(None, PID.topic_id, at, 1, -1, -1, -1, None, -1, empty, b"") for at in range(len(offsets))
        ]
        refused = [
            Refused(at, PID.topic_id, at, tier, offset, _PART_BYTES)
            for at, (tier, offset) in enumerate(zip(self._tiers, offsets, strict=False))
        ]
        return FetchHold(request, FetchResponse(_VERSION, 1, 0, 0, 0, partitions, b""), refused, now)


def measure(directory: Path, rounds: int, segments: Sequence[int] = SEGMENTS) -> Growth:
    """Builds the archives in `directory`."""
    try:
        return asyncio.run(_measure(directory, rounds, segments))
    finally:
        gc.unfreeze()


async def _measure(directory: Path, rounds: int, segments: Sequence[int]) -> Growth:
    found = Growth({}, {}, {})
    for count in segments:
        real = {place: _batches(place * OFFSETS) for place in range(count - READ, count)}
        manifest = build(directory / str(count), count, real, in_root=1 if count > READ else READ)
        offsets = [place * OFFSETS + at for place in real for at in range(BATCHES)]
        async with _Gateway(directory / str(count), [manifest]) as gateway:
            for then, costs in ((_in_order(offsets), found.sequential), (_anywhere(offsets), found.random)):
                costs[count] = await _least(gateway, 1, then, rounds)
    manifests = [_narrow(directory / "wide", partition) for partition in range(max(PARTITIONS))]
    async with _Gateway(directory / "wide", manifests) as gateway:
        for partitions in PARTITIONS:
            then = _in_order(range(BATCHES))
            found.partitions[partitions] = await _least(gateway, partitions, then, rounds)
    return found


def _in_order(offsets: Sequence[int]) -> Then:
    """And from the beginning again."""
    following = dict(pairwise([*offsets, offsets[0]]))
    return lambda at: offsets[0] if at is None else following[at]


def _anywhere(offsets: Sequence[int]) -> Then:
    chance = random.Random(1)
    return lambda at: chance.choice(offsets)


async def _least(gateway: _Gateway, partitions: int, then: Then, rounds: int) -> float:
    parts = max(PARTS, BATCHES * partitions)
    await gateway.cost(partitions, parts, then)  # what is read and unpacked for the first time
    costs: list[float] = []
    for _ in range(rounds):
        gc.collect()
        gc.freeze()  # or Python looks through all that building has left behind, in whoever's turn
        costs.append(await gateway.cost(partitions, parts, then))
    return min(costs)


def _narrow(root: Path, partition: int) -> Manifest:
    """The archive of one of many partitions: a segment."""
    return build(root, 1, {0: _batches(0)}, PartitionId(PID.topic, PID.topic_id, partition))


def _batches(first: int) -> list[bytes]:
    """Of bytes that no compression makes smaller."""
    return [batch(first + at, [random.Random(first + at).randbytes(BATCH_BYTES)]) for at in range(BATCHES)]
