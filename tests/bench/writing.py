"""A producer in Python, as a program (see `programs`): `python -m tests.bench.writing JSON`; librdkafka, acks=all."""

import json
import sys
import time
from itertools import islice
from typing import Any

from confluent_kafka import Producer

from tests.bench.corpus import records
from tests.bench.programs import work_when_told

DIFFERENT = 20_000
LIBRDKAFKA = {"acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 200_000}


def write(about: dict[str, Any], values: list[bytes]) -> dict[str, float]:
    """Seconds and bytes of values."""
    producer = Producer({"bootstrap.servers": about["bootstrap"], "log_level": 2, **LIBRDKAFKA})
    written = 0
    started = time.perf_counter()
    for number in range(int(about["records"])):
        value = values[number % len(values)]
        while True:
            try:
                producer.produce(about["topic"], value=value)
                break
            except BufferError:
                producer.poll(0.01)
        written += len(value)
        if not number & 1023:
            producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take everything within two minutes")
    return {"seconds": time.perf_counter() - started, "bytes": written}


def main(about: str) -> None:
    values = list(islice(records("writing"), DIFFERENT))
    work_when_told(lambda: write(json.loads(about), values))


if __name__ == "__main__":
    main(*sys.argv[1:])
