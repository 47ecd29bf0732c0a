"""Fetch sessions (KIP-227) as Java's FetchSessionHandler plays them, each side with whatever it grants.

The broker grants a session, and then hears and tells only what changes. Tierproxy grants none: it answers as a broker
whose slots are all taken does, so that every fetch is a full one. What both sides' clients end up knowing must be the
same all the same, and that is what is compared: a partition which the broker leaves out has nothing new.
"""

import time
from dataclasses import dataclass, field, replace

from tests.differential.answers import Fetched, Part, read_fetched
from tests.differential.asks import FetchAsk, FetchPlace
from tests.differential.fetches import UNSUPPORTED_COMPRESSION, compare_fetched, fails_for_the_zero_id
from tests.differential.findings import Allowed, Findings
from tests.differential.generator import Generator
from tests.differential.plays import PATIENCE, Table
from tests.differential.wire import exchange
from tests.differential.world import Side

FULL, FINAL = 0, -1
UNKNOWN_SESSION = 70
ZSTD_TOPIC = "zstd"

Places = dict[tuple[str, int], FetchPlace]


@dataclass
class Handler:
    """One side's half of the play: what session it has, and which places that session knows."""

    side: Side
    id: int = 0
    epoch: int = FULL
    known: Places = field(default_factory=dict)

    def ask(self, wanted: FetchAsk) -> FetchAsk:
        """How `wanted` is asked for in this session."""
        places = wanted.effective
        if self.id == 0:
            self.known = places
            return replace(wanted, session=(0, FULL))
        changed = tuple(place for key, place in places.items() if self.known.get(key) != place)
        forgotten = tuple(key for key in self.known if key not in places)
        self.known = places
        return replace(wanted, session=(self.id, self.epoch), places=changed, forgotten=forgotten)

    def close(self, wanted: FetchAsk) -> FetchAsk:
        """The last fetch of a session: it names nothing."""
        closing = replace(wanted, session=(self.id, FINAL), places=())
        self.id, self.epoch, self.known = 0, FULL, {}
        return closing

    def hear(self, answer: Fetched) -> None:
        self.id, self.epoch = answer.session_id, self.epoch + 1 if answer.session_id else FULL


def session(table: Table, make: Generator) -> None:
    """Partitions move on, come and go; now and then the session is closed, and another one begins."""
    chance = make.chance
    version = max(7, make.fetch_version())
    handlers = [Handler(table.world.ref), Handler(table.world.arc)]
    wanted = replace(make.fetch(version), session=(0, FULL), replica=-1, places=_some(make, version, {}))
    for _ in range(chance.randint(3, 8)):
        _step(table, handlers, wanted)
        if table.findings.differences:
            return
        if chance.random() < 0.15:
            _close(table, handlers, wanted)
        wanted = replace(wanted, places=_some(make, version, wanted.effective))
    _close(table, handlers, wanted)


def _some(make: Generator, version: int, before: Places) -> tuple[FetchPlace, ...]:
    """Most of the places as they were, some moved, perhaps one less, perhaps new ones."""
    chance = make.chance
    after = {}
    for key, place in before.items():
        if chance.random() < 0.1:
            continue
        after[key] = replace(place, offset=make.offset(*key)) if chance.random() < 0.3 else place
    for _ in range(chance.randint(0, 2) if before else chance.randint(1, 5)):
        topic, index = make.place()
        after[topic, index] = make.fetch_at(version, topic, index)
    return tuple(after.values())


def _step(table: Table, handlers: list[Handler], wanted: FetchAsk) -> None:
    """One fetch on each side, again while what is missing may still come."""
    until = time.monotonic() + PATIENCE
    while True:
        ref, arc = _both(table, [handler.ask(wanted) for handler in handlers])
        findings = Findings()
        if ref is not None and fails_for_the_zero_id(wanted, ref):
            findings.allow(Allowed.ZERO_ID)
        elif ref is None or arc is None or ref.error or arc.error:
            findings.same("session", _outcome(ref), _outcome(arc))
        else:
            for handler, answer in zip(handlers, (ref, arc), strict=True):
                handler.hear(answer)
            findings.allow(Allowed.SESSION)
            _compare(wanted, ref, arc, table, findings)
        table.asked = wanted
        table.take(findings)
        if findings.differences or not findings.again:
            return
        if time.monotonic() > until:
            table.give_up(findings)
            return
        time.sleep(0.02)  # between two questions


def _compare(wanted: FetchAsk, ref: Fetched, arc: Fetched, table: Table, findings: Findings) -> None:
    """The order is that of the session, or of the request: it is not compared."""
    if arc.session_id:
        findings.differ(f"tierproxy opened a session, {arc.session_id}")
    told = {(part.topic, part.index): part for part in ref.parts}
    answered = [(part.topic, part.index) for part in arc.parts]
    if sorted(answered) != sorted(wanted.effective) or not told.keys() <= set(answered):
        findings.differ(f"asked for {sorted(wanted.effective)}, answered were {sorted(answered)} and {sorted(told)}")
        return
    # What the broker left out has not changed: nothing new, or no room for it. That it refuses the topic's compression
    # it puts into what it sends, so of a partition that has nothing to send it says nothing.
    ref.parts = [
        told.get((part.topic, part.index), part if _is_refused(table, part) else replace(part, error=0, records=b""))
        for part in arc.parts
    ]
    ref.groups = arc.groups
    ref.session_id = 0
    compare_fetched(wanted, ref, arc, table.world, findings, in_order=False)


def _is_refused(table: Table, part: Part) -> bool:
    return table.world.zstd_refused and part.topic == ZSTD_TOPIC and part.error == UNSUPPORTED_COMPRESSION


def _close(table: Table, handlers: list[Handler], wanted: FetchAsk) -> None:
    ref, arc = _both(table, [handler.close(wanted) for handler in handlers])
    table.findings.same("closing fetch", _outcome(ref), _outcome(arc))


def _both(table: Table, asks: list[FetchAsk]) -> tuple[Fetched | None, Fetched | None]:
    table.requests += 1
    ref, arc = asks
    lines = ((table.ref, ref, table.world.ref), (table.arc, arc, table.world.arc))
    replies = exchange([(line, [ask.payload(side)]) for line, ask, side in lines])
    answers = [
        None if reply.payload is None else read_fetched(reply.payload, ask.version, side)
        for (reply,), (_, ask, side) in zip(replies, lines, strict=True)
    ]
    return answers[0], answers[1]


def _outcome(answer: Fetched | None) -> object:
    return "closed" if answer is None else (answer.error, len(answer.parts) if answer.error else 0)
