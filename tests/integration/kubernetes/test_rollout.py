"""A rolling restart of what the chart describes, under load, with nothing seen by clients but reconnects.

Pods are processes (tests/kit/pods.py) of what the Containerfile makes; commands, files, probes and hooks are those that
Helm renders. Two gateways, two archivers and a sidecar, as in the example chart, run against a real Kafka and an S3
server. Each is replaced as Kubernetes does it: a new pod is ready first, and the old one is in its Service until its
preStop hook is over.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from protocol.apis import ApiKey
from protocol.headers import request_header
from tests.clients.raw import Raw
from tests.kit import admin
from tests.kit.chart import CHART, Manifest, of_kind, render
from tests.kit.clients import from_librdkafka
from tests.kit.console import read_as_group
from tests.kit.image import Image
from tests.kit.kafka import Cluster
from tests.kit.pods import PATIENCE, Pod, Service
from tests.kit.processes import free_ports, wait_for
from tests.kit.producing import Recorder, merged
from tests.kit.records import Draft, Log, Record, assert_same, drafts, ends
from tests.kit.s3 import S3Server

pytestmark = [
    pytest.mark.timeout(1200),  # the first time, Helm may still be being built
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback"),
]

TOPIC = "rollout"
PARTITIONS = 3
HISTORY = 1_000
LIVE = 2_000
"""Records in each partition: archived before the restart begins; and produced meanwhile, or after."""
PAUSE = 0.02
"""Seconds between records of a partition while pods are replaced."""
SECRETS = {"archive-keys": {"access-key": "kit", "secret-key": "kit-secret"}}
RECONNECTS = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)
"""Of what librdkafka tells of: a connection was closed; it was the only one."""


@dataclass
class Deployment:
    """Its pods, and who sends clients to them."""

    make: Callable[[], Pod]
    service: Service | None = None
    pods: list[Pod] = field(default_factory=list)

    def start(self, replicas: int) -> None:
        self.pods = [self.make() for _ in range(replicas)]
        for pod in self.pods:
            pod.start()

    def wait_ready(self) -> None:
        for pod in self.pods:
            pod.wait_ready()
            if self.service is not None:
                self.service.add(pod)

    def roll(self, while_stopping: Callable[[Pod], None] = lambda pod: None) -> None:
        """Each in turn."""
        for old in list(self.pods):
            new = self.make()
            self.pods.append(new)
            new.start()
            new.wait_ready()
            if self.service is not None:
                self.service.add(new)
            old.pre_stop()
            if self.service is not None:
                self.service.remove(old)
            assert old.process is not None
            old.process.terminate()
            while_stopping(old)
            old.wait_end()
            self.pods.remove(old)

    def kill(self) -> None:
        for pod in self.pods:
            pod.kill()


@dataclass
class Stage:
    gateways: Deployment
    archivers: Deployment
    sidecars: Deployment
    bootstrap: str
    """Of the gateways' Service."""
    beside: str
    """Of the sidecar."""


def values(kafka: Cluster, archive: dict[str, Any]) -> dict[str, Any]:
    """What both charts have in common."""
    return {
        "image": {"repository": "registry.example.com/tierproxy"},
        "secrets": {"files": {"s3": "archive-keys"}, "env": {"S3_KEY": {"name": "archive-keys", "key": "access-key"}}},
        "config": {
            "cluster": {"name": "rollout", "bootstrap": kafka.bootstrap.split(",")},
            "archives": {"main": archive},
            "topics": [
                {
                    "match": TOPIC,
                    "archive": "main",
                    "segment": {"bytes": "64KiB", "age": "1s"},
                    "keep_on_broker": {"bytes": "0B"},
                }
            ],
            "archiver": {"metadata_interval": "200ms", "session_timeout": "6s"},
        },
        "archiver": {"trimDelay": "0s"},
    }


@pytest.fixture
def stage(kafka: Cluster, s3: S3Server, example: Path, image: Image, tmp_path: Path) -> Iterator[Stage]:
    s3.make_bucket("rollout")
    archive = s3.archive("rollout") | {"access_key": "${S3_KEY}"}
    archive["secret_key_file"] = "/run/secrets/tierproxy/s3/secret-key"
    del archive["secret_key"]
    nodes = [node.id for node in kafka.nodes]
    port = free_ports(max(nodes) + 2)
    service = Service([port, *(port + 1 + node for node in nodes)])
    common = values(kafka, archive)
    gateway = {
        "service": {"port": port, "brokers": nodes, "advertisedHost": service.address},
        "shutdown": {"preStop": 1, "delay": 4, "drain": 10},  # whom we ask meanwhile may be slow
    }
    manifests = render(common | {"gateway": gateway}, CHART)
    mine = {"port": free_ports(max(nodes) + 2)}
    beside = deepcopy(common)
    beside["config"]["archives"]["main"]["access_key_file"] = None  # the example's; here it comes from the environment
    beside_manifests = render({"tierproxy": beside | {"sidecar": mine}}, example)

    def deployment(manifests: Sequence[Manifest], name: str, before: Service | None = None) -> Deployment:
        template = of_kind(list(manifests), "Deployment")[name]["spec"]["template"]
        return Deployment(lambda: Pod(template, manifests, SECRETS, image, tmp_path), before)

    with ExitStack() as started:
        made = Stage(
            deployment(manifests, "kit-tierproxy-gateway", service),
            deployment(manifests, "kit-tierproxy-archiver"),
            deployment(beside_manifests, "kit-consumer"),
            f"{service.address}:{port}",
            f"127.0.0.1:{mine['port']}",
        )
        started.enter_context(service)
        for each, replicas in ((made.gateways, 2), (made.archivers, 2), (made.sidecars, 1)):
            started.callback(each.kill)
            each.start(replicas)
        for each in (made.gateways, made.archivers, made.sidecars):
            each.wait_ready()
        yield made


@dataclass
class Reader:
    """A stock consumer in a thread: of a group, or with all partitions assigned to it."""

    bootstrap: str
    group: str | None = None
    read: Log = field(default_factory=lambda: {p: [] for p in range(PARTITIONS)})
    errors: list[str] = field(default_factory=list)
    assignments: int = 0

    def run(self, last: dict[int, int]) -> None:
        """Until it has these, or something is wrong."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": self.group or "unused",
                "enable.auto.commit": self.group is not None,
                "auto.commit.interval.ms": 500,
                "auto.offset.reset": "earliest" if self.group else "error",
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
                "error_cb": self._told,
            }
        )
        try:
            if self.group is None:
                consumer.assign([TopicPartition(TOPIC, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
            else:
                consumer.subscribe([TOPIC], on_assign=self._assigned)
            wait_for(lambda: self._read_on(consumer, last), seconds=2 * PATIENCE, what="last records", pause=0)
        finally:
            consumer.close()

    def _read_on(self, consumer: Consumer, last: dict[int, int]) -> bool:
        for message in consumer.consume(500, 0.1):
            error = message.error()
            if error is not None:
                self._told(error)
            else:
                record: Record = from_librdkafka(message)
                self.read[record.partition].append(record)
        return bool(self.errors) or all(self.read[p] and self.read[p][-1].offset >= last[p] for p in last)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assignments += 1

    def _told(self, error: KafkaError) -> None:
        if error.code() not in RECONNECTS:
            self.errors.append(str(error))


@dataclass
class Asker:
    """Connects, asks, reads the answer and leaves, again and again. It never tries anything twice."""

    bootstrap: str
    over: threading.Event
    answered: int = 0

    def run(self) -> None:
        while not self.over.wait(0.05):
            ask(self.bootstrap)
            self.answered += 1


def ask(address: str) -> None:
    """One request on a connection of its own. Raises OSError unless it is answered."""
    with Raw(address) as connection:
        answer = connection.ask(request_header(ApiKey.API_VERSIONS, 0, 7, "asker"))
        assert answer[:4] == (7).to_bytes(4, "big")


def round_robin(sources: Sequence[Iterator[Draft]]) -> Iterator[list[Draft]]:
    return (list(each) for each in zip(*sources, strict=True))


def produce_on(recorder: Recorder, sources: Sequence[Iterator[Draft]], rolled: threading.Event) -> None:
    """Slowly while pods are replaced, and a last part of it when they have been."""
    for number, one_each in enumerate(round_robin(sources)):
        if number < LIVE - 200:
            rolled.wait(PAUSE)
        else:
            rolled.wait(PATIENCE)
        recorder.send(one_each)
    recorder.flush()


def test_a_rolling_restart_under_load_is_nothing_but_reconnects(kafka: Cluster, stage: Stage) -> None:
    admin.create_topic(kafka.bootstrap, TOPIC, PARTITIONS, internal_segment_bytes=65_536, retention_ms=-1)
    history = Recorder(stage.bootstrap, TOPIC)
    for p in range(PARTITIONS):
        history.send(drafts(HISTORY, partition=p, seed=1))
    history.flush()
    admin.wait_trimmed(kafka.bootstrap, TOPIC, {p: end + 1 for p, end in ends(history.log).items()})

    producer = Recorder(stage.bootstrap, TOPIC, reconnect_backoff_ms=50, reconnect_backoff_max_ms=500)
    last = dict.fromkeys(range(PARTITIONS), HISTORY + LIVE - 1)
    rolled = threading.Event()
    group, beside = Reader(stage.bootstrap, "rollout"), Reader(stage.beside)
    asker = Asker(stage.bootstrap, rolled)
    with ThreadPoolExecutor() as pool:
        count = PARTITIONS * (HISTORY + LIVE)
        sources = [drafts(LIVE, partition=p, seed=2) for p in range(PARTITIONS)]
        load = [
            pool.submit(produce_on, producer, sources, rolled),
            pool.submit(group.run, last),
            pool.submit(beside.run, last),
            pool.submit(asker.run),
        ]
        reads = partial(read_as_group, protocol="classic", seconds=3 * PATIENCE)
        java = pool.submit(reads, stage.bootstrap, TOPIC, "java", count)
        try:
            begun = [*group.read.values(), *beside.read.values()]
            wait_for(lambda: all(map(len, begun)), seconds=PATIENCE, what="load")

            def leaves(pod: Pod) -> None:
                pod.wait_unready()
                ask(f"{pod.address}:{stage.bootstrap.rpartition(':')[2]}")  # who comes all the same is served

            rolling = [
                pool.submit(stage.gateways.roll, leaves),
                pool.submit(stage.archivers.roll),
                pool.submit(restart, stage.sidecars),
            ]
            for each in rolling:
                each.result()
        finally:
            rolled.set()
        for each in load:
            each.result()
        read_by_java: Log = {p: [] for p in range(PARTITIONS)}
        for record in java.result():
            read_by_java[record.partition].append(record)

    everything = merged(history.log, producer.log)
    assert ends(everything) == last, "a record was produced twice"
    for reader in (group, beside):
        assert reader.errors == []
        assert_same(everything, reader.read)
    assert group.assignments == 1, "the group was balanced anew"
    assert_same(everything, read_by_java)
    assert asker.answered > 0
    assert stage.gateways.service is not None
    assert stage.gateways.service.failed == 0
    admin.wait_trimmed(kafka.bootstrap, TOPIC, {p: end + 1 for p, end in last.items()})
    verified = stage.archivers.pods[0].run("archive", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def restart(sidecars: Deployment) -> None:
    """In its pod: a container that has ended is started again."""
    (pod,) = sidecars.pods
    process = pod.process
    assert process is not None
    process.terminate()
    pod.wait_end()
    pod.start()
    pod.wait_ready()
