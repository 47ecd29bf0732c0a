"""What only a directory can do to us: other processes, crashes, disks."""

import asyncio
import fcntl
import io
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from errno import EACCES, EDQUOT, EIO, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path

import pytest

from tierproxy.archive.store import Conflict, NotFound, Refused, StoreError, Unavailable
from tierproxy.archive.store_file import FileStore, _mapped

KEY = "prod/flights/manifest.json"
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "some" / "archive"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[FileStore]:
    store = FileStore(root)
    yield store
    await store.close()


async def keys(store: FileStore) -> list[str]:
    return [info.key async for info in store.list("")]


async def test_objects_are_files_under_their_keys(store: FileStore, root: Path) -> None:
    await store.put(KEY, b"hello")
    assert (root / KEY).read_bytes() == b"hello"


async def test_what_killed_processes_left_is_not_seen(store: FileStore, root: Path) -> None:
    await store.put_if(KEY, b"hello", None)
    folder = (root / KEY).parent
    (folder / ".tmp-0123").write_bytes(b"half a man")
    (root / ".tmp-4567").mkdir()
    assert (folder / ".lock").exists()
    assert await keys(store) == [KEY]


class Spoilt(io.BytesIO):
    """A file that can be read only in part."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError(EIO, os.strerror(EIO))
        return super().read(10)


async def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(store: FileStore, root: Path) -> None:
    await store.put(KEY, b"before")
    with pytest.raises(Unavailable, match="Input/output error"):
        await store.put(KEY, Spoilt(b"x" * 100))
    assert (await store.get(KEY)).data == b"before"
    assert [path.name for path in (root / KEY).parent.iterdir()] == ["manifest.json"]


async def test_everything_is_flushed_before_it_counts(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    named: list[bool] = []  # whether the object was to be seen at that moment
    fsync = os.fsync

    def noted(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}"))
        flushed.append("temporary" if name.name.startswith(".tmp-") else str(name.relative_to(root.parents[1])))
        named.append((root / KEY).exists())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    await store.put(KEY, b"hello")
    # The directories that were made, each by the one it lies in; then the file; then its name.
    assert flushed == [".", "some", "some/archive", "some/archive/prod", "temporary", "some/archive/prod/flights"]
    assert named == [False] * 5 + [True]
    await store.delete(KEY)
    assert (flushed[-1], named[-1]) == ("some/archive/prod/flights", False)


async def test_somebody_else_s_lock_is_waited_for(store: FileStore, root: Path) -> None:
    version = await store.put_if(KEY, b"one", None)
    with ((root / KEY).parent / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writing = asyncio.gather(*(store.put_if(KEY, b"two %d" % i, version) for i in range(9)), return_exceptions=True)
        for _ in range(20):  # all of them wait, and nothing else does
            assert (await store.get(KEY)).data == b"one"
        assert not writing.done()
    results = await writing
    assert sum(isinstance(result, Conflict) for result in results) == 8


async def test_a_lock_that_is_never_let_go_makes_it_unavailable(root: Path) -> None:
    store = FileStore(root, lock_seconds=0.05)
    await store.put(KEY, b"one")
    with ((root / KEY).parent / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match=r"\.lock"):
            await store.put_if(KEY, b"two", None)
        await store.put_if("prod/other/manifest.json", b"two", None)  # locks are by directory
    await store.close()


def increment(root: str, times: int) -> None:
    """A process of its own that counts up."""

    async def run() -> None:
        store, left = FileStore(Path(root)), times
        while left:
            found = await store.get(KEY)
            try:
                await store.put_if(KEY, b"%d" % (int(found.data) + 1), found.version)
                left -= 1
            except Conflict:
                pass
        await store.close()

    asyncio.run(run())


async def test_no_increment_is_lost_between_processes(store: FileStore, root: Path) -> None:
    await store.put_if(KEY, b"0", None)
    processes = [SPAWN.Process(target=increment, args=(str(root), 40)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0
    assert (await store.get(KEY)).data == b"120"


def write_for_ever(root: str) -> None:
    """A process that is to be killed while it writes."""

    async def run() -> None:
        store, number = FileStore(Path(root)), 0
        while True:
            number = (number + 1) % 256
            await store.put(KEY, bytes([number]) * 3_000_000)
            found = await store.get("prod/other/manifest.json")
            await store.put_if("prod/other/manifest.json", b"%d" % (int(found.data) + 1), found.version)

    asyncio.run(run())


async def test_a_killed_writer_leaves_whole_objects_and_no_lock(store: FileStore, root: Path) -> None:
    other = "prod/other/manifest.json"
    await store.put_if(other, b"0", None)
    for _ in range(3):
        started = (await store.get(other)).data
        process = SPAWN.Process(target=write_for_ever, args=(str(root),))
        process.start()
        while (await store.get(other)).data == started:  # until it is at work
            await asyncio.sleep(0.001)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.join)
        data = (await store.get(KEY)).data
        assert data == data[:1] * 3_000_000
        found = await store.get(other)
        await store.put_if(other, b"%d" % (int(found.data) + 1), found.version)
        assert await keys(store) == [KEY, other]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (ENOENT, NotFound, "/place is not there"),
        (ENOTDIR, NotFound, "/place is not there"),
        (EACCES, Refused, "Let tierproxy's user read and write there"),
        (EPERM, Refused, "Let tierproxy's user read and write there"),
        (EROFS, Refused, "can be written"),
        (ENOSPC, Unavailable, "Make room there"),
        (EDQUOT, Unavailable, "Make room there"),
        (EIO, Unavailable, "Input/output error"),
    ],
)
def test_what_the_system_says_is_told_with_what_to_do(number: int, kind: type[StoreError], words: str) -> None:
    with pytest.raises(kind, match=words), _mapped("/place"):
        raise OSError(number, os.strerror(number))


async def test_an_object_where_a_directory_should_be(store: FileStore) -> None:
    await store.put("prod/flights", b"x")
    for attempt in (store.put(KEY, b"y"), store.put_if(KEY, b"y", None)):
        with pytest.raises(StoreError):
            await attempt
    with pytest.raises(NotFound):
        await store.get(KEY)


async def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    store = FileStore(tmp_path / "file")
    with pytest.raises(StoreError):
        await store.check()
    assert await keys(store) == []
    await store.close()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux' /proc, where no directory can be made")
async def test_a_directory_that_can_not_be_made() -> None:
    store = FileStore(Path("/proc/nowhere"))
    with pytest.raises(Unavailable, match="its directory can't be made"):
        await store.check()
    await store.close()
