"""A Kafka cluster in memory: topics, partitions with leaders and epochs, and what can happen to them.

Each partition's log is `tests.fakes.broker.log.PartitionLog`, which behaves as a broker's does (trims in the middle of
a batch, log starts that a crash forgets, epochs, transactions). `SimCluster` (in `asking`) is one process's way here.

Not done: the wire, replicas with logs of their own (an election says what the new leader lacks), quotas, compaction.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.batches import control_kind
from tests.fakes.broker.log import PartitionLog
from tests.simulation.loop import T0_MS
from tests.simulation.trace import Trace
from tests.simulation.truth import Truth
from tests.unit.batch_maker import make_batch
from tierproxy.archive.names import PartitionId
from tierproxy.cluster_view import NOBODY, ClusterView, PartitionView, TopicView

NODES = (1, 2, 3)
VIEWS_KEPT = 3
FAR_BEHIND = 12
"""Batches that a leader may lack after an unclean election."""
"""How far behind a broker's metadata may be, in changes."""
ABORT, COMMIT = 0, 1


@dataclass(eq=False)
class Partition:
    """`turn` goes up with every election: what was asked before it is answered by nobody."""

    pid: PartitionId
    leader: int
    leader_epoch: int = 0
    turn: int = 0
    log: PartitionLog = field(default_factory=PartitionLog)
    caught_up_at: int = 0
    """The high watermark must come here before the new leader tells where the log ends (KIP-207)."""
    committed_to: int = 0
    """What all replicas in sync have, though a new leader may have to find that out again."""
    open_producers: list[int] = field(default_factory=list)
    gone: bool = False

    def __str__(self) -> str:
        return f"{self.pid}"


class Brokers:
    """The cluster and its operators' and producers' doings; each method is one of them, chosen by `chance`."""

    def __init__(self, cluster_id: str, chance: random.Random, truth: Truth, trace: Trace) -> None:
        self.cluster_id = cluster_id
        self.topics: dict[str, list[Partition]] = {}
        self.down: set[int] = set()
        self._chance = chance
        self._truth = truth
        self._trace = trace
        self._views: list[ClusterView] = []
        self._written = 0
        self._producers = 100
        self._named = 0

    # ---- what they know -----------------------------------------------------------------------------------

    @property
    def view(self) -> ClusterView:
        return self._views[-1]

    def some_view(self, behind: bool) -> ClusterView:
        """Metadata from some broker, which may not have heard of the last changes."""
        return self._chance.choice(self._views) if behind else self.view

    def partitions(self) -> Iterator[Partition]:
        for partitions in self.topics.values():
            yield from partitions

    def find(self, topic: str, index: int) -> Partition | None:
        partitions = self.topics.get(topic, [])
        return partitions[index] if 0 <= index < len(partitions) else None

    def find_by_id(self, topic_id: bytes | None, index: int) -> Partition | None:
        found = (each for each in self.partitions() if (each.pid.topic_id, each.pid.partition) == (topic_id, index))
        return next(found, None)

    def _changed(self) -> None:
        topics = {
            name: TopicView(
                name,
                partitions[0].pid.topic_id,
                False,
                {each.pid.partition: PartitionView(each.leader, each.leader_epoch) for each in partitions},
            )
            for name, partitions in self.topics.items()
        }
        brokers = {node: (f"kafka-{node}", 9092) for node in NODES if node not in self.down}
        self._views = [*self._views, ClusterView(self.cluster_id, brokers, topics)][-VIEWS_KEPT:]

    def settle(self) -> None:
        """All is well again: every broker is up, knows everything, and every partition has a leader."""
        self.down.clear()
        for partition in self.partitions():
            if partition.leader == NOBODY:
                self.elect(partition)
            while partition.open_producers:
                self._end_transaction(partition)
            partition.log.replicated = None
        self._changed()
        self._views = self._views[-1:]

    # ---- topics --------------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int) -> None:
        self._named += 1
        self.topics[name] = []
        self._note(f"topic {name} is created with {partitions} partitions")
        self.grow(name, partitions)

    def grow(self, name: str, by: int = 1) -> None:
        partitions = self.topics[name]
        topic_id = partitions[0].pid.topic_id if partitions else self._named.to_bytes(16, "big")
        for _ in range(by):
            pid = PartitionId(name, topic_id, len(partitions))
            partitions.append(Partition(pid, self._some_node()))
            self._truth.begun(pid, partitions[-1].log)
        self._note(f"topic {name} has {len(partitions)} partitions")
        self._changed()

    def recreate(self, name: str) -> None:
        partitions = self.topics.pop(name)
        for partition in partitions:
            partition.gone, partition.turn = True, partition.turn + 1
            self._truth.gone(partition.pid)
        self._note(f"topic {name} is deleted")
        self._changed()
        self.create_topic(name, len(partitions))

    # ---- producers -----------------------------------------------------------------------------------------

    def produce(self, partition: Partition, now_ms: int) -> None:
        """A batch or a few; some begin a transaction or belong to one that is open."""
        for _ in range(self._chance.randint(1, 3)):
            producer = -1
            dice = self._chance.random()
            if dice < 0.1 and len(partition.open_producers) < 2:
                self._producers += 1
                partition.open_producers.append(self._producers)
                producer = self._producers
            elif dice < 0.3 and partition.open_producers:
                producer = self._chance.choice(partition.open_producers)
            count = self._chance.randint(1, 4)
            # A producer's clock may be wrong by years.
            time = now_ms if self._chance.random() < 0.95 else now_ms + self._chance.choice([-1, 1]) * 10**11
            values = [(i, time + i, None, b"%d" % (self._written + i), ()) for i in range(count)]
            self._written += count
            self._append(partition, make_batch(0, values, producer_id=producer, transactional=producer >= 0))

    def end_transaction(self, partition: Partition) -> None:
        if partition.open_producers:
            self._end_transaction(partition)

    def _end_transaction(self, partition: Partition) -> None:
        producer = partition.open_producers.pop(0)
        kind = ABORT if self._chance.random() < 0.5 else COMMIT
        self._append(partition, make_batch(0, [(0, T0_MS, None, None, ())], producer_id=producer, control=kind))

    def _append(self, partition: Partition, batch: bytes) -> None:
        log = partition.log
        caught_up = log.replicated is None
        first = log.append(batch, partition.leader_epoch)
        data = log.segments[-1].batches[-1][1]
        self._truth.appended(partition.pid, first, log.end - 1, partition.leader_epoch, data)
        if not caught_up or self._chance.random() < 0.2:
            log.replicated = self._chance.randint(log.high_watermark if not caught_up else first, log.end)
            if log.replicated == log.end:
                log.replicated = None
        if self._chance.random() < 0.2:
            log.roll()

    def replicate(self, partition: Partition) -> None:
        partition.log.replicated = None

    # ---- retention, crashes, elections ---------------------------------------------------------------------

    def expire(self, partition: Partition) -> None:
        """The broker's own retention: it does not ask who has archived what."""
        log = partition.log
        offset = min(log.high_watermark, log.start + self._chance.randint(1, 15))
        if offset > log.start:
            log.trim(offset)
            log.clean()
            self._truth.expired(partition.pid, log.start)
            self._note(f"{partition}: retention moves the log start to {log.start}")

    def clean(self, partition: Partition) -> None:
        partition.log.clean()

    def crash(self, partition: Partition) -> None:
        """kill -9 of the leader: the log start falls back, and another epoch begins."""
        before = partition.log.start
        partition.log.crash()
        self._note(f"{partition}: its leader crashes, the log start is {partition.log.start}, it was {before}")
        self.lose_leader(partition)

    def lose_leader(self, partition: Partition) -> None:
        partition.leader = NOBODY
        partition.turn += 1
        self._changed()

    def elect(self, partition: Partition) -> None:
        """A clean election: what is above the high watermark may be lost, and the new leader has to find it."""
        log = partition.log
        mark = partition.committed_to = max(partition.committed_to, log.high_watermark)
        if log.end > mark:
            cut = self._chance.choice([header.base_offset for header, _ in log.batches() if header.next_offset > mark])
            if cut >= mark:
                self._truncate(partition, cut)
        self._lead(partition)
        if self._chance.random() < 0.5 and log.end > log.start:
            log.replicated = max(log.start, self._chance.randint(max(log.start, mark - 5), mark))
        partition.caught_up_at = log.end
        self._note(f"{partition}: broker {partition.leader} leads in epoch {partition.leader_epoch}, up to {log.end}")

    def elect_uncleanly(self, partition: Partition) -> None:
        """A replica becomes leader that lacks what consumers have already seen."""
        log = partition.log
        bases = [header.base_offset for header, _ in log.batches() if header.base_offset >= log.start]
        if bases:
            cut = bases[-self._chance.randint(1, min(FAR_BEHIND, len(bases)))]
            if cut < max(partition.committed_to, log.high_watermark):
                self._truth.rewritten(partition.pid, cut)
            self._truncate(partition, cut)
            partition.committed_to = min(partition.committed_to, cut)
            partition.caught_up_at = min(partition.caught_up_at, cut)
        self._lead(partition)
        partition.caught_up_at = log.end
        self._note(
            f"{partition}: UNCLEAN: broker {partition.leader} leads in epoch {partition.leader_epoch}, up to {log.end}"
        )

    def _truncate(self, partition: Partition, cut: int) -> None:
        log = partition.log
        log.truncate(cut)
        log.replicated = None
        log._open = _open_transactions(log)  # one whose marker is lost is open again
        partition.open_producers = list(log._open)
        self._truth.truncated(partition.pid, cut)

    def _lead(self, partition: Partition) -> None:
        partition.leader = self._some_node()
        partition.leader_epoch += 1
        partition.turn += 1
        partition.log.begin_epoch(partition.leader_epoch)
        self._changed()

    def break_down(self, node: int) -> None:
        """A broker dies, and so does what was asked of it; its partitions have no leader for now."""
        self.down.add(node)
        for partition in self.partitions():
            if partition.leader == node:
                partition.leader = NOBODY
                partition.turn += 1
        self._note(f"broker {node} is down")
        self._changed()

    def repair(self, node: int) -> None:
        self.down.discard(node)
        self._note(f"broker {node} is up")
        self._changed()

    def _some_node(self) -> int:
        up = [node for node in NODES if node not in self.down]
        return self._chance.choice(up) if up else NOBODY

    def _note(self, what: str) -> None:
        self._trace.note("kafka", what)


def _open_transactions(log: PartitionLog) -> dict[int, int]:
    found: dict[int, int] = {}
    for header, data in log.batches():
        if header.is_transactional and control_kind(data) is None:
            found.setdefault(header.producer_id, header.base_offset)
        elif header.is_transactional:
            found.pop(header.producer_id, None)
    return found
