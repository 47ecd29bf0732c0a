"""What is written to each pair of topics, and how the archived one of the pair is archived. The same in every run.

Each subject is written in acts: between them the broker is restarted, which begins a new leader epoch.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.differential.writing import PAUSE, Producer, Writer
from tests.unit.batch_maker import Headers, MadeRecord

ACTS = 2
SEGMENT = 28_000
"""Bytes of the brokers' segments, unless said otherwise."""

GROWING = "growing"
"""The subject that is written to during the run."""

_START_MS = 1_357_000_000_000


@dataclass(frozen=True)
class Subject:
    """`policy` is tierproxy's for the archived topic; None: it is only proxied. `moves`: written to during the run.

    `settings` are the topics'. `delete_to` is what a user deletes up to, by partition, before the questions begin
    (-1: everything).
    """

    key: str
    write: "Callable[[Pen, int], None]"
    partitions: int = 1
    policy: Mapping[str, Any] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    segment: int = SEGMENT
    moves: bool = False
    compacts: bool = False
    delete_to: Mapping[int, int] = field(default_factory=dict)

    @property
    def keep(self) -> int | None:
        """Bytes of a partition that stay on the broker; None if nothing is trimmed."""
        if self.policy is None or self.policy.get("trim") == "never":
            return None
        return int(self.policy["keep_on_broker"]["bytes"].removesuffix("B"))


class Pen:
    """Writes one subject, from its own random numbers."""

    def __init__(self, writer: Writer, subject: str) -> None:
        self._writer = writer
        self._subject = subject
        self._producers: dict[str, Producer] = {}
        self._now = _START_MS
        self.chance = random.Random(f"subject {subject}")

    def records(self, count: int, size: int = 120, keys: int | None = None) -> list[MadeRecord]:
        """`count` records with values of about `size` bytes: every shape that could get lost among them."""
        chance = self.chance
        made: list[MadeRecord] = []
        for delta in range(count):
            self._now += chance.choice([0, 0, 1, 7, 1000, 1000, -400])
            key: bytes | None = b"k%d" % chance.randrange(keys or 1_000_000)
            value: bytes | None = chance.randbytes(size // 3) + b"the same again, " * (size // 24)
            headers: Headers = (("n", b"%d" % delta),) if chance.random() < 0.3 else ()
            shape = chance.random()
            if shape < 0.05 and keys is None:  # compaction would write the time it met a tombstone into the batch
                value = None
            elif shape < 0.10 and keys is None:
                key = None
            elif shape < 0.13 and keys is None:
                key, value = b"", b""
            elif shape < 0.16:
                headers = (("twice", b"1"), ("twice", None), ("\u00e4", b"\xff\xfe"))
            made.append((delta, self._now, key, value, headers))
        return made

    def batch(
        self, partition: int = 0, count: int = 0, size: int = 120, codec: int | None = None, by: str = ""
    ) -> None:
        """A batch of `count` records (0: any number up to 30) by the producer called `by` ("": by nobody)."""
        count = count or self.chance.randint(1, 30)
        codec = self.chance.choice([0, 0, 1, 2, 3, 4]) if codec is None else codec
        producer = self._producer(by) if by else None
        self._writer.write(self._subject, partition, self.records(count, size), codec=codec, producer=producer)

    def keyed(self, keys: int) -> None:
        """A batch whose keys are few, so that compaction has something to do."""
        self._writer.write(self._subject, 0, self.records(self.chance.randint(5, 30), 60, keys))

    def join(self, by: str, partition: int) -> None:
        self._writer.join(self._producer(by), self._subject, partition)

    def end(self, by: str, *, commit: bool) -> None:
        self._writer.end(self._producer(by), commit=commit)

    def _producer(self, by: str) -> Producer:
        """Names that begin with `t` are transactional."""
        if by not in self._producers:
            name = f"{self._subject}-{by}" if by.startswith("t") else None
            self._producers[by] = self._writer.producer(name)
        return self._producers[by]


def _plain(batches: Mapping[int, int], size: int = 120) -> Callable[[Pen, int], None]:
    """In each act, so many batches for each partition."""

    def write(pen: Pen, _: int) -> None:
        for partition, count in batches.items():
            for number in range(count):
                by = "" if number % 3 else "idempotent"
                pen.batch(partition, size=pen.chance.choice([size // 4, size, size, size * 6]), by=by)

    return write


def _transactions(pen: Pen, act: int) -> None:
    """Four producers' transactions overlap in both partitions, among plain batches. The last act leaves one open."""
    open_ones: set[str] = set()
    for _ in range(110):
        by = pen.chance.choice(["t1", "t2", "t3", "t4", ""])
        partition = pen.chance.choice([0, 0, 1])
        if by in open_ones and pen.chance.random() < 0.45:
            pen.end(by, commit=pen.chance.random() < 0.4)
            open_ones.discard(by)
        elif by and pen.chance.random() < 0.12:
            pen.join(by, partition)  # perhaps without data: a marker will come all the same
            open_ones.add(by)
        else:
            pen.batch(partition, count=pen.chance.randint(1, 8), by=by)
            if by:
                open_ones.add(by)
    for by in sorted(open_ones):
        pen.end(by, commit=pen.chance.random() < 0.5)
    if act == ACTS - 1:
        # One transaction goes on for ever in partition 0; around it others end, above the last stable offset.
        pen.batch(0, by="t1")
        pen.batch(0, by="t2")
        pen.batch(0)
        pen.end("t2", commit=False)
        pen.batch(0, by="t3")
        pen.end("t3", commit=True)
        pen.batch(0)


def _stamped(pen: Pen, _: int) -> None:
    for _ in range(40):
        pen.batch(count=pen.chance.randint(1, 12))
        time.sleep(PAUSE)


def _bulk(pen: Pen, _: int) -> None:
    for _ in range(20):
        pen.batch(count=pen.chance.randint(5, 60), size=3000, codec=0)
    for _ in range(4):
        pen.batch(count=60, size=9000, codec=0)


def _holes(pen: Pen, _: int) -> None:
    for _ in range(30):
        pen.keyed(40)


def _nothing(pen: Pen, act: int) -> None:
    """Never written to."""


def _archive(segment: int, keep: int, **more: Any) -> dict[str, Any]:
    """Sizes in bytes."""
    segments = {"bytes": f"{segment}B", "age": "300ms"}
    return {"archive": "local", "segment": segments, "keep_on_broker": {"bytes": f"{keep}B"}, **more}


SUBJECTS = [
    Subject("mixed", _plain({0: 60, 1: 12}), 3, _archive(24_576, 49_152)),
    Subject("frozen", _plain({0: 25, 1: 5}), 2, _archive(24_576, 0)),
    Subject("txn", _transactions, 2, _archive(9_000, 12_288)),
    Subject("txnfrozen", _transactions, 2, _archive(4_096, 0), segment=6_000),
    Subject("stamped", _stamped, 1, _archive(12_288, 16_384), {"message.timestamp.type": "LogAppendTime"}),
    Subject("zstd", _plain({0: 25}), 1, _archive(16_384, 0), {"compression.type": "zstd"}),
    Subject("bulk", _bulk, 1, _archive(3_145_728, 524_288), {"max.message.bytes": "2000000"}, segment=2_500_000),
    Subject("deleted", _plain({0: 25, 1: 25, 2: 20}), 3, _archive(12_288, 12_288), delete_to={0: 333, 1: -1, 2: 1}),
    Subject("kept", _plain({0: 15}), 1, _archive(12_288, 0, trim="never")),
    Subject("passing", _plain({0: 15}), 1),
    Subject("holes", _holes, 1, _archive(6_144, 0), segment=12_000, compacts=True),
    Subject(GROWING, _plain({0: 15}), 1, _archive(6_144, 16_384), moves=True),
    Subject("young", _nothing, 2, _archive(6_144, 0)),
]
