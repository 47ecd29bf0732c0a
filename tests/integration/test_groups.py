"""Consumer groups that stop in the cold part and go on where they stopped, with nothing lost or repeated."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer
from kafka import KafkaConsumer

from tests.integration.conftest import Stage
from tests.kit.clients import from_librdkafka
from tests.kit.console import read_as_group
from tests.kit.producing import produce
from tests.kit.records import Log, Record, assert_same, drafts

HALF = 450


@pytest.fixture(scope="module")
def topic_and_log(stage: Stage) -> tuple[str, Log]:
    topic = stage.topic("seam.groups")
    log = produce(stage.broker, topic, drafts(2500, partition=0, seed=6), compression_type="zstd")
    starts = stage.wait_trimmed(topic, log)
    assert stage.proxy is None or starts[0] > HALF, "the group would not stop in the cold part"
    return topic, log


def _kafka_python(bootstrap: str, topic: str, group: str, count: int) -> list[Record]:
    consumer: Any = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=50,
        metrics_enabled=False,
    )
    try:
        records: list[Record] = []
        while len(records) < count:
            for batch in consumer.poll(timeout_ms=200, max_records=min(50, count - len(records))).values():
                for m in batch:
                    records.append(Record(m.partition, m.offset, m.key, m.value, tuple(m.headers), m.timestamp))
        consumer.commit()
        return records
    finally:
        consumer.close()


def _aiokafka(bootstrap: str, topic: str, group: str, count: int) -> list[Record]:
    async def read() -> list[Record]:
        consumer: Any = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            records: list[Record] = []
            while len(records) < count:
                limit = min(50, count - len(records))
                for batch in (await consumer.getmany(timeout_ms=200, max_records=limit)).values():
                    for m in batch:
                        records.append(Record(m.partition, m.offset, m.key, m.value, tuple(m.headers), m.timestamp))
            await consumer.commit()
            return records
        finally:
            await consumer.stop()

    return asyncio.run(read())


def _librdkafka(bootstrap: str, topic: str, group: str, count: int) -> list[Record]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 2,
        }
    )
    try:
        consumer.subscribe([topic])
        records: list[Record] = []
        while len(records) < count:
            for message in consumer.consume(min(50, count - len(records)), 0.2):
                assert message.error() is None, message.error()
                records.append(from_librdkafka(message))
        consumer.commit(asynchronous=False)
        return records
    finally:
        consumer.close()


def _java_classic(bootstrap: str, topic: str, group: str, count: int) -> list[Record]:
    return read_as_group(bootstrap, topic, group, count, protocol="classic")


def _java_consumer(bootstrap: str, topic: str, group: str, count: int) -> list[Record]:
    """The group protocol of KIP-848."""
    return read_as_group(bootstrap, topic, group, count, protocol="consumer")


GROUPS = {
    "kafka-python": _kafka_python,
    "aiokafka": _aiokafka,
    "librdkafka": _librdkafka,
    "java": _java_classic,
    "java-848": _java_consumer,
}


@pytest.mark.parametrize("client", GROUPS)
def test_group_stops_in_the_cold_part_and_resumes(stage: Stage, topic_and_log: tuple[str, Log], client: str) -> None:
    topic, log = topic_and_log
    group = f"resuming-{client}"
    first = GROUPS[client](stage.gateway, topic, group, HALF)
    assert first[-1].offset == HALF - 1
    second = GROUPS[client](stage.gateway, topic, group, len(log[0]) - HALF)
    assert_same(log, {0: first + second})
