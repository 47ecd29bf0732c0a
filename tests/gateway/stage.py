"""The gateway's own parts in this process, in front of fake brokers, over a directory whose reads can be held up.

    async with FakeCluster(2) as brokers, Gateway(brokers, tmp_path) as gateway:
        topic = brokers.create_topic("cold.t")
        await gateway.archive(topic[0], upto=20)      # copied, and trimmed on the broker
        async with await gateway.connect(1) as client: ...

Wired as tierproxy.app does it, without an archiver: the tests say what is archived, and when that is known.
"""

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fakes.asking import Ask, Connection, Got
from tests.fakes.broker import FakeCluster, Partition
from tests.fakes.subjects import batch
from tests.kit.processes import free_ports
from tests.unit.tierproxy.cold.shelf import Gate
from tierproxy.access import Access
from tierproxy.addresses import Addresses
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.catalog import Catalog
from tierproxy.clock import SystemClock
from tierproxy.cold.allowance import AnswerMemory
from tierproxy.cold.answers import ColdAnswers
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.deletions import Deletions
from tierproxy.cold.limits import ColdLimits
from tierproxy.cold.reader import ColdReader
from tierproxy.config import Config, LimitsConfig, TopicPolicy
from tierproxy.listener import Listener
from tierproxy.pressure import Pressure
from tierproxy.routing.holds import Client
from tierproxy.scout import Scout
from tierproxy.session import Shared
from tierproxy.tasks import Tasks
from tierproxy.upstream import Cluster

CLUSTER = "fake"
ARCHIVED = "cold.*"
"""Topics with such names are archived."""

PORTS = 6
"""Bootstrap, and the nodes 0 to 4."""


class Gateway:
    def __init__(
        self,
        brokers: FakeCluster,
        directory: Path,
        *,
        limits: LimitsConfig | None = None,
        on_gap: str = "skip",
        policies: Sequence[dict[str, object]] = (),
    ) -> None:
        """`policies`, before the one for all topics `ARCHIVED`, are looked at for their limits only."""
        self._brokers = brokers
        self._directory = directory
        self._limits = limits or LimitsConfig()
        self._archived: tuple[str, ...] = ("cold.",)  # what names of archived topics begin with
        self._policy = TopicPolicy.model_validate({"match": ARCHIVED, "archive": "main", "on_gap": on_gap})
        self._config_clock = SystemClock()
        self._config = Config.model_validate(
            {
                "cluster": {"name": CLUSTER, "bootstrap": ["fake:1"]},
                "listen": {},
                "topics": [*policies, self._policy],
                "limits": self._limits,
            }
        )

    async def __aenter__(self) -> Self:
        self.tasks = Tasks()
        self.store = Gate(self._directory)
        self.library = Library(self.store, CLUSTER)
        libraries = {"main": self.library}
        self.upstream = Cluster(self._brokers.bootstrap, Access(), "gateway", self._config_clock)
        self._chunks = Chunks(self.tasks, 1 << 20, ByteBudget(1 << 20))
        self.port = free_ports(PORTS)
        self.addresses = Addresses("127.0.0.1", self.port)
        self.catalog = Catalog(lambda name: name.startswith(self._archived), True)
        self.listener = Listener(
            "127.0.0.1", self.addresses, self._brokers.bootstrap, self.catalog, self._limits, self.tasks
        )
        self.scout = Scout(
            self.upstream,
            libraries,
            self._policy_for,
            self.catalog,
            self.addresses,
            self.listener.open,
            self._config_clock,
            self.tasks,
        )
        reader, self.memory = ColdReader(self._chunks, self.tasks), AnswerMemory(1 << 28)
        self._rates = ColdLimits(self._config)
        cold = ColdAnswers(self.catalog, self.scout, reader, self.memory, libraries, self.tasks, self._rates)
        self.listener.connect(
            Shared(
                cold,
                Deletions(self.catalog, self.scout, libraries),
                self.scout.wake,
                Pressure(self._limits.gathered_bytes),
                self.tasks,
                self._limits,
            )
        )
        await self.scout.start()
        await self.listener.open_bootstrap()
        self.tasks.spawn(self.scout.run(), "scout")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.open.set()
        self.store.manifests.set()
        await self.listener.close(drain=0)
        await self.tasks.close()
        await self.upstream.close()
        await self.store.close()
        self._chunks.close()

    def _policy_for(self, topic: str, internal: bool) -> TopicPolicy | None:
        return self._policy if topic.startswith(self._archived) and not internal else None

    def archive_also(self, beginning: str) -> None:
        """Another configuration is in force: topics whose names begin so are archived as well."""
        self._archived = (*self._archived, beginning)
        self.catalog.policies_changed(True)

    def archive_nothing(self) -> None:
        """Another configuration is in force: all topics are just proxied."""
        self._archived = ()
        self.catalog.policies_changed(False)

    # -- clients ----------------------------------------------------------------------------------------------------

    def address(self, node_id: int | None = None) -> tuple[str, int]:
        """Where clients reach that node; None: the bootstrap port."""
        return "127.0.0.1", self.port if node_id is None else self.port + 1 + node_id

    async def connect(self, node_id: int | None = None) -> Connection:
        return await Connection.to(self.address(node_id))

    def spend(self, size: int) -> None:
        """Let a client of the process's rate have had so many archived bytes just now."""
        (rate,) = self._rates.claim(Client("another"), [], self._now()).rates
        rate.correct(size, self._now())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    # -- what the archiver would do ---------------------------------------------------------------------------------

    async def archive(
        self, partition: Partition, *, upto: int, trim: bool = True, segments: Sequence[int] = ()
    ) -> None:
        """Copy the broker's batches below `upto` that aren't yet; `segments` are offsets at which a new one begins."""
        pid = PartitionId(partition.topic.name, partition.topic.topic_id, partition.index)
        found = await self.library.load(pid)
        manifest = Manifest.empty(CLUSTER, self._brokers.cluster_id, pid, 0) if found is None else found.manifest
        borders = sorted({*segments, upto})
        for end in [border for border in borders if border > manifest.end_offset]:
            manifest = await self._segment(partition, pid, manifest, end)
        await self.library.save(pid, manifest, None if found is None else found.version)
        if trim:
            partition.log.trim(upto)

    async def _segment(self, partition: Partition, pid: PartitionId, manifest: Manifest, end: int) -> Manifest:
        sink = io.BytesIO()
        writer = SegmentWriter(SegmentInfo(CLUSTER, pid.topic, pid.topic_id, pid.partition), 3, sink, 1)
        for header, data in partition.log.batches():
            if manifest.end_offset <= header.base_offset < end:
                writer.append(memoryview(data), header)
        for each in partition.log.aborted:
            writer.note_aborted(each.producer_id, each.first_offset)
        index = writer.finish()
        entry = writer.entry(f"t{len(manifest.segments)}", self._config_clock.now_ms())
        await self.library.store.put(self.library.segment_key(pid, entry), sink.getvalue())
        return manifest.with_segment(entry, index.epochs)


async def read_until(client: Connection, version: int, ask: Ask, **limits: Any) -> Got:
    """Fetch as a client does, again where there is neither error nor record, until there is one of them."""
    while True:
        (found,) = await client.fetch(version, ask, **{"max_wait": 200, **limits})
        if found.error or found.records:
            return found


def fill(partition: Partition, batches: int) -> list[bytes]:
    """Append so many batches of 10 records; what the broker made of them."""
    for n in range(batches):
        partition.append(batch(time=1_000 + 10 * n, value=b"%d" % n * 40))
    return [data for _, data in partition.log.batches()]
