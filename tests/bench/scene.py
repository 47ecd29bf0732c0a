"""The machine room of the benchmark: one Kafka, one tierproxy, the same data in a hot and in a cold topic."""

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Producer

from tests.demo.source import Flights
from tests.kit import admin
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.proxy import Proxy

PARTITIONS = 4
HOT, COLD = "bench.hot", "bench.cold"


@dataclass
class Archived:
    """How archiving went. Bytes of log, bytes as stored, seconds from the proxy's start to the last commit."""

    log_bytes: int
    stored_bytes: int
    seconds: float


class Scene:
    """`with Scene(directory, megabytes) as scene`: data produced and archived, the cold topic trimmed."""

    def __init__(self, directory: Path, megabytes: int, say: Callable[[str], None]) -> None:
        self.say = say
        self.kafka = Cluster(directory / "kafka", jvm=("-Xmx1g",))
        self.proxy_directory = directory / "tierproxy"
        self.megabytes = megabytes
        self._open = ExitStack()

    def __enter__(self) -> "Scene":
        try:
            self._prepare()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    @property
    def broker(self) -> tuple[str, int]:
        """The leader of every partition, directly."""
        return "127.0.0.1", self.kafka.nodes[0].port

    @property
    def through_proxy(self) -> tuple[str, int]:
        """The same broker's port at tierproxy."""
        return "127.0.0.1", self.proxy.port + 1 + self.kafka.nodes[0].id

    def empty_cache(self) -> None:
        """A new tierproxy process: nothing of the archive is in its memory."""
        self.proxy.restart()

    def _prepare(self) -> None:
        self.say("starting Apache Kafka")
        self._open.enter_context(self.kafka)
        for topic in (HOT, COLD):
            admin.create_topic(*(self.kafka.bootstrap, topic, PARTITIONS), segment_bytes=16 << 20, retention_ms=-1)
        self.say(f"producing {self.megabytes} MB twice")
        self._produce()
        self.ends = {t: admin.latest(self.kafka.bootstrap, t, PARTITIONS) for t in (HOT, COLD)}
        self.say("archiving")
        # Both are archived; one stays whole on the broker, so that its hot fetches are those of an archived topic.
        common = {"archive": "local", "segment": {"bytes": "32MiB", "age": "2s"}}
        self.proxy = Proxy(
            self.proxy_directory,
            self.kafka.bootstrap,
            [
                {"match": HOT, "trim": "never", **common},
                {"match": COLD, "keep_on_broker": {"bytes": "0B"}, **common},
            ],
            cluster="bench",
        )
        started = time.perf_counter()
        self._open.enter_context(self.proxy)
        wait_for(lambda: all(map(self._archived, (HOT, COLD))), seconds=900, what="archive", pause=0.05)
        seconds = time.perf_counter() - started
        manifests = [m for topic in (HOT, COLD) for m in self.proxy.manifests(topic).values()]
        entries = [entry for manifest in manifests for entry in manifest["segments"]]
        self.archived = Archived(
            sum(int(e["plain_size"]) for e in entries), sum(int(e["stored_size"]) for e in entries), seconds
        )
        self.say("waiting for the broker to trim")
        admin.wait_trimmed(self.kafka.bootstrap, COLD, self.ends[COLD])

    def _archived(self, topic: str) -> bool:
        found = self.proxy.manifests(topic)
        return all(p in found and int(found[p]["end_offset"]) >= end for p, end in self.ends[topic].items())

    def _produce(self) -> None:
        """Real flights, round and round until there is enough, uncompressed as producers send by default."""
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "linger.ms": 20,
                "batch.size": 256 << 10,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 2,
            }
        )
        left = self.megabytes * 1_000_000
        for item in itertools.cycle(Flights()):
            for topic in (HOT, COLD):
                while True:
                    try:
                        producer.produce(topic, key=item.key, value=item.value, timestamp=item.timestamp or 0)
                        break
                    except BufferError:
                        producer.poll(0.05)
            left -= len(item.value)
            if left <= 0:
                break
        if producer.flush(120):
            raise RuntimeError("the broker did not take everything within two minutes")
