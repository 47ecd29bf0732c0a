"""What every store promises (see `store.Store`), asked of each: a directory, and moto's S3 over real HTTP."""

import asyncio
import io
import random
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from tests.unit.tierproxy.archive.conftest import Open
from tierproxy.archive.names import PartitionId, manifest_key, parse_key
from tierproxy.archive.store import Conflict, NotFound, Refused, Store, Truncated, prove_conditions

KEY = "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/0/manifest.json"
BIG = random.Random(1).randbytes(12_345_678)


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [found.key async for found in store.list(prefix)]


# -- reading what was written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", b"\x00\xff" * 5000, BIG], ids=["empty", "tiny", "small", "big"])
async def test_what_was_put_is_there(store: Store, body: bytes) -> None:
    await store.put(KEY, body)
    assert (await store.get(KEY)).data == body
    assert await store.size(KEY) == len(body)


async def test_other_openings_see_it(store: Store, open_again: Open) -> None:
    await store.put(KEY, b"hello")
    assert (await open_again().get(KEY)).data == b"hello"


async def test_put_replaces_what_is_there(store: Store) -> None:
    await store.put(KEY, b"a long first content")
    before = await store.get(KEY)
    await store.put(KEY, b"second")
    after = await store.get(KEY)
    assert after.data == b"second"
    assert after.version != before.version


def in_memory() -> BinaryIO:
    return io.BytesIO()


def spooled() -> BinaryIO:
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=1 << 20))


def named() -> BinaryIO:
    return cast(BinaryIO, tempfile.NamedTemporaryFile())


@pytest.mark.parametrize("make", [in_memory, spooled, named])
@pytest.mark.parametrize("start", [0, 777])
async def test_a_file_is_put_from_its_position_on_and_stays_open(
    store: Store, make: Callable[[], BinaryIO], start: int
) -> None:
    with make() as file:
        file.write(BIG)
        file.seek(start)
        await store.put(KEY, file)
        file.seek(0)
        assert file.read(3) == BIG[:3]
    assert (await store.get(KEY)).data == BIG[start:]


async def test_a_file_with_nothing_left_makes_an_empty_object(store: Store) -> None:
    await store.put(KEY, io.BytesIO(b""))
    assert (await store.get(KEY)).data == b""


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 10), (9, 10), (3, 7), (0, 0), (5, 5), (10, 10), (50, 50)])
async def test_ranges(store: Store, start: int, end: int) -> None:
    await store.put(KEY, b"0123456789")
    assert await store.get_range(KEY, start, end) == b"0123456789"[start:end]


@pytest.mark.parametrize(("start", "end"), [(0, 11), (9, 11), (10, 11), (50, 60)])
async def test_a_range_that_is_not_all_there(store: Store, start: int, end: int) -> None:
    await store.put(KEY, b"0123456789")
    with pytest.raises(Truncated):
        await store.get_range(KEY, start, end)


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (5, 4)])
async def test_what_is_no_range(store: Store, start: int, end: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        await store.get_range(KEY, start, end)


async def test_ranges_of_a_big_object(store: Store) -> None:
    await store.put(KEY, BIG)
    borders = [0, 1, 65_535, 65_536, 65_537, 1 << 20, 5_000_000, len(BIG) - 1, len(BIG)]
    pieces = await asyncio.gather(*(store.get_range(KEY, a, b) for a, b in pairwise(borders)))
    assert b"".join(pieces) == BIG


async def test_missing_objects(store: Store) -> None:
    for _ in range(2):  # before and after something lies beside it
        with pytest.raises(NotFound):
            await store.get(KEY)
        with pytest.raises(NotFound):
            await store.get_range(KEY, 0, 1)
        with pytest.raises(NotFound):
            await store.size(KEY)
        await store.put(KEY + ".x", b"beside")
    with pytest.raises(NotFound):
        await store.get("prod/flights")  # a beginning of a key is no key
    with pytest.raises(NotFound):
        await store.size("prod/flights")


# -- compare and swap ---------------------------------------------------------------------------------------------


async def test_the_first_version_may_not_be_there_before(store: Store) -> None:
    version = await store.put_if(KEY, b"one", None)
    assert await store.get(KEY) == await store.get(KEY)
    assert (await store.get(KEY)).version == version
    with pytest.raises(Conflict):
        await store.put_if(KEY, b"two", None)
    assert (await store.get(KEY)).data == b"one"


async def test_each_version_replaces_the_one_before(store: Store, open_again: Open) -> None:
    versions = [await store.put_if(KEY, b"0", None)]
    for i in range(1, 5):
        versions.append(await (store if i % 2 else open_again()).put_if(KEY, b"%d" % i, versions[-1]))
    assert len(set(versions)) == 5
    for old in versions[:-1]:
        with pytest.raises(Conflict):
            await store.put_if(KEY, b"late", old)
    assert (await store.get(KEY)).data == b"4"


async def test_a_version_of_something_that_is_gone(store: Store) -> None:
    version = await store.put_if(KEY, b"one", None)
    await store.delete(KEY)
    with pytest.raises(Conflict):
        await store.put_if(KEY, b"two", version)
    with pytest.raises(NotFound):
        await store.get(KEY)
    await store.put_if(KEY, b"three", None)


async def test_what_put_wrote_has_a_version_too(store: Store) -> None:
    await store.put(KEY, b"one")
    with pytest.raises(Conflict):
        await store.put_if(KEY, b"two", None)
    await store.put_if(KEY, b"two", (await store.get(KEY)).version)


async def race(stores: list[Store], round_number: int, version: str | None) -> list[str]:
    """All try to write at once, each something else; the new versions of those that won."""

    async def one(i: int, store: Store) -> str | None:
        try:
            return await store.put_if(KEY, b"round %d, writer %d" % (round_number, i), version)
        except Conflict:
            return None

    results = await asyncio.gather(*(one(i, store) for i, store in enumerate(stores)))
    return [version for version in results if version is not None]


async def test_of_sixteen_that_race_exactly_one_wins(open_again: Open) -> None:
    openings = [open_again() for _ in range(4)]
    stores = openings * 4
    version = None
    for round_number in range(5):
        winners = await race(stores, round_number, version)
        assert len(winners) == 1
        found = await stores[0].get(KEY)
        assert found.version == winners[0]
        version = found.version


async def test_of_many_that_create_the_same_exactly_one_wins(open_again: Open) -> None:
    results = await asyncio.gather(
        *(open_again().put_if(KEY, b"all the same", None) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_no_increment_is_lost_by_many_who_increment(open_again: Open) -> None:
    stores = [open_again() for _ in range(4)]
    await stores[0].put_if(KEY, b"0", None)

    async def increment(store: Store, times: int) -> None:
        while times:
            found = await store.get(KEY)
            try:
                await store.put_if(KEY, b"%d" % (int(found.data) + 1), found.version)
                times -= 1
            except Conflict:
                pass

    await asyncio.gather(*(increment(store, 5) for store in stores * 2))
    assert (await stores[0].get(KEY)).data == b"40"


async def test_a_reader_sees_one_whole_content_or_the_other(store: Store) -> None:
    contents = [bytes([i]) * 300_000 for i in range(6)]
    await store.put(KEY, contents[0])
    writing = asyncio.gather(*(store.put(KEY, content) for content in contents))
    while not writing.done():
        assert (await store.get(KEY)).data in contents
    await writing


# -- deleting and listing -------------------------------------------------------------------------------------------


async def test_deleting(store: Store) -> None:
    await store.put(KEY, b"x")
    await store.put(KEY + ".x", b"y")
    await store.delete(KEY)
    await store.delete(KEY)
    await store.delete("never/was/there")
    with pytest.raises(NotFound):
        await store.get(KEY)
    assert await keys(store) == [KEY + ".x"]


LISTED = sorted(
    ["a", "a-b/c", "a/b", "a/b-c", "a/b.c/d", "a/b/c", "a/b/d", "a/bc", "a0", "b/1", "b/10", "b/2", "c/x/y/z"]
    # "a" and "a/..." can't both be files
)[1:]


@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "a/b", "a/b/", "a/b/c", "a-", "b/1", "c/x/y/", "c/x/y/z", "c/x/y/zz", "nothing", "d/e/f"]
)
async def test_listing(store: Store, prefix: str) -> None:
    there = [key for key in LISTED if not any(other.startswith(key + "/") for other in LISTED)]
    await asyncio.gather(*(store.put(key, key.encode()) for key in there))
    found = [info async for info in store.list(prefix)]
    assert [info.key for info in found] == [key for key in there if key.startswith(prefix)]
    assert [info.size for info in found] == [len(info.key) for info in found]
    assert all(info.modified_ms > 1_600_000_000_000 for info in found)  # ms since 1970, not seconds


async def test_an_empty_store_has_nothing_to_list(store: Store) -> None:
    assert await keys(store) == []


# -- keys -----------------------------------------------------------------------------------------------------------

BAD_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".lock", "a/.tmp-1", "a b", "ä", "a\\b"]
BAD_KEYS += ["a\x00b", "a\nb", "a" * 256, "a/" * 600 + "a", "~/a", "a:b", "a?b"]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_what_is_no_key_is_never_used(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        await store.put(key, b"x")
    with pytest.raises(ValueError, match="no key"):
        await store.put_if(key, b"x", None)
    with pytest.raises(ValueError, match="no key"):
        await store.get(key)
    with pytest.raises(ValueError, match="no key"):
        await store.get_range(key, 0, 0)
    with pytest.raises(ValueError, match="no key"):
        await store.size(key)
    with pytest.raises(ValueError, match="no key"):
        await store.delete(key)


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", ".", "a/.", "a b"])
async def test_what_no_key_begins_with(store: Store, prefix: str) -> None:
    with pytest.raises(ValueError, match="no beginning"):
        await keys(store, prefix)


@pytest.mark.parametrize(
    "topic", ["..", ".", "../../../escape", "/absolute", "cluster.json", "a/b", "größe", "%2E%2E", "x" * 249, "a\x00b"]
)
async def test_topics_of_any_name_find_their_place(store: Store, tmp_path: Path, topic: str) -> None:
    pid = PartitionId(topic, bytes(16), 0)
    key = manifest_key("prod", pid)
    await store.put("prod/cluster.json", b"{}")
    await store.put_if(key, topic.encode(), None)
    assert (await store.get(key)).data == topic.encode()
    assert [parse_key(found)[1] for found in await keys(store) if found != "prod/cluster.json"] == [pid]
    assert [path.name for path in tmp_path.iterdir()] in ([], ["archive"])


# -- the check --------------------------------------------------------------------------------------------------------


async def test_the_check_passes_and_leaves_nothing_behind(store: Store) -> None:
    await store.put(KEY, b"x")
    await store.check()
    assert await keys(store) == [KEY]


async def test_the_check_may_be_made_by_many_at_once(open_again: Open) -> None:
    await asyncio.gather(*(open_again().check() for _ in range(4)))


class Careless:
    """A store that takes conditional writes and ignores the condition, as some S3 servers do."""

    def __init__(self, inner: Store, ignored: str) -> None:
        self._inner, self._ignored = inner, ignored

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def put_if(self, key: str, data: bytes, version: str | None) -> str:
        if (version is None) == (self._ignored == "If-None-Match"):
            await self._inner.put(key, data)
            return (await self._inner.get(key)).version
        return await self._inner.put_if(key, data, version)


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
async def test_the_check_finds_out_who_ignores_conditions(store: Store, ignored: str) -> None:
    with pytest.raises(Refused, match=rf"ignores conditional writes \({ignored}"):
        await prove_conditions(cast(Store, Careless(store, ignored)))
    assert await keys(store) == []
