"""The demonstration's producer: stock librdkafka, and a digest of what the broker said it took."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.demo.digest import Digest
from tests.demo.source import Item


class Sender:
    """Produces items to `topic`; `digests` are built from the broker's acknowledgements, in offset order."""

    def __init__(self, bootstrap: str, topic: str, digests: dict[int, Digest]) -> None:
        self._topic = topic
        self._digests = digests
        self._error: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,  # keeps the order, and with it the digests' order, through retries
                "linger.ms": 20,
                "message.max.bytes": 32 << 20,
                "queue.buffering.max.kbytes": 128 << 10,
                "log_level": 2,
            }
        )

    def send(self, items: Iterator[Item], sent: Callable[[int], None], *, per_second: float | None = None) -> None:
        """Sends all of `items`, at most `per_second`; tells `sent` now and then how many were added."""
        started, number, told = time.monotonic(), 0, 0
        for item in items:
            self._send(item, number)
            number += 1
            if number % 500 == 0 or per_second:
                self._producer.poll(0)
                sent(number - told)
                told = number
                self._check()
            while per_second and number > (time.monotonic() - started) * per_second:
                self._producer.poll(0.02)
        sent(number - told)

    def flush(self) -> None:
        """Waits until the broker has taken everything."""
        left = self._producer.flush(60)
        self._check()
        if left:
            raise RuntimeError(f"the broker did not take {left} records within a minute")

    def _send(self, item: Item, number: int) -> None:
        timestamp = item.timestamp if item.timestamp is not None else int(time.time() * 1000)
        headers: list[tuple[str, bytes | None]] = [("source", b"demo"), ("n", str(number).encode())]

        def taken(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._error = error
                return
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            self._digests[partition].add(offset, timestamp, item.key, item.value, headers)

        arguments: dict[str, Any] = {"key": item.key, "value": item.value, "headers": headers}
        while True:
            try:
                self._producer.produce(self._topic, **arguments, timestamp=timestamp, on_delivery=taken)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _check(self) -> None:
        if self._error is not None:
            raise RuntimeError(f"a record was not taken: {self._error}")
