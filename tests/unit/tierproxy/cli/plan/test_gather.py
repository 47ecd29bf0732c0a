"""What a plan asks, of a fake cluster and a directory: only what changes nothing, and no more than it must."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker import FakeCluster
from tests.fakes.broker.steering import hang_up
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.tierproxy.cli.plan.making import DAY, NOW, manifest
from tierproxy.archive.library import Library
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store_file import FileStore
from tierproxy.cli.plan import gather as gathering
from tierproxy.cli.plan.facts import Facts, Sample
from tierproxy.cli.plan.gather import gather
from tierproxy.cli.plan.shelve import Shelved
from tierproxy.clock import ManualClock
from tierproxy.config import Config, parse_config
from tierproxy.errors import TierproxyError
from tierproxy.upstream import TopicPartition

READING = {
    ApiKey.API_VERSIONS,
    ApiKey.METADATA,
    ApiKey.DESCRIBE_CONFIGS,
    ApiKey.LIST_OFFSETS,
    ApiKey.FETCH,
    ApiKey.DESCRIBE_LOG_DIRS,
}
T0 = TopicPartition("t", 0)
RECORDS = 400


@pytest.fixture
async def brokers() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as made:
        log = made.create_topic("t")[0]
        for at in range(0, RECORDS, 10):
            log.append(make_batch(at, plain_records(10, time=NOW - 3 * DAY, value=b"v" * 50)))
        yield made


@pytest.fixture
def config(brokers: FakeCluster, tmp_path: Path) -> Config:
    host, port = brokers.bootstrap[0]
    return parse_config(
        f"cluster: {{name: prod, bootstrap: ['{host}:{port}']}}\nlisten: {{advertised_host: proxy}}\n"
        f"archives: {{a: {{url: '{(tmp_path / 'archive').as_uri()}'}}}}\n"
        "topics: [{match: '*', archive: a, keep_on_broker: {time: 1d}, keep_in_archive: {time: 2d}}]"
    )


async def asked(config: Config, wanted: Callable[[str], bool] = lambda _: True, sample: int = 1 << 20) -> Facts:
    return await gather(config, ManualClock(NOW), wanted, sample, 60.0)


async def test_only_what_changes_nothing_is_asked(brokers: FakeCluster, config: Config, tmp_path: Path) -> None:
    found = await asked(config)
    log = found.logs[T0]
    assert (log.start, log.stable_end, log.end) == (0, RECORDS, RECORDS)
    assert (log.kept_from, log.day_from) == (RECORDS, RECORDS), "no record is of the last day"
    assert log.first_ms > 0
    assert found.shelves == {T0: None}
    assert "DESCRIBE_LOG_DIRS" in str(found.sizes[1]), "this one is of a broker that can't tell"
    sample = found.samples["t"]
    assert isinstance(sample, Sample)
    assert 0 < sample.stored_bytes < sample.plain_bytes
    assert sample.offsets == RECORDS // 2, "from the middle on"
    assert {request.key for request in brokers.seen} <= READING
    assert not (tmp_path / "archive").exists()
    assert (found.troubles, found.unclaimed) == ([], ["a"])


async def test_samples_are_bounded_and_may_be_left_out(brokers: FakeCluster, config: Config) -> None:
    small = (await asked(config, sample=500)).samples["t"]
    assert isinstance(small, Sample)
    assert small.offsets < RECORDS // 2
    fetches = len(brokers.asked(ApiKey.FETCH))
    assert (await asked(config, sample=0)).samples == {}
    assert len(brokers.asked(ApiKey.FETCH)) == fetches


async def test_topics_that_nobody_asked_about_are_left_alone(brokers: FakeCluster, config: Config) -> None:
    brokers.create_topic("u")
    brokers.create_topic("compacted", configs={"cleanup.policy": "compact"})
    found = await asked(config, lambda name: name != "t")
    assert set(found.topics) == {"u", "compacted"}
    assert set(found.logs) == {TopicPartition("u", 0)}
    assert found.unfit["compacted"].startswith("it is compacted")


async def test_what_is_archived_needs_no_sample(brokers: FakeCluster, config: Config, tmp_path: Path) -> None:
    pid = PartitionId("t", brokers.topics["t"].topic_id, 0)
    store = FileStore(tmp_path / "archive")
    library = Library(store, "prod")
    await library.claim(brokers.cluster_id)
    made = manifest((100, 5000, 60), (200, 5000, 12))
    await library.save(pid, replace(made, topic_id=pid.topic_id, cluster_id=brokers.cluster_id), None)
    await store.close()
    found = await asked(config)
    shelf = found.shelves[T0]
    assert isinstance(shelf, Shelved)
    assert (shelf.start, shelf.end, shelf.segments, shelf.plain_bytes, shelf.stored_bytes) == (0, 200, 2, 10000, 2500)
    assert (shelf.offset_bytes, found.samples) == (50.0, {})
    assert (shelf.trim_now, shelf.trim_now_bytes) == (100, 5000)
    assert shelf.trim_later == 100, "behind it is a segment of the last day"
    assert (shelf.expire_to, shelf.expire_segments, shelf.expire_bytes, shelf.expire_stored) == (100, 1, 5000, 1250)
    assert shelf.day_from == 100
    assert found.unclaimed == []


async def test_an_archive_of_another_cluster_is_not_looked_into(config: Config, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "archive")
    await Library(store, "prod").claim("SomebodyElse")
    await store.close()
    found = await asked(config)
    assert str(found.shelves[T0]).startswith("it is of Kafka cluster SomebodyElse, not of ")


async def test_rights_that_are_missing(brokers: FakeCluster, config: Config) -> None:
    brokers.topics["t"].denied.add("READ")
    found = await asked(config)
    assert found.samples["t"] == "can't be fetched: TOPIC_AUTHORIZATION_FAILED"
    assert found.logs[T0].known


async def test_it_ends_when_its_time_is_over(brokers: FakeCluster, config: Config) -> None:
    with brokers.held(ApiKey.LIST_OFFSETS):
        found = await gather(config, ManualClock(NOW), lambda _: True, 0, 0.5)
    assert found.logs == {}
    assert found.troubles[0] == "the brokers have not told all about their logs in the time given (--timeout)"


async def test_a_broker_that_does_not_answer_is_asked_once(
    brokers: FakeCluster, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PARTITIONS_AT_ONCE", 1)
    await brokers.add_node(2)
    brokers.create_topic("u", 5, leaders=[2, 2, 2, 1, 1])

    steer = brokers.steer(ApiKey.LIST_OFFSETS, hang_up, node_id=2)
    found = await asked(config, sample=0)
    errors = {tp.partition: log.error for tp, log in found.logs.items() if tp.topic == "u"}
    assert errors == {**dict.fromkeys((0, 1, 2), ErrorCode.NETWORK_EXCEPTION), **dict.fromkeys((3, 4), ErrorCode.NONE)}
    assert 0 < steer.used <= 12, "six questions about one partition, each tried twice"


async def test_nobody_there(config: Config) -> None:
    away = config.model_copy(update={"cluster": config.cluster.model_copy(update={"bootstrap": (("127.0.0.1", 1),)})})
    with pytest.raises(TierproxyError, match="no broker can be reached"):
        await asked(away)
