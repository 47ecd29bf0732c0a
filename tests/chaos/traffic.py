"""What is written and read meanwhile. A record's content follows from seed, partition and offset alone.

The producer is alone and asks where the log ends whenever it can't know, so that the n-th record of a partition has
offset n: whoever reads one knows at once whether it is right, without a list of what was written.
"""

import random
import threading
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from kafka.record.default_records import DefaultRecordBatchBuilder

from protocol.apis import ApiKey
from protocol.headers import request_header
from protocol.producing import produce_request, read_produce_response
from tests.clients.raw import Raw
from tests.demo.digest import Digest
from tests.kit import admin
from tests.kit.processes import wait_for

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
    """Writes until it is told to stop; `ends` is how much the broker has taken, by partition.

    No library's idempotent producer: brokers forget producers by the time of their last record, and ours are of 2023.
    So one that was killed knows none when it is back, and writes again what was sent again. This writer has one batch
    on its way, and when no answer comes it asks the broker for the end of its log: a broker that was killed has nothing
    more to write, and for one that is only paused it waits.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, seed: int, failed: Callable[[str], None]) -> None:
        super().__init__(name="writer", daemon=True)
        self.ends = dict.fromkeys(range(partitions), 0)
        self._broker = bootstrap
        self._topic = topic
        self._seed = seed
        self._failed = failed
        self._over = threading.Event()
        self._connection: Raw | None = None

    def run(self) -> None:
        dice = random.Random(self._seed)
        try:
            while not self._over.wait(dice.uniform(0, 0.1)):
                self._write(dice.randrange(len(self.ends)), dice.randrange(1, 60))
        except Exception as error:  # whatever it was, the run must hear of it
            self._failed(f"the writer: {error!r}")
            raise
        finally:
            self._hang_up()

    def stop(self) -> None:
        """Stop, and wait until the broker has taken everything."""
        self._over.set()
        self.join()

    def _write(self, partition: int, count: int) -> None:
        """Until the broker has taken it. AssertionError if it lies elsewhere than at the end of what there was."""
        base = self.ends[partition]
        batch = self._batch(partition, base, count)
        while self.ends[partition] == base:
            taken = self._send(partition, batch)
            if taken is None:
                ends = wait_for(self._ask_ends, seconds=300, what="word from the broker where its log ends")
                self.ends[partition] = ends[partition]
                assert ends[partition] in (base, base + count), f"{ends}, after {count} more than {base} were sent"
            else:
                assert taken == base, f"a batch of partition {partition} has offset {taken}, not {base}"
                self.ends[partition] = base + count

    def _batch(self, partition: int, base: int, count: int) -> bytes:
        lz4, most = 3, 1 << 20
        builder = DefaultRecordBatchBuilder(2, lz4, False, -1, -1, -1, most)
        for index in range(count):
            key, value, timestamp = content(self._seed, partition, base + index)
            builder.append(index, timestamp, key, value, [])
        return bytes(builder.build())

    def _send(self, partition: int, batch: bytes) -> int | None:
        """The offset at which the broker says it has written it; None: it may have or not."""
        version = 8
        body = b"".join(produce_request(self._topic, partition, batch, 60_000))
        try:
            if self._connection is None:
                self._connection = Raw(self._broker)
            payload = self._connection.ask(request_header(ApiKey.PRODUCE, version, 1, self.name) + body)
        except OSError:
            self._hang_up()
            return None
        produced = read_produce_response(payload, version)
        return None if produced.error else produced.base_offset

    def _ask_ends(self) -> dict[int, int] | None:
        try:
            return admin.latest(self._broker, self._topic, len(self.ends))
        except (KafkaException, TimeoutError):  # it is down, or only just up
            return None

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


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
