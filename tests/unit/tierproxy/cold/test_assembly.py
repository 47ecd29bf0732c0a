"""The caches of two workers before one store, with real sockets and a real disk cache."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.tierproxy.cli.archives import CLUSTER, Archive
from tests.unit.tierproxy.cold.shelf import BATCHES, Gate, three_segments
from tierproxy.archive.library import Library
from tierproxy.clock import SystemClock
from tierproxy.cold.assembly import ColdCaches
from tierproxy.cold.reader import ColdReader
from tierproxy.cold.shared_reads import Neighbours
from tierproxy.config import Config
from tierproxy.tasks import Tasks


class Worker:
    """It believes that its archive is far away."""

    def __init__(self, archive: Archive, store: Gate, directory: Path, me: int) -> None:
        self.archive = archive
        self.tasks = Tasks()
        self.library = Library(store, CLUSTER, self.tasks)
        config = Config.model_validate(
            {
                "cluster": {"name": CLUSTER, "bootstrap": ["127.0.0.1:1"]},
                "listen": {"advertised_host": "localhost"},
                "archives": {"local": {"url": "s3://bucket"}},
                "cache": {"disk": {"path": str(directory / "cache"), "size": "256MiB"}},
            }
        )
        neighbours = Neighbours([directory / "0", directory / "1"], me)
        self.caches = ColdCaches(config, SystemClock(), {"local": self.library}, self.tasks, neighbours)
        self.reader = ColdReader(self.caches.chunks, self.tasks)

    async def read_all(self) -> bytes:
        read, offset = b"", 0
        while offset < self.archive.manifest.end_offset:
            ready = await self.reader.fetch(self.library, self.archive.pid, self.archive.manifest, offset)
            taken = ready.take(1 << 20, True)
            assert taken is not None
            read += b"".join(taken.records)
            offset = taken.last_offset + 1
        return read

    async def close(self) -> None:
        await self.tasks.close()
        await self.caches.close()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return three_segments(tmp_path)


@pytest.fixture
async def store(archive: Archive) -> AsyncIterator[Gate]:
    store = Gate(archive.root)
    yield store
    await store.close()


@pytest.fixture
async def workers(archive: Archive, store: Gate, tmp_path: Path) -> AsyncIterator[list[Worker]]:
    made = [Worker(archive, store, tmp_path, me) for me in range(2)]
    for each in made:
        await each.caches.start()
    yield made
    for each in made:
        await each.close()


async def test_what_one_worker_has_read_no_other_reads_from_the_store(workers: list[Worker], store: Gate) -> None:
    assert await workers[0].read_all() == b"".join(BATCHES)
    reads = list(store.reads)
    assert len(reads) == len(set(reads))
    assert await workers[1].read_all() == b"".join(BATCHES)
    assert store.reads == reads


async def test_damage_on_the_way_is_kept_by_nobody(workers: list[Worker], store: Gate) -> None:
    store.flips = 6  # each segment is read at one place and, damaged, once more
    for each in workers:
        try:
            await each.read_all()
        except Exception:  # noqa: BLE001 - twice damaged is given up; what counts is what comes later
            continue
    store.flips = 0
    assert [await each.read_all() for each in workers] == [b"".join(BATCHES)] * 2
