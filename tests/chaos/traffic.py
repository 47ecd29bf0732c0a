"""What is written and read meanwhile. A record's content follows from seed, partition and offset alone.

The producer is idempotent and alone, so that the n-th record of a partition has offset n: whoever reads one knows at
once whether it is right, without a list of what was written.
"""

import random
import threading
from collections.abc import Callable
from functools import partial

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.demo.digest import Digest

T0 = 1_700_000_000_000


def content(seed: int, partition: int, offset: int) -> tuple[bytes, bytes, int]:
    """Key, value and timestamp (ms) of a record."""
    dice = random.Random(seed << 40 ^ partition << 32 ^ offset)
    return b"%d" % dice.randrange(1000), dice.randbytes(dice.randrange(20, 400)).hex().encode(), T0 + offset


def digest(seed: int, partition: int, end: int) -> Digest:
    """What a reader of the first `end` records must come to."""
    made = Digest()
    for offset in range(end):
        key, value, timestamp = content(seed, partition, offset)
        made.add(offset, timestamp, key, value, ())
    return made


class Writer(threading.Thread):
    """Writes until it is told to stop; `ends` is how much the broker has taken, by partition."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, seed: int, failed: Callable[[str], None]) -> None:
        super().__init__(name="writer", daemon=True)
        self.ends = dict.fromkeys(range(partitions), 0)
        self._topic = topic
        self._seed = seed
        self._failed = failed
        self._over = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "batch.size": 16_384,  # the topic's broker segments are small
                "delivery.timeout.ms": 600_000,
                "compression.type": "lz4",
                "log_level": 2,
            }
        )

    def run(self) -> None:
        next_offset = dict(self.ends)
        dice = random.Random(self._seed)
        while not self._over.wait(dice.uniform(0, 0.1)):
            partition = dice.randrange(len(self.ends))
            for _ in range(dice.randrange(1, 60)):
                offset = next_offset[partition]
                key, value, timestamp = content(self._seed, partition, offset)
                while True:
                    try:
                        self._producer.produce(
                            self._topic,
                            value,
                            key,
                            partition,
                            timestamp=timestamp,
                            on_delivery=partial(self._taken, offset),
                        )
                        break
                    except BufferError:
                        self._producer.poll(0.1)
                next_offset[partition] = offset + 1
            self._producer.poll(0)
        if self._producer.flush(300):
            self._failed("the writer: the broker has not taken everything within 300 s")
        elif self.ends != next_offset:
            self._failed(f"the writer: {next_offset} were sent and {self.ends} were taken")

    def stop(self) -> None:
        """Stop, and wait until the broker has taken everything."""
        self._over.set()
        self.join()

    def _taken(self, expected: int, error: KafkaError | None, message: Message) -> None:
        """After a broker's death these may come out of order, and for what was sent twice without an offset."""
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        if error is not None:
            self._failed(f"the writer: {error}")
        elif offset is not None and offset >= 0 and offset != expected:
            self._failed(f"the writer: a record of partition {partition} has offset {offset}, not {expected}")
        else:
            self.ends[partition] += 1


class Follower(threading.Thread):
    """Reads through one tierproxy, from the beginning to the end and again from somewhere else."""

    def __init__(self, bootstrap: str, topic: str, writer: Writer, seed: int, failed: Callable[[str], None]) -> None:
        super().__init__(name=f"reader of {bootstrap}", daemon=True)
        self.records = 0
        self._servers = bootstrap
        self._topic = topic
        self._writer = writer
        self._seed = seed
        self._failed = failed
        self._over = threading.Event()

    def run(self) -> None:
        dice = random.Random(self._seed)
        consumer = _consumer(self._servers)
        try:
            position = dict.fromkeys(self._writer.ends, 0)
            consumer.assign([TopicPartition(self._topic, p, 0) for p in position])
            while not self._over.is_set():
                for message in consumer.consume(500, 0.5):
                    wrong = _judge(message, position, self._seed)
                    if wrong is not None:
                        self._failed(f"the {self.name}: {wrong}")
                        return
                    self.records += message.error() is None
                for partition, end in self._writer.ends.items():
                    if end and position[partition] >= end and dice.random() < 0.2:
                        position[partition] = dice.choice([0, dice.randrange(end)])
                        consumer.incremental_unassign([TopicPartition(self._topic, partition)])
                        consumer.incremental_assign([TopicPartition(self._topic, partition, position[partition])])
        finally:
            consumer.close()

    def stop(self) -> None:
        self._over.set()
        self.join()


def read_whole(
    bootstrap: str, topic: str, ends: dict[int, int], seed: int, give_up: Callable[[], bool]
) -> dict[int, Digest]:
    """Everything up to `ends`, from the beginning. Stops early when `give_up` says so."""
    consumer = _consumer(bootstrap)
    found = {partition: Digest() for partition in ends}
    position = dict.fromkeys(ends, 0)
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        while any(position[partition] < end for partition, end in ends.items()) and not give_up():
            for message in consumer.consume(1000, 0.5):
                wrong = _judge(message, position, seed)
                if wrong is not None:
                    raise AssertionError(f"read through {bootstrap} at the end: {wrong}")
                if message.error() is None:
                    partition, offset = message.partition(), message.offset()
                    assert partition is not None
                    assert offset is not None
                    found[partition].add(offset, message.timestamp()[1], message.key(), message.value(), ())
    finally:
        consumer.close()
    return found


def _judge(message: Message, position: dict[int, int], seed: int) -> str | None:
    """What is wrong with a message that must be the one at its partition's `position`; None: nothing."""
    error = message.error()
    if error is not None:
        # Servers come and go here. What must never be said is that an offset is out of range.
        code = error.code()
        return f"{error}" if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) else None
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    if offset != position[partition]:
        return f"partition {partition}: offset {offset} comes, where {position[partition]} should"
    position[partition] = offset + 1
    if (message.key(), message.value(), message.timestamp()[1]) != content(seed, partition, offset):
        return f"partition {partition}: the record at {offset} is not the one that was written"
    return None


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # a reset would hide that an offset was refused
            "log_level": 2,
        }
    )
