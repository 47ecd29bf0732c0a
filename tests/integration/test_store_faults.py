"""A store that fails in every way, behind a whole stack: hot traffic does not notice, and nothing is lost.

A producer and a consumer of recent records go on through the proxy all the time. Meanwhile the store is refused,
overloaded, hanging, lying or tired of its keys; somebody writes what is to be archived, and somebody reads what is.
"""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS, from_librdkafka
from tests.kit.processes import wait_for
from tests.kit.producing import Recorder, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, Record, assert_same, drafts, ends
from tests.kit.s3 import S3Server
from tests.kit.s3_front import S3Front

log = logging.getLogger("tests.store_faults")

SEGMENT = {"bytes": "64KiB", "age": "200ms"}
POLICIES: list[dict[str, Any]] = [
    {"match": "faulty.cold", "archive": "cloud", "segment": SEGMENT, "keep_on_broker": {"bytes": "0B"}},
    {"match": "faulty.hot", "archive": "cloud", "segment": {"bytes": "1MiB", "age": "5s"}, "trim": "never"},
]


class HotTraffic:
    """A producer and a consumer at the live end of a topic, from `with` to its end."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._over = threading.Event()
        self.received: list[Record] = []
        self.longest_pause = 0.0
        """Seconds between two records that came: for people, it depends on the machine."""

    def wait_for_more(self, count: int) -> None:
        """Until so many records more have been produced and consumed."""
        wanted = len(self.received) + count

        def enough() -> bool:
            for one in self._at_work:
                if one.done():
                    one.result()
            return len(self.received) >= wanted

        wait_for(enough, seconds=120, what=f"{count} more hot records")

    def _produce(self) -> None:
        number = 0
        while not self._over.is_set():
            self.recorder.send(drafts(20, partition=0, seed=1000 + number))
            self.recorder.flush()
            number += 1
            time.sleep(0.02)

    def _consume(self) -> None:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "unused", "auto.offset.reset": "error"})
        consumer.assign([TopicPartition(self._topic, 0, OFFSET_BEGINNING)])
        came = time.monotonic()
        while not self._over.is_set():
            for message in consumer.consume(1000, 0.1):
                assert message.error() is None, message.error()
                self.received.append(from_librdkafka(message))
                now = time.monotonic()
                self.longest_pause, came = max(self.longest_pause, now - came), now
        consumer.close()

    def __enter__(self) -> Self:
        self.recorder = Recorder(self._bootstrap, self._topic)
        self._pool = ThreadPoolExecutor(2)
        self._at_work = [self._pool.submit(self._produce), self._pool.submit(self._consume)]
        self.wait_for_more(100)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._pool.shutdown()


class Scene:
    """What the test plays with."""

    def __init__(self, stage: Stage, proxy: Proxy, front: S3Front, hot: HotTraffic) -> None:
        self.stage, self.proxy, self.front, self.hot = stage, proxy, front, hot
        self.log: Log = {}
        self._seed = 0
        self._pool = ThreadPoolExecutor(1)

    def write(self) -> None:
        self._seed += 1
        more = produce(self.proxy.bootstrap, "faulty.cold", drafts(400, partition=0, seed=self._seed))
        self.log = merged(self.log, more)

    def wait_archived(self) -> None:
        admin.wait_trimmed(self.stage.broker, "faulty.cold", {0: ends(self.log)[0] + 1}, seconds=180)

    def reading(self) -> Future[None]:
        """Somebody reads all that there is, from the beginning."""
        log = self.log

        def read() -> None:
            assert_same(log, READERS["librdkafka"](self.proxy.bootstrap, "faulty.cold", log))

        return self._pool.submit(read)

    def nothing_is_trimmed(self) -> None:
        """While the store has trouble, and hot traffic goes on."""
        before = admin.earliest(self.stage.broker, "faulty.cold", 1)
        self.write()
        self.hot.wait_for_more(300)
        assert admin.earliest(self.stage.broker, "faulty.cold", 1) == before

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples with these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = self.proxy.get("/metrics")[1].splitlines()
        found = [line for line in lines if line.startswith(name) and all(each in line for each in wanted)]
        return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.mark.timeout(600)
def test_a_store_that_fails_in_every_way(stage: Stage, proxied: Proxy, s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("faulty")
    key = tmp_path / "access-key"
    key.write_text("stale")
    stage.topic("faulty.cold")
    stage.topic("faulty.hot")
    with S3Front(tmp_path, s3) as front:
        archive = {**front.archive("faulty"), "access_key_file": str(key)}
        del archive["access_key"]
        settings = {"cache": {"memory": "1MiB"}}
        behind = Proxy(
            *(tmp_path / "proxy", stage.broker, POLICIES),
            archives={"cloud": archive},
            cluster="faulty",
            settings=settings,
        )
        with behind as proxy, HotTraffic(proxy.bootstrap, "faulty.hot") as hot:
            scene = Scene(stage, proxy, front, hot)
            scene.write()
            scene.wait_archived()
            wait_for(lambda: "faulty.hot-0: archived" in proxy.log(), seconds=180, what="hot records in the archive")
            listed = front.counts().get("GET list", 0)  # where there was no manifest yet: whether one was lost
            for fault in ("refuse", "503", "hang"):
                front.spoil(fault)
                reading = scene.reading()
                scene.nothing_is_trimmed()
                assert not reading.done(), "there is nothing to read it from"
                front.heal()
                reading.result(180)
                scene.wait_archived()
            _lies(scene)
            _tired_keys(scene, key)
            assert front.counts().get("GET list", 0) == listed, "a listing may be behind, so nobody may rely on one"
            assert_same(scene.log, READERS["kafka-python"](proxy.bootstrap, "faulty.cold", scene.log))
            hot.wait_for_more(100)
        _hot_came_whole(hot)
        log.info("the longest pause between hot records: %.2f s", hot.longest_pause)
        assert proxy.cli("archive", "verify", "faulty.cold").returncode == 0
        said = proxy.log()
        assert "kit-secret" not in said
        assert said.count("archive cloud can't be read") <= 10, "trouble that lasts is said once"


def _lies(scene: Scene) -> None:
    """Wrong bits, half bodies, objects cut short, answers that get lost, bodies that stop: all of it in one go."""
    front = scene.front
    front.spoil("flip", method="GET", key="manifest", times=2)
    front.spoil("flip", method="GET", key="zst", times=4)
    front.spoil("truncate", method="GET", key="zst", times=2)
    front.spoil("cut", method="GET", times=3)
    front.spoil("slow", method="GET", times=5)
    front.spoil("lose_answer", method="PUT", times=4)
    front.spoil("flip_upload", method="PUT", key="zst", times=1)
    front.spoil("flip_upload", method="PUT", key="manifest", times=1)
    front.spoil("cut_upload", method="PUT", times=2)
    front.spoil("500", method="PUT", times=3)
    scene.write()
    reading = scene.reading()
    scene.hot.wait_for_more(300)
    scene.wait_archived()
    reading.result(180)
    scene.reading().result(180)
    counts = front.counts()
    assert counts["flip"] == 6
    assert counts["flip_upload"] == 2
    assert counts["lose_answer"] == 4
    front.heal()
    damaged = scene.metric("tierproxy_damaged_reads_total") + scene.metric("tierproxy_segments_damaged_total")
    assert damaged >= 2, "whoever read it noticed: readers, or the archiver that verifies what it wrote"
    assert scene.metric("tierproxy_store_errors_total", kind="Unavailable") >= 10
    assert scene.metric("tierproxy_store_retries_total") >= 10
    assert scene.metric("tierproxy_store_bulk_reads_total", end="done") >= 10
    assert scene.metric("tierproxy_partitions_stopped") == 0


def _tired_keys(scene: Scene, key: Path) -> None:
    """Keys that expire, until somebody puts new ones into their file. Nobody restarts anything."""
    scene.front.spoil("expired")
    reading = scene.reading()
    scene.nothing_is_trimmed()
    assert not reading.done()
    assert "ExpiredToken" in scene.proxy.log()
    key.write_text("fresh")
    reading.result(180)
    scene.wait_archived()
    scene.front.heal()


def _hot_came_whole(hot: HotTraffic) -> None:
    sent = hot.recorder.log[0]
    assert hot.received == sent[: len(hot.received)]
    if len(hot.received) < 1500:
        pytest.fail(f"only {len(hot.received)} hot records in all that time")
