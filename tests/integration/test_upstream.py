"""tierproxy's own client against a real broker: what the unit tests take for granted about its answers."""

from collections.abc import AsyncIterator

import pytest

from protocol.apis import ApiKey
from protocol.batches import walk
from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition
from tests.kit import admin
from tests.kit.kafka import Cluster as Kafka
from tests.kit.producing import produce
from tests.kit.records import drafts
from tierproxy.access import Access
from tierproxy.clock import SystemClock
from tierproxy.upstream import EARLIEST, LATEST, Cluster, EndOfEpoch, TopicPartition, Unreachable

TOPIC = "upstream"
RECORDS = 200


@pytest.fixture(scope="module")
def topic(kafka: Kafka) -> str:
    admin.create_topic(kafka.bootstrap, TOPIC, 2, retention_ms=-1, segment_bytes=1 << 20)
    produce(kafka.bootstrap, TOPIC, drafts(RECORDS, partition=0, seed=50))
    return TOPIC


@pytest.fixture
async def cluster(kafka: Kafka) -> AsyncIterator[Cluster]:
    cluster = Cluster([("127.0.0.1", kafka.nodes[0].port)], Access(), "tierproxy-test", SystemClock())
    await cluster.start()
    yield cluster
    await cluster.close()


async def test_sees_the_cluster(cluster: Cluster, kafka: Kafka, topic: str) -> None:
    view = await cluster.refresh()
    assert view.cluster_id == kafka.cluster_id
    assert view.brokers == {1: ("127.0.0.1", kafka.nodes[0].port)}
    about = view.topics[topic]
    assert (sorted(about.partitions), about.internal, len(about.topic_id)) == ([0, 1], False, 16)
    assert about.topic_id != bytes(16)
    assert view.leader(TopicPartition(topic, 0)) == 1
    assert (await cluster.api_versions(1))[ApiKey.FETCH] == (4, 18)


async def test_asking_creates_no_topic(cluster: Cluster) -> None:
    assert "never-there" not in (await cluster.refresh(["never-there"])).topics
    assert "never-there" not in (await cluster.refresh()).topics


async def test_offsets_and_epochs(cluster: Cluster, topic: str) -> None:
    await cluster.refresh()
    full, empty, unknown = TopicPartition(topic, 0), TopicPartition(topic, 1), TopicPartition("never-there", 0)
    latest = await cluster.list_offsets({full: LATEST, empty: LATEST, unknown: LATEST})
    assert (latest[full].offset, latest[empty].offset) == (RECORDS, 0)
    assert latest[unknown].error == ErrorCode.LEADER_NOT_AVAILABLE
    epoch = latest[full].leader_epoch
    assert await cluster.ends_of_epochs({full: epoch}) == {full: EndOfEpoch(0, epoch, RECORDS)}
    assert (await cluster.ends_of_epochs({full: epoch + 7}))[full].end_offset == -1


async def test_trims(cluster: Cluster, kafka: Kafka) -> None:
    admin.create_topic(kafka.bootstrap, "upstream.trimmed", 1, retention_ms=-1)
    produce(kafka.bootstrap, "upstream.trimmed", drafts(20, partition=0, seed=51))
    await cluster.refresh()
    tp = TopicPartition("upstream.trimmed", 0)
    assert (await cluster.delete_records({tp: 7}))[tp].low_watermark == 7
    assert (await cluster.list_offsets({tp: EARLIEST}))[tp].offset == 7
    assert (await cluster.delete_records({tp: 21}))[tp].error == ErrorCode.OFFSET_OUT_OF_RANGE


async def test_reads_settings(cluster: Cluster, topic: str) -> None:
    found = await cluster.topic_configs([topic, "never-there"])
    assert list(found) == [topic]
    assert (found[topic]["cleanup.policy"], found[topic]["segment.bytes"]) == ("delete", str(1 << 20))


async def test_how_large_logs_are(cluster: Cluster, kafka: Kafka, topic: str) -> None:
    view = await cluster.refresh()
    assert view.topics[topic].partitions[0].replicas == (1,)
    full, empty, unknown = TopicPartition(topic, 0), TopicPartition(topic, 1), TopicPartition("never-there", 0)
    found = await cluster.log_sizes(1, [full, unknown, empty])
    on_disk = sum(file.stat().st_size for file in (kafka.nodes[0].data / f"{topic}-0").glob("*.log"))
    assert (found.error, found.sizes) == (0, {full: on_disk, empty: 0})


@pytest.mark.parametrize("by_id", [True, False])
async def test_fetches_by_id_and_by_name(cluster: Cluster, topic: str, by_id: bool) -> None:
    about = (await cluster.refresh()).topics[topic]
    topic_id = about.topic_id if by_id else None
    asked = [FetchPartition(topic, topic_id, index, -1, 0, -1, 1 << 20) for index in (0, 1)]
    response = await cluster.fetch(1, asked, max_wait_ms=500, max_bytes=1 << 20)
    assert response.version == (17 if by_id else 12)
    full, empty = sorted(response.partitions, key=lambda part: part.index)
    assert (full.topic, full.topic_id, full.high_watermark) == (topic, topic_id, RECORDS)
    assert full.records is not None
    assert next(header.base_offset for header, _ in walk(full.records)) == 0
    assert not empty.records


async def test_nobody_there() -> None:
    cluster = Cluster([("127.0.0.1", 1)], Access(), "tierproxy-test", SystemClock())
    with pytest.raises(Unreachable, match=r"no broker can be reached.*127\.0\.0\.1:1"):
        await cluster.start()
    await cluster.close()
