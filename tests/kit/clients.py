"""The stock consumers: kafka-python, aiokafka, librdkafka (confluent-kafka) and Kafka's own console consumer.

All four have one shape, `Reader`: read a topic's partitions from where they are told (the beginning, unless
`starts` names offsets) until each has given the last record that is expected of it. What a reader returns is
what the client handed out, in its order; nothing is filtered, sorted or compared here.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from kafka import KafkaConsumer
from kafka import TopicPartition as PyPartition

from tests.kit.console import read_with_java
from tests.kit.login import Login
from tests.kit.records import Log, Record, ends

_SECONDS = 150.0


class Reader(Protocol):
    def __call__(
        self,
        bootstrap: str,
        topic: str,
        expected: Mapping[int, list[Record]],
        *,
        starts: Mapping[int, int] | None = None,
        committed: bool = False,
        login: Login | None = None,
    ) -> Log:
        """Records per partition up to the last offset that is expected. `committed` = read_committed."""


class Collector:
    """Collects until every partition has reached its last offset; the clock only serves to report a stall."""

    def __init__(self, last: Mapping[int, int]) -> None:
        self.last = last
        self.log: Log = {partition: [] for partition in last}
        self._missing = set(last)
        self._deadline = time.monotonic() + _SECONDS

    @property
    def done(self) -> bool:
        if self._missing and time.monotonic() > self._deadline:
            at = {p: (self.log[p][-1].offset if self.log[p] else None) for p in self._missing}
            raise TimeoutError(f"after {_SECONDS:g} s partitions are still at {at}, wanted {self.last}")
        return not self._missing

    def add(self, record: Record) -> None:
        if record.partition in self._missing:
            self.log[record.partition].append(record)
            if record.offset >= self.last[record.partition]:
                self._missing.discard(record.partition)


def isolation(committed: bool) -> str:
    return "read_committed" if committed else "read_uncommitted"


def read_with_kafka_python(
    bootstrap: str,
    topic: str,
    expected: Mapping[int, list[Record]],
    *,
    starts: Mapping[int, int] | None = None,
    committed: bool = False,
    login: Login | None = None,
) -> Log:
    consumer: Any = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level=isolation(committed),
        metrics_enabled=False,
        **(login.kafka_python() if login is not None else {}),
    )
    try:
        partitions = [PyPartition(topic, p) for p in expected]
        consumer.assign(partitions)
        for partition, offset in (starts or {}).items():
            consumer.seek(PyPartition(topic, partition), offset)
        collector = Collector(ends(expected))
        while not collector.done:
            for batch in consumer.poll(timeout_ms=200).values():
                for m in batch:
                    headers = tuple((str(name), value) for name, value in m.headers or ())
                    collector.add(Record(m.partition, m.offset, m.key, m.value, headers, m.timestamp))
        return collector.log
    finally:
        consumer.close()


def read_with_aiokafka(
    bootstrap: str,
    topic: str,
    expected: Mapping[int, list[Record]],
    *,
    starts: Mapping[int, int] | None = None,
    committed: bool = False,
    login: Login | None = None,
) -> Log:
    async def read() -> Log:
        consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level=isolation(committed),
            **(login.aiokafka() if login is not None else {}),
        )
        await consumer.start()
        try:
            consumer.assign([AioPartition(topic, p) for p in expected])
            for partition, offset in (starts or {}).items():
                consumer.seek(AioPartition(topic, partition), offset)
            collector = Collector(ends(expected))
            while not collector.done:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    for m in batch:
                        headers = tuple((name, value) for name, value in m.headers)
                        collector.add(Record(m.partition, m.offset, m.key, m.value, headers, m.timestamp))
            return collector.log
        finally:
            await consumer.stop()

    return asyncio.run(read())


def read_with_librdkafka(
    bootstrap: str,
    topic: str,
    expected: Mapping[int, list[Record]],
    *,
    starts: Mapping[int, int] | None = None,
    committed: bool = False,
    login: Login | None = None,
) -> Log:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # a reset would hide that an offset was refused
            "isolation.level": isolation(committed),
            "log_level": 2,
            **(login.librdkafka() if login is not None else {}),
        }
    )
    try:
        begin = starts or {}
        consumer.assign([TopicPartition(topic, p, begin.get(p, OFFSET_BEGINNING)) for p in expected])
        collector = Collector(ends(expected))
        while not collector.done:
            for message in consumer.consume(1000, 0.2):
                error = message.error()
                if error is not None:
                    raise AssertionError(f"librdkafka reports {error}")
                collector.add(from_librdkafka(message))
        return collector.log
    finally:
        consumer.close()


def from_librdkafka(message: Any) -> Record:
    """confluent-kafka's message as a record."""
    headers = tuple((name, value) for name, value in message.headers() or ())
    return Record(
        message.partition(), message.offset(), message.key(), message.value(), headers, message.timestamp()[1]
    )


READERS: dict[str, Reader] = {
    "kafka-python": read_with_kafka_python,
    "aiokafka": read_with_aiokafka,
    "librdkafka": read_with_librdkafka,
    "java": read_with_java,
}
