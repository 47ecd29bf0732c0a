import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from types import CodeType

import pytest

from tests.kit.s3 import S3Server
from tests.kit.s3_faults import Relay, flip, flip_upload, no_fault, relay
from tests.unit.vectors import SEGMENT, SEGMENT_LOG
from tierproxy.archive.errors import ClusterMismatch, FormatError, UnknownVersionError
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, page_name, partition_prefix, segment_name
from tierproxy.archive.pages import Paging
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.segment_index import read_index
from tierproxy.archive.store import Conflict, NotFound, Store, Truncated, Unavailable
from tierproxy.archive.store_s3 import S3Store

PID = PartitionId("flights", bytes.fromhex("33d08f38e4bd40ef86504602c0b936a7"), 0)
FOLDER = "prod/flights/M9CPOOS9QO-GUEYCwLk2pw/0/"
EMPTY = Manifest.empty("prod", "5L6g3nShT-eMCtK--X86sw", PID, 0)
ENTRY = SegmentEntry(
    key_name="00000000000000000000-00000000000000000034-a1.log.zst",
    base_offset=0,
    last_offset=34,
    stored_size=len(SEGMENT),
    plain_size=len(SEGMENT_LOG),
    index_size=436 + 40,
    records=35,
    min_timestamp=1357000000000,
    max_timestamp=1795412829985,
    sha256="0" * 64,
    created_ms=0,
)


@pytest.fixture
def library(store: Store) -> Library:
    return Library(store, "prod")


# -- manifests --------------------------------------------------------------------------------------------------------


async def test_a_manifest_is_saved_and_loaded(library: Library) -> None:
    assert await library.load(PID) is None
    saved = await library.save(PID, EMPTY, None)
    assert await library.load(PID) == saved
    grown = await library.save(PID, EMPTY.with_segment(ENTRY, [(0, 0)]), saved.version)
    assert await library.load(PID) == grown == VersionedManifest(EMPTY.with_segment(ENTRY, [(0, 0)]), grown.version)
    assert json.loads((await library.store.get(FOLDER + "manifest.json")).data)["end_offset"] == 35


async def test_what_has_not_changed_is_not_read_again(library: Library, store: Store) -> None:
    saved = await library.save(PID, EMPTY, None)
    assert await library.load(PID) is saved
    other = Library(store, "prod")
    found = await other.load(PID)
    assert found == saved
    assert await other.load(PID) is found
    changed = await other.save(PID, EMPTY.with_start(5), saved.version)
    assert await library.load(PID) == changed
    with pytest.raises(Conflict):
        await library.save(PID, EMPTY.with_start(7), saved.version)
    assert await library.load(PID) == changed, "what could not be saved is not kept"


async def test_what_is_kept_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierproxy.archive.library.KEPT_BYTES", 2 * len(EMPTY.to_json()))
    library = Library(store, "prod")
    pids = [replace(PID, partition=number) for number in range(3)]
    saved = [await library.save(pid, replace(EMPTY, partition=pid.partition), None) for pid in pids]
    assert await library.load(pids[1]) is saved[1]
    first = await library.load(pids[0])
    assert first == saved[0]
    assert first is not saved[0], "the third had taken its place"
    assert await library.load(pids[1]) is saved[1], "used since"
    assert await library.load(pids[2]) is not saved[2]


async def test_a_manifest_beyond_the_bound_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierproxy.archive.library.KEPT_BYTES", 10)
    library = Library(store, "prod")
    saved = await library.save(PID, EMPTY, None)
    assert await library.load(PID) == saved


@pytest.mark.parametrize(("segments", "here"), [(1, True), (1000, False)])
async def test_long_manifests_do_not_hold_up_the_event_loop(store: Store, segments: int, here: bool) -> None:
    names = [segment_name(10 * n, 10 * n + 9, "a1") for n in range(segments)]
    entries = [
        replace(ENTRY, key_name=name, base_offset=10 * n, last_offset=10 * n + 9) for n, name in enumerate(names)
    ]
    manifest = replace(EMPTY, segments=tuple(entries), end_offset=10 * segments)
    paging = Paging(root_most=1000)
    run: set[CodeType] = set()
    sys.setprofile(lambda frame, event, arg: run.add(frame.f_code))  # of this thread
    try:
        saved = await Library(store, "prod", paging=paging).save(PID, manifest, None)
        assert await Library(store, "prod").load(PID) == saved
    finally:
        sys.setprofile(None)
    assert (Manifest.to_json.__code__ in run) is here
    assert (Manifest.from_json.__code__ in run) is here


async def test_who_saves_by_an_old_version_loses(library: Library) -> None:
    first = await library.save(PID, EMPTY, None)
    with pytest.raises(Conflict):
        await library.save(PID, EMPTY.with_start(9), None)
    second = await library.save(PID, EMPTY.with_start(5), first.version)
    with pytest.raises(Conflict):
        await library.save(PID, EMPTY.with_start(7), first.version)
    assert await library.load(PID) == second


async def test_partitions_do_not_meet(library: Library) -> None:
    others = [replace(PID, partition=1), replace(PID, topic="trains"), replace(PID, topic_id=bytes(16))]
    await library.save(PID, EMPTY, None)
    for pid in others:
        assert await library.load(pid) is None
        await library.save(pid, Manifest.empty("prod", "id", pid, 7), None)
    assert {pid async for pid in library.partitions()} == {PID, *others}
    assert await library.load(PID) == await library.load(PID)


@pytest.mark.parametrize(
    "other",
    [
        Manifest.empty("staging", "id", PID, 0),
        Manifest.empty("prod", "id", replace(PID, partition=1), 0),
        Manifest.empty("prod", "id", replace(PID, topic="trains"), 0),
        Manifest.empty("prod", "id", replace(PID, topic_id=bytes(16)), 0),
    ],
)
async def test_a_manifest_in_the_wrong_place_is_refused(library: Library, other: Manifest) -> None:
    with pytest.raises(FormatError, match=f"not of {PID}"):
        await library.save(PID, other, None)
    await library.store.put(FOLDER + "manifest.json", other.to_json())
    with pytest.raises(FormatError, match=f"not of {PID}"):
        await library.load(PID)


async def test_a_manifest_that_cannot_be_read_says_where_it_is(library: Library) -> None:
    key = FOLDER + "manifest.json"
    await library.store.put(key, b"{}")
    with pytest.raises(FormatError, match=key):
        await library.load(PID)
    await library.store.put(key, EMPTY.to_json().replace(b'"version": 2', b'"version": 3'))
    with pytest.raises(UnknownVersionError, match=f"{key}.*version 3"):
        await library.load(PID)


async def test_only_manifests_in_their_place_are_partitions(library: Library) -> None:
    assert [pid async for pid in library.partitions()] == []
    await library.claim("id")
    await library.save(PID, EMPTY, None)
    for key in (
        "prod/manifest.json",
        "prod/flights/manifest.json",
        "prod/flights/some-folder/0/manifest.json",
        FOLDER + "manifest/manifest.json",
        FOLDER + ENTRY.key_name,
        "prod-2/flights/M9CPOOS9QO-GUEYCwLk2pw/0/manifest.json",
    ):
        await library.store.put(key, b"x")
    assert [pid async for pid in library.partitions()] == [PID]


async def test_a_partition_whose_manifest_is_lost_shows_by_its_segments(library: Library) -> None:
    others = [replace(PID, partition=number) for number in (1, 2)]
    await library.store.put(library.segment_key(PID, ENTRY), SEGMENT)
    await library.store.put(library.segment_key(others[0], ENTRY), SEGMENT)
    await library.save(others[0], replace(EMPTY, partition=1), None)
    await library.store.put(partition_prefix("prod", others[1]) + page_name(0, 9, "a"), b"x")
    assert [pid async for pid in library.partitions()] == [PID, others[0]]
    assert [name async for name, _ in library.objects(others[0])] == [ENTRY.key_name, "manifest.json"]


# -- whose archive it is ----------------------------------------------------------------------------------------------


async def test_the_first_cluster_owns_the_archive(library: Library, store: Store) -> None:
    await library.claim("cluster-1")
    await library.claim("cluster-1")
    with pytest.raises(ClusterMismatch, match=r"cluster-1.*cluster-2"):
        await library.claim("cluster-2")
    await Library(store, "staging").claim("cluster-2")


async def test_the_record_is_stored_like_this_for_ever(library: Library) -> None:
    await library.claim("5L6g3nShT-eMCtK--X86sw")
    assert (await library.store.get("prod/cluster.json")).data == (
        b'{\n  "format": "tierproxy-cluster",\n  "version": 1,\n  "cluster": "prod",\n'
        b'  "cluster_id": "5L6g3nShT-eMCtK--X86sw",\n'
        b'  "checksum": "sha256:4ece0a8368a8f2149f42dc6dac53eec697e74d1db0a1e1b8a54863ff0bd3004c"\n}\n'
    )


async def test_of_two_clusters_that_race_one_owns_the_archive(library: Library) -> None:
    claims = [library.claim(f"cluster-{i % 2}") for i in range(8)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(result is None for result in results) == 4
    assert sum(isinstance(result, ClusterMismatch) for result in results) == 4


@pytest.mark.parametrize("record", [b"", b"{}", b'{"format": "tierproxy-cluster", "version": 1, "cluster": "prod"}'])
async def test_a_record_that_cannot_be_read_is_not_replaced(library: Library, record: bytes) -> None:
    await library.store.put("prod/cluster.json", record)
    with pytest.raises(FormatError, match=r"prod/cluster\.json"):
        await library.claim("cluster-1")
    assert (await library.store.get("prod/cluster.json")).data == record


# -- bits that turn over on the way ----------------------------------------------------------------------------------


@pytest.fixture
async def way(s3: S3Server) -> AsyncIterator[Relay]:
    async with relay(s3.endpoint_url) as one:
        yield one


@pytest.fixture
async def far(s3_place: S3Place, way: Relay) -> AsyncIterator[Library]:
    store = S3Store(replace(s3_place, endpoint_url=way.endpoint_url))
    yield Library(store, "prod")
    await store.close()


async def test_a_document_that_comes_damaged_is_read_again(far: Library, way: Relay) -> None:
    saved = await far.save(PID, EMPTY, None)
    await far.claim("id")
    fresh = Library(far.store, "prod")
    way.faults = [flip, flip]
    assert await fresh.load(PID) == saved
    way.faults = [flip, flip]
    assert await fresh.owner() == "id"


async def test_a_document_that_always_comes_damaged_is_told(far: Library, way: Relay) -> None:
    await far.save(PID, EMPTY, None)
    way.faults = [flip] * 3
    with pytest.raises(FormatError, match=r"manifest\.json"):
        await Library(far.store, "prod").load(PID)
    assert way.faults == []


async def test_a_manifest_that_arrives_damaged_is_written_again(far: Library, way: Relay) -> None:
    """moto takes what does not match the checksum in the header, as some stores do."""
    way.faults = [flip_upload]
    saved = await far.save(PID, EMPTY, None)
    assert await Library(far.store, "prod").load(PID) == saved
    way.faults = [flip_upload, no_fault] * 3
    with pytest.raises(Unavailable, match="does not give back"):
        await far.save(PID, EMPTY.with_start(5), saved.version)


# -- segments ---------------------------------------------------------------------------------------------------------


async def test_a_segment_is_where_the_manifest_says(library: Library) -> None:
    key = library.segment_key(PID, ENTRY)
    assert key == FOLDER + ENTRY.key_name
    with pytest.raises(NotFound):
        await library.load_index(PID, ENTRY)
    await library.store.put(key, io.BytesIO(SEGMENT))
    assert await library.load_index(PID, ENTRY) == read_index(SEGMENT)


async def test_a_segment_that_is_not_what_the_manifest_says(library: Library) -> None:
    key = library.segment_key(PID, ENTRY)
    await library.store.put(key, SEGMENT[:-1])
    with pytest.raises(Truncated):
        await library.load_index(PID, ENTRY)
    await library.store.put(key, b"x" + SEGMENT[:-1])
    with pytest.raises(FormatError):
        await library.load_index(PID, ENTRY)
    await library.store.put(key, SEGMENT)
    with pytest.raises(FormatError, match="another segment"):
        await library.load_index(PID, replace(ENTRY, last_offset=33))
    other = replace(PID, partition=1)
    await library.store.put(library.segment_key(other, ENTRY), SEGMENT)
    with pytest.raises(FormatError, match="another segment"):
        await library.load_index(other, ENTRY)
