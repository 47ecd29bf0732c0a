"""Requests that belong together, put to both sides: one, several at once, a session, a long poll, a change."""

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tests.differential.asks import Ask, EpochsAsk, FetchAsk, FetchPlace, OffsetsAsk
from tests.differential.fetches import compare_fetch
from tests.differential.findings import Findings
from tests.differential.generator import Generator
from tests.differential.offsets import compare_epochs, compare_offsets
from tests.differential.subjects import GROWING
from tests.differential.wire import Line, Reply, exchange
from tests.differential.world import World

PATIENCE = 60.0
"""Seconds within which what is "not yet" must have come."""


@dataclass
class Table:
    """What a play is played on: the lines to the broker and to a proxy, and ways to change the growing subject."""

    world: World
    ref: Line
    arc: Line
    write: Callable[[], None]  # one more batch for `GROWING`, to both sides
    requests: int = 0
    asked: Ask | None = None  # the last one that was compared
    findings: Findings = field(default_factory=Findings)

    def begin(self) -> Findings:
        """A new play: nothing found yet."""
        self.requests, self.asked, self.findings = 0, None, Findings()
        return self.findings

    def close(self) -> None:
        self.ref.close()
        self.arc.close()

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(
        self, asks: Sequence[Ask], meanwhile: Callable[[], None] | None = None, *, again: bool = False
    ) -> list[tuple[Reply, Reply]]:
        """Puts them to both sides, all at once."""
        self.requests += 0 if again else len(asks)
        ends = ((self.ref, self.world.ref), (self.arc, self.world.arc))
        ref, arc = exchange([(line, [ask.payload(side) for ask in asks]) for line, side in ends], meanwhile)
        return list(zip(ref, arc, strict=True))

    def settle(self, ask: Ask, first: Findings | None = None) -> None:
        """Compares the answers to `ask`; asks again while what differs may still come right. `first`: what was found
        already."""
        if not self.findings.differences:
            self.asked = ask
        until = time.monotonic() + PATIENCE
        found = first
        again = False
        while True:
            if found is None:
                ((ref, arc),) = self.ask([ask], again=again)
                found = compare(ask, ref, arc, self.world)
            self.take(found)
            if found.differences or not found.again:
                return
            if time.monotonic() > until:
                self.give_up(found)
                return
            time.sleep(0.02)  # between two questions
            found, again = None, True

    def take(self, found: Findings) -> None:
        """What a comparison found becomes part of the play's."""
        self.findings.allowed.update(found.allowed)
        self.findings.allowed.update(why for why, _ in found.again)
        self.findings.differences.extend(found.differences)

    def give_up(self, found: Findings) -> None:
        """What was "not yet" is a difference by now."""
        self.findings.differ(f"still after {PATIENCE:g} s: " + "; ".join(what for _, what in found.again))


def compare(ask: Ask, ref: Reply, arc: Reply, world: World, *, alone: bool = True) -> Findings:
    match ask:
        case FetchAsk():
            return compare_fetch(ask, ref, arc, world, alone=alone)
        case OffsetsAsk():
            return compare_offsets(ask, ref, arc, world)
        case EpochsAsk():
            return compare_epochs(ask, ref, arc, world)


Play = Callable[[Table, Generator], None]


def one_fetch(table: Table, make: Generator) -> None:
    table.settle(make.fetch())


def some_offsets(table: Table, make: Generator) -> None:
    table.settle(make.offsets())


def some_epochs(table: Table, make: Generator) -> None:
    table.settle(make.epochs())


def _any(make: Generator) -> Ask:
    match make.chance.randrange(4):
        case 0:
            return make.offsets()
        case 1:
            return make.epochs()
    return make.fetch()


def pipeline(table: Table, make: Generator) -> None:
    """Several requests before the first answer is read: answers come in order, each its own."""
    count = make.chance.randint(2, 5)
    asks = [_any(make) for _ in range(count)]
    for ask, (ref, arc) in zip(asks, table.ask(asks), strict=True):
        table.settle(ask, compare(ask, ref, arc, table.world, alone=False))


def reader(table: Table, make: Generator) -> None:
    """A consumer that reads on from where it is: each fetch continues behind the records of the last."""
    version = make.fetch_version()
    place = make.fetch_place(version)
    ask = make.fetch(version, (place,))
    for _ in range(make.chance.randint(2, 8)):
        table.settle(ask)
        log = table.world.ref.logs.get((place.topic, place.index))
        if log is None or not log.start <= place.offset < log.end:
            return
        number = log.first_at(place.offset) + make.chance.randint(0, 4)
        place = replace(place, offset=log.batches[min(number, len(log.batches) - 1)].last + 1)
        ask = replace(ask, places=(place,), max_wait_ms=min(ask.max_wait_ms, 10))


def old_fetch(table: Table, make: Generator) -> None:
    """Version 3, from before record batches."""
    table.settle(replace(make.fetch(4), version=3))


def absurd_version(table: Table, make: Generator) -> None:
    """Versions that nobody has: both sides close the connection without a word."""
    ask = _any(make)
    version = make.chance.choice([make.versions[ask.API][1] + 1, 99, -1])
    ends = ((table.ref, table.world.ref), (table.arc, table.world.arc))
    payloads = [(line, ask.payload(side)) for line, side in ends]
    table.requests += 1
    replies = exchange([(line, [struct.pack(">hh", ask.API, version) + payload[4:]]) for line, payload in payloads])
    closed = [reply.payload is None for (reply,) in replies]
    table.findings.same(f"closed the connection on API {ask.API} version {version}", *closed)


def growth(table: Table, make: Generator) -> None:
    """More records: the seam between the tiers will move."""
    for _ in range(make.chance.randint(1, 6)):
        table.write()


def long_poll(table: Table, make: Generator) -> None:
    """A fetch that waits at the end, perhaps beside others that have nothing, until a record comes."""
    version = make.fetch_version()
    log = table.world.ref.logs[GROWING, 0]
    places = [FetchPlace(GROWING, 0, log.end, 1 << 20)]
    for topic, index in make.chance.sample([("frozen", 0), ("kept", 0), ("young", 1), ("deleted", 1)], 2):
        places.append(FetchPlace(topic, index, table.world.ref.logs[topic, index].end, 1 << 20))
    make.chance.shuffle(places)
    ask = FetchAsk(version, 20_000, 1, 50 << 20, make.chance.choice([0, 1]), tuple(places))
    ((ref, arc),) = table.ask([ask], table.write)
    table.settle(ask, compare(ask, ref, arc, table.world, alone=False))
