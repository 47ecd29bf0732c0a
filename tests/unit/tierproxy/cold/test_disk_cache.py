"""What a disk does to the cache: full, read-only, gone, hanging. Reading goes on; it is said once, and counted."""

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.unit.tierproxy.cold.shelf import Gate
from tierproxy.archive.store import Unavailable
from tierproxy.clock import ManualClock
from tierproxy.cold.disk_cache import PAUSE_SECONDS, QUEUED_BYTES, CachedReads, DiskCache
from tierproxy.cold.disk_room import NotOurs

SIZE = 8 << 20
DATA = os.urandom(300_000)
KEY = "main/prod/flights/0/segment"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tierproxy_disk_cache_{name}", labels) or 0.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def cache(root: Path, clock: ManualClock) -> AsyncIterator[DiskCache]:
    made = DiskCache(root, SIZE, clock)
    await made.start()
    yield made
    await made.close()


def extents(root: Path) -> list[Path]:
    return list(root.glob("??/*/*"))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "tierproxy.disk_cache"]


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not ready():
            await asyncio.sleep(0.01)


async def test_what_is_put_is_there_and_counted(cache: DiskCache) -> None:
    def now() -> list[float]:
        return [
            counted("reads_total", outcome="hit"),
            counted("reads_total", outcome="miss"),
            counted("read_bytes_total"),
            counted("written_bytes_total"),
        ]

    before = now()
    assert await cache.get(KEY, 0, 300_000) is None
    await cache.put(KEY, 0, DATA)
    assert await cache.get(KEY, 0, 300_000) == DATA
    assert await cache.get(KEY, 100, 200) == DATA[100:200]
    assert await cache.get(KEY, 7, 7) == b""
    await cache.drop(KEY, 5, 6)
    assert await cache.get(KEY, 100, 200) is None
    assert [b - a for a, b in zip(before, now(), strict=True)] == [2, 2, 300_100, 300_000]


async def test_a_damaged_file_is_a_miss_and_goes(cache: DiskCache, root: Path) -> None:
    await cache.put(KEY, 0, DATA)
    file = extents(root)[0]
    spoiled = bytearray(file.read_bytes())
    spoiled[-1] ^= 1
    file.write_bytes(spoiled)
    before = counted("damaged_total")
    assert await cache.get(KEY, 0, 1000) == DATA[:1000]  # another block
    assert await cache.get(KEY, 299_000, 300_000) is None
    assert extents(root) == []
    assert counted("damaged_total") == before + 1


async def test_closed_it_has_nothing_and_takes_nothing(cache: DiskCache) -> None:
    await cache.put(KEY, 0, DATA)
    waiting = [asyncio.create_task(cache.put(KEY, n, DATA)) for n in range(1, 20)]
    await asyncio.sleep(0)
    await cache.close()
    await asyncio.gather(*waiting)
    assert await cache.get(KEY, 0, 10) is None
    await cache.put(KEY, 0, DATA)
    await cache.drop(KEY, 0, 10)


async def test_a_directory_of_somebody_elses_is_refused(root: Path, clock: ManualClock) -> None:
    root.mkdir()
    (root / "precious").touch()
    cache = DiskCache(root, SIZE, clock)
    with pytest.raises(NotOurs, match="a directory of its own"):
        await cache.start()
    await cache.close()
    assert [path.name for path in root.iterdir()] == ["precious"]


# -- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_disk_is_said_once_and_read_on(
    small_disk: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy.disk_cache")
    root = small_disk / "cache"
    cache = DiskCache(root, SIZE, clock)
    await cache.start()
    await cache.put(KEY, 0, DATA)
    (small_disk / "others").write_bytes(bytes(600_000))
    declined = counted("declined_total")
    for _ in range(3):
        await cache.put("main/b", 0, DATA)
    assert lines(caplog) == [
        f"the disk cache in {root} can't be written to: No space left on device. Make room there, or make "
        "cache.disk.size smaller; archived records come from their store meanwhile"
    ]
    assert counted("declined_total") == declined + 2
    assert await cache.get(KEY, 0, 300_000) == DATA
    assert await cache.get("main/b", 0, 300_000) is None
    assert list((root / "tmp").iterdir()) == []
    (small_disk / "others").unlink()
    clock.advance(PAUSE_SECONDS)
    await cache.put("main/b", 0, DATA)
    assert await cache.get("main/b", 0, 300_000) == DATA
    assert lines(caplog)[1:] == [f"the disk cache in {root} works again"]
    await cache.close()


async def test_a_disk_that_can_only_be_read_is_read(
    small_disk: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    root = small_disk / "cache"
    cache = DiskCache(root, SIZE, clock)
    await cache.start()
    await cache.put(KEY, 0, DATA)
    mount = await asyncio.create_subprocess_exec("mount", "-o", "remount,ro", small_disk)
    assert await mount.wait() == 0
    clock.advance(1000)
    await cache.put("main/b", 0, DATA)
    assert await cache.get(KEY, 0, 300_000) == DATA
    await cache.close()
    again = DiskCache(root, SIZE, clock)
    await again.start()
    assert await again.get(KEY, 0, 300_000) == DATA
    await again.close()
    assert len(lines(caplog)) == 2
    assert all("Let tierproxy's user read and write there" in line for line in lines(caplog))


async def test_a_directory_that_goes_away_comes_again(
    cache: DiskCache, root: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await cache.put(KEY, 0, DATA)
    shutil.rmtree(root)
    assert await cache.get(KEY, 0, 10) is None
    await cache.put(KEY, 0, DATA)
    assert "Somebody has removed what is in it" in lines(caplog)[0]
    clock.advance(PAUSE_SECONDS)
    await cache.put(KEY, 0, DATA)
    assert await cache.get(KEY, 0, 10) == DATA[:10]
    assert len(lines(caplog)) == 1


async def test_what_lies_there_may_be_of_a_strange_kind(cache: DiskCache, root: Path, clock: ManualClock) -> None:
    await cache.put(KEY, 0, DATA)
    file = extents(root)[0]
    file.unlink()
    file.mkdir()
    assert await cache.get(KEY, 0, 10) is None
    clock.advance(PAUSE_SECONDS)
    shutil.rmtree(file.parent)
    file.parent.write_text("a file in a folder's place")
    assert await cache.get("main/b", 0, 10) is None
    await cache.put(KEY, 0, DATA)


# -- a disk that hangs ------------------------------------------------------------------------------------------------


async def test_a_disk_that_hangs_is_left_alone_until_it_answers(
    root: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe in an extent's place: opening it to read hangs until somebody opens it to write, as on a dead mount."""
    caplog.set_level("INFO", "tierproxy.disk_cache")
    cache = DiskCache(root, SIZE, clock, answer_seconds=0.2)
    await cache.start()
    await cache.put(KEY, 0, DATA)
    pipe = extents(root)[0]
    await cache.put("main/b", 0, DATA)
    pipe.unlink()
    os.mkfifo(pipe)
    late = counted("errors_total", kind="late")
    assert await asyncio.gather(*(cache.get(KEY, 0, 10) for _ in range(6))) == [None] * 6
    assert counted("errors_total", kind="late") == late + 6
    clock.advance(10 * PAUSE_SECONDS)
    off = counted("reads_total", outcome="off")
    assert await cache.get("main/b", 0, 10) is None
    await cache.put("main/c", 0, DATA)
    assert counted("reads_total", outcome="off") == off + 1
    assert len(extents(root)) == 2
    with pipe.open("wb"):  # the disk is back
        pipe.unlink()
    await until(lambda: cache._readers.hanging == 0)
    assert await cache.get("main/b", 0, 10) == DATA[:10]
    assert [line.partition(" can't be ")[2][:27] or line[-11:] for line in lines(caplog)] == [
        "read: no answer within 0.2 ",
        "works again",
    ]
    await cache.close()


async def test_a_slow_disk_does_not_fill_the_memory(root: Path, clock: ManualClock) -> None:
    cache = DiskCache(root, 1 << 30, clock)
    await cache.start()
    data = bytes(16 << 20)
    declined = counted("declined_total")
    with (root / "usage").open("rb") as usage:  # its lock is waited for
        fcntl.flock(usage, fcntl.LOCK_EX)
        for n in range(10):
            cache.offer(f"main/{n}", 0, data)
        assert counted("declined_total") - declined == 10 - QUEUED_BYTES // len(data)
    await cache.close()


# -- in front of a store ----------------------------------------------------------------------------------------------


async def test_a_range_comes_from_the_store_once(cache: DiskCache, tmp_path: Path) -> None:
    store = Gate(tmp_path / "store")
    await store.put("prod/a", DATA)
    reads = CachedReads(cache, lambda _: "main")
    assert await reads.get_range(store, "prod/a", 0, 300_000) == DATA
    await until(lambda: cache._queued == 0)
    assert await reads.get_range(store, "prod/a", 1000, 2000) == DATA[1000:2000]
    assert len(store.reads) == 1
    await reads.drop(store, "prod/a", 1000, 2000)
    assert await reads.get_range(store, "prod/a", 1000, 2000) == DATA[1000:2000]
    assert len(store.reads) == 2
    other = CachedReads(cache, lambda _: "other")
    assert await other.get_range(store, "prod/a", 1000, 2000) == DATA[1000:2000]
    assert len(store.reads) == 3
    store.broken = True
    with pytest.raises(Unavailable):
        await reads.get_range(store, "prod/a", 0, 300_000)
    await store.close()
