"""The corpora's way into Kafka: a stock producer writes the hot topic, and its batches are copied into the cold twin.

So both have the same bytes. The producer is librdkafka with a batch.size of 16 KiB, the default of Kafka's own: most
topics have small batches, and those cost readers more than large ones.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Producer

from protocol.batches import walk
from tests.bench.corpus import START_MS, Corpus, values
from tests.bench.raw import Address, Connection, asked
from tests.kit import admin

PRODUCER = {"batch.size": 16_384, "linger.ms": 50, "queue.buffering.max.messages": 500_000, "log_level": 2}
_UNANSWERED = 20
_NO_OFFSET = bytes(8)
"""Producers don't know a batch's offset, and brokers insist on it. It is before what the CRC covers."""
TOPIC = {"retention_ms": -1, "segment_bytes": 128 << 20}


@dataclass(frozen=True)
class Filled:
    """A corpus as it lies in Kafka: per partition its end offset; bytes of batches, of all partitions together."""

    ends: dict[int, int]
    log_bytes: int


def fill(bootstrap: str, address: Address, corpus: Corpus, say: Callable[[str], None]) -> Filled:
    """Creates both topics and writes them. `address`: of the broker that leads all partitions."""
    for topic in corpus.topics:
        admin.create_topic(bootstrap, topic, corpus.partitions, **TOPIC)
    say(f"{corpus.name}: producing {corpus.megabytes} MB")
    _produce(bootstrap, corpus)
    ends = admin.latest(bootstrap, corpus.hot, corpus.partitions)
    say(f"{corpus.name}: copying it")
    return Filled(ends, _copy(address, corpus, ends))


def _produce(bootstrap: str, corpus: Corpus) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": corpus.compression, **PRODUCER})
    for number, value in enumerate(values(corpus.name, corpus.megabytes)):
        while True:
            try:
                # Neighbours share a batch, as from a producer that fills one after the other.
                partition = (number >> 4) % corpus.partitions
                producer.produce(corpus.hot, value=value, partition=partition, timestamp=START_MS + number)
                break
            except BufferError:
                producer.poll(0.05)
        if not number & 1023:
            producer.poll(0)
    if producer.flush(300):
        raise RuntimeError("the broker did not take everything within five minutes")


def _copy(address: Address, corpus: Corpus, ends: dict[int, int]) -> int:
    """Batch by batch, some on their way at a time."""
    copied = 0
    with Connection(address) as source, Connection(address) as target:
        for partition, end in ends.items():
            at = 0
            unanswered: deque[int] = deque()
            while at < end:
                source.send_fetch([asked(corpus.hot, partition, at, 8 << 20)])
                records = source.receive_fetched().partitions[0].records
                for header, batch in walk(records or memoryview(b"")):
                    if len(unanswered) == _UNANSWERED:
                        _settle(target, unanswered)
                    target.send_produce(corpus.cold, partition, b"".join((_NO_OFFSET, batch[8:])))
                    unanswered.append(header.base_offset)
                    at = header.next_offset
                    copied += len(batch)
            while unanswered:
                _settle(target, unanswered)
    return copied


def _settle(target: Connection, unanswered: deque[int]) -> None:
    wanted, got = unanswered.popleft(), target.receive_produced()
    if wanted != got:
        raise RuntimeError(f"a copied batch lies at {got}, the original at {wanted}")
