"""tierproxy.tiering.archiver and its workers, on a fake cluster that does what no real one does on demand."""

import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from protocol.apis import ApiKey
from protocol.fetch_response import FetchResponse
from tests.fakes.broker import FakeCluster, Request
from tests.fakes.broker.api_18_api_versions import OFFERED
from tests.fakes.broker.steering import Answer, GoOn, HangUp, hang_up
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.tiering.scene import KEEP_ALL, KEEP_NOTHING, Scene, eventually
from tierproxy import telemetry
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.pages import Paging
from tierproxy.clock import SystemClock
from tierproxy.upstream import Cluster


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        yield made


def batch(records: int = 10) -> bytes:
    return make_batch(0, plain_records(records))


async def fetched_again(brokers: FakeCluster, times: int) -> None:
    """`times` more fetches have been answered."""
    before = len(brokers.asked(ApiKey.FETCH))
    await eventually(lambda: len(brokers.asked(ApiKey.FETCH)) > before + times, "further fetches")


def damaged(good: bytes) -> bytes:
    return good[:-1] + bytes([good[-1] ^ 1])


async def test_a_damaged_batch_that_the_broker_then_deletes_is_a_gap_and_no_end(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partition = brokers.create_topic("t")[0]
    partition.append(batch(100))
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        await scene.archived("t", 100)
        partition.append(damaged(batch(105)))
        await eventually(lambda: "does not match its checksum" in caplog.text, "word of the damage")
        partition.log.trim(205)
        manifest = await scene.archived("t", 205)
        assert [(gap.start, gap.end) for gap in manifest.gaps] == [(100, 205)]
        await eventually(lambda: (sample("holes", "t"), sample("hole_offsets", "t")) == (1, 105), "the hole's metrics")
        # Some answers without records come first: this is where the archiver's own offset shows.
        await fetched_again(brokers, 3)
        partition.append(batch(10))
        manifest = await scene.archived("t", 215)
    assert [(entry.base_offset, entry.last_offset) for entry in manifest.segments] == [(0, 99), (205, 214)]
    assert "not archived any further" not in caplog.text


async def test_a_recreated_topic_is_not_trimmed(brokers: FakeCluster, tmp_path: Path) -> None:
    """The topic is deleted while the old one's trim is on its way, and its namesake is longer than the archive."""
    brokers.create_topic("t")[0].append(batch(100))

    async def recreate(request: Request, go_on: GoOn) -> Answer:
        brokers.delete_topic("t")
        answer = await go_on()
        brokers.create_topic("t")[0].append(damaged(batch(300)))  # which can't be archived
        return answer

    brokers.steer(ApiKey.DELETE_RECORDS, recreate, times=1)
    async with Scene(brokers, tmp_path, KEEP_NOTHING):
        await eventually(lambda: len(brokers.asked(ApiKey.DELETE_RECORDS)) > 0, "trim")
        await fetched_again(brokers, 3)
        assert brokers.topics["t"][0].log.start == 0


async def test_what_brokers_do_not_trim_shows_until_they_do(brokers: FakeCluster, tmp_path: Path) -> None:
    brokers.create_topic("t")[0].append(batch(100))
    broken = brokers.steer(ApiKey.DELETE_RECORDS, hang_up)
    async with Scene(brokers, tmp_path, KEEP_NOTHING):
        await eventually(lambda: sample("trim_lag_offsets", "t") == 100, "what ought to have been trimmed", 60)
        await eventually(lambda: (sample("trim_lag_seconds", "t") or 0) > 0, "for how long", 60)
        broken.stop()
        await eventually(lambda: sample("trim_lag_offsets", "t") == 0, "the trim", 60)
        assert sample("trim_lag_seconds", "t") == 0


async def test_topics_without_ids_are_archived_and_not_trimmed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeCluster(versions={**OFFERED, ApiKey.METADATA: (0, 9), ApiKey.FETCH: (4, 11)}) as brokers:
        partition = brokers.create_topic("t")[0]
        partition.append(batch())
        async with Scene(brokers, tmp_path, KEEP_NOTHING) as scene:
            manifest = await scene.archived("t", 10)
            assert manifest.topic_id == bytes(16)
            # A namesake that is longer than the archive.
            brokers.delete_topic("t")
            namesake = brokers.create_topic("t")[0]
            namesake.append(batch() * 3)
            await scene.archived("t", 30)
            await fetched_again(brokers, 3)
        assert brokers.asked(ApiKey.DELETE_RECORDS) == []
    assert caplog.text.count("topic t is archived but not trimmed: the brokers give no topic ids") == 1


async def test_brokers_that_know_no_groups_are_archived_alone(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = troubles()
    brokers.create_topic("t")[0].append(batch())
    async with Scene(brokers, tmp_path, KEEP_ALL, group="archivers-{cluster}") as scene:
        await scene.archived("t", 10)
        assert troubles() == before + 1
    assert "group archivers-c can't be used: broker 127.0.0.1:" in caplog.text
    assert "offers nothing of JOIN_GROUP" in caplog.text
    assert caplog.text.count("This archiver works on everything alone") == 1


async def test_what_is_archived_is_kept_in_order_up_to_where_the_broker_s_log_begins(
    brokers: FakeCluster, tmp_path: Path
) -> None:
    """Everything may expire at once, and does when the broker has let it go: not before, and with no record between."""
    partition = brokers.create_topic("t")[0]
    partition.append(batch(100))
    policy = {**KEEP_ALL, "keep_in_archive": {"bytes": "0B"}}
    async with Scene(brokers, tmp_path, policy, upkeep={"upkeep_interval": "100ms"}) as scene:
        await scene.archived("t", 100)
        partition.append(batch(50))
        await scene.archived("t", 150)
        await fetched_again(brokers, 20)
        assert scene.manifests["t", 0].start_offset == 0
        partition.log.trim(100)
        await eventually(lambda: scene.manifests["t", 0].start_offset == 100, "expiry")
        partition.append(batch(10))
        manifest = await scene.archived("t", 160)
    assert [(entry.base_offset, entry.last_offset) for entry in manifest.segments] == [(100, 149), (150, 159)]
    assert manifest.gaps == ()


# ---- pages of the manifest -----------------------------------------------------------------------------------


async def test_trimming_reaches_into_pages(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partition = brokers.create_topic("t")[0]
    size = len(batch())
    policy = {"keep_on_broker": {"bytes": f"{4 * size}B"}}
    async with Scene(brokers, tmp_path, policy, paging=Paging(1, 1, 3)) as scene:
        for end in range(10, 90, 10):
            partition.append(batch())
            manifest = await scene.archived("t", end)
        assert [page.sums.segments for page in manifest.pages] == [3, 3, 1]
        assert len(manifest.segments) == 1
        await eventually(lambda: partition.log.start == 40, "trim up to the four newest segments")
        for file in tmp_path.rglob("manifest/*"):
            file.unlink()
    async with Scene(brokers, tmp_path, policy, paging=Paging(1, 1, 3)) as scene:
        for end in (90, 100):
            partition.append(batch())
            await scene.archived("t", end)
        await eventually(lambda: "is archived, but not trimmed" in caplog.text, "word of the lost page")
        assert partition.log.start == 40
        assert "not archived any further" not in caplog.text


# ---- what nobody foresaw -------------------------------------------------------------------------------------


async def test_a_worker_that_crashes_is_started_again(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Scene):
        crashed = False

        def committed(self, pid: PartitionId, manifest: Manifest) -> None:
            if not self.crashed:
                self.crashed = True
                raise RuntimeError("nobody foresaw this")
            super().committed(pid, manifest)

    partition = brokers.create_topic("t")[0]
    partition.append(batch())
    async with Clumsy(brokers, tmp_path, KEEP_ALL) as scene:
        await scene.archived("t", 10)
        partition.append(batch())
        manifest = await scene.archived("t", 20)
    assert [entry.base_offset for entry in manifest.segments] == [0, 10]
    assert caplog.text.count("task archive t-0 crashed") == 1


async def test_a_copier_that_crashes_is_started_again(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Cluster):
        crashed = False

        async def fetch(self, *args: Any, **options: Any) -> FetchResponse:
            if not self.crashed:
                self.crashed = True
                raise RuntimeError("nobody foresaw this")
            return await super().fetch(*args, **options)

    brokers.create_topic("t")[0].append(batch())
    async with Scene(brokers, tmp_path, KEEP_ALL, cluster_class=Clumsy) as scene:
        await scene.archived("t", 10)
    assert caplog.text.count("task copy from broker 1 crashed") == 1


# ---- what is said to be wrong --------------------------------------------------------------------------------


def troubles() -> float:
    return REGISTRY.get_sample_value("tierproxy_troubles_open", {"part": "archiver"}) or 0.0


async def test_a_partitions_troubles_end_with_it(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = troubles()
    brokers.create_topic("t")[0].append(damaged(batch()))
    brokers.create_topic("compacted", configs={"cleanup.policy": "compact"})
    async with Scene(brokers, tmp_path, KEEP_ALL):
        await eventually(lambda: troubles() == before + 2, "troubles")
        brokers.delete_topic("t")
        await eventually(lambda: troubles() == before + 1, "end of the partition's")
        brokers.delete_topic("compacted")
        await eventually(lambda: troubles() == before, "end of the topic's")
        assert "t-0 is copied again" not in caplog.text


async def test_a_partition_without_a_leader_is_a_trouble_until_it_has_one(brokers: FakeCluster, tmp_path: Path) -> None:
    before = troubles()
    topic = brokers.create_topic("t", 2, leaders=[-1, -1])
    for partition in topic.partitions:
        partition.append(batch())
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        await eventually(lambda: troubles() == before + 2, "troubles")
        brokers.elect(topic[0], 1)
        await scene.archived("t", 10)
        await eventually(lambda: troubles() == before + 1, "end of one")
        brokers.elect(topic[1], 1)
        await scene.archived("t", 10, 1)
        await eventually(lambda: troubles() == before, "end of both")


async def test_a_spool_that_can_be_written_again_is_no_trouble(
    brokers: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tierproxy.tiering.fsm.SPOILED_PAUSE", 0.05)
    before, spool = troubles(), tmp_path / "spool"
    spool.mkdir()
    large = make_batch(0, plain_records(1, value=random.Random(1).randbytes(3 << 20)))  # no spool in memory
    brokers.create_topic("t")[0].append(large)
    async with Scene(brokers, tmp_path / "archive", KEEP_ALL, spool=spool) as scene:
        spool.rmdir()
        await eventually(lambda: "segments can't be written on this machine" in caplog.text, "word of it")
        spool.mkdir()
        await scene.archived("t", 1)
        assert troubles() == before


# ---- what becomes of a topic meanwhile -----------------------------------------------------------------------


async def test_a_topic_that_is_compacted_for_a_while_is_left_alone_meanwhile(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierproxy.tiering.archiver.CONFIGS_AGE", 0.1)
    caplog.set_level(logging.INFO, "tierproxy.archiver")
    topic = brokers.create_topic("t")
    partition = topic[0]
    partition.append(batch())
    async with Scene(brokers, tmp_path, KEEP_NOTHING) as scene:
        await scene.archived("t", 10)
        await eventually(lambda: scene.trimmed_to.get(("t", 0)) == 10, "trim", 60)
        topic.configs["cleanup.policy"] = "compact"
        said = "topic t is neither archived further nor trimmed, what is archived is still served: it is compacted"
        await eventually(lambda: said in caplog.text, "word of it", 60)
        for _ in range(3):
            partition.append(batch())
        del partition.log.segments[-1].batches[1]  # 10 to 19: compacted away
        looks = len(brokers.asked(ApiKey.DESCRIBE_CONFIGS))
        await eventually(lambda: len(brokers.asked(ApiKey.DESCRIBE_CONFIGS)) > looks + 3, "further looks", 60)
        assert (scene.manifests["t", 0].end_offset, partition.log.start) == (10, 10)
        topic.configs["cleanup.policy"] = "delete"
        manifest = await scene.archived("t", 40)
        await eventually(lambda: scene.trimmed_to.get(("t", 0)) == 40, "trim", 60)
    assert "topic t can be archived now" in caplog.text
    assert [(entry.base_offset, entry.last_offset) for entry in manifest.segments] == [(0, 9), (20, 39)]
    assert manifest.gaps == (), "the broker has nothing there, and nothing is lost"


async def test_leaders_that_move_and_brokers_that_hang_up_leave_one_history(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every third fetch ends in a closed connection, and each batch comes from another leader than the one before."""
    fetches = 0

    async def now_and_then(request: Request, go_on: GoOn) -> Answer:
        nonlocal fetches
        fetches += 1
        if fetches % 3 == 0:
            raise HangUp
        return await go_on()

    async with FakeCluster(3) as brokers:
        partition = brokers.create_topic("t")[0]
        brokers.steer(ApiKey.FETCH, now_and_then)
        async with Scene(brokers, tmp_path, KEEP_NOTHING) as scene:
            for n in range(6):
                brokers.elect(partition, n % 3 + 1)
                partition.append(batch())
                if n % 2:
                    await scene.archived("t", 10 * (n + 1))
            await eventually(lambda: scene.trimmed_to.get(("t", 0)) == 60, "trim", 60)
            manifest = scene.manifests["t", 0]
    assert [offset for entry in manifest.segments for offset in range(entry.base_offset, entry.last_offset + 1)] == [
        *range(60)
    ]
    assert [start for _, start in manifest.epochs] == [*range(0, 60, 10)]
    assert (manifest.gaps, manifest.quarantined) == ((), ())


@pytest.mark.parametrize("fetch", [(4, 17), (4, 11)], ids=["today", "before 2.7"])
@pytest.mark.parametrize("more", [5, 50], ids=["shorter", "longer"])
async def test_history_that_was_rewritten_is_archived_anew(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fetch: tuple[int, int],
    more: int,
) -> None:
    """The new leader's log is shorter than the archive, or longer: then an old broker gives it without a word."""
    monkeypatch.setattr("tierproxy.tiering.fsm.DOUBT_PAUSE", 0.01)
    async with FakeCluster(versions={**OFFERED, ApiKey.FETCH: fetch}) as brokers:
        partition = brokers.create_topic("t")[0]
        for _ in range(3):
            partition.append(batch())
        async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
            await scene.archived("t", 30)
            brokers.elect(partition, 1, truncate_to=10)
            partition.append(batch(more))
            await eventually(lambda: bool(scene.manifests["t", 0].quarantined), "quarantine", 60)
            manifest = await scene.archived("t", 10 + more)
            assert [(each.start, each.end) for each in manifest.quarantined] == [(10, 30)]
            assert [entry.last_offset for entry in manifest.segments] == [9, 9 + more]
            assert manifest.epochs == ((0, 0), (1, 10))
    assert "Offsets 10 to 29 are quarantined" in caplog.text


# ---- before the brokers delete what is not archived ----------------------------------------------------------


def sample(name: str, topic: str) -> float | None:
    return REGISTRY.get_sample_value(f"tierproxy_{name}", {"topic": topic})


def sample_of(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"tierproxy_{name}")


async def test_retention_that_comes_near_is_an_alarm_until_the_archiver_has_caught_up(
    brokers: FakeCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Retention is an hour, and the records are 50 minutes old; fetches fail, then they don't."""
    caplog.set_level(logging.INFO, "tierproxy.archiver")
    old = SystemClock().now_ms() - 50 * 60_000
    partition = brokers.create_topic("t", configs={"retention.ms": "3600000"})[0]
    partition.append(make_batch(0, plain_records(10, time=old)))
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        await scene.archived("t", 10)
        telemetry.ARCHIVE_LAG_OFFSETS.labels("t").set(-1)  # an earlier look may have shown the alarm, or nothing yet
        await eventually(lambda: sample("archive_lag_offsets", "t") == 0, "a look after that", 60)
        caplog.clear()
        broken = brokers.steer(ApiKey.FETCH, hang_up)
        await eventually(lambda: broken.used > 0, "a fetch that fails", 60)
        partition.append(make_batch(0, plain_records(10, time=old)))
        said = "t-0: the brokers will delete what is not archived in about"
        await eventually(lambda: said in caplog.text, "the alarm", 60)
        assert "(retention.ms=3600000). 10 offsets are not archived" in caplog.text
        assert sample_of("partitions_at_risk") == 1
        assert sample("archive_lag_offsets", "t") == 10
        assert 0 < (sample("retention_left_ratio", "t") or 0) < 0.25
        broken.stop()
        await scene.archived("t", 20)
        await eventually(lambda: "won't soon delete" in caplog.text, "the alarm's end", 60)
        assert sample_of("partitions_at_risk") == 0
        assert sample("archive_lag_offsets", "t") == 0
        brokers.delete_topic("t")
        await eventually(lambda: sample("archive_lag_offsets", "t") is None, "end of the topic's metrics", 60)


# ---- the configuration changes -------------------------------------------------------------------------------


async def test_what_producers_have_compressed_is_made_smaller_once_the_policy_says_so(
    brokers: FakeCluster, tmp_path: Path
) -> None:
    hex_digits = random.Random(5).randbytes(20_000).hex().encode()  # lz4 finds nothing to repeat in them
    made = make_batch(0, [(0, 1_000, None, hex_digits, ())], codec=3)
    partition = brokers.create_topic("t")[0]
    partition.append(made)
    async with Scene(brokers, tmp_path, KEEP_ALL) as scene:
        sizes = [_data_size(await scene.archived("t", 1))]
        scene.change({**KEEP_ALL, "recompress": True})
        while len(sizes) < 50 and sizes[-1] > 0.8 * len(made):  # segments that are open stay as they are
            partition.append(made)
            sizes.append(_data_size(await scene.archived("t", len(sizes) + 1)))
    assert sizes[0] > 0.95 * len(made)
    assert sizes[-1] < 0.8 * len(made)


def _data_size(manifest: Manifest) -> int:
    """Of its last segment."""
    entry = manifest.segments[-1]
    return entry.stored_size - entry.index_size


async def test_another_policy_holds_at_once_and_nothing_is_copied_again(brokers: FakeCluster, tmp_path: Path) -> None:
    """The open segment waits for a week; a policy with a shorter age closes it."""
    patient = {"segment": {"bytes": "1MiB", "age": "7d"}}
    brokers.create_topic("t")[0].append(batch(100))
    async with Scene(brokers, tmp_path, patient) as scene:
        await eventually(lambda: len(brokers.asked(ApiKey.FETCH)) > 3, "some fetches")
        assert scene.manifests == {}
        scene.change({"segment": {"bytes": "1MiB", "age": "10ms"}, "keep_on_broker": {"bytes": 0}})
        await scene.archived("t", 100)
        await eventually(lambda: scene.trimmed_to.get(("t", 0)) == 100, "trim")
    messages = [each.message for each in brokers.asked(ApiKey.FETCH)]
    offsets = [part.fetch_offset for each in messages for topic in each.topics for part in topic.partitions]
    assert sorted(offsets) == offsets


async def test_a_topic_is_archived_from_a_change_on_and_until_another_one(brokers: FakeCluster, tmp_path: Path) -> None:
    partition = brokers.create_topic("t")[0]
    partition.append(batch(100))
    async with Scene(brokers, tmp_path, {"archive": "none"}) as scene:
        await eventually(lambda: len(brokers.asked(ApiKey.METADATA)) > 4, "some looks at the topics")
        assert scene.manifests == {}
        scene.change({"keep_on_broker": {"bytes": 0}})
        await scene.archived("t", 100)
        await fetched_again(brokers, 3)
        assert brokers.asked(ApiKey.DELETE_RECORDS) == []  # other gateways may not have heard of it
        scene.change({"archive": "none"})
        await eventually(lambda: not scene.archiver._workers, "end of the worker")
        partition.append(batch(100))
        assert scene.manifests["t", 0].end_offset == 100


async def test_nothing_is_trimmed_sooner_after_a_start_than_others_need(brokers: FakeCluster, tmp_path: Path) -> None:
    class Leaping(SystemClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock = Leaping()
    brokers.create_topic("t")[0].append(batch(100))
    async with Scene(brokers, tmp_path, KEEP_NOTHING, clock=clock, upkeep={"trim_delay": "1h"}) as scene:
        await scene.archived("t", 100)
        await fetched_again(brokers, 3)
        assert brokers.asked(ApiKey.DELETE_RECORDS) == []
        clock.ahead = 3601.0
        await eventually(lambda: scene.trimmed_to.get(("t", 0)) == 100, "trim")
