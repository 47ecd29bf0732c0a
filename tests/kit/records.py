"""What a record is to a client, what was produced, and how the two are compared."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Log = dict[int, list["Record"]]
"""Records per partition, in the order of their offsets."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record with everything that a client shows of it. `timestamp` is in milliseconds since 1970."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that is still to be produced."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


def drafts(count: int, *, partition: int, seed: int, start_ms: int = 1_357_000_000_000) -> Iterator[Draft]:
    """`count` different records of about 400 bytes, half of it incompressible; the same for the same seed.

    Every shape that a client could mix up is among them: no key, no value, empty ones, no header, the same
    header twice, a header without value, bytes that are no UTF-8. Time goes up by about a second a record,
    with ties and, now and then, a step back.
    """
    chance = random.Random(f"{seed}/{partition}")
    now = start_ms
    for i in range(count):
        now += chance.choice([0, 500, 1000, 1000, 2000, -700 if i else 0])
        noise = chance.randbytes(100).hex()
        key: bytes | None = f"key-{partition}-{i % 97}".encode()
        value: bytes | None = f'{{"n": {i}, "noise": "{noise}", "text": "{"the same again " * 12}"}}'.encode()
        headers: tuple[tuple[str, bytes | None], ...] = (("n", str(i).encode()), ("source", b"kit"))
        match i % 50:
            case 7:
                key = None
            case 13:
                value = None
            case 19:
                key, value = b"", b""
            case 23:
                headers = ()
            case 29:
                headers = (("twice", b"1"), ("twice", b"2"), ("none", None), ("empty", b""))
            case 31:
                value = b"\xff\xfe\x80" + str(i).encode()
        yield Draft(partition, key, value, headers, now)


def ends(log: Mapping[int, list[Record]]) -> dict[int, int]:
    """Per partition that has records, the offset of the last one."""
    return {partition: records[-1].offset for partition, records in log.items() if records}


def count(log: Mapping[int, list[Record]]) -> int:
    """Records in all partitions."""
    return sum(map(len, log.values()))


def since(log: Mapping[int, list[Record]], starts: Mapping[int, int]) -> Log:
    """The records at or after the partition's start; of partitions without one, all."""
    return {p: [r for r in records if r.offset >= starts.get(p, 0)] for p, records in log.items()}


def first_at(records: Iterable[Record], timestamp: int) -> Record | None:
    """Kafka's rule for a seek by time: the first record, by offset, whose time is not before `timestamp`."""
    return next((r for r in records if r.timestamp >= timestamp), None)


def assert_same(expected: Mapping[int, list[Record]], got: Mapping[int, list[Record]]) -> None:
    """Record by record; the first difference is what the failure shows."""
    assert sorted(got) == sorted(expected), f"partitions {sorted(got)} instead of {sorted(expected)}"
    for partition, wanted in expected.items():
        read = got[partition]
        for i, (want, have) in enumerate(zip(wanted, read, strict=False)):
            assert have == want, f"partition {partition}, record {i}: got {have}, produced was {want}"
        if len(read) != len(wanted):
            more = (read if len(read) > len(wanted) else wanted)[min(len(read), len(wanted))]
            raise AssertionError(
                f"partition {partition}: {len(read)} records read, {len(wanted)} produced; "
                f"the first one too {'many' if len(read) > len(wanted) else 'few'} is {more}"
            )
