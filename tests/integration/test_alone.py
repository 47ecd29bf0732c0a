"""An archive that is served when its cluster is gone: stock consumers read all of it, and nobody can write."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, TopicPartition

from tests.kit import admin
from tests.kit.clients import READERS, from_librdkafka
from tests.kit.console import read_as_group
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.producing import CODECS, Recorder, merged, produce
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import Log, Record, assert_same, count, drafts, ends, first_at

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


def test_a_group_reads_all_of_it_and_goes_on_where_it_was(ruins: Ruins) -> None:
    member = _member(ruins, "halves")
    try:
        first = _consume(member, count(ruins.everything) // 2)
        member.commit(asynchronous=False)
    finally:
        member.close()
    other = _member(ruins, "halves")
    try:
        second = _consume(other, count(ruins.everything) - len(first))
    finally:
        other.close()
    got: Log = {}
    for record in first + second:
        got.setdefault(record.partition, []).append(record)
    assert_same(ruins.everything, got)


def test_members_share_the_partitions_and_take_over_from_each_other(ruins: Ruins) -> None:
    one, two = _member(ruins, "shared"), _member(ruins, "shared")
    try:

        def both() -> bool:
            for each in (one, two):
                each.consume(1, 0.2)
            held = [{part.partition for part in each.assignment()} for each in (one, two)]
            return bool(held[0] and held[1]) and held[0] | held[1] == set(PARTITIONS) and not held[0] & held[1]

        assert wait_for(both, seconds=60, what="an assignment to both")
        two.close()

        def alone() -> bool:
            one.consume(1, 0.2)
            return {part.partition for part in one.assignment()} == set(PARTITIONS)

        assert wait_for(alone, seconds=60, what="an assignment to the one that is left")
    finally:
        one.close()


@pytest.mark.parametrize("client", ["kafka-python", "java"])
def test_other_clients_have_groups_too(ruins: Ruins, client: str) -> None:
    total = count(ruins.everything)
    got: list[Record]
    if client == "java":
        got = read_as_group(ruins.proxy.bootstrap, TOPIC, "java", total, protocol="classic")
    else:
        consumer: Any = KafkaConsumer(
            TOPIC, bootstrap_servers=ruins.proxy.bootstrap, group_id="python", auto_offset_reset="earliest"
        )
        try:
            seen = 0

            def everything() -> bool:
                nonlocal seen
                seen += sum(map(len, consumer.poll(timeout_ms=500).values()))
                return seen >= total

            assert wait_for(everything, seconds=90, what="all records")
            consumer.commit()
            at = {p: consumer.committed(TopicPartition(TOPIC, p)) for p in PARTITIONS}
            assert at == {p: records[-1].offset + 1 for p, records in ruins.everything.items()}
        finally:
            consumer.close()
        return
    log: Log = {}
    for record in got:
        log.setdefault(record.partition, []).append(record)
    assert_same(ruins.everything, log)


def _member(ruins: Ruins, group: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": ruins.proxy.bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )
    consumer.subscribe([TOPIC])
    return consumer


def _consume(consumer: Consumer, number: int) -> list[Record]:
    found: list[Record] = []

    def enough() -> bool:
        for message in consumer.consume(number - len(found), 0.5):
            assert message.error() is None
            found.append(from_librdkafka(message))
        return len(found) >= number

    assert wait_for(enough, seconds=90, what=f"{number} records")
    return found


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
