"""The readers that are written in Python, as programs (see `programs`): `python -m tests.bench.reading KIND JSON`.

`raw` does nothing with what it gets but look at batch headers; `librdkafka` is confluent-kafka as applications use it.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.bench.programs import work_when_told
from tests.bench.raw import Read, read_all, read_some

RAW_PARTITION_BYTES = 8 << 20
LIBRDKAFKA = {
    "fetch.queue.backoff.ms": 10,  # by default it rests a second whenever its queue is full
    "fetch.message.max.bytes": 8 << 20,
    "queued.max.messages.kbytes": 256 << 10,
    "queued.min.messages": 500_000,
    "socket.receive.buffer.bytes": 2 << 20,
}


def read_raw(about: dict[str, Any]) -> Read:
    host, port = about["bootstrap"].rsplit(":", 1)
    ends = {int(p): end for p, end in about["ends"].items()}
    return read_all((host, int(port)), about["topic"], ends, about.get("partition_bytes", RAW_PARTITION_BYTES))


def read_librdkafka(about: dict[str, Any]) -> Read:
    """Messages in lists of up to 10,000. Its `log_bytes` are those of the values."""
    consumer = Consumer(
        {
            "bootstrap.servers": about["bootstrap"],
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "log_level": 2,
            **LIBRDKAFKA,
        }
    )
    ends = {int(p): end for p, end in about["ends"].items()}
    wanted = sum(ends.values())
    records = value_bytes = 0
    first = 0.0
    started = time.perf_counter()
    try:
        consumer.assign([TopicPartition(about["topic"], p, OFFSET_BEGINNING) for p in ends])
        while records < wanted:
            # No more than there are: it waits for as many as it's asked for, or until the time is over.
            messages: list[Any] = consumer.consume(min(10_000, wanted - records), 0.5)
            for message in messages:
                if message.error() is not None:
                    raise RuntimeError(str(message.error()))
                value_bytes += len(message.value())
            records += len(messages)
            if records and not first:
                first = time.perf_counter() - started
        return Read(time.perf_counter() - started, first, value_bytes, records)
    finally:
        consumer.close()


def read_crowd(about: dict[str, Any]) -> Read:
    """Many raw readers at once, each of a range of its own: `starts` are partition and offset, `bytes` for each."""
    host, port = about["bootstrap"].rsplit(":", 1)

    def read_one(start: tuple[int, int]) -> int:
        return read_some((host, int(port)), about["topic"], start[0], start[1], about["bytes"])

    started = time.perf_counter()
    with ThreadPoolExecutor(len(about["starts"])) as threads:
        log_bytes = sum(threads.map(read_one, about["starts"]))
    return Read(time.perf_counter() - started, 0.0, log_bytes, 0)


READERS: dict[str, Callable[[dict[str, Any]], Read]] = {
    "raw": read_raw,
    "librdkafka": read_librdkafka,
    "crowd": read_crowd,
}


def main(kind: str, about: str) -> None:
    work_when_told(lambda: asdict(READERS[kind](json.loads(about))))


if __name__ == "__main__":
    main(*sys.argv[1:])
