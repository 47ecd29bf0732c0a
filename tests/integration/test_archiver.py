"""The archiver alone, in this process, on a real Kafka: what it keeps, what it refuses, when it trims.

What readers see of it is shown by the other files here; kill -9 is in test_crashes, and every order of crashes in
tests/unit/tierproxy/tiering/test_fsm_simulation.py.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from prometheus_client import REGISTRY

from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster as Kafka
from tests.kit.producing import Recorder, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same, drafts
from tierproxy.access import service_access
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment_index import SegmentIndex
from tierproxy.archive.stores import open_store
from tierproxy.clock import SystemClock
from tierproxy.config.model import Config
from tierproxy.config.settings import Settings
from tierproxy.tasks import Tasks
from tierproxy.tiering.archiver import Archiver
from tierproxy.upstream import EARLIEST, LATEST, READ_COMMITTED, Cluster, TopicPartition, Unreachable

SEGMENT: dict[str, Any] = {"bytes": "16KiB", "age": "150ms"}
KEEP_NOTHING: dict[str, Any] = {"keep_on_broker": {"bytes": "0B"}}
KEEP_ALL: dict[str, Any] = {"trim": "never"}


@dataclass
class Scene:
    """What an archiver has done, as its observer heard it."""

    cluster: Cluster
    library: Library
    manifests: dict[tuple[str, int], Manifest] = field(default_factory=dict)
    trimmed_to: dict[tuple[str, int], int] = field(default_factory=dict)

    def committed(self, pid: PartitionId, manifest: Manifest) -> None:
        self.manifests[pid.topic, pid.partition] = manifest

    def trimmed(self, tp: TopicPartition, log_start: int) -> None:
        self.trimmed_to[tp.topic, tp.partition] = log_start

    async def archived(self, topic: str, end: int, partition: int = 0) -> Manifest:
        await eventually(lambda: self.end(topic, partition) >= end, f"{topic}-{partition} archived up to {end}")
        return self.manifests[topic, partition]

    def end(self, topic: str, partition: int = 0) -> int:
        manifest = self.manifests.get((topic, partition))
        return manifest.end_offset if manifest is not None else -1

    async def offset(self, topic: str, at: int, isolation: int = 0) -> int:
        tp = TopicPartition(topic, 0)
        return (await self.cluster.list_offsets({tp: at}, isolation))[tp].offset

    async def pid(self, topic: str) -> PartitionId:
        return PartitionId(topic, (await self.cluster.refresh([topic])).topics[topic].topic_id, 0)

    async def plain(self, manifest: Manifest) -> bytes:
        """The log that the archive holds."""
        out = b""
        for entry in manifest.segments:
            key = self.library.segment_key(manifest.pid, entry)
            stored = await self.library.store.get_range(key, 0, entry.stored_size)
            out += zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read()
        return out

    async def indexes(self, manifest: Manifest) -> list[SegmentIndex]:
        return [await self.library.load_index(manifest.pid, entry) for entry in manifest.segments]


async def eventually(probe: Callable[[], bool], what: str, seconds: float = 90) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not probe():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"no {what} within {seconds:g} s")


@pytest.fixture
def archiving(kafka: Kafka, tmp_path: Path) -> Callable[..., Any]:
    """`async with archiving(topic, **policy) as scene`: an archiver runs meanwhile. The archive outlives it."""

    @asynccontextmanager
    async def run(topic: str, on: Kafka = kafka, work: bool = True, **policy: Any) -> AsyncIterator[Scene]:
        config = Config.model_validate(
            {
                "cluster": {"name": "c", "bootstrap": on.bootstrap.split(",")},
                "listen": {"advertised_host": "localhost"},
                "archives": {"local": {"url": (tmp_path / "archive").as_uri()}},
                "topics": [{"match": topic, "archive": "local", "segment": SEGMENT, **policy}],
                "archiver": {"metadata_interval": "200ms", "fetch_wait": "50ms"},
            }
        )
        clock, tasks = SystemClock(), Tasks()
        cluster = Cluster(config.cluster.bootstrap, service_access(config.cluster.security), "tierproxy-test", clock)
        library = Library(open_store(config.archives["local"]), "c")
        scene = Scene(cluster, library)
        await cluster.start()
        if work:
            archiver = Archiver(Settings(config), cluster, {"local": library}, clock, tasks, scene)
            tasks.spawn(archiver.run(), "archiver")
        try:
            yield scene
        finally:
            await tasks.close()
            await cluster.close()
            await library.store.close()

    return run


def topic_with(kafka: Kafka, name: str, records: int, cleanup_policy: str = "delete") -> None:
    admin.create_topic(kafka.bootstrap, name, 1, retention_ms=-1, cleanup_policy=cleanup_policy)
    if records:
        produce(kafka.bootstrap, name, drafts(records, partition=0, seed=60))


def broker_log(kafka: Kafka, topic: str) -> bytes:
    return b"".join(file.read_bytes() for file in sorted((kafka.nodes[0].data / f"{topic}-0").glob("*.log")))


async def test_keeps_every_byte_and_trims_behind_it(kafka: Kafka, archiving: Callable[..., Any]) -> None:
    topic_with(kafka, "arc.all", 300)
    before = broker_log(kafka, "arc.all")
    async with archiving("arc.all", **KEEP_NOTHING) as scene:
        manifest = await scene.archived("arc.all", 300)
        assert len(manifest.segments) > 2
        assert (manifest.start_offset, manifest.cluster_id, manifest.gaps) == (0, kafka.cluster_id, ())
        assert await scene.plain(manifest) == before
        await eventually(lambda: scene.trimmed_to.get(("arc.all", 0)) == 300, "trimming")
        assert await scene.offset("arc.all", EARLIEST) == 300


async def test_goes_on_where_it_ended(kafka: Kafka, archiving: Callable[..., Any]) -> None:
    topic_with(kafka, "arc.again", 150)
    async with archiving("arc.again", **KEEP_ALL) as scene:
        first = await scene.archived("arc.again", 150)
    produce(kafka.bootstrap, "arc.again", drafts(150, partition=0, seed=61))
    async with archiving("arc.again", **KEEP_ALL) as scene:
        manifest = await scene.archived("arc.again", 300)
        assert manifest.segments[: len(first.segments)] == first.segments
        assert await scene.plain(manifest) == broker_log(kafka, "arc.again")


async def test_an_archive_begins_at_a_log_start_inside_a_batch(kafka: Kafka, archiving: Callable[..., Any]) -> None:
    topic_with(kafka, "arc.cut", 0)
    produce(kafka.bootstrap, "arc.cut", drafts(100, partition=0, seed=62), linger_ms=500, batch_size=1 << 20)
    tp = TopicPartition("arc.cut", 0)
    async with archiving("arc.cut", work=False) as scene:
        await scene.cluster.delete_records({tp: 37})
    async with archiving("arc.cut", **KEEP_ALL) as scene:
        manifest = await scene.archived("arc.cut", 100)
        assert manifest.start_offset == 37
        assert manifest.segments[0].base_offset == 0, "the batch is kept whole"


async def test_a_quiet_topic_is_archived_and_trimmed_by_age_alone(kafka: Kafka, archiving: Callable[..., Any]) -> None:
    """Nothing is written after the first moment: time alone closes the segment, and later lets the broker's go."""
    topic_with(kafka, "arc.quiet", 0)
    quiet = [replace(draft, timestamp=SystemClock().now_ms()) for draft in drafts(3, partition=0, seed=63)]
    produce(kafka.bootstrap, "arc.quiet", quiet)
    async with archiving("arc.quiet", keep_on_broker={"time": "3s"}) as scene:
        await scene.archived("arc.quiet", 3)
        assert await scene.offset("arc.quiet", EARLIEST) == 0
        await eventually(lambda: scene.trimmed_to.get(("arc.quiet", 0)) == 3, "trimming")


async def test_open_transactions_hold_the_archive_back(
    kafka: Kafka, archiving: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierproxy.tiering.lookout.STALL_AFTER", 0.1)
    topic_with(kafka, "arc.txn", 10)
    source = drafts(200, partition=0, seed=64)
    open_one, other = (Recorder(kafka.bootstrap, "arc.txn", transactional=True) for _ in range(2))
    async with archiving("arc.txn", **KEEP_NOTHING) as scene:
        await scene.archived("arc.txn", 10)
        open_one.begin()
        open_one.send([next(source) for _ in range(20)])
        open_one.flush()
        stable = await scene.offset("arc.txn", LATEST, READ_COMMITTED)
        other.begin()
        other.send([next(source) for _ in range(20)])
        other.abort()
        await eventually(lambda: scene.end("arc.txn") == stable == 10, "archive up to the last stable offset")
        await eventually(lambda: "--topic arc.txn --partition 0 --start-offset 10" in caplog.text, "word of who it is")
        assert caplog.text.count("arc.txn-0: the transaction that holds the archive back is of producer id") == 1
        assert (REGISTRY.get_sample_value("tierproxy_transaction_stall_seconds", {"topic": "arc.txn"}) or 0) > 0.1
        await asyncio.to_thread(open_one.abort)
        manifest = await scene.archived("arc.txn", 10 + 20 + 20 + 2)
        aborted = [each for index in await scene.indexes(manifest) for each in index.aborted]
        # The open one's records begin at 10; the other's lie behind them; both have their markers in the archive.
        assert {(each.first_offset) for each in aborted} == {10, 30}
        assert any(each.marker_offset is not None for each in aborted)


async def test_a_gap_is_recorded_and_the_archive_goes_on_behind_it(
    kafka: Kafka, archiving: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    topic_with(kafka, "arc.gap", 100)
    async with archiving("arc.gap", **KEEP_ALL) as scene:
        await scene.archived("arc.gap", 100)
    produce(kafka.bootstrap, "arc.gap", drafts(100, partition=0, seed=65))
    async with archiving("arc.gap", work=False) as scene:
        await scene.cluster.delete_records({TopicPartition("arc.gap", 0): 150})
    with caplog.at_level(logging.ERROR, "tierproxy.archiver"):
        # An hour's age: the segment behind the gap does not wait for it.
        async with archiving("arc.gap", **KEEP_ALL, segment={"bytes": "1MiB", "age": "1h"}) as scene:
            manifest = await scene.archived("arc.gap", 200)
    assert [(gap.start, gap.end) for gap in manifest.gaps] == [(100, 150)]
    assert "deleted before" in manifest.gaps[0].cause
    assert manifest.gap_at(120) is not None
    assert "arc.gap-0: offsets 100 to 149 are lost" in caplog.text


async def test_a_gap_that_the_broker_fills_again_is_withdrawn(
    kafka: Kafka, archiving: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The archive says more than the log has, and behind the last archived record only a gap: nothing is lost yet."""
    topic_with(kafka, "arc.lost", 100)
    async with archiving("arc.lost", **KEEP_ALL) as scene:
        await scene.archived("arc.lost", 100)
        pid = await scene.pid("arc.lost")
    async with archiving("arc.lost", work=False) as scene:
        found = await scene.library.load(pid)
        assert found is not None
        beyond = found.manifest.with_gap(Gap(100, 500, 0, "made up by this test"))
        await scene.library.save(pid, beyond, found.version)
    produce(kafka.bootstrap, "arc.lost", drafts(100, partition=0, seed=66))
    async with archiving("arc.lost", **KEEP_NOTHING) as scene:
        await eventually(lambda: scene.end("arc.lost") == 200, "archive of what was there")
        manifest = scene.manifests["arc.lost", 0]
        assert await scene.plain(manifest) == broker_log(kafka, "arc.lost")
        assert manifest.gaps == ()
        assert [each.gaps for each in manifest.quarantined] == [(Gap(100, 500, 0, "made up by this test"),)]
        assert await scene.offset("arc.lost", EARLIEST) == 0, "not trimmed so soon"


async def test_compacted_topics_are_skipped_with_one_line(
    kafka: Kafka, archiving: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    topic_with(kafka, "arc.kinds.compacted", 5, cleanup_policy="compact")
    topic_with(kafka, "arc.kinds.plain", 5)
    with caplog.at_level(logging.INFO, "tierproxy.archiver"):
        async with archiving("arc.kinds.*", **KEEP_NOTHING) as scene:
            await scene.archived("arc.kinds.plain", 5)
            produce(kafka.bootstrap, "arc.kinds.plain", drafts(5, partition=0, seed=67))
            await scene.archived("arc.kinds.plain", 10)
            assert ("arc.kinds.compacted", 0) not in scene.manifests
    assert caplog.text.count("arc.kinds.compacted") == 1
    assert "cleanup.policy=compact" in caplog.text


async def test_another_clusters_archive_is_refused(
    kafka: Kafka, archiving: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    topic_with(kafka, "arc.claimed", 5)
    async with archiving("arc.claimed", work=False) as scene:
        await scene.library.claim("another-cluster")
    async with archiving("arc.claimed", **KEEP_NOTHING) as scene:
        await eventually(lambda: "another-cluster" in caplog.text, "word of it")
        assert scene.manifests == {}
        assert await scene.offset("arc.claimed", EARLIEST) == 0


async def test_elections_clean_and_unclean(
    archiving: Callable[..., Any], caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader dies and its follower takes over: archiving goes on there. That one dies, too, and the first comes
    back without what it missed. What was archived of that is set aside, and the new history archived in its place, so
    that a reader of both tiers gets what the broker tells."""
    monkeypatch.setattr("tierproxy.tiering.fsm.REWOUND_REST_MS", 0)
    with Kafka(tmp_path / "kafka", nodes=3) as kafka:
        settings: dict[str, str | int] = {"retention_ms": -1, "unclean_leader_election_enable": "true"}
        admin.create_topic(kafka.bootstrap, "arc.led", 1, 2, **settings)
        before = produce(kafka.bootstrap, "arc.led", drafts(100, partition=0, seed=68))
        # Closed somewhat behind the first hundred, so that the two histories part in the middle of a segment.
        size = max(node.log_bytes("arc.led") for node in kafka.nodes)
        archive = {"segment": {"bytes": f"{size + size // 3}B", "age": "10m"}}
        async with archiving("arc.led", kafka, **KEEP_ALL, **archive) as scene:
            first = await leader(scene, "arc.led")
            kafka.nodes[first - 1].kill()
            second = await leader(scene, "arc.led", other_than=first)
            await asyncio.to_thread(produce, kafka.bootstrap, "arc.led", drafts(100, partition=0, seed=69))
            await eventually(lambda: scene.end("arc.led") > 100, "archive of both", seconds=90)
            whole = scene.manifests["arc.led", 0]
            assert [start for _, start in whole.epochs] == [0, 100]
            assert len(whole.segments) == 1

            kafka.nodes[second - 1].kill()
            await asyncio.to_thread(kafka.nodes[first - 1].restart)
            assert await leader(scene, "arc.led", other_than=second) == first
            await eventually(lambda: "are quarantined" in caplog.text, "word of it", seconds=90)
            assert "the same up to offset 100" in caplog.text
            manifest = scene.manifests["arc.led", 0]
            assert (manifest.end_offset, manifest.quarantined[0].segments) == (100, whole.segments)
            assert len(await scene.plain(manifest)) == size, "the same bytes up to where they part"
        # Now a log that is longer than the old one and says something else.
        after = await asyncio.to_thread(produce, kafka.bootstrap, "arc.led", drafts(300, partition=0, seed=70))
        truth = merged(before, after)
        policy = {"match": "arc.led", "archive": "local", "keep_on_broker": {"bytes": "0B"}, "segment": SEGMENT}
        archives = {"local": {"url": (tmp_path / "archive").as_uri()}}
        with Proxy(tmp_path / "proxy", kafka.bootstrap, [policy], archives=archives, cluster="c") as proxy:
            assert_same(truth, await asyncio.to_thread(READERS["librdkafka"], proxy.bootstrap, "arc.led", truth))
        async with archiving("arc.led", kafka, **KEEP_NOTHING) as scene:
            await eventually(lambda: scene.trimmed_to.get(("arc.led", 0)) == 400, "trimming", seconds=90)
            manifest = scene.manifests["arc.led", 0]
            assert [start for _, start in manifest.epochs] == [0, 100]
            for entry in manifest.quarantined[0].segments:
                assert await scene.library.store.size(scene.library.segment_key(manifest.pid, entry)) > 0
        with Proxy(tmp_path / "proxy", kafka.bootstrap, [policy], archives=archives, cluster="c") as proxy:
            assert_same(truth, await asyncio.to_thread(READERS["librdkafka"], proxy.bootstrap, "arc.led", truth))


async def leader(scene: Scene, topic: str, other_than: int = -1) -> int:
    """The topic's leader, once there is one and it is another one."""
    found = -1

    async def look() -> bool:
        nonlocal found
        with contextlib.suppress(Unreachable):
            found = (await scene.cluster.refresh([topic])).leader(TopicPartition(topic, 0))
        return found not in (-1, other_than)

    async with asyncio.timeout(60):
        while not await look():
            await asyncio.sleep(0.1)
    return found
