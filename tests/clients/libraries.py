"""The Python libraries as `Client`s: kafka-python, aiokafka, and confluent-kafka with librdkafka below it."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import confluent_kafka
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import Consumer, TopicPartition
from kafka import KafkaConsumer
from kafka import TopicPartition as PyPartition

from tests.clients.client import At, Found
from tests.clients.worker import SECONDS
from tests.kit.clients import (
    from_librdkafka,
    isolation,
    read_with_aiokafka,
    read_with_kafka_python,
    read_with_librdkafka,
)
from tests.kit.records import Log, Record


def _expected(last: Mapping[int, int]) -> Log:
    """The kit's readers are told where to stop by what they are to find."""
    return {p: [Record(p, offset, None, None, (), 0)] for p, offset in last.items()}


class Patience:
    """Ends a loop that gets nowhere."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + SECONDS

    def check(self, at: At, records: Sequence[Record], count: int) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"{len(records)} of {count} records of {at.topic} after {SECONDS:g} s")


class KafkaPython:
    def version(self) -> str:
        return version("kafka-python")

    def read(self, at: At, last: Mapping[int, int], starts: Mapping[int, int] | None = None) -> Log:
        return read_with_kafka_python(at.bootstrap, at.topic, _expected(last), starts=starts, committed=at.committed)

    def group(self, at: At, group: str, count: int) -> list[Record]:
        with self._consumer(at, group) as consumer:
            consumer.subscribe([at.topic])
            records: list[Record] = []
            patience = Patience()
            while len(records) < count:
                patience.check(at, records, count)
                for batch in consumer.poll(timeout_ms=200, max_records=count - len(records)).values():
                    records += map(_from_python, batch)
            consumer.commit()
            return records

    def times(self, at: At, partition: int, times: Sequence[int]) -> list[Found]:
        with self._consumer(at) as consumer:
            place = PyPartition(at.topic, partition)
            answers = [consumer.offsets_for_times({place: time})[place] for time in times]
            return [None if found is None else (found.offset, found.timestamp) for found in answers]

    def bounds(self, at: At, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        with self._consumer(at) as consumer:
            places = [PyPartition(at.topic, partition) for partition in partitions]
            first, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
            return {place.partition: (first[place], end[place]) for place in places}

    def close(self) -> None:
        pass

    @contextmanager
    def _consumer(self, at: At, group: str | None = None) -> Iterator[Any]:
        consumer = KafkaConsumer(
            bootstrap_servers=at.bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level=isolation(at.committed),
            metrics_enabled=False,
        )
        try:
            yield consumer
        finally:
            consumer.close()


class AioKafka:
    def version(self) -> str:
        return version("aiokafka")

    def read(self, at: At, last: Mapping[int, int], starts: Mapping[int, int] | None = None) -> Log:
        return read_with_aiokafka(at.bootstrap, at.topic, _expected(last), starts=starts, committed=at.committed)

    def group(self, at: At, group: str, count: int) -> list[Record]:
        async def read(consumer: Any) -> list[Record]:
            consumer.subscribe([at.topic])
            records: list[Record] = []
            patience = Patience()
            while len(records) < count:
                patience.check(at, records, count)
                for batch in (await consumer.getmany(timeout_ms=200, max_records=count - len(records))).values():
                    records += map(_from_python, batch)
            await consumer.commit()
            return records

        found: list[Record] = self._run(at, group, read)
        return found

    def times(self, at: At, partition: int, times: Sequence[int]) -> list[Found]:
        async def ask(consumer: Any) -> list[Found]:
            place = AioPartition(at.topic, partition)
            answers = [(await consumer.offsets_for_times({place: time}))[place] for time in times]
            return [None if found is None else (found.offset, found.timestamp) for found in answers]

        found: list[Found] = self._run(at, None, ask)
        return found

    def bounds(self, at: At, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        async def ask(consumer: Any) -> dict[int, tuple[int, int]]:
            places = [AioPartition(at.topic, partition) for partition in partitions]
            first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            return {place.partition: (first[place], end[place]) for place in places}

        found: dict[int, tuple[int, int]] = self._run(at, None, ask)
        return found

    def close(self) -> None:
        pass

    def _run(self, at: At, group: str | None, act: Any) -> Any:
        async def run() -> Any:
            consumer: Any = AIOKafkaConsumer(
                bootstrap_servers=at.bootstrap,
                group_id=group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                isolation_level=isolation(at.committed),
                # While it looks for its first offset a moved leader doesn't make it ask for new metadata.
                metadata_max_age_ms=3000,
            )
            try:
                await consumer.start()
                return await act(consumer)
            finally:
                await consumer.stop()

        return asyncio.run(run())


class Librdkafka:
    def version(self) -> str:
        return confluent_kafka.libversion()[0]

    def read(self, at: At, last: Mapping[int, int], starts: Mapping[int, int] | None = None) -> Log:
        return read_with_librdkafka(at.bootstrap, at.topic, _expected(last), starts=starts, committed=at.committed)

    def group(self, at: At, group: str, count: int) -> list[Record]:
        with self._consumer(at, group) as consumer:
            consumer.subscribe([at.topic])
            records: list[Record] = []
            patience = Patience()
            while len(records) < count:
                patience.check(at, records, count)
                for message in consumer.consume(count - len(records), 0.2):
                    assert message.error() is None, message.error()
                    records.append(from_librdkafka(message))
            consumer.commit(asynchronous=False)
            return records

    def times(self, at: At, partition: int, times: Sequence[int]) -> list[Found]:
        with self._consumer(at, "times") as consumer:
            found = [consumer.offsets_for_times([TopicPartition(at.topic, partition, t)], timeout=90)[0] for t in times]
            # It says OFFSET_END, which is negative, for "nothing that new", and keeps times to itself.
            return [(answer.offset, None) if answer.offset >= 0 else None for answer in found]

    def bounds(self, at: At, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        with self._consumer(at, "bounds") as consumer:
            found = {}
            for p in partitions:
                answer = consumer.get_watermark_offsets(TopicPartition(at.topic, p), timeout=90)
                assert answer is not None
                found[p] = answer
            return found

    def close(self) -> None:
        pass

    @contextmanager
    def _consumer(self, at: At, group: str) -> Iterator[Consumer]:
        consumer = Consumer(
            {
                "bootstrap.servers": at.bootstrap,
                "group.id": group,
                "group.protocol": at.protocol,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": isolation(at.committed),
                "log_level": 2,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()


def _from_python(message: Any) -> Record:
    """kafka-python's and aiokafka's messages have one shape."""
    headers = tuple((str(name), value) for name, value in message.headers or ())
    return Record(message.partition, message.offset, message.key, message.value, headers, message.timestamp)
