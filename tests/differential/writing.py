"""A raw producer that gives every batch to both topics of a subject: same bytes, same sequence, same transaction.

Both topics are named in one Produce request and both are part of the same transactions, so that producer ids, offsets
and all bytes of data batches are equal. What brokers write themselves isn't: markers and LogAppendTime batches carry
the time at which that topic's log took them. `PAUSE` keeps these times apart, so that what comes first does so in both.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from protocol.errors import ErrorCode
from tests.differential import messages
from tests.differential.wire import Line, exchange
from tests.kit.processes import wait_for
from tests.unit.batch_maker import MadeRecord, make_batch

PAUSE = 0.005
"""Seconds between two writes whose time the broker decides: the two topics' times lie closer together."""

TRANSACTION_TIMEOUT_MS = 6 * 3_600_000
"""Longer than any run: a transaction that is left open stays open. The broker has to allow it."""

_AGAIN = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.CONCURRENT_TRANSACTIONS,
}
T = TypeVar("T")


@dataclass(slots=True)
class Producer:
    """A producer id, and the next sequence number for each (subject, partition). `name` None: no transactions."""

    name: str | None
    pid: int
    sequences: dict[tuple[str, int], int] = field(default_factory=dict)
    inside: list[tuple[str, int]] = field(default_factory=list)  # partitions of the transaction that is open


class Writer:
    """Writes to the broker at `address`; `names` are the two topics of a subject."""

    def __init__(self, address: tuple[str, int], names: Callable[[str], Sequence[str]]) -> None:
        self._line = Line(address)
        self._names = names

    def close(self) -> None:
        self._line.close()

    def producer(self, name: str | None = None) -> Producer:
        """A new one; `name` is its transactional id."""
        if name is not None:
            self._until_accepted(messages.find_transaction_coordinator(name), messages.read_coordinator)
        timeout = TRANSACTION_TIMEOUT_MS if name is not None else 60_000
        pid, epoch = self._until_accepted(messages.init_producer(name, timeout), messages.read_producer)
        assert epoch == 0, "every run has new names on a new cluster"
        return Producer(name, pid)

    def write(
        self,
        subject: str,
        partition: int,
        records: Sequence[MadeRecord],
        *,
        codec: int = 0,
        producer: Producer | None = None,
    ) -> int:
        """One batch of `records` (their offset deltas count from 0); returns its base offset, the same in both."""
        place = (subject, partition)
        name = None
        if producer is None:
            batch = make_batch(0, records, codec=codec)
        else:
            name = producer.name
            sequence = producer.sequences.get(place, 0)
            producer.sequences[place] = sequence + len(records)
            if name is not None:
                self.join(producer, subject, partition)
            batch = make_batch(
                0,
                records,
                codec=codec,
                producer_id=producer.pid,
                base_sequence=sequence,
                transactional=name is not None,
            )
        asked = messages.produce(self._names(subject), partition, batch, name)
        offsets = set(self._until_accepted(asked, messages.read_produced))
        assert len(offsets) == 1, f"{place}: the two topics are at different offsets, {offsets}"
        return offsets.pop()

    def join(self, producer: Producer, subject: str, partition: int) -> None:
        """Makes the partition part of the producer's transaction, with or without data to come."""
        if (subject, partition) not in producer.inside:
            assert producer.name is not None
            asked = messages.add_to_transaction(producer.name, producer.pid, self._names(subject), partition)
            self._until_accepted(asked, messages.read_added)
            producer.inside.append((subject, partition))

    def end(self, producer: Producer, *, commit: bool) -> None:
        """Ends the producer's transaction and waits until its markers are in the logs."""
        assert producer.name is not None
        time.sleep(PAUSE)
        before = {place: self.ends(*place) for place in producer.inside}
        asked = messages.end_transaction(producer.name, producer.pid, commit=commit)
        self._until_accepted(asked, messages.read_ended)
        for place, was in before.items():
            self._wait_end(place, [offset + 1 for offset in was])
        producer.inside.clear()
        time.sleep(PAUSE)

    def _wait_end(self, place: tuple[str, int], end: list[int]) -> None:
        wait_for(lambda: self.ends(*place) == end, seconds=90, what=f"markers in {place}")

    def ends(self, subject: str, partition: int) -> list[int]:
        """The high watermarks of both topics' partition."""
        asked = messages.list_offsets(self._names(subject), partition, -1, 0)
        return self._until_accepted(asked, messages.read_offsets)

    def _until_accepted(self, payload: bytes, read: Callable[[bytes], tuple[list[int], T]]) -> T:
        """Asks until there is no error of those that go away by themselves; AssertionError for others."""
        deadline = time.monotonic() + 60
        while True:
            ((reply,),) = exchange([(self._line, [payload])])
            assert reply.payload is not None, "the broker closed the connection"
            codes, answer = read(reply.payload)
            errors = {ErrorCode(code) for code in codes} - {ErrorCode.NONE}
            if not errors:
                return answer
            assert errors <= _AGAIN, f"the broker said {errors}"
            assert time.monotonic() < deadline, f"the broker goes on saying {errors}"
            time.sleep(0.02)  # between two questions
