"""One seed's story: a world in trouble for a while, then at peace; and what must have become of it by then."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from tests.simulation.actors import ARCHIVE, CLUSTER, Actor, SimArchiver, SimReader, Stage, read_all
from tests.simulation.asking import BrokerWeather
from tests.simulation.brokers import Brokers, Partition
from tests.simulation.disk import LATE_MOST, Disk, SimStore, StoreWeather
from tests.simulation.loop import T0_MS, Deadlock, Livelock, VirtualLoop
from tests.simulation.trace import Trace, TraceLog
from tests.simulation.truth import Broken, Truth
from tierproxy.archive.library import Library
from tierproxy.archive.names import cluster_key
from tierproxy.cluster_view import NOBODY
from tierproxy.config import Config

PHASES = 3
PHASE_SECONDS = 25.0
PEACE_MOST = 1500.0
"""Seconds within which everything must be archived and trimmed once nothing fails any more."""
INTRUDER = "intruder"
HARSH_SHARE = 4
"""One seed in so many may have unclean elections."""


@dataclass(frozen=True)
class Outcome:
    """What became of a play. `broken` is the promise that was not kept, None if all were."""

    seed: int
    broken: str | None
    trace: Trace
    truth: Truth
    deaths: int
    pauses: int
    seconds: float

    def __str__(self) -> str:
        if self.broken is None:
            return f"seed {self.seed}: ok after {self.seconds:.0f} s of virtual time, {len(self.trace)} lines"
        last = "\n".join(self.trace.lines(30))
        return (
            f"seed {self.seed}: {self.broken}\nThe last lines of its trace:\n{last}\n"
            f"All of it: python -m tests.simulation --seed {self.seed} --trace"
        )


class Play:
    """`run` it once."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._unhandled)
        self.trace = Trace(self.loop)
        self.truth = Truth(CLUSTER, "cluster-id-of-the-play")
        self.deaths = self.pauses = 0
        self.harsh = chance.randrange(HARSH_SHARE) == 0
        self._clocks_turned = False
        self._failure: str | None = None
        brokers = Brokers(self.truth.cluster_id, self._some(), self.truth, self.trace)
        self.policy = _policy(chance)
        self.stage = Stage(
            self.loop,
            self.trace,
            self.truth,
            Disk(self.truth.stored),
            brokers,
            StoreWeather(),
            BrokerWeather(),
            _config(self.policy),
        )
        self.archivers: list[SimArchiver] = []
        self.readers: list[SimReader] = []

    def _some(self) -> random.Random:
        """Dice of its own for each part, so that a change in one leaves the others' throws alone."""
        return random.Random(self.chance.getrandbits(64))

    def run(self) -> Outcome:
        asyncio.set_event_loop(self.loop)
        log = TraceLog(self.trace, self._stopped)
        try:
            with _logging_to(log), _seeded(self._some()):
                try:
                    self.loop.run_until_complete(self._play())
                    broken = self._failure or (f"a task crashed: {log.crashes[0]}" if log.crashes else None)
                except (Broken, Deadlock, Livelock) as error:
                    broken = self._failure or str(error)
                except RuntimeError:
                    if self._failure is None:
                        raise
                    broken = self._failure
                self._clear_up()
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()
        return Outcome(self.seed, broken, self.trace, self.truth, self.deaths, self.pauses, self.loop.now)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody waits for: a broken promise, or a defect."""
        error = context.get("exception")
        self._fail(str(error) if isinstance(error, Broken) else f"{context['message']}: {error!r}")

    def _stopped(self, partition: str) -> None:
        """An archiver has left a partition to a person: nothing that happens here is a reason."""
        self._fail(f"an archiver has stopped {partition}")

    def _fail(self, what: str) -> None:
        if self._failure is None:
            self._failure = what
            self.trace.note("truth", f"BROKEN: {what}")
        self.loop.stop()

    def _clear_up(self) -> None:
        self._failure = self._failure or "over"
        for actor in self._actors():
            actor.process.kill()
        for _ in range(3):
            with suppress(RuntimeError):  # stopped once more by what it hears
                self.loop.run_until_complete(asyncio.sleep(0.001))

    # ---- acts ----------------------------------------------------------------------------------------------

    async def _play(self) -> None:
        brokers, chance = self.stage.brokers, self.chance
        for number in range(chance.randint(1, 2)):
            brokers.create_topic(f"t{number}", chance.randint(1, 2))
        for _ in range(chance.randint(0, 3)):
            brokers.produce(self._partition(), self._now_ms())
        if chance.random() < 0.3:
            brokers.expire(self._partition())  # the archive begins in the middle of a log, or of a batch
        self.archivers = [SimArchiver(f"a{n}", self.stage, self._some()) for n in range(chance.randint(1, 3))]
        self.readers = [SimReader("r0", self.stage, self._some())]
        for _ in range(PHASES):
            self._change_weather()
            others = any(each.name == INTRUDER for each in self.archivers)
            if not others and chance.random() < 0.1 and cluster_key(CLUSTER) in self.stage.disk.objects:
                self.archivers.append(self._intruder())
            await self._trouble(self.loop.now + PHASE_SECONDS)
        await self._peace()

    def _intruder(self) -> SimArchiver:
        """An archiver of another cluster whose configuration names this one's archive."""
        truth = Truth(CLUSTER, "another cluster's id")
        brokers = Brokers(truth.cluster_id, self._some(), truth, self.trace)
        brokers.create_topic("t0", 1)
        for _ in range(self.chance.randint(1, 80)):
            brokers.produce(next(brokers.partitions()), self._now_ms())
        return SimArchiver(INTRUDER, self.stage, self._some(), brokers)

    def _change_weather(self) -> None:
        roll = self.chance.choice
        store, broker = self.stage.store_weather, self.stage.broker_weather
        store.slow = roll([0.0, 0.1, 3.0])
        store.refused = roll([0.0, 0.05, 0.3])
        store.lost = roll([0.0, 0.05, 0.2])
        store.late = roll([0.0, 0.05, 0.2])
        store.hangs = roll([0.0, 0.0, 0.02])
        store.lies = roll([0.0, 0.1, 0.4])
        broker.slow = roll([0.0, 0.05, 1.0])
        broker.cut = roll([0.0, 0.05, 0.2])
        broker.lost = roll([0.0, 0.05, 0.2])
        broker.stale = roll([0.0, 0.1, 0.5])
        broker.corrupt = roll([0.0, 0.0, 0.1])
        self.trace.note("world", f"weather: {store} {broker}")

    async def _trouble(self, until: float) -> None:
        events = self._events()
        kinds, weights = [kind for kind, _ in events], [weight for _, weight in events]
        while self.loop.now < until:
            await asyncio.sleep(self.chance.expovariate(2.5))
            self.chance.choices(kinds, weights)[0]()

    def _events(self) -> list[tuple[Callable[[], None], float]]:
        """What can happen, and how often beside the others."""
        return [
            (self._produce, 40),
            (self._end_transaction, 6),
            (lambda: self.stage.brokers.replicate(self._partition()), 8),
            (lambda: self.stage.brokers.clean(self._partition()), 4),
            (self._expire, 3),
            (self._crash, 2),
            (self._move_leader, 4),
            (self._elect_uncleanly, 6 if self.harsh else 0),
            (self._break_broker, 2),
            (self._recreate, 1),
            (self._grow, 0.5),
            (self._kill, 4),
            (self._pause, 4),
            (self._turn_clock, 1),
        ]

    async def _peace(self) -> None:
        """Nothing fails any more: everything must be archived, trimmed as the policy says, and readable."""
        self.trace.note("world", "peace")
        for weather in (self.stage.store_weather, self.stage.broker_weather):
            for name in vars(weather):
                setattr(weather, name, 0.0)
        for actor in self._actors():
            if not actor.process.alive:
                actor.start()
            elif actor.process.frozen:
                actor.process.thaw()
        await asyncio.sleep(LATE_MOST)  # what was under way has arrived by then
        self.stage.brokers.settle()
        deadline = self.loop.now + PEACE_MOST
        while (waiting := self._waiting_for()) is not None:
            if self.loop.now > deadline:
                raise self._broken(f"{PEACE_MOST:.0f} s after the last trouble {waiting}")
            await asyncio.sleep(5)
        store = SimStore(self.stage.disk)
        for pid, partition in self.truth.partitions.items():
            if partition.manifest is not None:
                await read_all(Library(store, CLUSTER), pid, self.truth, self.chance)
        for living in self.stage.brokers.partitions():
            self.truth.settled(living.pid)

    def _waiting_for(self) -> str | None:
        """What is not done yet; None: all is."""
        for partition in self.stage.brokers.partitions():
            about, log = self.truth.partitions[partition.pid], partition.log
            manifest = about.manifest if about.manifest is not None and not about.manifest.is_bare else None
            if manifest is None and log.end <= about.expired_to:
                continue  # what a crash has brought back had been deleted before anything was archived
            archived_to = manifest.end_offset if manifest is not None else log.start
            if archived_to != log.end:
                return f"{partition} is archived up to {archived_to}, not {log.end}"
            # By time nothing may go while some archiver's wrong clock says that it is from the future.
            all_goes = self.policy["bytes"] == 0 or (self.policy["time"] == 0 and not self._clocks_turned)
            if about.manifest is not None:
                back = any(gap.end > log.start for gap in about.manifest.gaps)  # lost ones are there again: they stay
                rests = bool(about.manifest.quarantined) and self._clocks_turned  # until a time that may be far off
                all_goes = all_goes and not back and not rests
            if all_goes and log.start != log.end:
                return f"{partition} is not trimmed: it goes from {log.start} to {log.end}"
        return None

    def _broken(self, what: str) -> Broken:
        self.trace.note("truth", f"BROKEN: {what}")
        return Broken(what)

    # ---- what can happen -----------------------------------------------------------------------------------

    def _actors(self) -> list[Actor]:
        return [*self.archivers, *self.readers]

    def _partition(self) -> Partition:
        return self.chance.choice(list(self.stage.brokers.partitions()))

    def _now_ms(self) -> int:
        return T0_MS + round(self.loop.now * 1000)

    def _produce(self) -> None:
        partition = self._partition()
        if partition.leader != NOBODY:
            self.stage.brokers.produce(partition, self._now_ms())

    def _end_transaction(self) -> None:
        partition = self._partition()
        if partition.leader != NOBODY:
            self.stage.brokers.end_transaction(partition)

    def _expire(self) -> None:
        self.stage.brokers.expire(self._partition())

    def _crash(self) -> None:
        self._lose(self._partition(), self.stage.brokers.crash)

    def _move_leader(self) -> None:
        self._lose(self._partition(), self.stage.brokers.lose_leader)

    def _lose(self, partition: Partition, how: Callable[[Partition], None]) -> None:
        if partition.leader != NOBODY:
            how(partition)
            self.loop.in_world(self.chance.uniform(0.1, 5), self._elect, partition)

    def _elect(self, partition: Partition) -> None:
        if not partition.gone and partition.leader == NOBODY:
            self.stage.brokers.elect(partition)

    def _elect_uncleanly(self) -> None:
        partition = self._partition()
        if partition.leader != NOBODY:
            self.stage.brokers.lose_leader(partition)
            self.loop.in_world(self.chance.uniform(0.1, 5), self._lead_uncleanly, partition)

    def _lead_uncleanly(self, partition: Partition) -> None:
        if not partition.gone and partition.leader == NOBODY:
            self.stage.brokers.elect_uncleanly(partition)

    def _break_broker(self) -> None:
        node = self.chance.choice((1, 2, 3))
        brokers = self.stage.brokers
        if brokers.down or any(each.leader == NOBODY for each in brokers.partitions()):
            return
        brokers.break_down(node)
        for partition in brokers.partitions():
            if partition.leader == NOBODY:
                self.loop.in_world(self.chance.uniform(0.1, 5), self._elect, partition)
        self.loop.in_world(self.chance.uniform(3, 15), brokers.repair, node)

    def _recreate(self) -> None:
        self.stage.brokers.recreate(self.chance.choice(list(self.stage.brokers.topics)))

    def _grow(self) -> None:
        name = self.chance.choice(list(self.stage.brokers.topics))
        if len(self.stage.brokers.topics[name]) < 3:
            self.stage.brokers.grow(name)

    def _kill(self) -> None:
        actor = self.chance.choice(self._actors())
        if actor.process.alive:
            self.deaths += 1
            self.trace.note(actor.name, "is killed")
            actor.process.kill()
            self.loop.in_world(self.chance.uniform(0, 10), self._restart, actor)

    def _restart(self, actor: Actor) -> None:
        if not actor.process.alive and self._failure is None:
            actor.start()

    def _pause(self) -> None:
        """SIGSTOP, and SIGCONT a while later: a zombie."""
        actor = self.chance.choice(self._actors())
        process = actor.process
        if process.alive and not process.frozen:
            self.pauses += 1
            self.trace.note(actor.name, "is paused")
            process.freeze()

            def go_on() -> None:
                if process.alive and process.frozen:
                    self.trace.note(actor.name, "goes on")
                    process.thaw()

            self.loop.in_world(self.chance.choice([0.5, 5, 20, 60]), go_on)

    def _turn_clock(self) -> None:
        archiver = self.chance.choice(self.archivers)
        self._clocks_turned = True
        archiver.clock.wrong_ms = self.chance.choice([0, -3_600_000, 3_600_000, 10**10, -(10**10)])
        self.trace.note(archiver.name, f"has its clock wrong by {archiver.clock.wrong_ms} ms")


# ---- how it is set up --------------------------------------------------------------------------------------


def _policy(chance: random.Random) -> dict[str, Any]:
    return {
        "time": chance.choice([None, None, None, 0, 20_000]),
        "bytes": chance.choice([None, 0, 0, 1_500]),
        "segment": chance.choice([1024, 3000]),
        "age": chance.choice([1_000, 8_000]),
    }


def _config(policy: dict[str, Any]) -> Config:
    keep = {"time": policy["time"] and f"{policy['time']}ms", "bytes": policy["bytes"]}
    return Config.model_validate(
        {
            "cluster": {"name": CLUSTER, "bootstrap": ["kafka-1:9092"]},
            "listen": {"advertised_host": "localhost"},
            "archives": {ARCHIVE: {"url": "file:///simulated"}},
            "topics": [
                {
                    "match": "*",
                    "archive": ARCHIVE,
                    "segment": {"bytes": policy["segment"], "age": f"{policy['age']}ms"},
                    "keep_on_broker": keep,
                    "compression": "zstd-1",
                }
            ],
            "archiver": {"metadata_interval": "10s", "fetch_wait": "2s", "group": "none"},
        }
    )


@contextmanager
def _logging_to(handler: TraceLog) -> Iterator[None]:
    own = logging.getLogger("tierproxy")
    before = own.handlers[:], own.level, own.propagate
    own.handlers[:], own.propagate = [handler], False
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        own.handlers[:], own.level, own.propagate = before[0], before[1], before[2]
        own.setLevel(before[1])


@contextmanager
def _seeded(chance: random.Random) -> Iterator[None]:
    """What tierproxy takes from the system's own randomness comes from the seed."""

    def token_hex(size: int = 32) -> str:
        return chance.randbytes(size).hex()

    before = random.getstate()
    random.seed(chance.getrandbits(64))
    try:
        with patch("secrets.token_hex", token_hex):
            yield
    finally:
        random.setstate(before)
