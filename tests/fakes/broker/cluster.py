"""Nodes, topics and leaders of a fake cluster, and what an operator or fate does to them.

    async with FakeCluster(nodes=2) as cluster:
        topic = cluster.create_topic("flights", partitions=3)
        topic[0].append(batch)
        cluster.elect(topic[0], 2)
        await cluster.nodes[1].stop()

All nodes see one state: what is changed here shows in the next answer of each.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from uuid import uuid4

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from tests.fakes.broker.api_18_api_versions import OFFERED
from tests.fakes.broker.log import PartitionLog
from tests.fakes.broker.node import Node
from tests.fakes.broker.steering import Answer, GoOn, Request, Rule, Steer

NOBODY = -1


@dataclass
class Partition:
    """One partition: its log is the leader's, which followers see as far as `follower_marks` says."""

    topic: "FakeTopic"
    index: int
    leader: int
    replicas: list[int]
    leader_epoch: int = 0
    log: PartitionLog = field(default_factory=PartitionLog)
    follower_marks: dict[int, int] = field(default_factory=dict)
    """High watermarks that followers know, where they lag behind the leader's."""
    follower_frozen: bool = False
    """A follower has stopped: DeleteRecords trims and then times out (error 7)."""

    def append(self, batch: bytes) -> int:
        """What a producer, or the transaction coordinator, writes; the offset it got."""
        offset = self.log.append(batch, self.leader_epoch)
        self.topic.cluster.changes.tell()
        return offset

    def high_watermark(self, node_id: int) -> int:
        return min(self.follower_marks.get(node_id, self.log.end), self.log.high_watermark)

    def epoch_error(self, current_leader_epoch: int) -> ErrorCode:
        """What a broker says to the leader epoch that a client knows; -1 is not checked."""
        if current_leader_epoch in (-1, self.leader_epoch):
            return ErrorCode.NONE
        if current_leader_epoch < self.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH
        return ErrorCode.UNKNOWN_LEADER_EPOCH


@dataclass
class FakeTopic:
    cluster: "FakeCluster"
    name: str
    topic_id: bytes
    configs: dict[str, str]
    internal: bool = False
    denied: set[str] = field(default_factory=set)
    """Operations that nobody may do: READ, DESCRIBE, DELETE (as in Kafka's ACLs)."""
    partitions: list[Partition] = field(default_factory=list)

    def __getitem__(self, index: int) -> Partition:
        return self.partitions[index]

    def partition(self, index: int) -> Partition | None:
        return self.partitions[index] if 0 <= index < len(self.partitions) else None


class Changes:
    """Wakes who waits for records or leaders. Trimming is none of them: it wakes no long poll (as in Kafka)."""

    def __init__(self) -> None:
        self._next: asyncio.Event = asyncio.Event()

    def tell(self) -> None:
        told, self._next = self._next, asyncio.Event()
        told.set()

    def next(self) -> asyncio.Event:
        """Set at the next change; take it before looking at the state that may change."""
        return self._next


class FakeCluster:
    """`nodes` brokers with ids from 1, on ports of their own choice."""

    def __init__(self, nodes: int = 1, versions: Mapping[int, tuple[int, int]] | None = None) -> None:
        self.cluster_id = "FakeFakeFakeFakeFakeFQ"
        self.versions = dict(OFFERED if versions is None else versions)
        """{API key: (first, last version)} that its brokers offer, and take."""
        self.topics: dict[str, FakeTopic] = {}
        self.nodes = {node_id: Node(self, node_id) for node_id in range(1, nodes + 1)}
        self.changes = Changes()
        self.seen: list[Request] = []
        self.steers: list[Steer] = []
        self.piece_bytes: int | None = None
        """Answers are written in pieces of so many bytes; None: whole."""
        self.rack_aware = False
        """Leaders send consumers that name a rack to the replica there (KIP-392)."""
        self.coordinators_ready = True

    # -- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for node in self.nodes.values():
            await node.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            await node.stop()

    @property
    def bootstrap(self) -> list[tuple[str, int]]:
        return [node.address for node in self.alive()]

    def alive(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.listening]

    async def add_node(self, node_id: int) -> Node:
        node = self.nodes[node_id] = Node(self, node_id)
        await node.start()
        return node

    # -- an operator's doings ---------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        leaders: Sequence[int] | None = None,
        configs: Mapping[str, str] | None = None,
        internal: bool = False,
    ) -> FakeTopic:
        """`leaders` by partition; every node has a replica of everything."""
        topic = FakeTopic(self, name, uuid4().bytes, {"cleanup.policy": "delete", **(configs or {})}, internal)
        self.topics[name] = topic
        self.grow(topic, partitions, leaders)
        return topic

    def grow(self, topic: FakeTopic, partitions: int, leaders: Sequence[int] | None = None) -> None:
        nodes = list(self.nodes)
        for index in range(len(topic.partitions), partitions):
            leader = nodes[index % len(nodes)] if leaders is None else leaders[index]
            topic.partitions.append(Partition(topic, index, leader, nodes))
        self.changes.tell()

    def delete_topic(self, name: str) -> None:
        del self.topics[name]
        self.changes.tell()

    def elect(self, partition: Partition, leader: int, *, truncate_to: int | None = None) -> None:
        """Another leader, in the next epoch. One that had not seen all truncates (an unclean election)."""
        partition.leader = leader
        partition.leader_epoch += 1
        if truncate_to is not None:
            partition.log.truncate(truncate_to)
        if leader != NOBODY:
            partition.log.begin_epoch(partition.leader_epoch)
        self.changes.tell()

    # -- looking up -------------------------------------------------------------------------------------------------

    def topic_of_id(self, topic_id: bytes) -> FakeTopic | None:
        return next((topic for topic in self.topics.values() if topic.topic_id == topic_id), None)

    @property
    def controller(self) -> int:
        return min((node.node_id for node in self.alive()), default=NOBODY)

    # -- a test's hand ----------------------------------------------------------------------------------------------

    def steer(self, key: ApiKey, rule: Rule, *, node_id: int | None = None, times: int | None = None) -> Steer:
        """Let `rule` see to requests of `key` (to that node, so many times); newer rules come first."""
        steer = Steer(key, rule, node_id, times)
        self.steers.insert(0, steer)
        return steer

    @contextmanager
    def held(self, key: ApiKey, *, node_id: int | None = None) -> Iterator[Steer]:
        """Inside, requests of `key` are not looked at; they go on when it ends."""
        gate = asyncio.Event()

        async def wait(request: Request, go_on: GoOn) -> Answer:
            await gate.wait()
            return await go_on()

        steer = self.steer(key, wait, node_id=node_id)
        try:
            yield steer
        finally:
            steer.stop()
            gate.set()

    def asked(self, key: ApiKey) -> list[Request]:
        """The requests of `key` seen so far."""
        return [request for request in self.seen if request.key == key]
