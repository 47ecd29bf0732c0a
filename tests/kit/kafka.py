"""A real Apache Kafka of one or several nodes, and Kafka's own tools, from `jars`.

Every node is broker and controller in one (KRaft). The settings are Kafka's own but for what makes a
cluster small and quick: replication factors that fit the number of nodes, no rebalance delay, and a
retention check every half second, because trimmed segments are deleted only there
(`log.retention.check.interval.ms`, 5 minutes by default). Segments: `log.segment.bytes` goes down to 1 MiB
since Kafka 4; for smaller ones give a topic `internal.segment.bytes`.
"""

import re
import shutil
import socket
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from tests.kit import CACHE, jars
from tests.kit.processes import Process, free_ports

_QUICK = {
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",  # archivers that were killed are noticed soon
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",  # of KIP-848 groups: a member joins a beat later
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "500",
    "log.segment.delete.delay.ms": "500",
    "log.segment.bytes": str(1 << 20),
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "auto.create.topics.enable": "false",
    "controlled.shutdown.enable": "false",
    "log.cleaner.dedupe.buffer.size": str(4 << 20),
    "broker.session.timeout.ms": "3000",  # a killed node may come back only when its session is over
    "broker.heartbeat.interval.ms": "300",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


class Node:
    """One broker (and controller). `id` is its node id, `port` where clients reach it, on 127.0.0.1."""

    def __init__(self, cluster: "Cluster", node_id: int, first_port: int) -> None:
        self.cluster, self.id, self.port, self.controller_port = cluster, node_id, first_port, first_port + 1
        self.ports = {name: first_port + 2 + index for index, name in enumerate(cluster.listeners)}
        """Of the further listeners, by name."""
        self.directory = cluster.directory / f"node-{node_id}"
        self.process: Process | None = None

    @property
    def data(self) -> Path:
        """The directory that holds one directory per partition."""
        return self.directory / "data"

    def start(self) -> None:
        """Starts it without waiting; a directory without data is formatted first."""
        if not self.data.exists():
            self._format()
        self.process = Process(
            f"Kafka node {self.id}",
            [*self._java(), "kafka.Kafka", self.directory / "server.properties"],
            log=self.directory / "server.log",
        )

    def wait_ready(self, seconds: float = 60) -> None:
        assert self.process is not None
        process = self.process
        process.wait_until(
            lambda: "Kafka Server started" in process.output() and self._accepts(),
            seconds=seconds,
            what="readiness",
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """Starts it again on its own data and ports and waits until it serves."""
        self.start()
        self.wait_ready()

    def log_bytes(self, topic: str) -> int:
        """Bytes that the topic's `.log` files take on this node's disk."""
        return sum(
            f.stat().st_size
            for d in self.data.glob(f"{topic}-*")
            if re.fullmatch(re.escape(topic) + r"-\d+", d.name)
            for f in _files(d)
            if f.suffix == ".log"
        )

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _java(self) -> list[str]:
        scratch = self.directory / "tmp"  # goes with the rest of it when it is killed, as it mostly is
        scratch.mkdir(parents=True, exist_ok=True)
        return java("-Xmx512m", f"-Djava.io.tmpdir={scratch}", *self.cluster.jvm, version=self.cluster.version)

    def _format(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        voters = ",".join(f"{n.id}@127.0.0.1:{n.controller_port}" for n in self.cluster.nodes)
        replicas = str(min(3, len(self.cluster.nodes)))
        open_to_clients = {"PLAINTEXT": self.port, **self.ports}
        addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in open_to_clients.items())
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **self.cluster.listeners}
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(self.id),
            "controller.quorum.voters": voters,
            "listeners": f"{addresses},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": addresses,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
            "log.dirs": str(self.data),
            "default.replication.factor": replicas,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": "1",
            **_QUICK,
            **self.cluster.properties,
            **self.cluster.node_properties.get(self.id, {}),
        }
        file = self.directory / "server.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        format_it = ("format", "-t", self.cluster.cluster_id, "-c", str(file), *self.cluster.format_options)
        run_tool("kafka.tools.StorageTool", *format_it, version=self.cluster.version)


class Cluster:
    """`nodes` Kafka nodes (ids from 1) below `directory`, which belongs to the cluster alone.

    `properties` are added to every node's server.properties, `jvm` to Java's options, `version` is Kafka's.
    `listeners` are further ones, name → security protocol, beside the plaintext one; `format_options` go to
    kafka-storage (`--add-scram …`). Use as a context manager, or call `start` and `stop`. Data stays in
    `directory` until `remove`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 1,
        properties: Mapping[str, str] | None = None,
        node_properties: Mapping[int, Mapping[str, str]] | None = None,
        listeners: Mapping[str, str] | None = None,
        format_options: Sequence[str] = (),
        jvm: Sequence[str] = ("-XX:TieredStopAtLevel=1",),
        version: str = jars.KAFKA_VERSION,
    ) -> None:
        self.directory = directory
        self.version = version
        self.properties = dict(properties or {})
        self.node_properties = dict(node_properties or {})
        self.listeners = dict(listeners or {})
        self.format_options = list(format_options)
        self.jvm = list(jvm)
        self.cluster_id = _new_cluster_id()
        ports = 2 + len(self.listeners)
        first = free_ports(ports * nodes)
        self.nodes: list[Node] = []
        for i in range(nodes):
            self.nodes.append(Node(self, i + 1, first + ports * i))

    @property
    def segment_setting(self) -> str:
        """The topic setting for segments below 1 MiB: Kafka 4 has an internal one for it."""
        return "segment.bytes" if self.version.startswith("3.") else "internal.segment.bytes"

    @property
    def bootstrap(self) -> str:
        """host:port of every node, joined by commas."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def bootstrap_of(self, listener: str) -> str:
        """The same of a further listener."""
        return ",".join(f"127.0.0.1:{node.ports[listener]}" for node in self.nodes)

    def start(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        for node in self.nodes:  # all at once: the last one could not leave a quorum that is gone
            if node.process is not None:
                node.process.terminate()
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def remove(self) -> None:
        """Kills it and deletes its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_bytes(self, topic: str) -> int:
        return sum(node.log_bytes(topic) for node in self.nodes)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()  # nothing of it is needed any more; an orderly stop would only take longer


def java(*options: str, version: str = jars.KAFKA_VERSION) -> list[str]:
    """The head of a Java command line: runtime, options, class path; the class and its arguments follow."""
    scratch = CACHE / "tmp"  # native libraries are unpacked there; not in the system's, which isn't ours
    scratch.mkdir(parents=True, exist_ok=True)
    return [
        str(jars.JAVA),
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={scratch}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        *options,
        "-cp",
        jars.class_path(version),
    ]


def tool_command(
    main_class: str, *arguments: str, version: str = jars.KAFKA_VERSION, jvm: Sequence[str] = ()
) -> list[str]:
    """The command line of one of Kafka's own tools, quiet but for its output; `jvm`: further options of Java's."""
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return [*java("-Xmx256m", "-XX:TieredStopAtLevel=1", quiet, *jvm, version=version), main_class, *arguments]


def run_tool(main_class: str, *arguments: str, seconds: float = 120, version: str = jars.KAFKA_VERSION) -> str:
    """Runs one of Kafka's own tools; returns its standard output, or raises `RuntimeError` with its words."""
    done = subprocess.run(
        tool_command(main_class, *arguments, version=version),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise RuntimeError(f"{main_class} {' '.join(arguments)} ended with {done.returncode}:\n{said}")
    return done.stdout.decode(errors="replace")


def dump_log(segment: Path, *options: str) -> str:
    """What `kafka-dump-log` says of a log file. It checks the batches' sizes, offsets and CRCs on its way."""
    return run_tool("org.apache.kafka.tools.DumpLogSegments", "--files", str(segment), *options)


def earliest_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Per partition the earliest offset, as `kafka-get-offsets` prints it."""
    printed = run_tool(
        "org.apache.kafka.tools.GetOffsetShell",
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        "--time",
        "-2",
    )
    return {int(p): int(o) for _, p, o in (line.rsplit(":", 2) for line in printed.split())}


def _files(directory: Path) -> list[Path]:
    """The directory's files; none when it was deleted meanwhile."""
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def _new_cluster_id() -> str:
    """22 characters of base64url as `kafka-storage random-uuid` makes them; the first is never a dash."""
    while (text := urlsafe_b64encode(uuid4().bytes).decode()[:22]).startswith("-"):
        pass
    return text
