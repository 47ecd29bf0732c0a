"""An archiver at work in this process, on a fake cluster and a directory."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.fakes.broker import FakeCluster
from tierproxy.access import Access
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.pages import Paging
from tierproxy.archive.stores import open_store
from tierproxy.clock import Clock, SystemClock
from tierproxy.config import Config
from tierproxy.config.settings import Settings
from tierproxy.tasks import Tasks
from tierproxy.tiering.archiver import Archiver
from tierproxy.upstream import Cluster, TopicPartition

KEEP_NOTHING: dict[str, Any] = {"keep_on_broker": {"bytes": "0B"}}
KEEP_ALL: dict[str, Any] = {"trim": "never"}


@dataclass
class Scene:
    """`policy` is that of every topic. Its manifests and log starts are as the archiver's observer heard them."""

    brokers: FakeCluster
    directory: Path
    policy: dict[str, Any]
    spool: Path | None = None
    group: str = "none"
    cluster_class: type[Cluster] = Cluster
    clock: Clock = field(default_factory=SystemClock)
    read_rate: int | None = None
    paging: Paging = field(default_factory=Paging)
    upkeep: dict[str, Any] = field(default_factory=dict)
    manifests: dict[tuple[str, int], Manifest] = field(default_factory=dict)
    trimmed_to: dict[tuple[str, int], int] = field(default_factory=dict)

    def config(self, policy: dict[str, Any]) -> Config:
        policy = {"match": "*", "archive": "a", "segment": {"bytes": "1MiB", "age": "10ms"}, **policy}
        return Config.model_validate(
            {
                "cluster": {"name": "c", "bootstrap": [f"{host}:{port}" for host, port in self.brokers.bootstrap]},
                "listen": {"advertised_host": "localhost"},
                "archives": {"a": {"url": self.directory.as_uri()}},
                "topics": [policy],
                "archiver": {
                    "metadata_interval": "100ms",
                    "fetch_wait": "20ms",
                    "spool": self.spool,
                    "group": self.group,
                    "read_rate": self.read_rate,
                    **self.upkeep,
                },
            }
        )

    def change(self, policy: dict[str, Any]) -> None:
        """Another policy is in force."""
        before, self._settings.now = self._settings.now, self.config(policy)
        self.archiver.change(before)

    async def __aenter__(self) -> "Scene":
        config = self.config(self.policy)
        self._settings = Settings(config)
        clock, self._tasks = self.clock, Tasks()
        self.cluster = self.cluster_class(config.cluster.bootstrap, Access(), "tierproxy-test", clock)
        self.library = Library(open_store(config.archives["a"]), "c", self._tasks, self.paging)
        self.archiver = Archiver(self._settings, self.cluster, {"a": self.library}, clock, self._tasks, self)
        await self.cluster.start()
        self._tasks.spawn(self.archiver.run(), "archiver")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()
        await self.cluster.close()
        await self.library.store.close()

    def committed(self, pid: PartitionId, manifest: Manifest) -> None:
        self.manifests[pid.topic, pid.partition] = manifest

    def trimmed(self, tp: TopicPartition, log_start: int) -> None:
        self.trimmed_to[tp.topic, tp.partition] = log_start

    async def archived(self, topic: str, end: int, partition: int = 0) -> Manifest:
        """The manifest, once the partition is archived up to `end`."""
        key = (topic, partition)
        await eventually(
            lambda: key in self.manifests and self.manifests[key].end_offset >= end, f"{topic} archived up to {end}"
        )
        return self.manifests[key]


async def eventually(probe: Callable[[], bool], what: str, seconds: float = 90) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not probe():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"no {what} within {seconds:g} s")
