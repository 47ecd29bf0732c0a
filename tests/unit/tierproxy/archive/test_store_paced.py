"""tierproxy.archive.store_paced: what waits for `archiver.write_rate`, on a clock that stands still."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tierproxy.archive.store import NotFound
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.store_paced import PacedStore
from tierproxy.clock import ManualClock
from tierproxy.rates import TokenBucket
from tierproxy.tasks import Tasks

RATE = 1000
HOUR = 3600


@pytest.fixture
def bucket() -> TokenBucket:
    return TokenBucket(RATE, 0.0)


@pytest.fixture
async def store(tmp_path: Path, bucket: TokenBucket) -> AsyncIterator[PacedStore]:
    made = PacedStore(FileStore(tmp_path), bucket, ManualClock())
    yield made
    await made.close()


async def test_what_is_written_is_counted(store: PacedStore, bucket: TokenBucket) -> None:
    file = io.BytesIO(b"not this" + bytes(5000))
    file.seek(8)
    await store.put("segment", file)
    assert (await store.get("segment")).data == bytes(5000)
    assert bucket.wait(0.0) == 5
    await store.put_if("document", bytes(1000), None)
    assert bucket.wait(0.0) == 6


async def test_segments_wait_and_documents_do_not(store: PacedStore, bucket: TokenBucket) -> None:
    bucket.spend(HOUR * RATE, 0.0)
    tasks = Tasks()
    waiting = tasks.spawn(store.put("segment", b"x"), "put")
    try:
        version = await store.put_if("document", b"1", None)
        await store.put_if("document", b"2", version)
        assert (await store.get_range("document", 0, 1), await store.size("document")) == (b"2", 1)
        assert [found.key async for found in store.list("")] == ["document"]
        await store.delete("document")
        assert not waiting.done()
        with pytest.raises(NotFound):
            await store.get("segment")
    finally:
        waiting.cancel()
        await tasks.close()


async def test_without_a_limit_nothing_waits(tmp_path: Path) -> None:
    store = PacedStore(FileStore(tmp_path), TokenBucket(None, 0.0), ManualClock())
    async with asyncio.timeout(60):
        for n in range(3):
            await store.put(f"segment-{n}", bytes(1 << 20))
        await store.check()
    await store.close()
