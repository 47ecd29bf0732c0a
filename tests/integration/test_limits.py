"""Rates of cold reads, as stock clients live with them: some obey throttle_time_ms, others come back at once."""

import os
import re
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import KafkaConsumer
from kafka import TopicPartition as PyPartition

from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import Draft, Log, assert_same, ends

RATE = 1 << 20
"""Bytes a second."""
KIB = 1024
BURST = 1.5
"""Seconds' worth that may come at once: what was saved up, and the last answer."""


@pytest.fixture(scope="module")
def proxy(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """All cold reads together are limited; those of topics `trickle.*` hardly flow."""
    common: dict[str, Any] = {"archive": "local", "keep_on_broker": {"bytes": "0B"}}
    common["segment"] = {"bytes": "512KiB", "age": "200ms"}
    policies: list[dict[str, Any]] = [
        {"match": "trickle.*", "cold_read_rate": "16KiB/s", **common},
        {"match": "limited.*", **common},
        {"match": "*", "archive": "none"},
    ]
    directory = tmp_path_factory.mktemp("limits")
    with Proxy(directory, kafka.bootstrap, policies, settings={"limits": {"cold_read_rate": "1MiB/s"}}) as proxy:
        yield proxy


def cold_topic(kafka: Cluster, topic: str, kibibytes: int) -> Log:
    """So much in records of a KiB, in two partitions, archived and trimmed but for the end of it."""
    admin.create_topic(kafka.bootstrap, topic, 2, internal_segment_bytes=65_536, retention_ms=-1)
    values = [os.urandom(KIB // 2).hex().encode() for _ in range(kibibytes)]
    made = [Draft(n % 2, None, value, (), 1_357_000_000_000 + n) for n, value in enumerate(values)]
    log = produce(kafka.bootstrap, topic, made)
    admin.wait_trimmed(kafka.bootstrap, topic, {p: end * 9 // 10 for p, end in ends(log).items()})
    return log


@pytest.fixture(scope="module")
def limited(kafka: Cluster, proxy: Proxy) -> Log:
    return cold_topic(kafka, "limited.read", 4096)


@pytest.mark.parametrize("client", READERS)
def test_a_replay_is_whole_and_not_faster_than_its_rate(proxy: Proxy, limited: Log, client: str) -> None:
    before = throttle_seconds(proxy)
    began = time.monotonic()
    got = READERS[client](proxy.bootstrap, "limited.read", limited)
    seconds = time.monotonic() - began
    assert_same(limited, got)
    cold = 4096 * KIB * 0.9
    assert seconds >= cold / RATE - BURST, "it was faster than it may be"
    assert throttle_seconds(proxy) > before
    assert "limits.cold_read_rate holds archived records up" in proxy.log()


@pytest.mark.parametrize("client", ["librdkafka", "kafka-python"])
def test_hot_partitions_flow_on_beside_cold_ones(kafka: Cluster, proxy: Proxy, client: str) -> None:
    """Each hot record is written when the one before has come; the cold ones would take minutes."""
    cold, hot = f"trickle.{client}", f"hot.{client}"
    log = cold_topic(kafka, cold, 4096)
    admin.create_topic(kafka.bootstrap, hot, 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    arrivals = (_librdkafka if client == "librdkafka" else _kafka_python)(proxy.bootstrap, cold, hot)
    behind = sum(end + 1 for end in ends(log).values())
    for number in range(30):
        producer.produce(hot, value=b"%d" % number)
        producer.flush(30)
        while next(arrivals) != hot:
            behind -= 1
        assert behind, "the cold records have all come before the hot one"
    arrivals.close()


def throttle_seconds(proxy: Proxy) -> float:
    found = re.search(r'^tierproxy_cold_throttle_seconds_total{limit="process"} (\S+)$', proxy.get("/metrics")[1], re.M)
    return float(found[1]) if found else 0.0


def _librdkafka(bootstrap: str, cold: str, hot: str) -> Generator[str, None, None]:
    """Topics of the records as they come."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "x", "enable.auto.commit": False})
    consumer.assign([TopicPartition(cold, 0, 0), TopicPartition(cold, 1, 0), TopicPartition(hot, 0, 0)])
    try:
        while True:
            message = consumer.poll(60)
            assert message is not None, "nothing has come for a minute"
            assert message.error() is None
            yield str(message.topic())
    finally:
        consumer.close()


def _kafka_python(bootstrap: str, cold: str, hot: str) -> Generator[str, None, None]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=60_000)
    parts = [PyPartition(cold, 0), PyPartition(cold, 1), PyPartition(hot, 0)]
    consumer.assign(parts)
    for part in parts:
        consumer.seek(part, 0)
    try:
        for record in consumer:
            yield str(record.topic)
    finally:
        consumer.close()
