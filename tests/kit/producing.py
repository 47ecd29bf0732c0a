"""Producing with a stock client (librdkafka), and remembering exactly what the broker took."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, Message, Producer

from tests.kit.records import Draft, Log, Record

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Recorder:
    """A producer whose `log` is what was acknowledged: the drafts with their offsets.

    In transactions use `begin`, then `commit` or `abort`; `log` then holds committed records only, and
    `everything` also the aborted ones (what `read_uncommitted` shows).
    """

    def __init__(self, bootstrap: str, topic: str, *, transactional: bool = False, **settings: str | int) -> None:
        config: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "log_level": 2,
            "enable.idempotence": True,
            "linger.ms": 5,
            "batch.size": 16_384,
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        if transactional:
            config["transactional.id"] = f"kit-{uuid4()}"
        self.topic = topic
        self.log: Log = {}
        self.everything: Log = {}
        self._open: list[Record] = []
        self._transactional = transactional
        self._producer = Producer(config)
        if transactional:
            self._producer.init_transactions(60)

    def send(self, drafts: Iterable[Draft]) -> None:
        """Queues them; `flush`, `commit` or `abort` waits for the broker."""
        for draft in drafts:
            while True:
                try:
                    self._produce(draft)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)

    def flush(self) -> None:
        """Waits until the broker has taken all of it."""
        left = self._producer.flush(60)
        if left:
            raise TimeoutError(f"{left} records were not taken by the broker within 60 s")
        if not self._transactional:
            self._settle(self.log)

    def begin(self) -> None:
        self._producer.begin_transaction()

    def commit(self) -> None:
        self.flush()
        self._producer.commit_transaction(60)
        self._settle(self.log)

    def abort(self) -> None:
        self.flush()
        self._producer.abort_transaction(60)
        self._settle(None)

    def _produce(self, draft: Draft) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                raise AssertionError(f"the broker did not take a record: {error}")
            offset = message.offset()
            assert offset is not None
            self._open.append(Record(draft.partition, offset, draft.key, draft.value, draft.headers, draft.timestamp))

        self._producer.produce(
            self.topic,
            key=draft.key,
            value=draft.value,
            headers=list(draft.headers),
            partition=draft.partition,
            timestamp=draft.timestamp,
            on_delivery=delivered,
        )

    def _settle(self, log: Log | None) -> None:
        for target in (log, self.everything):
            if target is not None:
                for record in self._open:
                    target.setdefault(record.partition, []).append(record)
        self._open.clear()
        for target in (self.log, self.everything):
            for records in target.values():
                records.sort(key=lambda record: record.offset)


def produce(bootstrap: str, topic: str, drafts: Iterable[Draft], **settings: str | int) -> Log:
    """Produces them, waits, and returns what was taken. `settings` as librdkafka's with `_` for `.`."""
    recorder = Recorder(bootstrap, topic, transactional=False, **settings)
    recorder.send(drafts)
    recorder.flush()
    return recorder.log


def merged(*logs: Mapping[int, list[Record]]) -> Log:
    """Several producers' logs of one topic as one."""
    together: Log = {}
    for log in logs:
        for partition, records in log.items():
            together.setdefault(partition, []).extend(records)
    for records in together.values():
        records.sort(key=lambda record: record.offset)
    return together
