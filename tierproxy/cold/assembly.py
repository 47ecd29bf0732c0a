"""Which caches archived bytes go through in this process, in what order they start and stop.

Chunks (memory) ──► the worker that owns the range ──► the disk cache ──► the store
                    (where there are several)          (if configured)
"""

from collections.abc import Mapping

from protocol.wire import Buffer
from tierproxy.archive.library import Library
from tierproxy.archive.store import Store
from tierproxy.clock import Clock
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.chunks import Chunks
from tierproxy.cold.disk_cache import CachedReads, DiskCache
from tierproxy.cold.reads import DirectReads, Reads, WorkersReads
from tierproxy.cold.shared_reads import Neighbours, SharedReads
from tierproxy.config import Config
from tierproxy.tasks import Tasks
from tierproxy.telemetry import COLD_IN_FLIGHT, DISK_CACHE_LIMIT


class ColdCaches:
    """`chunks` is what readers use, between `start` and `close`."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        libraries: Mapping[str, Library],
        tasks: Tasks,
        neighbours: Neighbours | None = None,
    ) -> None:
        disk = config.cache.disk
        self._disk = DiskCache(disk.path, disk.size, clock) if disk is not None else None
        self._shared: SharedReads | None = None
        memory = config.cache.memory
        places = _places(config, libraries)
        own: Reads = CachedReads(self._disk, places.get) if self._disk is not None else DirectReads()
        reads = own
        if neighbours is not None:
            stores = {place: store for store, place in places.items()}

            async def read(place: str, key: str, start: int, end: int) -> Buffer:
                return await own.get_range(stores[place], key, start, end)

            async def forget(place: str, key: str, start: int, end: int) -> None:
                await own.drop(stores[place], key, start, end)

            held = memory // 4
            memory -= held
            self._shared = SharedReads(read, neighbours, held, config.limits.cold_bytes, tasks, forget=forget)
            reads = WorkersReads(self._shared, own, places)
        self._budget = ByteBudget(config.limits.cold_bytes)
        self.chunks = Chunks(tasks, memory, self._budget, reads)
        DISK_CACHE_LIMIT.set(disk.size if disk is not None else 0)

    async def start(self) -> None:
        """Raises TierproxyError where the disk cache's directory is somebody else's, or no worker could ask us."""
        if self._disk is not None:
            await self._disk.start()
        if self._shared is not None:
            self._shared.open()

    def measure(self) -> None:
        """Have the metrics show how full everything is."""
        COLD_IN_FLIGHT.set(self._budget.lent)
        self.chunks.measure()
        if self._shared is not None:
            self._shared.measure()

    async def close(self) -> None:
        self.chunks.close()
        if self._shared is not None:
            self._shared.close()
        if self._disk is not None:
            await self._disk.close()


def _places(config: Config, libraries: Mapping[str, Library]) -> dict[Store, str]:
    """Where the stores are that are far away: a directory's bytes are on a disk of ours already."""
    return {
        library.store: f"{config.archives[name].endpoint_url or ''} {config.archives[name].url}"
        for name, library in libraries.items()
        if not config.archives[name].url.startswith("file:")
    }
