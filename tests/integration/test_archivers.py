"""Several archivers over one cluster and one archive, as real processes on a real Kafka: they share the work, take over
from one another, and whatever becomes of one of them, nothing is lost, stored twice or trimmed too soon.

That no order of events can do harm is shown by tests/unit/tierproxy/tiering/test_fsm_simulation.py; here are the events
that happen to processes.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster, run_tool
from tests.kit.processes import wait_for
from tests.kit.producing import Recorder, merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, assert_same, drafts, ends

pytestmark = pytest.mark.timeout(600)  # several processes start, one after the other, in each

PARTITIONS = 6
ON_ITS_WAY = 384 * 1024
"""Bytes: an answer under the limit of test_rates_are_kept, or two segments."""
PATIENCE = 120.0
"""Seconds: for a machine that does much else."""
QUICK = {"bytes": "16KiB", "age": "200ms"}


@pytest.fixture
def replicas(kafka: Cluster, proxied: Proxy, tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """`replicas(name, ...)`: a tierproxy, not running yet; all of a test have the same cluster name and archive."""
    with ExitStack() as made:

        def make(name: str, topic: str, on: Cluster = kafka, cluster: str = "", **archiver: Any) -> Proxy:
            policy = {"match": topic, "archive": "local", "segment": QUICK, "keep_on_broker": {"bytes": "0B"}}
            shared = {"local": {"url": (tmp_path / "archive").as_uri()}}
            proxy = Proxy(tmp_path / name, on.bootstrap, [policy], cluster=cluster or topic, archives=shared)
            proxy.archive = tmp_path / "archive"
            proxy.write_config({**proxy.config, "archiver": {**proxy.config["archiver"], **archiver}})
            made.callback(proxy.kill)
            return proxy

        yield make


# ---- what can be seen ----------------------------------------------------------------------------------------


def metric(proxy: Proxy, name: str) -> float:
    found = re.search(rf"^tierproxy_{name} (\S+)$", proxy.get("/metrics")[1], re.MULTILINE)
    return float(found.group(1)) if found else -1.0


def wait_shares(*proxies: Proxy, shares: Sequence[int]) -> None:
    """Until the partitions are shared out so; the order is the group's business."""

    def shared() -> bool:
        return sorted(int(metric(each, "partitions_archived")) for each in proxies) == sorted(shares)

    wait_for(shared, seconds=PATIENCE, what=f"shares of {shares}", pause=0.1)


def new_topic(kafka: Cluster, name: str) -> str:
    admin.create_topic(kafka.bootstrap, name, PARTITIONS, internal_segment_bytes=65_536, retention_ms=-1)
    return name


def send(kafka: Cluster, topic: str, count: int, seed: int) -> Log:
    return merged(*(produce(kafka.bootstrap, topic, drafts(count, partition=p, seed=seed)) for p in range(PARTITIONS)))


def wait_archived(kafka: Cluster, topic: str, log: Log) -> None:
    """Until everything is archived and the brokers are trimmed."""
    admin.wait_trimmed(kafka.bootstrap, topic, {p: last + 1 for p, last in ends(log).items()}, seconds=PATIENCE)


def assert_whole(proxy: Proxy, topic: str, log: Log) -> int:
    """Everything once, by the manifests, by the tool and by two clients. Returns the number of segments."""
    manifests = proxy.manifests(topic)
    for p, manifest in manifests.items():
        edges = [(int(s["base_offset"]), int(s["last_offset"])) for s in manifest["segments"]]
        assert (edges[0][0], edges[-1][1]) == (0, ends(log)[p])
        assert all(a[1] + 1 == b[0] for a, b in pairwise(edges)), edges
        assert manifest["gaps"] == []
    assert proxy.cli("archive", "verify").returncode == 0
    for client in ("librdkafka", "kafka-python"):
        assert_same(log, READERS[client](proxy.bootstrap, topic, log))
    return sum(len(manifest["segments"]) for manifest in manifests.values())


# ---- sharing and taking over ---------------------------------------------------------------------------------


def test_two_share_the_work_and_one_takes_over_from_the_dead(kafka: Cluster, replicas: Callable[..., Proxy]) -> None:
    topic = new_topic(kafka, "group.share")
    one, two = (replicas(name, topic).start() for name in ("one", "two"))
    wait_shares(one, two, shares=[3, 3])
    log = send(kafka, topic, 300, seed=81)
    wait_archived(kafka, topic, log)
    segments = assert_whole(one, topic, log)
    done = [metric(each, "segments_archived_total") for each in (one, two)]
    assert min(done) > 0
    assert sum(done) == segments, "some work was done twice"
    assert [metric(each, "group_partitions_assigned") for each in (one, two)] == [3, 3]
    assert all(metric(each, "group_rebalances_total") >= 1 for each in (one, two))

    shown = run_tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        *("--bootstrap-server", kafka.bootstrap, "--describe", "--group", f"tierproxy-archiver-{topic}"),
    )
    rows = [line.split() for line in shown.splitlines() if f" {topic} " in line]
    assert sorted(int(row[2]) for row in rows) == list(range(PARTITIONS))
    assert len({row[6] for row in rows}) == 2, "consumer ids"

    one.kill()
    more = send(kafka, topic, 300, seed=82)
    wait_archived(kafka, topic, more)
    assert_whole(two, topic, merged(log, more))
    wait_shares(two, shares=[6])
    lines = [line for line in two.log().splitlines() if "partitions are ours" in line]
    assert "6 partitions are ours" in lines[-1]
    assert "3 of them new" in lines[-1]


def test_a_rolling_restart_while_records_come(kafka: Cluster, replicas: Callable[..., Proxy]) -> None:
    topic = new_topic(kafka, "group.rolling")
    both = [replicas(name, topic).start() for name in ("one", "two")]
    wait_shares(*both, shares=[3, 3])
    recorder, over = Recorder(kafka.bootstrap, topic), threading.Event()

    def go_on() -> None:
        sources = [drafts(1_000_000, partition=p, seed=83) for p in range(PARTITIONS)]
        while not over.wait(0.02):
            recorder.send(next(source) for source in sources)

    producer = threading.Thread(target=go_on)
    producer.start()
    try:
        for _ in range(2):
            for proxy in both:
                assert proxy.stop() == 0
                wait_shares(*(each for each in both if each is not proxy), shares=[6])
                proxy.start()
                wait_shares(*both, shares=[3, 3])
    finally:
        over.set()
        producer.join()
    recorder.flush()
    wait_archived(kafka, topic, recorder.log)
    assert_whole(both[0], topic, recorder.log)


def test_a_zombie_loses_and_goes_on(kafka: Cluster, replicas: Callable[..., Proxy]) -> None:
    """It stands still with segments begun, until the other has taken over and has trimmed what is in them."""
    topic = new_topic(kafka, "group.zombie")
    zombie, other = (replicas(name, topic).start() for name in ("zombie", "other"))
    for proxy in (zombie, other):
        proxy.write_config({**proxy.config, "topics": [{**proxy.config["topics"][0], "segment": {"age": "3s"}}]})
        proxy.restart()
    wait_shares(zombie, other, shares=[3, 3])
    assert zombie.process is not None
    log = send(kafka, topic, 100, seed=84)
    wait_for(lambda: metric(zombie, "archiver_read_bytes_total") > 0, seconds=PATIENCE, what="begun segments")
    zombie.process.pause()
    try:
        wait_shares(other, shares=[6])
        more = send(kafka, topic, 200, seed=85)
        wait_archived(kafka, topic, merged(log, more))
        before = {p: m["end_offset"] for p, m in other.manifests(topic).items()}
    finally:
        zombie.process.go_on()
    wait_shares(zombie, other, shares=[3, 3])
    assert {p: m["end_offset"] for p, m in other.manifests(topic).items()} == before
    last = send(kafka, topic, 100, seed=86)
    whole = merged(log, more, last)
    wait_archived(kafka, topic, whole)
    assert_whole(zombie, topic, whole)


def test_without_a_group_the_loser_of_each_race_says_so_and_goes_on(
    kafka: Cluster, replicas: Callable[..., Proxy]
) -> None:
    topic = new_topic(kafka, "group.none")
    both = [replicas(name, topic, group="none").start() for name in ("one", "two")]
    wait_shares(*both, shares=[6, 6])
    logs: list[Log] = []

    def raced() -> bool:
        logs.append(send(kafka, topic, 100, seed=87 + len(logs)))
        return any("somebody else changed the manifest" in each.log() for each in both)

    wait_for(raced, seconds=PATIENCE, what="race")
    log = merged(*logs)
    wait_archived(kafka, topic, log)
    assert_whole(both[0], topic, log)


# ---- limits --------------------------------------------------------------------------------------------------


def test_rates_are_kept(kafka: Cluster, replicas: Callable[..., Proxy]) -> None:
    """Seen from outside, by the metrics: no stretch of time brings more than the rate, what is saved up in a second,
    and what was on its way. On a slow machine it is less."""
    topic, rate = new_topic(kafka, "group.rates"), 256 * 1024
    log = send(kafka, topic, 700, seed=92)
    proxy = replicas("limited", topic, read_rate="256KiB/s", write_rate="128KiB/s").start()
    seen: dict[str, list[tuple[float, float, float]]] = {"read": [], "written": []}

    def archived() -> bool:
        for name, samples in seen.items():
            begin = time.monotonic()
            size = metric(proxy, f"archiver_{name}_bytes_total")
            samples.append((begin, size, time.monotonic()))
        manifests = proxy.manifests(topic)
        return all(p in manifests and manifests[p]["end_offset"] > last for p, last in ends(log).items())

    wait_for(archived, seconds=PATIENCE, what="archive", pause=0.2)
    for name, most in (("read", rate), ("written", rate // 2)):
        samples = seen[name]
        assert samples[-1][1] > 3 * most, "the test has to give it more to do"
        for at, (begin, size, _) in enumerate(samples):
            for _, later, end in samples[at:]:
                assert later - size <= most * (end - begin + 1) + ON_ITS_WAY
    assert 'tierproxy_archiver_rate_wait_seconds_total{what="read"}' in proxy.get("/metrics")[1]
    assert_whole(proxy, topic, log)


# ---- who else may be there -----------------------------------------------------------------------------------


def test_a_gateway_serves_what_others_archive(kafka: Cluster, replicas: Callable[..., Proxy]) -> None:
    topic = new_topic(kafka, "group.gateway")
    archiver = replicas("archiver", topic).start()
    gateway = replicas("gateway", topic, enabled=False).start()
    log = send(kafka, topic, 300, seed=88)
    wait_archived(kafka, topic, log)
    archiver.kill()
    assert_same(log, READERS["librdkafka"](gateway.bootstrap, topic, log))
    assert metric(gateway, "cold_fetches_total") > 0
    assert metric(gateway, "segments_archived_total") == 0
    assert "group tierproxy-archiver" not in gateway.log()


def test_another_cluster_at_the_same_place_is_refused(
    kafka: Cluster, replicas: Callable[..., Proxy], tmp_path: Path
) -> None:
    topic = new_topic(kafka, "group.clusters")
    with Cluster(tmp_path / "kafka") as stranger:
        new_topic(stranger, topic)
        elsewhere = send(stranger, topic, 50, seed=89)
        first = replicas("first", topic).start()
        log = send(kafka, topic, 300, seed=90)
        wait_archived(kafka, topic, log)
        second = replicas("second", topic, on=stranger).start(wait=False)
        refused = f"is of Kafka cluster {kafka.cluster_id}, but the brokers are of {stranger.cluster_id}"
        wait_for(lambda: refused in second.log(), seconds=PATIENCE, what="word of it")
        assert "Give this cluster another name (cluster.name) or another archive" in second.log()
        assert "FAULT" in second.cli("check", check=False).stdout
        more = send(kafka, topic, 300, seed=91)
        wait_archived(kafka, topic, more)
        assert_whole(first, topic, merged(log, more))
        assert set(admin.earliest(stranger.bootstrap, topic, PARTITIONS).values()) == {0}
        assert second.log().count(refused) == 1
        assert_same(elsewhere, READERS["librdkafka"](stranger.bootstrap, topic, elsewhere))


def test_strangers_in_the_group_are_left_alone(kafka: Cluster, replicas: Callable[..., Proxy]) -> None:
    """Another archive, but the same group: half of each would be done, so the second one works on everything."""
    topic = new_topic(kafka, "group.strangers")
    one = replicas("one", topic).start()
    wait_shares(one, shares=[6])
    two = replicas("two", topic)
    two.archive = two.directory / "archive"
    two.write_config({**two.config, "archives": {"local": {"url": two.archive.as_uri()}}})
    two.start()
    said = "others than archivers of the same archives are in the group (choose another archiver.group)"
    wait_for(lambda: said in two.log(), seconds=PATIENCE, what="word of it")
    wait_shares(one, two, shares=[6, 6])
    assert two.log().count(said) == 1
