"""Hostile and broken clients before a real process: its memory stays bounded, and nobody else notices anything.

Every case runs while a reader goes round and round over both tiers and compares every record. The limits are small, so
that what would break them shows after seconds.
"""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from protocol.apis import ApiKey
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.headers import request_header
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.producing import produce
from tests.kit.proxy import HOST, Proxy
from tests.kit.records import Draft, Log, assert_same, drafts, ends

MIB = 1 << 20
LIMITS = {
    "connections": 250,
    "unanswered": 100,
    "gathered": "16MiB",
    "cold_in_flight": "16MiB",
    "cold_answers": "32MiB",
    "frame": "4MiB",
    "stall": "2s",
}
BULK = 768
"""Records of 64 KiB in the large topic."""
PARTITION_LIMIT = 40 * MIB
SEED = 20261124


def frame(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def fetch(topic: str, partitions: Sequence[int], *, correlation: int = 1, max_wait: int = 500) -> bytes:
    """A fetch from offset 0 of everything there is, by name."""
    asked = [FetchPartition(topic, None, index, -1, 0, -1, PARTITION_LIMIT) for index in partitions]
    return frame(
        build_fetch_request(
            12,
            correlation,
            "hostile",
            max_wait_ms=max_wait,
            min_bytes=1,
            max_bytes=PARTITION_LIMIT,
            isolation=0,
            partitions=asked,
        )
    )


METADATA_OF_ALL = frame(request_header(ApiKey.METADATA, 1, 1, "hostile") + struct.pack(">i", -1))


@dataclass
class Memory:
    """The most that a process has had in memory (VmRSS, bytes), sampled all the time."""

    pid: int
    most: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def now(self) -> int:
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    @contextmanager
    def watched(self) -> Iterator[None]:
        def watch() -> None:
            while not self._over.wait(0.02):
                self.most = max(self.most, self.now())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@dataclass
class Bystander:
    """Reads a topic again and again, and compares. `rounds` counts; `fault` is what went wrong."""

    address: str
    topic: str
    log: Log
    rounds: int = 0
    fault: BaseException | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def reading(self) -> Iterator["Bystander"]:
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def more_rounds(self, count: int = 2) -> None:
        """Wait until it has been round so many times more."""
        goal = self.rounds + count
        wait_for(lambda: self.rounds >= goal or self.fault is not None, seconds=60, what="the bystander's rounds")
        if self.fault is not None:
            raise self.fault

    def _read(self) -> None:
        try:
            while not self._over.is_set():
                assert_same(self.log, READERS["librdkafka"](self.address, self.topic, self.log))
                self.rounds += 1
        except BaseException as fault:  # noqa: BLE001  # told to the test's own thread
            self.fault = fault


@dataclass
class Town:
    """One tierproxy with small limits; `large` has 48 MiB in its archive, and nothing on the broker."""

    proxy: Proxy
    small: str
    log: Log
    large: str

    @property
    def node_port(self) -> int:
        return self.proxy.port + 1 + 1

    @property
    def ports(self) -> dict[str, int]:
        return {"bootstrap": self.proxy.port, "broker": self.node_port, "admin": self.proxy.admin_port}

    def connect(self, port: int | None = None) -> socket.socket:
        sock = socket.create_connection((HOST, port or self.node_port), timeout=30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return sock


@pytest.fixture(scope="module")
def town(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    policies: list[dict[str, Any]] = [
        {
            "match": "hostile.large",
            "archive": "local",
            "segment": {"bytes": "8MiB", "age": "200ms"},
            "keep_on_broker": {"bytes": "0B"},
        },
        {
            "match": "hostile.*",
            "archive": "local",
            "segment": {"bytes": "256KiB", "age": "200ms"},
            "keep_on_broker": {"bytes": "64KiB"},
        },
        {"match": "*", "archive": "none"},
    ]
    small, large = "hostile.small", "hostile.large"
    for topic, size in ((small, 256 << 10), (large, 8 * MIB)):
        admin.create_topic(kafka.bootstrap, topic, 1, internal_segment_bytes=size, retention_ms=-1)
    log = produce(kafka.bootstrap, small, drafts(2000, partition=0, seed=SEED))
    chance = random.Random(SEED)
    produce(kafka.bootstrap, large, (Draft(0, None, chance.randbytes(64 << 10), (), n) for n in range(BULK)))
    settings = {"limits": LIMITS, "cache": {"memory": "16MiB"}}
    directory = tmp_path_factory.mktemp("hostile")
    with Proxy(directory, kafka.bootstrap, policies, cluster="hostile", settings=settings) as proxy:
        admin.wait_trimmed(kafka.bootstrap, small, {0: ends(log)[0] // 3})
        admin.wait_trimmed(kafka.bootstrap, large, {0: BULK * 9 // 10})
        yield Town(proxy, small, log, large)


# -- what they do: each gets the town and a stack that closes its connections after a moment ---------------------------


def any_bytes_on_any_port(town: Town, stack: ExitStack) -> None:
    chance = random.Random(SEED)
    for port in town.ports.values():
        for _ in range(100):
            with town.connect(port) as sock:
                send(sock, chance.choice([chance.randbytes, small_frames])(chance.randint(1, 5000)))


def impossible_lengths(town: Town, stack: ExitStack) -> None:
    for size in (-1, -(2**31), 2**31 - 1, 5 * MIB, 0, 1, 7):
        for port in town.ports.values():
            with town.connect(port) as sock:
                send(sock, struct.pack(">i", size) + bytes(100))


def half_requests_held_open(town: Town, stack: ExitStack) -> None:
    """2 MiB less a byte each, to be gathered: 300 MiB by 150 clients."""
    body = fetch("hostile.small", range(69_000))
    for _ in range(150):
        send(stack.enter_context(town.connect()), body[:-1])


def unread_answers(town: Town, stack: ExitStack) -> None:
    """40 MiB from the archive for each of 40 clients, asked for again and again."""
    for _ in range(40):
        send(stack.enter_context(town.connect()), b"".join(fetch(town.large, [0], correlation=n) for n in range(20)))


def requests_by_the_thousand(town: Town, stack: ExitStack) -> None:
    for _ in range(20):
        send(stack.enter_context(town.connect()), METADATA_OF_ALL * 20_000)


def refusals_by_the_thousand(town: Town, stack: ExitStack) -> None:
    """Answers of our own, which no broker's slowness holds back."""
    too_new = frame(struct.pack(">hhih", ApiKey.API_VERSIONS, 99, 1, 0) + b"\0")
    for _ in range(20):
        send(stack.enter_context(town.connect()), too_new * 50_000)


def a_hundred_thousand_partitions(town: Town, stack: ExitStack) -> None:
    for _ in range(5):
        send(stack.enter_context(town.connect()), fetch(town.small, range(100_000)))
        send(stack.enter_context(town.connect()), fetch(town.small, range(60_000)))


def one_partition_many_times(town: Town, stack: ExitStack) -> None:
    for _ in range(5):
        send(stack.enter_context(town.connect()), fetch(town.large, [0] * 20_000))


def more_connections_than_are_allowed(town: Town, stack: ExitStack) -> None:
    for _ in range(600):
        stack.enter_context(town.connect(town.ports["bootstrap"]))


def small_frames(size: int) -> bytes:
    """Well-formed sizes, nonsense inside."""
    chance = random.Random(size)
    return b"".join(frame(chance.randbytes(chance.randint(8, 40))) for _ in range(size // 30 + 1))


def send(sock: socket.socket, data: bytes) -> None:
    """As much of it as is taken within a moment: who is not read any more is stuck, who is closed is done."""
    sock.settimeout(0.3)
    with suppress(OSError):
        sock.sendall(data)


HOSTILE: dict[Callable[[Town, ExitStack], None], int] = {
    any_bytes_on_any_port: 64,
    impossible_lengths: 64,
    half_requests_held_open: 64,
    unread_answers: 96,
    requests_by_the_thousand: 96,
    refusals_by_the_thousand: 96,
    one_partition_many_times: 160,
    a_hundred_thousand_partitions: 256,
}
"""Who does it, and how many MiB the process may grow by: what the limits add up to, a MiB or two of buffers for each
connection, and what the allocator keeps. Measured: 0, 0, 7, 7, 14, 17, 43, 147 (five clients of 60,000 partitions).
"""


@pytest.fixture(scope="module")
def baseline(town: Town) -> int:
    """What the process has in memory once it has served somebody."""
    assert town.proxy.process is not None
    for topic in (town.small,) * 2:
        assert_same(town.log, READERS["librdkafka"](town.proxy.bootstrap, topic, town.log))
    return Memory(town.proxy.process.pid).now()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("do", HOSTILE, ids=lambda do: do.__name__)
def test_memory_is_bounded_and_nobody_else_notices(
    town: Town, baseline: int, do: Callable[[Town, ExitStack], None]
) -> None:
    process = town.proxy.process
    assert process is not None
    said = len(town.proxy.log().splitlines())
    memory = Memory(process.pid)
    bystander = Bystander(town.proxy.bootstrap, town.small, town.log)
    with memory.watched(), bystander.reading():
        with ExitStack() as stack:
            do(town, stack)
            bystander.more_rounds()
        bystander.more_rounds()
    assert process.alive
    grown = (memory.most - baseline) // MIB
    assert grown < HOSTILE[do], f"{grown} MiB more than before"
    lines = town.proxy.log().splitlines()[said:]
    assert len(lines) < 40, lines[:60]
    assert not [line for line in lines if "Traceback" in line]


def test_who_is_turned_away_at_the_limit_comes_in_later(town: Town, baseline: int) -> None:
    with ExitStack() as stack:
        more_connections_than_are_allowed(town, stack)
    reads = READERS["librdkafka"]
    assert_same(town.log, reads(town.proxy.bootstrap, town.small, town.log))
