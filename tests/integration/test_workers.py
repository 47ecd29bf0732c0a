"""Several worker processes, on a real Kafka: they share ports, budgets and the admin port, and die one at a time."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from protocol.fetch import FetchPartition
from protocol.fetch_response import parse_fetch_response
from tests.clients.raw import Raw, fetch_request
from tests.integration.conftest import Stage
from tests.kit import admin
from tests.kit.clients import READERS, from_librdkafka
from tests.kit.processes import wait_for
from tests.kit.producing import merged, produce
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import Log, Record, assert_same, drafts, ends

RECORDS = 3_000
ROUNDS = 4
READERS_AT_ONCE = 6
STALLED = 150.0
"""Seconds after which a reader says that it gets no further."""
POLICY: dict[str, Any] = {
    "match": "workers.*",
    "archive": "local",
    "segment": {"bytes": "64KiB", "age": "200ms"},
    "keep_on_broker": {"bytes": "0B"},
}


@pytest.fixture
def proxy(stage: Stage, proxied: Proxy, tmp_path: Path) -> Iterator[Proxy]:
    """A tierproxy of the test's own, with two workers."""
    with Proxy(tmp_path / "proxy", stage.broker, [POLICY], cluster="workers", settings={"workers": 2}) as proxy:
        yield proxy


def pid_of(proxy: Proxy, seat: str) -> int:
    """Of the process that has this seat now, as the supervisor has said."""
    return int(re.findall(rf"{seat} is process (\d+)", proxy.log())[-1])


def lives(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def clients_of(pid: int) -> set[int]:
    """The ports from which clients are connected to this process."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in inodes}


def metric(proxy: Proxy, name: str) -> float:
    """The sum over its labels; 0 where it isn't shown."""
    lines = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", proxy.get("/metrics")[1], re.MULTILINE)
    return sum(map(float, lines))


@dataclass
class SlowReader:
    """A stock consumer of all partitions up to `last`; it stops half way until it is told to go on."""

    proxy: Proxy
    topic: str
    last: dict[int, int]
    half_way: threading.Barrier | None = None
    read: Log = field(default_factory=dict)

    def run(self) -> Log:
        settings = {"bootstrap.servers": self.proxy.bootstrap, "group.id": "unused", "auto.offset.reset": "error"}
        settings |= {"enable.auto.commit": "false", "log_level": "2", "reconnect.backoff.ms": "50"}
        settings |= {"queued.min.messages": "10", "fetch.message.max.bytes": "20000", "fetch.queue.backoff.ms": "10"}
        consumer = Consumer(settings)
        try:
            consumer.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in self.last])
            count, missing = 0, set(self.last)
            deadline = time.monotonic() + STALLED
            while missing:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{ {p: len(found) for p, found in self.read.items()} } of {self.last}")
                for message in consumer.consume(100, 0.2):
                    assert message.error() is None, message.error()
                    record: Record = from_librdkafka(message)
                    if record.partition in missing:
                        self.read.setdefault(record.partition, []).append(record)
                        count += 1
                        if record.offset >= self.last[record.partition]:
                            missing.discard(record.partition)
                if self.half_way is not None and count * 2 > sum(self.last.values()):
                    self.half_way.wait(120)
                    self.half_way.wait(120)
                    self.half_way = None
            return self.read
        finally:
            consumer.close()


@pytest.fixture
def history(stage: Stage, proxy: Proxy, request: pytest.FixtureRequest) -> tuple[str, Log]:
    """A topic of which the broker has nothing left."""
    topic = stage.topic(f"workers.{request.node.name}"[:200].replace("[", ".").replace("]", ""), partitions=2)
    log = merged(*(produce(stage.broker, topic, drafts(RECORDS, partition=p, seed=80)) for p in range(2)))
    admin.wait_trimmed(stage.broker, topic, {p: last + 1 for p, last in ends(log).items()})
    return topic, log


def ask(connection: Raw, topic: str) -> bool:
    """Whether a fetch is answered on this connection."""
    try:
        answer = connection.fetch(12, [FetchPartition(topic, None, 0, -1, 0, -1, 1 << 20)])
    except ConnectionError:
        return False
    return answer.partitions[0].error == 0


def test_a_killed_worker_hurts_its_connections_only(proxy: Proxy, history: tuple[str, Log]) -> None:
    """Readers lose and double nothing, whichever worker they were at."""
    topic, log = history
    half_way = threading.Barrier(READERS_AT_ONCE + 1)
    with ThreadPoolExecutor(READERS_AT_ONCE) as threads, ExitStack() as open_ones:
        readings = [threads.submit(SlowReader(proxy, topic, ends(log), half_way).run) for _ in range(READERS_AT_ONCE)]
        half_way.wait(120)
        broker = f"{HOST}:{proxy.port + 2}"
        connections = [open_ones.enter_context(Raw(broker)) for _ in range(10)]
        assert all(ask(each, topic) for each in connections)
        before = metric(proxy, "tierproxy_client_connections")
        assert before >= len(connections) + READERS_AT_ONCE
        sent = metric(proxy, "tierproxy_bytes_to_clients_total")
        survivors = clients_of(pid_of(proxy, "gateway-2"))
        survive = [each.port in survivors for each in connections]
        victim = pid_of(proxy, "gateway-1")
        os.kill(victim, signal.SIGKILL)
        assert [ask(each, topic) for each in connections] == survive
        half_way.wait(120)
        for reading in readings:
            assert_same(log, reading.result())
        wait_for(lambda: pid_of(proxy, "gateway-1") != victim, seconds=60, what="another gateway-1")
        wait_for(lambda: '"ok": false' not in proxy.get("/ready")[1], seconds=60, what="all well")
        assert metric(proxy, "tierproxy_worker_restarts_total") == 1
        assert metric(proxy, "tierproxy_workers") == 3
        # What the dead one has sent stays counted, the connections it had do not.
        assert metric(proxy, "tierproxy_bytes_to_clients_total") > sent
        wait_for(
            lambda: metric(proxy, "tierproxy_client_connections") == survive.count(True),
            seconds=60,
            what="the end of the readers' connections",
        )
        again = [open_ones.enter_context(Raw(broker)) for _ in range(3)]
        assert all(ask(each, topic) for each in again)
    assert "it was killed by SIGKILL; another one is started now" in proxy.log()
    assert "Traceback" not in proxy.log()


def test_ready_tells_who_is_away_and_stays_ready(proxy: Proxy) -> None:
    """The other worker serves everybody. When both are gone, nobody does, and /ready says so."""
    seen: list[tuple[int, str]] = []

    def told(status: int, text: str) -> Callable[[], bool]:
        def ask() -> bool:
            seen.append(proxy.get("/ready"))
            return seen[-1][0] == status and text in seen[-1][1]

        return ask

    assert told(200, '"gateway-2": {"ok": true}')()
    os.kill(pid_of(proxy, "gateway-1"), signal.SIGKILL)
    wait_for(told(200, '"gateway-1": {"ok": false, "reason": "it'), seconds=60, what="word of the dead one")
    wait_for(told(200, '"gateway-1": {"ok": true}'), seconds=60, what="word of its successor")
    assert all(status == 200 for status, _ in seen)
    for seat in ("gateway-1", "gateway-2"):
        os.kill(pid_of(proxy, seat), signal.SIGKILL)
    wait_for(told(503, ""), seconds=60, what="word that nobody serves")
    wait_for(told(200, ""), seconds=60, what="readiness")


def test_a_killed_supervisor_leaves_nobody_behind(proxy: Proxy) -> None:
    seats = ("gateway-1", "gateway-2", "archiver")
    children = [pid_of(proxy, seat) for seat in seats]
    assert proxy.process is not None
    assert all(map(lives, children))
    os.kill(proxy.process.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(lives, children)), seconds=60, what="end of the children")
    for seat in seats:
        assert f"{seat} workers: stopping: the supervisor is gone" in proxy.log()
    proxy.restart()


def test_a_stop_under_load_lets_answers_out(stage: Stage, proxy: Proxy, history: tuple[str, Log]) -> None:
    topic, log = history
    broker = f"{HOST}:{proxy.port + 2}"
    read: list[bytes] = []

    def keep_reading() -> None:
        with suppress(OSError), Raw(broker) as connection:  # which ends with the proxy
            while True:
                answer = connection.fetch(12, [FetchPartition(topic, None, 0, -1, 0, -1, 1 << 20)])
                read.append(bytes(answer.partitions[0].records or b""))

    with Raw(broker) as connection, ThreadPoolExecutor(5) as threads:
        readings = [threads.submit(keep_reading) for _ in range(4)]
        wait_for(lambda: len(read) >= 20, seconds=120, what="readers")
        # This one waits at the broker for a record that isn't there, for less than drain.
        end = [FetchPartition(topic, None, 0, -1, ends(log)[0] + 1, -1, 1 << 20)]
        connection.fetch(12, end)
        connection.send(fetch_request(12, end))
        assert proxy.stop() == 0
        assert parse_fetch_response(connection.receive(), 12).partitions[0].error == 0
        for reading in readings:
            reading.result()
    longest = max(read, key=len)
    assert longest
    assert all(longest.startswith(each) for each in read), "whole answers, though some found more in memory"
    assert "Traceback" not in proxy.log()


def test_who_is_told_to_stop_says_so_and_serves_on_until_told_twice(
    stage: Stage, proxy: Proxy, history: tuple[str, Log]
) -> None:
    topic, log = history
    assert proxy.stop() == 0
    proxy.write_config({**proxy.config, "listen": {**proxy.config["listen"], "drain_delay": "10m"}})
    proxy.start()
    assert proxy.process is not None
    os.kill(proxy.process.pid, signal.SIGTERM)  # the supervisor alone, as Kubernetes does it
    wait_for(lambda: proxy.get("/ready")[0] == 503, seconds=60, what="/ready that says no")
    assert "stopping, 600 s after being told to" in proxy.get("/ready")[1]
    assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log))
    assert proxy.stop() == 0


def test_a_killed_archiver_is_replaced_and_archiving_goes_on(
    stage: Stage, proxy: Proxy, history: tuple[str, Log]
) -> None:
    """The gateways are not told of commits and trims, and nobody who follows the end is ever out of range."""
    topic, log = history
    victim = pid_of(proxy, "archiver")
    os.kill(victim, signal.SIGKILL)
    last = dict.fromkeys(log, RECORDS + ROUNDS * 100 - 1)
    with ThreadPoolExecutor(2) as threads:
        following = [threads.submit(SlowReader(proxy, topic, last).run) for _ in range(2)]
        for seed in range(ROUNDS):
            more = [produce(proxy.bootstrap, topic, drafts(100, partition=p, seed=seed)) for p in range(2)]
            log = merged(log, *more)
            admin.wait_trimmed(stage.broker, topic, {p: last + 1 - 100 for p, last in ends(log).items()})
        for reading in following:
            assert_same(log, reading.result())
    admin.wait_trimmed(stage.broker, topic, {p: last + 1 for p, last in ends(log).items()})
    assert_same(log, READERS["librdkafka"](proxy.bootstrap, topic, log))
    assert pid_of(proxy, "archiver") != victim
    assert proxy.get("/ready")[0] == 200
    assert metric(proxy, "tierproxy_segments_archived_total") > 0


def test_a_port_that_is_taken_ends_it_with_a_word(stage: Stage, proxied: Proxy, tmp_path: Path) -> None:
    other = Proxy(tmp_path / "proxy", stage.broker, [POLICY], cluster="workers", settings={"workers": 2})
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, other.port))
        holder.listen()
        process = other.start(wait=False).process
        assert process is not None
        wait_for(lambda: not process.alive, seconds=60, what="its end")
        assert process.returncode == 1
    assert f"port {other.port} on {HOST} can't be opened" in other.log()
    assert "Traceback" not in other.log()
