"""tierproxy.tiering.housekeeper on a real directory: expiry, merging, garbage; with crashes and races at each step."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from tests.kit.s3 import S3Server
from tests.unit.tierproxy.cli.archives import CLUSTER, CREATED, Archive, batch
from tests.unit.tierproxy.tiering.test_merger import log_of, problems
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.moving import Move
from tierproxy.archive.names import PartitionId
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.store import Refused, Store, Unavailable
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.store_s3 import S3Store
from tierproxy.archive.upkeep import DAY_MS
from tierproxy.clock import ManualClock, SystemClock
from tierproxy.config import Config
from tierproxy.config.settings import Settings
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.housekeeper import Charge, Housekeeper, log

HOUR = 3_600_000
SMALL = 12
"""Segments of a small archive; all but the newest are merged at once."""
ALL_TRIMMED = 1 << 40


def small_segments(directory: Path, count: int = SMALL, first: int = 0) -> Archive:
    archive = Archive(directory)
    for number in range(first, first + count):
        archive.add(batch(3 * number, [b"%5d" % number] * 3))
    return archive.save()


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(f"tierproxy_{name}_total") or 0.0


class House:
    """A housekeeper and what it needs. It is visited once for each `visit`, on a store of its own."""

    def __init__(self, archive: Archive, *, archiver: dict[str, Any] | None = None, **policy: Any) -> None:
        config = Config.model_validate(
            {
                "cluster": {"name": CLUSTER, "bootstrap": ["localhost:1"]},
                "listen": {"advertised_host": "localhost"},
                "archives": {"local": {"url": archive.root.as_uri()}},
                "topics": [{"match": "*", "archive": "local", "trim": "never", **policy}],
                "archiver": archiver or {},
            }
        )
        self.archive = archive
        self.policy = config.topics[0]
        self.clock = ManualClock(CREATED + HOUR)
        self.told: list[Manifest] = []
        self.housekeeper = Housekeeper(lambda: [], Settings(config), self.clock, self, OncePerChange(log))

    def committed(self, pid: PartitionId, manifest: Manifest) -> None:
        self.told.append(manifest)

    def trimmed(self, tp: object, log_start: int) -> None:
        raise AssertionError("upkeep trims nothing")

    def some_days_later(self, opened: Callable[[Path], Store] = FileStore) -> None:
        """By the clock that objects are written with."""
        self.clock.set_now_ms(max(SystemClock().now_ms(), self.clock.now_ms()))
        for _ in range(4):
            self.clock.advance(DAY_MS / 1000)
            self.visit(opened=opened)

    def visit(self, log_start: int = ALL_TRIMMED, opened: Callable[[Path], Store] = FileStore, times: int = 1) -> bool:
        async def run() -> bool:
            store = opened(self.archive.root)
            try:
                library = Library(store, CLUSTER)
                charge = Charge(self.archive.pid, self.policy, "local", library, log_start)
                return [await self.housekeeper.visit(charge) for _ in range(times)][-1]
            finally:
                await store.close()

        return asyncio.run(run())

    def manifest(self) -> Manifest:
        """As it is stored; from now on the archive's own as well."""

        async def load(library: Library) -> Manifest:
            found = await library.load(self.archive.pid)
            assert found is not None
            return found.manifest

        self.archive.manifest = self.archive.do(load)
        return self.archive.manifest

    def objects(self) -> set[str]:
        return {file.name for file in self.archive.folder.glob("*.log.zst")}


def offsets(manifest: Manifest) -> list[tuple[int, int]]:
    return [(entry.base_offset, entry.last_offset) for entry in manifest.segments]


# ---- merging -------------------------------------------------------------------------------------------------


def test_small_segments_become_one_and_nothing_is_lost(tmp_path: Path) -> None:
    archive = small_segments(tmp_path)
    house, before, old = House(archive), log_of(archive), archive.manifest
    merged = sample("segments_merged")
    assert house.visit()
    manifest = house.manifest()
    assert offsets(manifest) == [(0, 32), (33, 35)]
    assert house.told == [manifest]
    assert sample("segments_merged") == merged + SMALL - 1
    assert log_of(archive) == before
    assert log_of(archive, old) == before, "readers with the older manifest still find their objects"
    assert problems(archive) == []
    assert not house.visit()
    assert house.manifest() == manifest


def test_merging_can_be_switched_off(tmp_path: Path) -> None:
    house = House(small_segments(tmp_path), archiver={"merge": False})
    assert not house.visit()
    assert len(house.manifest().segments) == SMALL


def test_what_was_archived_lately_is_left_alone(tmp_path: Path) -> None:
    house = House(small_segments(tmp_path), archiver={"merge_after": "2h"})
    assert not house.visit()
    house.clock.advance(3600)
    assert house.visit()


def test_what_brokers_keep_by_time_is_merged_when_they_have_let_it_go(tmp_path: Path) -> None:
    house = House(small_segments(tmp_path), trim="delete-records", keep_on_broker={"time": "7d"})
    assert not house.visit(log_start=-1)
    assert not house.visit(log_start=20)
    assert house.visit(log_start=24)
    assert offsets(house.manifest())[:2] == [(0, 23), (24, 26)]


def test_a_merged_segment_is_a_small_part_of_what_is_kept(tmp_path: Path) -> None:
    """It expires as a whole, so it must not keep much more than it should."""
    archive = small_segments(tmp_path)
    size = archive.manifest.segments[-1].plain_size
    house = House(archive, keep_in_archive={"bytes": f"{10 * 9 * size}B"})
    assert house.visit()
    assert offsets(house.manifest())[0] == (0, 26)


def test_a_part_that_is_damaged_is_said_once_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive = small_segments(tmp_path)
    file = archive.segment_file(3)
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    house = House(archive)
    assert not house.visit(times=3)
    assert len(house.manifest().segments) == SMALL
    assert caplog.text.count("segments can't be merged") == 1
    file.write_bytes(whole)
    house.clock.advance(3600)
    assert house.visit()
    assert len(house.manifest().segments) == 2


class Killed(BaseException):
    """As kill -9: nothing that cleans up by `except Exception` has a say."""


class Mortal(FileStore):
    """A directory store that dies at its n-th call: before it does anything, or after it has done it."""

    def __init__(self, root: Path, at: int, after: bool) -> None:
        super().__init__(root)
        self._left = at
        self._after = after

    async def _alive(self, after: bool) -> None:
        if self._after is after:
            self._left -= 1
            if self._left == 0:
                raise Killed

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        await self._alive(False)
        found = await super().get_range(key, start, end)
        await self._alive(True)
        return found

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        await self._alive(False)
        await super().put(key, body, storage_class, sha256)
        await self._alive(True)

    async def size(self, key: str) -> int:
        await self._alive(False)
        found = await super().size(key)
        await self._alive(True)
        return found

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        await self._alive(False)
        found = await super().put_if(key, data, version)
        await self._alive(True)
        return found

    async def delete(self, key: str) -> None:
        await self._alive(False)
        await super().delete(key)
        await self._alive(True)


@pytest.mark.parametrize("after", [False, True])
def test_a_merge_may_die_at_any_step(tmp_path: Path, after: bool) -> None:
    """Index and batches of 8 parts, then upload, size, read back, commit. Afterwards all is as before or merged."""
    calls = 2 * 8 + 4
    for at in range(1, calls + 2):
        directory = tmp_path / str(at)
        directory.mkdir()
        archive = small_segments(directory, 9)
        before, whole = archive.manifest, log_of(archive)
        house = House(archive)
        if at <= calls:
            with pytest.raises(Killed):
                house.visit(opened=lambda root, at=at: Mortal(root, at, after))  # type: ignore[misc]
        else:
            assert house.visit(opened=lambda root, at=at: Mortal(root, at, after))  # type: ignore[misc]
        named = house.manifest()
        assert (offsets(named) == offsets(before)) is not (at > calls or (at == calls and after))
        assert problems(archive) == []
        assert log_of(archive) == log_of(archive, before) == whole
        # The next process goes on, and garbage goes.
        again = House(archive)
        again.visit(times=2)
        assert offsets(again.manifest()) == [(0, 23), (24, 26)]
        again.some_days_later()
        assert again.objects() == again.manifest().referenced()
        assert problems(archive) == []
        assert log_of(archive) == whole


class Interferes(FileStore):
    """Somebody else changes the manifest right before ours would be written: `changes`, one each time."""

    changes: list[Callable[[Manifest], Manifest]]

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        if self.changes and key.endswith("manifest.json"):
            change = self.changes.pop(0)
            theirs = Manifest.from_json((await super().get(key)).data)
            await super().put_if(key, change(theirs).to_json(), (await super().get(key)).version)
        return await super().put_if(key, data, version)


def interferes(*changes: Callable[[Manifest], Manifest]) -> Callable[[Path], FileStore]:
    def opened(root: Path) -> FileStore:
        store = Interferes(root)
        store.changes = list(changes)
        return store

    return opened


def test_a_merge_follows_what_a_copier_commits(tmp_path: Path) -> None:
    archive, other = small_segments(tmp_path), tmp_path / "other"
    other.mkdir()
    following = Archive(other).add(batch(36, [b"following"]), after=0).manifest.segments[0]
    house = House(archive)
    changes = [lambda manifest: manifest.with_segment(following, []), lambda manifest: manifest.with_start(2)]
    assert house.visit(opened=interferes(*changes))
    manifest = house.manifest()
    assert offsets(manifest) == [(0, 32), (33, 35), (36, 36)]
    assert (manifest.start_offset, manifest.end_offset) == (2, 37)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.with_fence(),
        lambda manifest: manifest.with_start(3),
        lambda manifest: manifest.with_start(1000),
    ],
    ids=["a fence", "a part is gone", "all is gone"],
)
def test_a_merge_gives_way(tmp_path: Path, change: Callable[[Manifest], Manifest]) -> None:
    archive = small_segments(tmp_path)
    house = House(archive)
    expected = change(archive.manifest)
    house.visit(opened=interferes(change))
    assert house.manifest() == expected
    assert house.told == []


def test_a_merge_is_not_named_in_an_archive_that_does_not_have_it(tmp_path: Path) -> None:
    """The partition is moved to another archive between the merge and its naming."""
    archive = small_segments(tmp_path)
    house, pid = House(archive), archive.pid
    places = {"a": archive.root, "b": tmp_path / "b"}

    def both() -> dict[str, Library]:
        libraries = {name: Library(FileStore(place), CLUSTER) for name, place in places.items()}
        for name, library in libraries.items():
            library.stand_beside(name, libraries)
        return libraries

    class Moves(FileStore):
        moved = False

        async def put_if(self, key: str, data: bytes, version: str | None) -> str:
            if not self.moved:
                self.moved = True
                others = both()
                await Move(others["a"], others["b"], pid).run()
                for each in others.values():
                    await each.store.close()
            return await super().put_if(key, data, version)

    async def run() -> None:
        libraries = both()
        await libraries["a"].store.close()
        libraries["a"].store = Moves(places["a"])
        await house.housekeeper.visit(Charge(pid, house.policy, "a", libraries["a"], ALL_TRIMMED))
        found = await libraries["a"].load(pid)
        assert found is not None
        assert libraries["a"].home(pid) is libraries["b"]
        assert len(found.manifest.segments) == SMALL
        for entry in found.manifest.segments:
            assert await libraries["b"].read_back(pid, entry) is None
        assert await house.housekeeper.visit(Charge(pid, house.policy, "a", libraries["a"], ALL_TRIMMED)), "there"
        found = await libraries["a"].load(pid)
        assert found is not None
        assert offsets(found.manifest) == [(0, 32), (33, 35)]
        for library in libraries.values():
            await library.store.close()

    asyncio.run(run())


class LosesAnswers(FileStore):
    """Conditional writes happen, but are reported as not having happened."""

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        await super().put_if(key, data, version)
        raise Unavailable("the answer was lost")


def test_a_merge_whose_answer_was_lost_is_found_by_the_next_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = small_segments(tmp_path)
    house, whole = House(archive), log_of(archive)
    assert not house.visit(opened=LosesAnswers)
    assert "archive local can't be kept in order: the answer was lost; trying again" in caplog.text
    assert not house.visit()
    assert offsets(house.manifest()) == [(0, 32), (33, 35)]
    assert log_of(archive) == whole


def test_on_s3_as_well(tmp_path: Path, s3: S3Server) -> None:
    """The same in a bucket: merged, the garbage removed, and every batch as it was."""
    archive, bucket = small_segments(tmp_path), f"b{uuid4().hex}"
    s3.make_bucket(bucket)
    place = S3Place(bucket, "some/prefix/", "us-east-1", s3.endpoint_url, "kit", "kit-secret")
    house, whole = House(archive), log_of(archive)

    async def in_bucket(work: Callable[[S3Store], Awaitable[None]]) -> None:
        store = S3Store(place, pauses=(0.01, 0.02))
        try:
            await work(store)
        finally:
            await store.close()

    async def move_there(store: S3Store) -> None:
        for file in archive.folder.iterdir():
            if not file.name.startswith("."):
                await store.put(str(file.relative_to(archive.root)), file.read_bytes())

    async def move_back(store: S3Store) -> None:
        for file in archive.folder.iterdir():
            file.unlink()
        async for each in store.list(""):
            (archive.root / each.key).write_bytes((await store.get(each.key)).data)

    asyncio.run(in_bucket(move_there))
    assert house.visit(opened=lambda _: S3Store(place, pauses=(0.01, 0.02)))
    house.clock.set_now_ms(SystemClock().now_ms())
    for _ in range(3):
        house.clock.advance(DAY_MS / 1000)
        house.visit(opened=lambda _: S3Store(place, pauses=(0.01, 0.02)))
    asyncio.run(in_bucket(move_back))
    assert offsets(house.manifest()) == [(0, 32), (33, 35)]
    assert house.objects() == house.manifest().referenced()
    assert log_of(archive) == whole
    assert problems(archive) == []


# ---- expiry --------------------------------------------------------------------------------------------------


def test_what_expires_is_gone_from_the_manifest_first_and_from_the_store_later(tmp_path: Path) -> None:
    archive = small_segments(tmp_path)
    old, size = archive.manifest, archive.manifest.segments[-1].plain_size
    house = House(archive, archiver={"merge": False}, keep_in_archive={"bytes": f"{3 * size}B"})
    expired = sample("expired_bytes")
    house.visit()
    manifest = house.manifest()
    assert (manifest.start_offset, manifest.end_offset, len(manifest.segments)) == (27, 36, 3)
    assert house.told == [manifest]
    assert sample("expired_bytes") == expired + sum(entry.plain_size for entry in old.segments[:9])
    assert house.objects() == old.referenced(), "for readers who know only the older manifest"
    removed = sample("garbage_removed")
    house.some_days_later()
    assert house.objects() == house.manifest().referenced()
    assert sample("garbage_removed") == removed + 9
    assert problems(archive) == []


def test_what_the_broker_still_holds_does_not_expire(tmp_path: Path) -> None:
    house = House(small_segments(tmp_path), archiver={"merge": False}, keep_in_archive={"time": "1s"})
    for log_start, start in ((-1, 0), (0, 0), (5, 3), (5, 3), (6, 6), (36, 36)):
        house.visit(log_start)
        assert house.manifest().start_offset == start
    assert (house.manifest().segments, house.manifest().end_offset) == ((), 36)


def test_forever_is_for_ever(tmp_path: Path) -> None:
    house = House(small_segments(tmp_path), archiver={"merge": False})
    house.clock.advance(1e10)
    house.visit()
    assert house.manifest().start_offset == 0


def test_expiry_looks_again_when_somebody_else_was_quicker(tmp_path: Path) -> None:
    archive = small_segments(tmp_path)
    size = archive.manifest.segments[-1].plain_size
    house = House(archive, archiver={"merge": False}, keep_in_archive={"bytes": f"{3 * size}B"})
    house.visit(opened=interferes(lambda manifest: manifest.with_start(5), lambda manifest: manifest.with_start(7)))
    assert house.manifest().start_offset == 27
    assert house.told == [house.manifest()]


# ---- garbage -------------------------------------------------------------------------------------------------


def test_garbage_is_looked_for_once_a_day(tmp_path: Path) -> None:
    house = House(small_segments(tmp_path))
    listed: list[str] = []

    class Counts(FileStore):
        async def list(self, prefix: str) -> Any:
            listed.append(prefix)
            async for each in super().list(prefix):
                yield each

    for _ in range(24 * 3):
        house.visit(opened=Counts)
        house.clock.advance(3600)
    assert len(listed) == 3


def test_where_nothing_may_be_deleted_nothing_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    house = House(small_segments(tmp_path), archiver={"garbage": {"delete": False}})
    house.visit()
    before, found = house.objects(), sample("garbage_found")
    house.some_days_later()
    assert house.objects() == before
    assert sample("garbage_found") > found
    assert "as archiver.garbage.delete is false" in caplog.text


def test_a_store_that_refuses_to_delete_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Keeps(FileStore):
        async def delete(self, key: str) -> None:
            raise Refused(f"{key}: access denied")

    caplog.set_level("INFO")
    house = House(small_segments(tmp_path))
    house.visit()
    before = house.objects()
    house.some_days_later(Keeps)
    assert house.objects() == before
    assert caplog.text.count("garbage can't be removed from archive local") == 1
    assert "or set archiver.garbage.delete to false" in caplog.text
    assert "can't be kept in order" not in caplog.text
    house.some_days_later()
    assert house.objects() == house.manifest().referenced()
    assert caplog.text.count("garbage can be removed from archive local again") == 1


def test_a_store_that_fails_is_a_trouble_until_it_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Down(FileStore):
        async def get(self, key: str) -> Any:
            raise Unavailable("the store is down")

    caplog.set_level("INFO")
    house = House(small_segments(tmp_path))
    house.visit(opened=Down, times=2)
    assert caplog.text.count("archive local can't be kept in order: the store is down") == 1
    house.visit()
    assert "archive local is kept in order again" in caplog.text
