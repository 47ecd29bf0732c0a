"""The life of an archive on a real Kafka: small segments are merged under readers, old ones expire, garbage goes."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from protocol.errors import ErrorCode
from protocol.fetch_response import FetchedPartition
from tests.clients.raw import fetch_one
from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.producing import Recorder
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import Log, assert_same, drafts, since

ROUNDS = 21
POLICY: dict[str, Any] = {
    "match": "life.*",
    "archive": "local",
    "segment": {"bytes": "16KiB", "age": "200ms"},
    "keep_on_broker": {"bytes": "0B"},
}
UPKEEP = {
    "metadata_interval": "200ms",
    "fetch_wait": "100ms",
    "upkeep_interval": "200ms",
    "merge_after": "0s",
}


@pytest.fixture
def proxy(kafka: Cluster, tmp_path: Path) -> Iterator[Proxy]:
    """A tierproxy of the test's own, which looks after its archive all the time."""
    with Proxy(tmp_path / "proxy", kafka.bootstrap, [POLICY], settings={"archiver": UPKEEP}) as proxy:
        yield proxy


def manifest(proxy: Proxy, topic: str) -> dict[str, Any]:
    return proxy.manifests(topic).get(0) or {"end_offset": 0, "start_offset": 0, "segments": []}


class QuietTopic:
    """Some records now and then, each time archived before the next; every third transaction is aborted.

    `known` are the committed records that are archived.
    """

    def __init__(self, stage: Stage, proxy: Proxy, topic: str) -> None:
        self.topic = topic
        self.known: Log = {}
        self._proxy = proxy
        self._broker = stage.broker
        self._recorder = Recorder(stage.broker, topic, transactional=True)
        self._source = drafts(10_000, partition=0, seed=71)
        self._rounds = 0

    def go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            self._recorder.begin()
            self._recorder.send([next(self._source) for _ in range(3)])
            if self._rounds % 3 == 2:
                self._recorder.abort()
            else:
                self._recorder.commit()
            self._rounds += 1
            end = admin.latest(self._broker, self.topic, 1)[0]
            wait_for(
                lambda end=end: manifest(self._proxy, self.topic)["end_offset"] >= end,  # type: ignore[misc]
                seconds=90,
                what=f"archive up to {end}",
                pause=0.02,
            )
            self.known = {0: list(self._recorder.log[0])}


def fetched(proxy: Proxy, topic: str, offset: int) -> FetchedPartition:
    """What the gateway finally says of an offset: records, or an error."""

    def ask() -> FetchedPartition | None:
        answer = fetch_one(f"{HOST}:{proxy.port + 2}", topic, 0, offset)  # the one broker has id 1
        return answer if answer.records or answer.error else None

    return wait_for(ask, seconds=90, what=f"an answer at {offset}", pause=0.05)


def metric(proxy: Proxy, name: str) -> float:
    found = re.search(rf"^tierproxy_{name}_total (\S+)$", proxy.get("/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


def low_watermark(gateway: str, topic: str, before: int) -> int:
    """What DeleteRecords answers."""
    client = AdminClient({"bootstrap.servers": gateway, "log_level": 2})
    (future,) = client.delete_records([TopicPartition(topic, 0, before)], request_timeout=60).values()
    return int(future.result(60).low_watermark)


@pytest.mark.timeout(600)
def test_an_archive_is_merged_expires_and_is_tidied_up(stage: Stage, proxied: Proxy, proxy: Proxy) -> None:
    topic = stage.topic("life.quiet")
    quiet, done = QuietTopic(stage, proxy, topic), Event()

    def read_again_and_again() -> int:
        """From offset 0, while segments are merged away under the reader; it fails if an offset is refused."""
        passes = 0
        while not done.is_set():
            expected = quiet.known
            if expected:
                assert_same(expected, READERS["librdkafka"](proxy.bootstrap, topic, expected, committed=True))
                passes += 1
        return passes

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read_again_and_again)
        try:
            quiet.go_on(ROUNDS)
            wait_for(lambda: len(manifest(proxy, topic)["segments"]) < ROUNDS // 2, seconds=90, what="merging")
        finally:
            done.set()
        assert reader.result() > 1
    assert metric(proxy, "segments_merged") > 0
    for client in ("librdkafka", "java"):
        assert_same(quiet.known, READERS[client](proxy.bootstrap, topic, quiet.known, committed=True))
    assert proxy.cli("archive", "verify", topic).returncode == 0
    admin.wait_trimmed(stage.broker, topic, {0: manifest(proxy, topic)["end_offset"]})

    # Now it expires: the same earliest offset is seen in every way there is.
    proxy.config["topics"][0]["keep_in_archive"] = {"bytes": "12KiB"}
    proxy.write_config(proxy.config)
    proxy.restart()
    start = wait_for(lambda: admin.earliest(proxy.bootstrap, topic, 1)[0], seconds=90, what="expiry", pause=0.1)
    assert start == manifest(proxy, topic)["start_offset"]
    assert metric(proxy, "expired_bytes") > 0
    left = since(quiet.known, {0: start})
    assert 0 < len(left[0]) < len(quiet.known[0])
    assert fetched(proxy, topic, start).log_start == start
    assert fetched(proxy, topic, start - 1).error == ErrorCode.OFFSET_OUT_OF_RANGE
    assert low_watermark(proxy.bootstrap, topic, 1) == start
    assert_same(left, READERS["kafka-python"](proxy.bootstrap, topic, left, committed=True))
    gone = {0: 0}  # its position has expired, so it starts at the earliest offset (auto.offset.reset)
    assert_same(left, READERS["kafka-python"](proxy.bootstrap, topic, left, starts=gone, committed=True))

    # And what nothing needs any more is removed, while the archiver goes on.
    folder = next((proxy.archive / proxy.cluster / topic).glob("*/0"))
    assert len(list(folder.glob("*.log.zst"))) > len(manifest(proxy, topic)["segments"])
    assert "removed" in proxy.cli("archive", "gc", topic, "--grace", "0s").stdout
    named = {entry["name"] for entry in manifest(proxy, topic)["segments"]}
    assert {file.name for file in folder.glob("*.log.zst")} == named
    assert proxy.cli("archive", "verify", topic).returncode == 0
    more = {0: admin.latest(stage.broker, topic, 1)[0]}
    quiet.go_on(2)
    assert_same(
        since(quiet.known, more),
        READERS["librdkafka"](proxy.bootstrap, topic, quiet.known, starts=more, committed=True),
    )
