"""Who takes part in a play: archivers, and readers of the archive. Each is a process that can die and come back.

An actor is started with `start`, which makes a new process with nothing but what it finds on the store and at the
brokers. To add one (a merger, an expirer, a garbage collector), write its `main` and name it in `Play`.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.asking import BrokerWeather, SimCluster
from tests.simulation.brokers import Brokers
from tests.simulation.disk import Disk, SimStore, StoreWeather
from tests.simulation.loop import T0_MS, Process, VirtualLoop
from tests.simulation.trace import Trace
from tests.simulation.truth import Broken, Truth
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store import StoreError
from tierproxy.cluster_view import TopicPartition
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.reader import ColdReader
from tierproxy.config import Config
from tierproxy.config.settings import Settings
from tierproxy.errors import TierproxyError
from tierproxy.tasks import Tasks
from tierproxy.tiering.archiver import Archiver

CLUSTER = "sim"
ARCHIVE = "a"


class SimClock:
    """A process's clocks: both go with the loop's time, and the wall clock may be wrong."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wrong_ms = 0

    def now_ms(self) -> int:
        return T0_MS + round(self._loop.now * 1000) + self.wrong_ms

    def monotonic(self) -> float:
        return self._loop.now


@dataclass
class Stage:
    """What all actors of a play share."""

    loop: VirtualLoop
    trace: Trace
    truth: Truth
    disk: Disk
    brokers: Brokers
    store_weather: StoreWeather
    broker_weather: BrokerWeather
    config: Config

    def store(self, process: Process, chance: random.Random) -> SimStore:
        return SimStore(self.disk, self.store_weather, chance, process, self.trace)


class Actor(Protocol):
    name: str
    process: Process

    def start(self) -> None: ...


class SimArchiver:
    """The archiver's program: `tierproxy.tiering.Archiver` as `app` puts it together."""

    def __init__(self, name: str, stage: Stage, chance: random.Random, brokers: Brokers | None = None) -> None:
        self.name = name
        self.clock = SimClock(stage.loop)
        self._stage = stage
        self._chance = chance
        self._brokers = brokers or stage.brokers
        self.start()

    def start(self) -> None:
        stage = self._stage
        self.process = Process(self.name, stage.loop)
        self.process.begin(self._main(), f"{self.name} main")
        stage.trace.note(self.name, "starts")

    async def _main(self) -> None:
        stage, process = self._stage, self.process
        cluster = SimCluster(self._brokers, stage.broker_weather, self._chance, process, stage.truth, stage.trace)
        library = Library(stage.store(process, self._chance), CLUSTER)
        while True:  # as whoever watches over the program would
            try:
                await cluster.start()
                break
            except TierproxyError:
                await asyncio.sleep(1)
        await Archiver(Settings(stage.config), cluster, {ARCHIVE: library}, self.clock, Tasks(), self).run()

    def committed(self, pid: PartitionId, manifest: Manifest) -> None:
        """As ArchiveObserver."""

    def trimmed(self, tp: TopicPartition, log_start: int) -> None:
        """As ArchiveObserver."""


class SimReader:
    """A gateway's cold half: reads partition after partition from the archive, with an old manifest as a rule.

    What it reads must be what the brokers had, without a hole that the manifest doesn't name.
    """

    def __init__(self, name: str, stage: Stage, chance: random.Random) -> None:
        self.name = name
        self._stage = stage
        self._chance = chance
        self.start()

    def start(self) -> None:
        self.process = Process(self.name, self._stage.loop)
        self.process.begin(self._main(), f"{self.name} main")
        self._stage.trace.note(self.name, "starts")

    async def _main(self) -> None:
        library = Library(self._stage.store(self.process, self._chance), CLUSTER)
        while True:
            await asyncio.sleep(self._chance.uniform(0, 10))
            pids = [pid for pid, partition in self._stage.truth.partitions.items() if partition.manifest is not None]
            if pids:
                with suppress(StoreError):
                    await read_all(library, self._chance.choice(pids), self._stage.truth, self._chance)


async def read_all(library: Library, pid: PartitionId, truth: Truth, chance: random.Random) -> int:
    """Read a partition's archive from a place of its own choice to its end; how many batches that were. Broken, or
    StoreError when the store can't be asked."""
    found = await library.load(pid)
    if found is None:
        raise Broken(f"{pid}: its manifest is gone")
    manifest = found.manifest
    tasks = Tasks()
    chunks = Chunks(tasks, 1 << 20, ByteBudget(1 << 20))
    reader = ColdReader(chunks, tasks)
    offset = (
        manifest.start_offset if chance.random() < 0.5 else chance.randint(manifest.start_offset, manifest.end_offset)
    )
    batches = 0
    try:
        while manifest.holds(offset):
            gap = manifest.gap_at(offset)
            if gap is not None:
                offset = gap.end
                continue
            ready = await reader.fetch(library, pid, manifest, offset)
            taken = ready.take(chance.choice([1, 300, 1 << 20]), at_least_one=True)
            if taken is None:
                raise Broken(f"{pid}: offset {offset} can't be read, though the archive holds it")
            batches += truth.read(pid, manifest, offset, taken.records, taken.last_offset, taken.aborted)
            offset = taken.last_offset + 1
    except StoreError:
        raise
    except TierproxyError as error:
        raise Broken(f"{pid}: offset {offset} can't be read: {error}") from error
    finally:
        chunks.close()
    return batches
