"""tierproxy.archive.collector on both stores: what is removed, what is not, and in which order."""

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.unit.tierproxy.archive.conftest import Open
from tests.unit.tierproxy.archive.memory import with_merged
from tierproxy.archive.collector import Collected, collect
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.moving import Move
from tierproxy.archive.names import PartitionId, garbage_key, partition_prefix, segment_name
from tierproxy.archive.pages import Paging
from tierproxy.archive.rewound import rewound
from tierproxy.archive.store import Conflict, NotFound, ObjectInfo, Store
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.upkeep import Sightings

PID = PartitionId("flights", bytes(range(16)), 0)
FOLDER = partition_prefix("prod", PID)
BODY = b"a segment"
DAY = 86_400_000
LATER = 1 << 50
"""A time at which everything written now is old."""


@pytest.fixture
def library(store: Store) -> Library:
    return Library(store, "prod")


def entry(base: int, tag: str = "a") -> SegmentEntry:
    name = segment_name(base, base, tag)
    return SegmentEntry(name, base, base, len(BODY), 1, 1, 1, 0, 0, sha256(BODY).hexdigest(), 0)


async def put(library: Library, name: str) -> None:
    await library.store.put(FOLDER + name, BODY)


async def archived(library: Library, count: int = 3) -> VersionedManifest:
    """Segments of an offset each, stored and named."""
    manifest = Manifest.empty("prod", "id", PID, 0)
    for base in range(count):
        await put(library, entry(base).key_name)
        manifest = manifest.with_segment(entry(base), [])
    return await library.save(PID, manifest, None)


async def names(library: Library) -> set[str]:
    return {each.key[len(FOLDER) :] async for each in library.store.list(FOLDER)}


async def load(library: Library) -> VersionedManifest:
    found = await library.load(PID)
    assert found is not None
    return found


async def test_only_what_nothing_needs_is_removed_and_after_the_grace_time(library: Library) -> None:
    found = await archived(library)
    await library.save(PID, found.manifest.with_start(1), found.version)
    dead = entry(7).key_name
    for name in (dead, "notes.txt"):
        await put(library, name)
    before = await names(library)
    garbage = {entry(0).key_name, dead}
    size = 2 * len(BODY)
    generation = (await load(library)).manifest.generation

    assert await collect(library, PID, LATER, DAY) == Collected(waiting=2, waiting_bytes=size)
    assert await collect(library, PID, LATER + DAY - 1, DAY) == Collected(waiting=2, waiting_bytes=size)
    assert await names(library) == before | {"garbage.json"}
    assert (await load(library)).manifest.generation == generation, "no fence without need"

    assert await collect(library, PID, LATER + DAY, DAY) == Collected(removed=2, removed_bytes=size)
    assert await names(library) == (before | {"garbage.json"}) - garbage
    manifest = (await load(library)).manifest
    assert (manifest.fence, manifest.generation) == (1, generation + 1)
    assert Sightings.from_json((await library.store.get(garbage_key("prod", PID))).data) == Sightings()
    assert await collect(library, PID, LATER + DAY, DAY) == Collected()


async def test_pages_and_what_is_quarantined_are_no_garbage(store: Store) -> None:
    """Nor what only a page names; the pages that a cut has taken into the root are."""
    library = Library(store, "prod", paging=Paging(root_most=2, root_keep=1, page_most=2))
    found = await archived(library, 7)
    assert len(found.manifest.pages) == 3
    before = await names(library)
    shorter = rewound(await library.unfolded(found.manifest, 3), 3, 0, 0, "elected")
    found = await library.save(PID, shorter, found.version)
    pages = {page.name for page in found.manifest.pages}
    left = {each for each in before if not each.startswith("manifest/")} | pages
    (quarantine,) = found.manifest.quarantined
    assert {each.key_name for each in quarantine.segments} == {entry(base).key_name for base in range(3, 7)}
    assert (await collect(library, PID, LATER, 0)).removed > 0
    assert await names(library) == left | {"garbage.json"}
    assert [each.base_offset async for each in library.segments((await load(library)).manifest)] == [0, 1, 2]


@pytest.mark.parametrize("when", ["before", "while it is listed"])
async def test_what_lies_elsewhere_by_now_is_left_alone(tmp_path: Path, when: str) -> None:
    async def opened() -> dict[str, Library]:
        libraries = {name: Library(FileStore(tmp_path / name), "prod") for name in ("old", "new")}
        for name, library in libraries.items():
            library.stand_beside(name, libraries)
        return libraries

    libraries, others = await opened(), await opened()
    old = libraries["old"]
    await archived(old)
    await put(old, entry(7).key_name)
    assert (await collect(old, PID, LATER, DAY)).waiting == 1
    before = await names(old)

    class Moves(FileStore):
        async def put_if(self, key: str, data: bytes, version: str | None) -> str:
            if when != "before" and key.endswith("manifest.json"):
                await Move(others["old"], others["new"], PID).run()
            return await super().put_if(key, data, version)

    await old.store.close()
    old.store = Moves(tmp_path / "old")
    if when == "before":
        await Move(others["old"], others["new"], PID).run()
    assert (await collect(old, PID, LATER + DAY, DAY)).removed == 0
    assert await names(old) == before
    found = await old.load(PID)
    assert found is not None
    assert (old.home(PID), found.manifest.fence) == (libraries["new"], 1), "the fence is the move's"
    for library in (*libraries.values(), *others.values()):
        await library.store.close()


async def test_what_was_written_lately_waits(library: Library) -> None:
    await archived(library)
    await put(library, entry(7).key_name)
    (about,) = [each async for each in library.store.list(FOLDER + entry(7).key_name)]
    for at in (about.modified_ms, about.modified_ms + DAY - 1):
        assert (await collect(library, PID, at, DAY)).waiting == 1
    assert "garbage.json" not in await names(library), "it is not seen to be garbage yet"


async def test_where_nothing_may_be_deleted_it_is_counted(library: Library) -> None:
    await archived(library)
    await put(library, entry(7).key_name)
    before = await names(library)
    assert await collect(library, PID, LATER, 0, delete=False) == Collected(ripe=1, ripe_bytes=len(BODY))
    assert await names(library) == before | {"garbage.json"}
    assert (await load(library)).manifest.fence == 0


async def test_a_look_leaves_no_trace(library: Library) -> None:
    await archived(library)
    await put(library, entry(7).key_name)
    before = await names(library)
    assert (await collect(library, PID, LATER, 0, delete=False, remember=False)).ripe == 1
    assert await names(library) == before


async def test_a_folder_without_a_manifest_is_left_alone(library: Library) -> None:
    await put(library, entry(7).key_name)
    assert await collect(library, PID, LATER, 0) == Collected()
    assert await names(library) == {entry(7).key_name}


async def test_a_list_of_garbage_that_can_not_be_read_is_begun_anew(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    await archived(library)
    await put(library, entry(7).key_name)
    await library.store.put(garbage_key("prod", PID), b"nonsense")
    assert (await collect(library, PID, LATER, DAY)).waiting == 1
    assert "it is begun anew" in caplog.text
    assert (await collect(library, PID, LATER + DAY, DAY)).removed == 1


# ---- the race: who comes back after the grace time ------------------------------------------------------------


@dataclass
class Interrupted:
    """A store that lets others act before chosen calls, and writes down what was called: `list`, `put_if`, `delete`."""

    store: Store
    steps: list[str] = field(default_factory=list)

    async def before(self, step: str) -> None:
        self.steps.append(step)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        await self.before("list")
        async for each in self.store.list(prefix):
            yield each

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        await self.before(f"put_if {key.rpartition('/')[2]}")
        return await self.store.put_if(key, data, version)

    async def delete(self, key: str) -> None:
        await self.before("delete")
        await self.store.delete(key)

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


async def test_the_fence_stands_between_the_listing_and_the_first_removal(store: Store) -> None:
    library = Library(store, "prod")
    await archived(library)
    for base in (7, 8):
        await put(library, entry(base).key_name)
    spied = Interrupted(store)
    await collect(Library(spied, "prod"), PID, LATER, 0)  # type: ignore[arg-type]  # the rest of it is the store's
    assert spied.steps == [
        "list",
        "put_if garbage.json",
        "put_if manifest.json",
        "delete",
        "delete",
        "put_if garbage.json",
    ]


@pytest.mark.parametrize("moment", ["list", "put_if garbage.json", "put_if manifest.json", "delete"])
async def test_an_archiver_that_wakes_up_has_its_segment_or_loses_its_commit(open_again: Open, moment: str) -> None:
    """It had verified a segment long ago, and commits at each moment of a collection that may remove it."""
    sleeper = Library(open_again(), "prod")
    known = await archived(sleeper)
    segment = entry(3)
    await put(sleeper, segment.key_name)
    committed: list[bool] = []

    class WakesUp(Interrupted):
        async def before(self, step: str) -> None:
            await super().before(step)
            if step == moment and not committed:
                try:
                    await sleeper.save(PID, known.manifest.with_segment(segment, []), known.version)
                    committed.append(True)
                except Conflict:
                    committed.append(False)

    await collect(Library(WakesUp(open_again()), "prod"), PID, LATER, 0)  # type: ignore[arg-type]
    assert committed == [moment != "delete"]
    there = segment.key_name in await names(sleeper)
    assert there is committed[0]
    assert (segment.key_name in (await load(sleeper)).manifest.referenced()) is committed[0]


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_when_nothing_that_is_named_is_missing(tmp_path: Path, seed: int) -> None:
    """Archivers, upkeep and collectors of several processes, whose steps mix in any order; nobody has any grace.

    Each archiver loads, uploads and commits, and may sleep for as long as it likes in between; a commit that meets
    another manifest is repeated only where it continues like the one that was known (as the publisher's).
    """
    chance, store = random.Random(seed), FileStore(tmp_path)
    first = Library(store, "prod")
    await archived(first, 1)
    tags = iter(range(10_000))

    async def archive() -> AsyncGenerator[None]:
        library = Library(store, "prod")
        while True:
            known = await load(library)
            yield
            segment = entry(known.manifest.end_offset, f"t{next(tags)}")
            await put(library, segment.key_name)
            yield
            for _ in range(3):
                try:
                    await library.save(PID, known.manifest.with_segment(segment, []), known.version)
                    break
                except Conflict:
                    found = await load(library)
                yield
                if not found.manifest.continues_like(known.manifest):
                    break
                known = found

    async def keep_in_order() -> AsyncGenerator[None]:
        library = Library(store, "prod")
        while True:
            known = await load(library)
            yield
            run = known.manifest.segments[:2]
            changed = known.manifest.with_start(known.manifest.start_offset + 1)
            if len(run) == 2 and chance.random() < 0.7:
                name = segment_name(run[0].base_offset, run[1].last_offset, f"m{next(tags)}")
                whole = sum(part.plain_size for part in run)
                merged = replace(run[0], key_name=name, last_offset=run[1].last_offset, plain_size=whole, records=whole)
                await put(library, name)
                changed = with_merged(known.manifest, run, merged)
                yield
            with suppress(Conflict):
                await library.save(PID, changed, known.version)
            yield

    class Slow(Interrupted):
        """Others have their turn between any two steps."""

        async def before(self, step: str) -> None:
            await turn()

    async def turn() -> None:
        for _ in range(chance.randrange(4)):
            await anext(chance.choice(others))

    others = [archive(), archive(), keep_in_order()]
    collector = Library(Slow(store), "prod")  # type: ignore[arg-type]
    for _ in range(8):
        await turn()
        await collect(collector, PID, LATER, 0)
        for name in (await load(first)).manifest.referenced():
            try:
                await first.store.size(FOLDER + name)
            except NotFound:
                pytest.fail(f"{name} is named and gone")
    for other in others:
        await other.aclose()
    await store.close()
