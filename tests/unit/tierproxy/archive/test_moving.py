"""A partition on its way between two archives, stopped, raced and watched at each of its steps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest

from tierproxy.archive.errors import ArchiveError, ClusterMismatch, FormatError
from tierproxy.archive.library import Library, VersionedManifest, VersionedMoved
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.moved import Moved, read_manifest
from tierproxy.archive.moving import CantMove, Move
from tierproxy.archive.names import PartitionId, segment_name
from tierproxy.archive.store import StoreError, Unavailable
from tierproxy.archive.store_file import FileStore

PID = PartitionId("flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 0)
EMPTY = Manifest.empty("prod", "cluster-id", PID, 0)


class Crash(Exception):
    """The process that moves is gone."""


async def _nothing(number: int) -> None:
    pass


@dataclass
class Steps:
    """Looks at each write to either store: `before` and `after` are told its number."""

    before: Callable[[int], Awaitable[None]] = _nothing
    after: Callable[[int], Awaitable[None]] = _nothing
    count: int = 0

    async def take(self, write: Awaitable[str | None]) -> str | None:
        self.count += 1
        number = self.count
        try:
            await self.before(number)
        except BaseException:
            write.close()  # type: ignore[attr-defined]  # it is a coroutine
            raise
        result = await write
        await self.after(number)
        return result


class Watched(FileStore):
    def __init__(self, root: Path, steps: Steps) -> None:
        super().__init__(root)
        self.steps = steps

    async def put(
        self, key: str, body: bytes | BinaryIO, storage_class: str | None = None, sha256: str | None = None
    ) -> None:
        await self.steps.take(super().put(key, body, storage_class, sha256))

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        stored = await self.steps.take(super().put_if(key, data, version))
        assert stored is not None
        return stored


@dataclass
class World:
    """Archives a, b and c in directories, opened anew by everybody who works with them."""

    directory: Path
    opened: list[FileStore] = field(default_factory=list)

    def libraries(self, steps: Steps | None = None) -> dict[str, Library]:
        found: dict[str, Library] = {}
        for name in ("a", "b", "c"):
            store = Watched(self.directory / name, steps or Steps())
            self.opened.append(store)
            found[name] = Library(store, "prod")
            found[name].stand_beside(name, found)
        return found

    async def archive(self, policy: str = "a", count: int = 10) -> Manifest:
        """What an archiver does whose policy names that archive: one more segment."""
        library = self.libraries()[policy]
        found = await library.load(PID)
        manifest = found.manifest if found is not None else EMPTY
        first = manifest.end_offset
        data = f"records from {first} on".encode() * 100
        name = segment_name(first, first + count - 1, "t")
        entry = SegmentEntry(
            name, first, first + count - 1, len(data), 1000, 10, count, 1, 2, sha256(data).hexdigest(), 3
        )
        await library.home(PID).store.put(library.segment_key(PID, entry), data)
        grown = manifest.with_segment(entry, [(0, first)])
        return (await library.save(PID, grown, found.version if found is not None else None)).manifest

    async def truth(self) -> Manifest:
        """What a reader finds, whichever of the two archives its policy names; all objects are there."""
        seen = []
        for policy in ("a", "b"):
            library = self.libraries()[policy]
            found = await library.load(PID)
            assert found is not None
            for entry in found.manifest.segments:
                data = await library.home(PID).store.get_range(library.segment_key(PID, entry), 0, entry.stored_size)
                assert sha256(data).hexdigest() == entry.sha256
            seen.append(found.manifest)
        assert seen[0].segments == seen[1].segments
        return seen[0]

    async def close(self) -> None:
        for store in self.opened:
            await store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    for _ in range(3):
        await world.archive()
    yield world
    await world.close()


async def move(libraries: dict[str, Library], source: str = "a", target: str = "b") -> Manifest:
    return await Move(libraries[source], libraries[target], PID).run()


# -- a move -----------------------------------------------------------------------------------------------------------


async def test_a_partition_is_moved(world: World) -> None:
    before = await world.truth()
    moved = await move(world.libraries())
    assert moved == replace(before.with_fence(), generation=before.generation + 2) == await world.truth()
    libraries = world.libraries()
    here, there = await libraries["a"].look(PID), await libraries["b"].look(PID)
    assert isinstance(here, VersionedMoved)
    assert here.moved == Moved("b", "")
    assert isinstance(there, VersionedManifest)
    assert await libraries["b"].owner() == "cluster-id"
    after = await world.archive("a")
    assert after.end_offset == before.end_offset + 10
    assert await world.truth() == after


async def test_moving_what_was_moved_changes_nothing(world: World) -> None:
    moved = await move(world.libraries())
    steps = Steps()
    assert await move(world.libraries(steps)) == moved
    assert steps.count == 0


async def test_there_and_back_and_on(world: World) -> None:
    for source, target in [("a", "b"), ("b", "a"), ("a", "b"), ("b", "c"), ("c", "a")]:
        before = await world.truth()
        await move(world.libraries(), source, target)
        assert (await world.truth()).segments == before.segments
        await world.archive(source)
        await world.archive(target)
    assert (await world.truth()).end_offset == 130


async def test_the_policy_may_be_changed_first(world: World) -> None:
    """Then the archive goes on where it is, instead of beginning anew in the other store."""
    before = await world.truth()
    after = await world.archive("b")
    assert after.segments[:3] == before.segments
    assert not (world.directory / "b").exists()
    await move(world.libraries())
    assert (await world.truth()).segments == after.segments


# -- stopped at any moment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, 9))
async def test_a_crash_leaves_one_truth_and_the_move_goes_on(world: World, step: int, done: bool) -> None:
    before = await world.truth()

    async def crash(number: int) -> None:
        if number == step:
            raise Crash

    steps = Steps(after=crash) if done else Steps(before=crash)
    with pytest.raises(Crash):
        await move(world.libraries(steps))
    assert (await world.truth()).segments == before.segments
    grown = await world.archive("a" if step % 2 else "b")  # who archives finds it too, by either policy
    assert (await world.truth()).segments == grown.segments
    await move(world.libraries())
    assert (await world.truth()).segments == grown.segments
    assert isinstance(await world.libraries()["b"].look(PID), VersionedManifest)


async def test_a_move_has_eight_writes(world: World) -> None:
    """As many as the test above stops at: the claim, the announcement, three segments, and three that end it."""
    steps = Steps()
    await move(world.libraries(steps))
    assert steps.count == 8


@pytest.mark.parametrize("step", range(1, 9))
async def test_readers_find_the_truth_at_each_step(world: World, step: int) -> None:
    before = await world.truth()

    async def look(_: int) -> None:
        assert (await world.truth()).segments == before.segments

    await move(world.libraries(Steps(before=look, after=look)))


@pytest.mark.parametrize("policy", ["a", "b"])
@pytest.mark.parametrize("step", range(1, 9))
async def test_what_is_archived_meanwhile_is_moved_too(world: World, step: int, policy: str) -> None:
    async def grow(number: int) -> None:
        if number == step:
            await world.archive(policy)

    moved = await move(world.libraries(Steps(before=grow)))
    assert [entry.base_offset for entry in moved.segments][:3] == [0, 10, 20]
    assert (await world.truth()).end_offset == 40


async def test_what_is_deleted_meanwhile_stays_deleted(world: World) -> None:
    async def delete(number: int) -> None:
        if number == 4:
            library = world.libraries()["a"]
            found = await library.load(PID)
            assert found is not None
            await library.save(PID, found.manifest.with_start(25), found.version)
            for entry in found.manifest.segments[:2]:
                await library.store.delete(library.segment_key(PID, entry))

    moved = await move(world.libraries(Steps(before=delete)))
    assert (moved.start_offset, len(moved.segments)) == (25, 1)
    assert await world.truth() == moved


async def test_an_archiver_that_has_uploaded_to_the_old_archive_begins_again(world: World) -> None:
    """Its commit conflicts, and what it then loads says where to go on."""
    library = world.libraries()["a"]
    found = await library.load(PID)
    assert found is not None
    await move(world.libraries())
    with pytest.raises(StoreError):
        await library.save(PID, found.manifest.with_start(5), found.version)
    again = await library.load(PID)
    assert again is not None
    assert library.home(PID).name == "b"
    await library.save(PID, again.manifest.with_start(5), again.version)
    assert (await world.truth()).start_offset == 5


async def test_two_at_once_do_no_harm(world: World) -> None:
    before = await world.truth()
    results = await asyncio.gather(*(move(world.libraries()) for _ in range(4)), return_exceptions=True)
    assert all(isinstance(each, Manifest | CantMove) for each in results), results
    await move(world.libraries())
    assert (await world.truth()).segments == before.segments


# -- what can't be moved ----------------------------------------------------------------------------------------------


async def test_nothing_is_moved_over_another_archive(world: World) -> None:
    libraries = world.libraries()
    await libraries["b"].put_manifest(PID, EMPTY, None)
    with pytest.raises(CantMove, match="'a' and in 'b' as well"):
        await move(libraries)


async def test_nothing_is_moved_into_another_clusters_archive(world: World) -> None:
    libraries = world.libraries()
    await libraries["b"].claim("another")
    with pytest.raises(ClusterMismatch):
        await move(libraries)
    assert await libraries["b"].look(PID) is None


async def test_what_is_not_there_is_not_moved(world: World) -> None:
    with pytest.raises(CantMove, match="nothing of it is there"):
        await move(world.libraries(), "b", "c")
    await move(world.libraries())
    with pytest.raises(CantMove, match="it was moved to 'b'"):
        await move(world.libraries(), "a", "c")


async def test_damaged_objects_are_not_moved(world: World) -> None:
    before = await world.truth()
    (damaged,) = (world.directory / "a").rglob(before.segments[1].key_name)
    data = damaged.read_bytes()
    damaged.write_bytes(b"x" + data[1:])
    with pytest.raises(FormatError, match="in archive 'a' is damaged"):
        await move(world.libraries())
    damaged.write_bytes(data)
    await move(world.libraries())
    assert (await world.truth()).segments == before.segments


async def test_objects_that_arrived_damaged_are_copied_again(world: World) -> None:
    before = await world.truth()
    libraries = world.libraries()
    key = libraries["a"].segment_key(PID, before.segments[1])
    await libraries["b"].store.put(key, bytes(before.segments[1].stored_size))
    await move(libraries)
    assert (await world.truth()).segments == before.segments


# -- being led --------------------------------------------------------------------------------------------------------


async def test_an_archive_that_is_not_configured_is_named(world: World) -> None:
    await move(world.libraries())
    store = FileStore(world.directory / "a")
    alone = Library(store, "prod")
    alone.stand_beside("a", {"a": alone})
    with pytest.raises(ArchiveError, match="'b', which is not in this configuration: add it"):
        await alone.load(PID)
    await store.close()


async def test_a_new_archive_that_is_not_mounted_is_no_empty_one(world: World) -> None:
    await move(world.libraries())
    (world.directory / "b").rename(world.directory / "elsewhere")
    with pytest.raises(FormatError, match="moved to archive 'b', but nothing of it is there"):
        await world.libraries()["a"].load(PID)


async def test_archives_that_point_at_each_other_are_told(world: World) -> None:
    libraries = world.libraries()
    found = await libraries["a"].look(PID)
    assert isinstance(found, VersionedManifest)
    await libraries["a"].put_moved(PID, Moved("b", "x", found.manifest), found.version)
    await libraries["b"].put_moved(PID, Moved("a", "y"), None)
    with pytest.raises(Unavailable, match="point at each other"):
        await libraries["a"].load(PID)
    with pytest.raises(CantMove, match="point at each other"):
        await move(libraries)


async def test_nothing_begins_anew_while_another_archive_can_not_be_seen(world: World) -> None:
    libraries = world.libraries()
    (world.directory / "a" / "prod").rename(world.directory / "a" / "away")
    (world.directory / "a" / "prod").symlink_to(world.directory / "a" / "prod")  # which leads nowhere for ever
    with pytest.raises(Unavailable, match=r"not in archive 'b', and whether it is in 'a' can't be seen.*take it out"):
        await libraries["b"].load(PID)
    (world.directory / "a" / "prod").unlink()
    (world.directory / "a" / "away").rename(world.directory / "a" / "prod")
    assert await libraries["b"].load(PID) is not None


async def test_of_two_other_archives_nobody_says_which_counts(world: World) -> None:
    libraries = world.libraries()
    await libraries["c"].put_manifest(PID, EMPTY.with_start(5), None)
    with pytest.raises(FormatError, match="in 'a' and in 'c', and nothing says which counts"):
        await libraries["b"].load(PID)


@pytest.mark.parametrize("depth", [500, 900, 950, 990, 2000, 100_000])
def test_what_is_too_deep_is_no_document(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    for text in (
        f'{{\n  "format": "tierproxy-moved", "version": 1, "to": "b", "move": "", "manifest": {nested}}}',
        f'{{"format": "tierproxy-manifest", "version": 1, "checksum": "", "gaps": {nested}}}',
    ):
        with pytest.raises(FormatError):
            read_manifest(text.encode())


def test_the_stored_form() -> None:
    moved = Moved("b", "0f3a", EMPTY)
    assert Moved.from_json(moved.to_json()) == moved
    assert Moved("b", "").to_json() == (
        b'{\n  "format": "tierproxy-moved",\n  "version": 1,\n  "to": "b",\n  "move": "",\n  "manifest": null,\n'
        b'  "checksum": "sha256:241eaab41e5b06f61bf2921ed7e316f3546c5bd1b09b274645b209029db11c53"\n}\n'
    )
