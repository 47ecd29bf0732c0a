"""Seeks by offset and by time into the part of a topic that only the archive has."""

from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import Consumer, TopicPartition
from kafka import KafkaConsumer
from kafka import TopicPartition as PyPartition

from tests.integration.conftest import Stage
from tests.kit.clients import READERS
from tests.kit.kafka import run_tool
from tests.kit.producing import produce
from tests.kit.records import Log, Record, assert_same, drafts, first_at, since


@pytest.fixture(scope="module")
def history(stage: Stage) -> tuple[str, Log]:
    topic = stage.topic("seam.history")
    log = produce(stage.broker, topic, drafts(2000, partition=0, seed=5), compression_type="lz4")
    stage.wait_trimmed(topic, log)
    return topic, log


@pytest.mark.parametrize("client", READERS)
@pytest.mark.parametrize("offset", [1, 777])
def test_seek_by_offset(stage: Stage, history: tuple[str, Log], client: str, offset: int) -> None:
    """Both offsets lie inside a batch: what the batch holds before them must not be handed out."""
    topic, log = history
    wanted = since(log, {0: offset})
    assert_same(wanted, READERS[client](stage.gateway, topic, wanted, starts={0: offset}))


def _targets(records: list[Record]) -> list[int]:
    """Times to ask for: before everything, exact hits, between two records, at the seam, after everything."""
    picked = [records[i].timestamp for i in (0, 1, 500, 999, 1500, -1)]
    return [picked[0] - 1, *picked, picked[2] + 1, max(r.timestamp for r in records) + 1]


def _expected(records: list[Record]) -> dict[int, tuple[int, int] | None]:
    """Per time asked for the offset and time of the first record that is not older; None: there is none."""
    found = {target: first_at(records, target) for target in _targets(records)}
    return {t: (r.offset, r.timestamp) if r is not None else None for t, r in found.items()}


def test_times_by_kafka_python(stage: Stage, history: tuple[str, Log]) -> None:
    topic, log = history
    consumer: Any = KafkaConsumer(bootstrap_servers=stage.gateway, metrics_enabled=False)
    try:
        partition = PyPartition(topic, 0)
        for target, wanted in _expected(log[0]).items():
            answer = consumer.offsets_for_times({partition: target})[partition]
            assert (None if answer is None else (answer.offset, answer.timestamp)) == wanted, target
    finally:
        consumer.close()


async def test_times_by_aiokafka(stage: Stage, history: tuple[str, Log]) -> None:
    topic, log = history
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=stage.gateway)
    await consumer.start()
    try:
        partition = AioPartition(topic, 0)
        for target, wanted in _expected(log[0]).items():
            answer = (await consumer.offsets_for_times({partition: target}))[partition]
            assert (None if answer is None else (answer.offset, answer.timestamp)) == wanted, target
    finally:
        await consumer.stop()


def test_times_by_librdkafka(stage: Stage, history: tuple[str, Log]) -> None:
    topic, log = history
    consumer = Consumer({"bootstrap.servers": stage.gateway, "group.id": "times", "log_level": 2})
    try:
        for target, wanted in _expected(log[0]).items():
            (answer,) = consumer.offsets_for_times([TopicPartition(topic, 0, target)], timeout=90)
            end = -1  # librdkafka's OFFSET_END: nothing that new
            assert answer.offset == (wanted[0] if wanted is not None else end), target
    finally:
        consumer.close()


def test_times_by_java(stage: Stage, history: tuple[str, Log]) -> None:
    topic, log = history
    target, wanted = next((t, w) for t, w in list(_expected(log[0]).items())[3:] if w is not None)
    printed = run_tool(
        "org.apache.kafka.tools.GetOffsetShell",
        *("--bootstrap-server", stage.gateway, "--topic", topic, "--time", str(target)),
    )
    assert printed.split() == [f"{topic}:0:{wanted[0]}"]


def test_reading_on_from_a_time(stage: Stage, history: tuple[str, Log]) -> None:
    topic, log = history
    first = first_at(log[0], log[0][600].timestamp)
    assert first is not None
    consumer = Consumer({"bootstrap.servers": stage.gateway, "group.id": "times", "log_level": 2})
    try:
        found = consumer.offsets_for_times([TopicPartition(topic, 0, log[0][600].timestamp)], timeout=90)
    finally:
        consumer.close()
    wanted = since(log, {0: first.offset})
    assert_same(wanted, READERS["librdkafka"](stage.gateway, topic, wanted, starts={0: found[0].offset}))
