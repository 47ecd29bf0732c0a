"""kill -9 of tierproxy at the worst moments: it goes on with no gap and no duplicate, and every record is there.

The moments are recognised by what is to be seen from outside, in the archive's directory and on the broker.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster
from tests.kit.producing import merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, assert_same, drafts, ends

PARTITIONS = 3
RECORDS = 4000
POLICY = {
    "match": "crash.*",
    "archive": "local",
    "segment": {"bytes": "16KiB", "age": "200ms"},
    "keep_on_broker": {"bytes": "0B"},
}


@pytest.fixture
def victim(kafka: Cluster, tmp_path: Path) -> Iterator[Proxy]:
    """A tierproxy of the test's own; it is not running yet."""
    proxy = Proxy(tmp_path / "victim", kafka.bootstrap, [POLICY], cluster="victims")
    alone = {**proxy.config["archiver"], "group": "none"}  # or it would wait for its dead self to be noticed
    proxy.write_config({**proxy.config, "archiver": alone})
    try:
        yield proxy
    finally:
        proxy.kill()


def _topic(stage: Stage, name: str) -> tuple[str, Log]:
    topic = stage.topic(name, PARTITIONS)
    log = merged(*(produce(stage.broker, topic, drafts(RECORDS, partition=p, seed=7)) for p in range(PARTITIONS)))
    return topic, log


def _segments(proxy: Proxy, topic: str) -> set[str]:
    return {str(file) for file in (proxy.archive / proxy.cluster / topic).rglob("*.log.zst")}


def _named(manifests: dict[int, dict[str, Any]]) -> int:
    return sum(len(m["segments"]) for m in manifests.values())


def _all_archived(proxy: Proxy, topic: str, log: Log) -> bool:
    manifests = proxy.manifests(topic)
    return all(p in manifests and int(manifests[p]["end_offset"]) > last for p, last in ends(log).items())


def _kill_when(proxy: Proxy, moment: Callable[[], bool], what: str) -> None:
    proxy.start(wait=False)
    assert proxy.process is not None
    proxy.process.wait_until(moment, seconds=60, what=what)
    proxy.kill()


def _assert_whole(proxy: Proxy, topic: str, log: Log) -> None:
    """After a last start: all is archived, in one piece, and is read back; the tool finds nothing wrong."""
    proxy.restart()
    last = ends(log)
    admin.wait_trimmed(proxy.config["cluster"]["bootstrap"][0], topic, {p: last[p] + 1 for p in log})
    for p, manifest in proxy.manifests(topic).items():
        edges = [(int(s["base_offset"]), int(s["last_offset"])) for s in manifest["segments"]]
        assert edges[0][0] == 0
        assert edges[-1][1] == last[p]
        assert all(a[1] + 1 == b[0] for a, b in pairwise(edges)), edges
        assert manifest["gaps"] == []
    for client in ("librdkafka", "kafka-python"):
        assert_same(log, READERS[client](proxy.bootstrap, topic, log))
    assert proxy.cli("archive", "verify").returncode == 0


def test_kill_while_copying(stage: Stage, proxied: Proxy, victim: Proxy) -> None:
    """Killed five times: as soon as a segment is stored that no manifest names yet, or was just named."""
    topic, log = _topic(stage, "crash.copying")
    for _ in range(5):
        assert not _all_archived(victim, topic, log), "the test has to give it more to do"
        seen = _segments(victim, topic)

        def stored(seen: set[str] = seen) -> bool:
            return bool(_segments(victim, topic) - seen)

        _kill_when(victim, stored, "a new segment")
    _assert_whole(victim, topic, log)


def test_kill_while_trimming(stage: Stage, proxied: Proxy, victim: Proxy) -> None:
    """Killed between a manifest's commit and the trim that it allows, and right after a trim, in turns."""
    topic, log = _topic(stage, "crash.trimming")
    for i in range(6):
        assert not _all_archived(victim, topic, log), "the test has to give it more to do"
        if i % 2:
            starts = admin.earliest(stage.broker, topic, PARTITIONS)

            def trimmed(starts: dict[int, int] = starts) -> bool:
                return admin.earliest(stage.broker, topic, PARTITIONS) != starts

            _kill_when(victim, trimmed, "a trim")
        else:
            named = _named(victim.manifests(topic))

            def committed(named: int = named) -> bool:
                return _named(victim.manifests(topic)) > named

            _kill_when(victim, committed, "a commit")
    _assert_whole(victim, topic, log)
