"""Who the contract is put to: the fake cluster, and a real one of Apache Kafka, by one set of means.

Both have the nodes 1 and 2. What a means does to the real cluster is done by Kafka's own requests, so that nothing has
to be read from a log.
"""

import asyncio
import os
import signal
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from kafka.protocol import admin

from protocol.apis import ApiKey
from tests.fakes.asking import Connection
from tests.fakes.broker import FakeCluster
from tests.fakes.broker.messages import REQUESTS, RESPONSES, raw_id, request_part
from tests.kit.kafka import Cluster
from tests.unit.batch_maker import make_batch, plain_records

REQUESTS.update({45: admin.AlterPartitionReassignmentsRequest, 43: admin.ElectLeadersRequest})
RESPONSES.update({45: admin.AlterPartitionReassignmentsResponse, 43: admin.ElectLeadersResponse})

FOR_EVER = str(1 << 62)
"""Segments don't roll by time: the tests' records are of 1970, the brokers' markers of today."""

_PROPERTIES = {
    "log.retention.check.interval.ms": "3600000",  # trimmed segments stay, as they do for 5 minutes by default
    "log.initial.task.delay.ms": "3600000",
    "replica.fetch.wait.max.ms": "20",  # DeleteRecords waits for a follower's next fetch
    "replica.fetch.backoff.ms": "20",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}
RACKS = {1: "east", 2: "west"}


def real_cluster(directory: Path) -> Cluster:
    """Not started. Node 2 is no controller, so that it can be frozen; and an authorizer suffers one voter only."""
    cluster = Cluster(directory, nodes=2, properties=_PROPERTIES)
    controller, other = cluster.nodes
    voters = {"controller.quorum.voters": f"{controller.id}@127.0.0.1:{controller.controller_port}"}
    cluster.node_properties = {
        controller.id: {**voters, "broker.rack": RACKS[controller.id]},
        other.id: {
            **voters,
            "broker.rack": RACKS[other.id],
            "process.roles": "broker",
            "listeners": f"PLAINTEXT://127.0.0.1:{other.port}",
        },
    }
    return cluster


T = TypeVar("T")


class Subject(ABC):
    """A cluster of two nodes under test."""

    @abstractmethod
    def address(self, node_id: int) -> tuple[str, int]: ...

    @abstractmethod
    async def create_topic(self, name: str, leaders: Sequence[int] = (1,), **configs: str) -> bytes:
        """One partition for each leader, replicated to both nodes; configs with `_` for `.`. Its topic id."""

    @abstractmethod
    async def elect(self, name: str, partition: int, leader: int) -> int:
        """Move the leadership; the new leader epoch."""

    @abstractmethod
    async def abort(self, name: str, values: Sequence[bytes]) -> None:
        """Write a transaction of one batch to partition 0, and abort it."""

    @abstractmethod
    async def begin(self, name: str, values: Sequence[bytes]) -> None:
        """Write a transaction of one batch to partition 0, and leave it open."""

    @abstractmethod
    async def deny(self, name: str, operation: str) -> None:
        """From now on nobody may READ, DESCRIBE or DELETE."""

    @abstractmethod
    def frozen_follower(self, name: str) -> AbstractAsyncContextManager[None]:
        """Inside, node 2 hears nothing of partition 0's leader, and is not given up yet."""

    async def connect(self, node_id: int = 1) -> Connection:
        return await Connection.to(self.address(node_id))

    async def append(self, name: str, *batches: bytes, partition: int = 0, leader: int = 1) -> None:
        async with await self.connect(leader) as client:
            for batch in batches:
                error, _ = await client.produce(9, name, partition, batch)
                assert error == 0, f"produce: {error}"

    async def epoch(self, name: str, partition: int = 0) -> int:
        async with await self.connect() as client:
            found = (await client.metadata(9, name)).topics[0]
            return int(found.partitions[partition].leader_epoch)


class Fake(Subject):
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        cluster.rack_aware = True
        for node_id, rack in RACKS.items():
            cluster.nodes[node_id].rack = rack
        self._producer_id = 1000

    def address(self, node_id: int) -> tuple[str, int]:
        return self.cluster.nodes[node_id].address

    async def create_topic(self, name: str, leaders: Sequence[int] = (1,), **configs: str) -> bytes:
        settings = {key.replace("_", "."): value for key, value in configs.items()}
        return self.cluster.create_topic(name, len(leaders), leaders=leaders, configs=settings).topic_id

    async def elect(self, name: str, partition: int, leader: int) -> int:
        found = self.cluster.topics[name][partition]
        self.cluster.elect(found, leader)
        return found.leader_epoch

    async def append(self, name: str, *batches: bytes, partition: int = 0, leader: int = 1) -> None:
        found = self.cluster.topics[name]
        for batch in batches:
            size = found.configs.get("internal.segment.bytes")
            log = found[partition].log
            kept = sum(header.size for header, _ in log.segments[-1].batches)
            if size is not None and kept + len(batch) > int(size):
                log.roll()
            await super().append(name, batch, partition=partition, leader=leader)

    async def abort(self, name: str, values: Sequence[bytes]) -> None:
        await self.begin(name, values)
        self.cluster.topics[name][0].append(make_batch(0, control=0, producer_id=self._producer_id))

    async def begin(self, name: str, values: Sequence[bytes]) -> None:
        self._producer_id += 1
        records = [(at, 1_000, None, value, ()) for at, value in enumerate(values)]
        batch = make_batch(0, records, producer_id=self._producer_id, transactional=True)
        self.cluster.topics[name][0].append(batch)

    async def deny(self, name: str, operation: str) -> None:
        self.cluster.topics[name].denied.add(operation)

    @asynccontextmanager
    async def frozen_follower(self, name: str) -> AsyncIterator[None]:
        partition = self.cluster.topics[name][0]
        partition.follower_frozen = True
        yield
        partition.follower_frozen = False


class Real(Subject):
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 2})
        self._producers: list[Producer] = []

    def address(self, node_id: int) -> tuple[str, int]:
        return "127.0.0.1", self.cluster.nodes[node_id - 1].port

    async def create_topic(self, name: str, leaders: Sequence[int] = (1,), **configs: str) -> bytes:
        settings = {"segment.ms": FOR_EVER, **{key.replace("_", "."): value for key, value in configs.items()}}
        replicas = [[leader, 3 - leader] for leader in leaders]
        wanted = NewTopic(name, len(leaders), replica_assignment=replicas, config=settings)
        future = self._admin.create_topics([wanted], operation_timeout=90)[name]
        await asyncio.to_thread(future.result, 30)
        for node_id in (1, 2):
            await self._shown(node_id, name, lambda topic: [each.leader_id for each in topic.partitions] == [*leaders])
        for index, leader in enumerate(leaders):  # shown a moment before they can be written to
            async with await self.connect(leader) as client:
                while (await client.list_offsets(5, (name, index, -1)))[0][0] != 0:
                    await asyncio.sleep(0.02)
        async with await self.connect() as client:
            return raw_id((await client.metadata(12, name)).topics[0].topic_id)

    async def elect(self, name: str, partition: int, leader: int) -> int:
        kind = (45, 0, "ReassignableTopic")
        wanted = request_part(*kind, "ReassignablePartition", partition_index=partition, replicas=[leader, 3 - leader])
        async with await self.connect() as client:
            await client.ask(
                ApiKey.ALTER_PARTITION_REASSIGNMENTS,
                0,
                timeout_ms=10_000,
                topics=[request_part(*kind, name=name, partitions=[wanted])],
            )
            await self._shown(1, name, lambda topic: topic.partitions[partition].replica_nodes[0] == leader)
            await client.ask(
                ApiKey.ELECT_LEADERS,
                2,
                election_type=0,
                topic_partitions=[request_part(43, 2, "TopicPartitions", topic=name, partitions=[partition])],
                timeout_ms=10_000,
            )
        for node_id in (1, 2):
            await self._shown(node_id, name, lambda topic: topic.partitions[partition].leader_id == leader)
        epoch = await self.epoch(name, partition)
        async with await self.connect(leader) as client:
            while (await client.list_offsets(5, (name, partition, -1), epoch=epoch))[0][0] != 0:
                await asyncio.sleep(0.05)
        return epoch

    async def _shown(self, node_id: int, name: str, good: Any) -> None:
        async with await self.connect(node_id) as client:
            while True:
                topic = (await client.metadata(12, name)).topics[0]
                if topic.error_code == 0 and good(topic):
                    return
                await asyncio.sleep(0.05)

    async def abort(self, name: str, values: Sequence[bytes]) -> None:
        producer = await asyncio.to_thread(self._write, name, values)
        async with await self.connect() as client:
            ((_, written, _, _),) = await client.list_offsets(5, (name, 0, -1))
            await asyncio.to_thread(producer.abort_transaction, 30)
            while (await client.list_offsets(5, (name, 0, -1), committed=True))[0][1] != written + 1:
                await asyncio.sleep(0.02)  # the marker is written after the answer

    async def begin(self, name: str, values: Sequence[bytes]) -> None:
        self._producers.append(await asyncio.to_thread(self._write, name, values))  # kept: it would be aborted

    def _write(self, name: str, values: Sequence[bytes]) -> Producer:
        producer = Producer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "transactional.id": f"contract-{name}-{len(values)}",
                "linger.ms": 100,
                "log_level": 2,
            }
        )
        producer.init_transactions(60)
        producer.begin_transaction()
        for value in values:
            producer.produce(name, value=value, partition=0, timestamp=1_000)
        left = producer.flush(30)
        assert not left, f"{left} records were not taken"
        return producer

    async def deny(self, name: str, operation: str) -> None:
        acl = AclBinding(
            ResourceType.TOPIC,
            name,
            ResourcePatternType.LITERAL,
            "User:ANONYMOUS",
            "*",
            AclOperation[operation],
            AclPermissionType.DENY,
        )
        (future,) = self._admin.create_acls([acl]).values()
        await asyncio.to_thread(future.result, 30)

    @asynccontextmanager
    async def frozen_follower(self, name: str) -> AsyncIterator[None]:
        process = self.cluster.nodes[1].process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)
        await self._shown(1, name, lambda topic: sorted(topic.partitions[0].isr_nodes) == [1, 2])


def batch(count: int = 10, *, time: int = 1_000, value: bytes = b"value") -> bytes:
    """As a producer sends it: offsets from 0, no epoch."""
    return make_batch(0, plain_records(count, time=time, value=value), leader_epoch=-1)


def placed(data: bytes, offset: int, epoch: int = 0) -> bytes:
    """What a broker makes of a producer's batch."""
    return struct.pack(">q", offset) + data[8:12] + struct.pack(">i", epoch) + data[16:]


LONG = 60_000
"""A max_wait that no test would survive: the answer comes at once, or the test fails."""


async def waits(answer: Awaitable[T], milliseconds: int) -> T:
    """What `answer` gives, which must take at least so long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await answer
    assert loop.time() - began >= milliseconds / 1000 - 0.02, "it came too early"
    return result
