"""An archive that is served when its cluster is gone: stock consumers read all of it, and nobody can write."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import GroupAuthorizationFailedError

from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.console import CONSOLE_CONSUMER
from tests.kit.kafka import Cluster, tool_command
from tests.kit.processes import wait_for
from tests.kit.producing import CODECS, Recorder, merged, produce
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import Log, assert_same, drafts, ends, first_at

TOPIC = "flights"
PARTITIONS = range(len(CODECS))


@dataclass
class Ruins:
    """What is left: a gateway in front of an archive. `everything` holds aborted records too."""

    proxy: Proxy
    cluster_id: str
    committed: Log
    everything: Log


@pytest.fixture(scope="module")
def ruins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruins]:
    directory = tmp_path_factory.mktemp("alone")
    with Cluster(directory / "kafka") as kafka:
        policy = {"match": "*", "archive": "local", "segment": {"bytes": "64KiB", "age": "200ms"}}
        with Proxy(directory / "proxy", kafka.bootstrap, [policy]) as proxy:
            committed, everything = _history(kafka, proxy)
        kafka.kill()
        cluster_id = kafka.cluster_id
    proxy.options = ["--from-archive"]
    with proxy:
        yield Ruins(proxy, cluster_id, committed, everything)


def _history(kafka: Cluster, proxy: Proxy) -> tuple[Log, Log]:
    admin.create_topic(kafka.bootstrap, TOPIC, len(CODECS), internal_segment_bytes=65_536, retention_ms=-1)
    plain, transactions = [], []
    for p, codec in enumerate(CODECS):
        plain.append(produce(kafka.bootstrap, TOPIC, drafts(500, partition=p, seed=81), compression_type=codec))
        writer = Recorder(kafka.bootstrap, TOPIC, transactional=True, compression_type=codec)
        for turn in range(4):
            writer.begin()
            writer.send(drafts(60, partition=p, seed=82 + turn))
            if turn % 2:
                writer.abort()
            else:
                writer.commit()
        transactions.append(writer)
        plain.append(produce(kafka.bootstrap, TOPIC, drafts(10, partition=p, seed=90)))
    everything = merged(*plain, *(writer.everything for writer in transactions))

    def complete() -> bool:
        found = proxy.manifests(TOPIC)
        return all(p in found and int(found[p]["end_offset"]) > end for p, end in ends(everything).items())

    wait_for(complete, seconds=120, what="complete archive", pause=0.1)
    return merged(*plain, *(writer.log for writer in transactions)), everything


@pytest.mark.parametrize("client", READERS)
def test_every_record_is_read_by_assignment(ruins: Ruins, client: str) -> None:
    starts = dict.fromkeys(PARTITIONS, 0)
    got = READERS[client](ruins.proxy.bootstrap, TOPIC, ruins.everything, starts=starts)
    assert_same(ruins.everything, got)
    got = READERS[client](ruins.proxy.bootstrap, TOPIC, ruins.committed, starts=starts, committed=True)
    assert_same(ruins.committed, got)


@pytest.mark.parametrize("client", ["kafka-python", "aiokafka", "librdkafka"])
def test_the_beginning_is_found_without_being_told(ruins: Ruins, client: str) -> None:
    assert_same(ruins.everything, READERS[client](ruins.proxy.bootstrap, TOPIC, ruins.everything))


def test_offsets_are_those_of_the_archive(ruins: Ruins) -> None:
    manifests = ruins.proxy.manifests(TOPIC)
    assert admin.earliest(ruins.proxy.bootstrap, TOPIC, len(CODECS)) == dict.fromkeys(PARTITIONS, 0)
    assert admin.latest(ruins.proxy.bootstrap, TOPIC, len(CODECS)) == {
        p: manifests[p]["end_offset"] for p in PARTITIONS
    }
    consumer: Any = KafkaConsumer(bootstrap_servers=ruins.proxy.bootstrap)
    try:
        assert consumer.topics() == {TOPIC}
        time = ruins.everything[0][200].timestamp
        found = consumer.offsets_for_times({TopicPartition(TOPIC, 0): time})[TopicPartition(TOPIC, 0)]
        expected = first_at(ruins.everything[0], time)
        assert expected is not None
        assert (found.offset, found.timestamp) == (expected.offset, expected.timestamp)
    finally:
        consumer.close()


def test_at_the_end_a_consumer_waits_for_nothing_and_beyond_it_is_out_of_range(ruins: Ruins) -> None:
    consumer: Any = KafkaConsumer(bootstrap_servers=ruins.proxy.bootstrap, auto_offset_reset="earliest")
    try:
        partition = TopicPartition(TOPIC, 0)
        end = ruins.proxy.manifests(TOPIC)[0]["end_offset"]
        consumer.assign([partition])
        consumer.seek(partition, end)
        assert consumer.poll(timeout_ms=1500) == {}
        assert consumer.position(partition) == end
        consumer.seek(partition, end + 1)

        def started_anew() -> bool:
            return any(records[0].offset == 0 for records in consumer.poll(timeout_ms=500).values())

        assert wait_for(started_anew, seconds=60, what="records from the beginning")
    finally:
        consumer.close()


def test_a_group_is_refused_in_words(ruins: Ruins) -> None:
    consumer: Any = KafkaConsumer(TOPIC, bootstrap_servers=ruins.proxy.bootstrap, group_id="g")
    try:
        with pytest.raises(GroupAuthorizationFailedError):
            consumer.poll(timeout_ms=30_000)
    finally:
        consumer.close()
    member = Consumer({"bootstrap.servers": ruins.proxy.bootstrap, "group.id": "g", "log_level": 0})
    try:
        member.subscribe([TOPIC])

        def refused() -> bool:
            message = member.poll(1.0)
            error = message.error() if message is not None else None
            return error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED

        assert wait_for(refused, seconds=60, what="refusal of the group")
    finally:
        member.close()
    command = tool_command(CONSOLE_CONSUMER, "--bootstrap-server", ruins.proxy.bootstrap, "--topic", TOPIC)
    java = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert "Not authorized to access group" in java.stdout + java.stderr


def test_a_producer_is_refused_in_words(ruins: Ruins) -> None:
    producer = Producer({"bootstrap.servers": ruins.proxy.bootstrap, "log_level": 0})
    said: list[KafkaError | None] = []
    producer.produce(TOPIC, b"no", partition=0, on_delivery=lambda error, _: said.append(error))
    assert producer.flush(60) == 0
    assert [error.name() if error is not None else None for error in said] == ["POLICY_VIOLATION"]


def test_nothing_else_is_offered(ruins: Ruins) -> None:
    client = AdminClient({"bootstrap.servers": ruins.proxy.bootstrap, "log_level": 0})
    with pytest.raises(KafkaException):
        client.delete_topics([TOPIC], request_timeout=10)[TOPIC].result(30)
    assert set(client.list_topics(timeout=30).topics) == {TOPIC}
    assert client.list_topics(timeout=30).cluster_id == ruins.cluster_id


def test_only_this_machine_can_connect_unless_told_otherwise(ruins: Ruins) -> None:
    log = ruins.proxy.log()
    assert "serving 1 topics from the archive alone, read-only, to whoever can connect to 127.0.0.1" in log
    assert f"clients may connect to {HOST}:{ruins.proxy.port}" in log
