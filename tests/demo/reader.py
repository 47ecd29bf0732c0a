"""One stock consumer in a process of its own: reads a topic from offset 0 and digests what it is handed.

    python -m tests.demo.reader CLIENT BOOTSTRAP TOPIC PARTITIONS ENDS

It reads until the file ENDS appears (JSON: partition → offset behind the last record) and every partition has got
there. Prints a JSON line about its progress now and then, and a last one with its digests.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.demo.digest import Digest
from tests.kit.console import RECORD, console_command, parse

_SAY_EVERY = 0.2


class Reading:
    """What has been read so far, and whether that is all."""

    def __init__(self, partitions: int, ends: Path) -> None:
        self.digests = {partition: Digest() for partition in range(partitions)}
        self._ends_file = ends
        self._ends: dict[int, int] | None = None
        self._started = time.monotonic()
        self._said = 0.0

    @property
    def ends(self) -> dict[int, int] | None:
        if self._ends is None and self._ends_file.exists():
            self._ends = {int(p): end for p, end in json.loads(self._ends_file.read_text()).items()}
        return self._ends

    def done(self) -> bool:
        now = time.monotonic()
        if now - self._said > _SAY_EVERY:
            self._said = now
            self.say()
        ends = self.ends
        return ends is not None and all(self.digests[p].last_offset >= end - 1 for p, end in ends.items())

    def say(self, *, last: bool = False) -> None:
        words: dict[str, Any] = {
            "records": sum(d.records for d in self.digests.values()),
            "bytes": sum(d.size for d in self.digests.values()),
            "positions": {p: d.last_offset + 1 for p, d in self.digests.items()},
            "seconds": time.monotonic() - self._started,
        }
        if last:
            words["digests"] = {p: d.hex for p, d in self.digests.items()}
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()


def librdkafka(bootstrap: str, topic: str, reading: Reading) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "demo-librdkafka",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 2,
        }
    )
    consumer.subscribe([topic])
    while not reading.done():
        messages: list[Any] = consumer.consume(5000, 0.1)
        for m in messages:
            error = m.error()
            if error is not None:
                raise RuntimeError(f"librdkafka reports {error}")
            digest = reading.digests[m.partition()]
            digest.add(m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers() or ())
    consumer.close()


def aiokafka(bootstrap: str, topic: str, reading: Reading) -> None:
    from aiokafka import AIOKafkaConsumer

    async def read() -> None:
        consumer: Any = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id="demo-aiokafka",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            while not reading.done():
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    for m in batch:
                        reading.digests[m.partition].add(m.offset, m.timestamp, m.key, m.value, m.headers)
        finally:
            await consumer.stop()

    asyncio.run(read())


def kafka_python(bootstrap: str, topic: str, reading: Reading) -> None:
    from kafka import KafkaConsumer

    consumer: Any = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id="demo-kafka-python",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=5000,
        metrics_enabled=False,
    )
    try:
        while not reading.done():
            for batch in consumer.poll(timeout_ms=100).values():
                for m in batch:
                    reading.digests[m.partition].add(m.offset, m.timestamp, m.key, m.value, m.headers or ())
    finally:
        consumer.close()


def java(bootstrap: str, topic: str, reading: Reading) -> None:
    """Kafka's console consumer has to be told how many records there are, so the ends must be known already."""
    ends = reading.ends
    if ends is None:
        raise RuntimeError("the console consumer can only read up to ends that are known")
    command = console_command(bootstrap, topic, sum(ends.values()), "--from-beginning")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as console:
        assert console.stdout is not None
        for line in _split(console.stdout.fileno()):
            r = parse(line)
            reading.digests[r.partition].add(r.offset, r.timestamp, r.key, r.value, r.headers)
            if not r.offset & 1023:
                reading.done()
    if console.returncode != 0:
        raise RuntimeError(f"the console consumer ended with {console.returncode}")


def _split(pipe: int) -> Iterator[bytes]:
    left = b""
    while chunk := os.read(pipe, 1 << 20):
        *lines, left = (left + chunk).split(RECORD)
        yield from lines


CLIENTS = {"librdkafka": librdkafka, "aiokafka": aiokafka, "kafka-python": kafka_python, "java": java}


def main() -> None:
    client, bootstrap, topic, partitions, ends = sys.argv[1:]
    reading = Reading(int(partitions), Path(ends))
    CLIENTS[client](bootstrap, topic, reading)
    reading.say(last=True)


if __name__ == "__main__":
    main()
