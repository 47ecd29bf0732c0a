"""What the workers of one archive share, and who hears of what they do."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.clock import Clock
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.trims import Trims
from tierproxy.upstream import Cluster, TopicPartition


class ArchiveObserver(Protocol):
    """Who wants to know at once what was done; called from the event loop, must not wait."""

    def committed(self, pid: PartitionId, manifest: Manifest) -> None: ...

    def trimmed(self, tp: TopicPartition, log_start: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers of an archive share.

    `uploads` limits how many segments are on their way to and from the store at a time, `takers` how many threads take
    answers into segments; `stale` is called when an answer shows that the metadata is old; `ready` when a worker has
    something to fetch.
    """

    cluster: Cluster
    cluster_id: str
    library: Library
    archive: str
    clock: Clock
    observer: ArchiveObserver
    uploads: asyncio.Semaphore
    takers: asyncio.Semaphore
    trims: Trims
    troubles: OncePerChange
    stale: Callable[[], None]
    ready: Callable[[TopicPartition], None]


def partition_troubles(pid: PartitionId) -> str:
    """What the keys of a partition's own troubles begin with; a recreated topic's are others."""
    return f"partition {pid} {pid.topic_id.hex()} "


def leader_trouble(node_id: int) -> str:
    """The key of "this broker does not answer as a leader": one line a broker, however many partitions it leads."""
    return f"leader {node_id}"
