"""Archives to look into: real segments and manifests in a directory, of batches made by kafka-python."""

import asyncio
import io
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from crc32c import crc32c
from kafka.record.default_records import DefaultRecordBatchBuilder

from protocol.batches import CRC_FROM, read_batch_header
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.paged_manifests import PAGING
from tierproxy.archive.pages import Paging
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.archive.store_file import FileStore

CLUSTER = "prod"
CLUSTER_ID = "5L6g3nShT-eMCtK--X86sw"
PID = PartitionId("flights", bytes(range(16)), 0)
TIME = 1_700_000_000_000
CREATED = TIME + 60_000

T = TypeVar("T")


def batch(offset: int, values: Sequence[bytes | None], *, epoch: int = 0, codec: int = 0, producer: int = -1) -> bytes:
    """A batch of one record per value; keys k<offset>, times TIME + offset. A producer makes it transactional."""
    builder = DefaultRecordBatchBuilder(2, codec, producer >= 0, producer, 0, 0, 1 << 20)
    for delta, value in enumerate(values):
        key = f"k{offset + delta}".encode()
        builder.append(delta, TIME + offset + delta, key, value, [("h", b"\x00")] if delta == 0 else [])
    return place(bytearray(builder.build()), offset, epoch)


def abort_marker(offset: int, producer: int, epoch: int = 0) -> bytes:
    """The control batch that ends a producer's transaction by aborting it."""
    key, value = struct.pack(">hh", 0, 0), struct.pack(">hi", 0, 0)
    body = b"\x00\x00\x00" + bytes([len(key) * 2]) + key + bytes([len(value) * 2]) + value + b"\x00"
    record = bytes([len(body) * 2]) + body
    head = struct.pack(">hiqqqhii", 0x30, 0, TIME + offset, TIME + offset, producer, 0, -1, 1)
    data = bytearray(struct.pack(">qiibI", 0, 9 + len(head) + len(record), 0, 2, 0) + head + record)
    data[CRC_FROM - 4 : CRC_FROM] = struct.pack(">I", crc32c(bytes(data[CRC_FROM:])))
    return place(data, offset, epoch)


def place(data: bytearray, offset: int, epoch: int) -> bytes:
    """What a broker writes into a producer's batch; its CRC leaves these fields out."""
    struct.pack_into(">q", data, 0, offset)
    struct.pack_into(">i", data, 12, epoch)
    return bytes(data)


class Archive:
    """One partition's archive in a directory, and a configuration that names it."""

    def __init__(self, directory: Path, pid: PartitionId = PID) -> None:
        self.root = directory / "archive"
        self.pid = pid
        self.manifest = Manifest.empty(CLUSTER, CLUSTER_ID, pid, 0)
        self.config = directory / "config.yaml"
        self.config.write_text(
            f"cluster: {{name: {CLUSTER}, bootstrap: ['127.0.0.1:1']}}\n"
            "listen: {advertised_host: localhost}\n"
            f"archives: {{local: {{url: '{self.root.as_uri()}'}}}}\n"
            "topics: [{match: '*', archive: local}]\n"
        )

    @property
    def folder(self) -> Path:
        (found,) = (self.root / CLUSTER / self.pid.topic).glob(f"*/{self.pid.partition}")
        return found

    def segment_file(self, number: int) -> Path:
        return self.folder / self.manifest.segments[number].key_name

    def add(
        self, *batches: bytes, aborted: Sequence[tuple[int, int]] = (), chunk_bytes: int = 1, after: int | None = None
    ) -> "Archive":
        """One more segment; by default with a chunk for each batch. `after` is the offset it was fetched at."""
        sink = io.BytesIO()
        about = SegmentInfo(CLUSTER, self.pid.topic, self.pid.topic_id, self.pid.partition)
        writer = SegmentWriter(about, 3, sink, chunk_bytes)
        for data in batches:
            header = read_batch_header(data)
            assert header is not None
            writer.append(memoryview(data), header)
        for producer, first in aborted:
            writer.note_aborted(producer, first)
        index = writer.finish()
        entry = writer.entry(f"t{len(self.manifest.segments)}", CREATED)
        self.manifest = self.manifest.with_segment(entry, index.epochs, fetched_at=after)

        async def put(library: Library) -> None:
            await library.store.put(library.segment_key(self.pid, entry), sink.getvalue())

        self.do(put)
        return self

    def gap(self, start: int, end: int) -> "Archive":
        self.manifest = self.manifest.with_gap(Gap(start, end, CREATED, "expired on the broker"))
        return self

    def save(self, manifest: Manifest | None = None, paging: Paging = PAGING) -> "Archive":
        """Write the manifest, over one that is there."""

        async def put(library: Library) -> Manifest:
            found = await library.load(self.pid)
            saved = await library.save(self.pid, manifest or self.manifest, found.version if found else None)
            return saved.manifest

        self.manifest = self.do(put, paging)
        return self

    def do(self, work: Callable[[Library], Awaitable[T]], paging: Paging = PAGING) -> T:
        async def run() -> T:
            store = FileStore(self.root)
            try:
                return await work(Library(store, CLUSTER, paging=paging))
            finally:
                await store.close()

        return run_now(run())


def run_now(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
