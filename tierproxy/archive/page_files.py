"""Pages in a store, and the ones last used in memory.

Cold readers ask for the same few pages again and again. One read serves everyone who waits for it, and goes on when
they have given up: a client that hardly waits would otherwise never get past the first.
"""

import asyncio
import secrets
from collections.abc import Sequence

from tierproxy.archive.names import PartitionId, partition_prefix
from tierproxy.archive.pages import Page, PageRef
from tierproxy.archive.segment_entry import SegmentEntry
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.archive.store import NotFound, Store, Unavailable
from tierproxy.byte_cache import ByteCache
from tierproxy.flights import Flights
from tierproxy.tasks import Tasks

KEPT_BYTES = 64 << 20
"""Memory for pages: a hundred full ones, of 4,096 segments each."""
MOST_READS = 16
"""Pages that are being read at a time: each takes some 4 MiB meanwhile."""

_PageId = tuple[PartitionId, str]


class PageFiles:
    """The pages of one cluster's archive. Methods that wait may raise StoreError."""

    def __init__(self, store: Store, cluster: str, tasks: Tasks) -> None:
        self._store = store
        self._cluster = cluster
        self._kept: ByteCache[_PageId, Page] = ByteCache(KEPT_BYTES, lambda page: page.memory)
        self._flights: Flights[_PageId, Page] = Flights(tasks, "page of")
        self._turns = asyncio.Semaphore(MOST_READS)

    def cached(self, pid: PartitionId, ref: PageRef) -> Page | None:
        """A page if it is in memory."""
        return self._kept.get((pid, ref.name))

    async def read(self, pid: PartitionId, ref: PageRef) -> Page:
        """A page. NotFound; FormatError if it is not what `ref` says."""
        kept = self._kept.get((pid, ref.name))
        return kept if kept is not None else await self._flights.join((pid, ref.name), lambda: self._read(pid, ref))

    async def write(self, pid: PartitionId, entries: Sequence[SegmentEntry]) -> PageRef:
        """Store a page of `entries` under a name that nobody else uses, and read it back."""
        about = self._about(pid)
        page = await asyncio.to_thread(Page.of, entries)
        ref, data = await asyncio.to_thread(page.encode, about, secrets.token_hex(4))
        key = self._key(pid, ref)
        await self._store.put(key, data)
        try:
            found = (await self._store.get(key)).data
        except NotFound as error:
            raise Unavailable(f"{key} can't be read back: {error}") from error
        if found != data:
            raise Unavailable(f"{key}: the bytes read back are not those written")
        self._kept.put((pid, ref.name), page)
        return ref

    async def _read(self, pid: PartitionId, ref: PageRef) -> Page:
        async with self._turns:
            found = await self._store.get(self._key(pid, ref))
            page = await asyncio.to_thread(Page.decode, found.data, ref, self._about(pid))
        self._kept.put((pid, ref.name), page)
        return page

    def _key(self, pid: PartitionId, ref: PageRef) -> str:
        return partition_prefix(self._cluster, pid) + ref.name

    def _about(self, pid: PartitionId) -> SegmentInfo:
        return SegmentInfo(self._cluster, pid.topic, pid.topic_id, pid.partition)
