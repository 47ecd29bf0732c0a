"""One run: everything is started, spoiled by the seed's dice for a while, and must come out whole."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.relay import TcpRelay
from tests.chaos.traffic import Follower, Writer, digest, read_whole
from tests.kit import admin
from tests.kit.kafka import Cluster
from tests.kit.processes import Process
from tests.kit.proxy import Proxy
from tests.kit.s3 import S3Server

TOPIC = "chaos"
PARTITIONS = 3
BUCKET = "chaos"
POLICY: dict[str, Any] = {
    "match": TOPIC,
    "archive": "cloud",
    "segment": {"bytes": "64KiB", "age": "1s"},
    "keep_on_broker": {"bytes": "0B"},
}
RECOVERY = 300.0
"""Seconds within which all must be archived, trimmed and read once nothing is spoiled any more."""
EVENTS_SHOWN = 25


class Chaos:
    """Use `run` once. `say` is told each event as it happens."""

    def __init__(
        self, directory: Path, seed: int, seconds: float, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.seed = seed
        self.events: list[str] = []
        self._directory = directory
        self._seconds = seconds
        self._say = say
        self._dice = random.Random(seed)
        self._failure: str | None = None
        self._began = time.monotonic()
        self._spoiled: dict[str, tuple[float, Callable[[], None]]] = {}  # what → when and how it is made good

    def run(self) -> str:
        """What was done, in a line. AssertionError with the seed and the last events if anything is wrong."""
        try:
            return self._run()
        except Exception as error:  # whatever it was, the seed must be told
            raise AssertionError(
                f"seed {self.seed}: {self._failure or error}\nThe last events:\n"
                + "\n".join(self.events[-EVENTS_SHOWN:])
            ) from error

    def _run(self) -> str:
        with (
            Cluster(self._directory / "kafka") as kafka,
            S3Server(self._directory / "s3") as s3,
            TcpRelay(s3.port) as relay,
        ):
            self._kafka, self._s3, self._relay = kafka, s3, relay
            s3.make_bucket(BUCKET)
            admin.create_topic(kafka.bootstrap, TOPIC, PARTITIONS, internal_segment_bytes=65_536, retention_ms=-1)
            archive = {**s3.archive(BUCKET), "endpoint_url": f"http://127.0.0.1:{relay.port}"}
            self._proxies = [
                Proxy(self._directory / name, kafka.bootstrap, [POLICY], archives={"cloud": archive})
                for name in ("one", "two")
            ]
            try:
                for proxy in self._proxies:
                    proxy.start()
                return self._play(kafka)
            finally:
                for proxy in self._proxies:
                    proxy.kill()

    def _play(self, kafka: Cluster) -> str:
        self._writer = Writer(kafka.bootstrap, TOPIC, PARTITIONS, self.seed, self._failed)
        followers = [Follower(proxy.bootstrap, TOPIC, self._writer, self.seed, self._failed) for proxy in self._proxies]
        for thread in (self._writer, *followers):
            thread.start()
        try:
            try:
                self._spoil(time.monotonic() + self._seconds)
            finally:
                for what in list(self._spoiled):
                    self._make_good(what)
                self._note("nothing is spoiled any more")
                self._writer.stop()
            self._wait_trimmed(kafka)
        finally:
            for follower in followers:
                follower.stop()
        self._raise_failure()
        ends = self._writer.ends
        deadline = time.monotonic() + RECOVERY
        for proxy in self._proxies:
            found = read_whole(proxy.bootstrap, TOPIC, ends, self.seed, lambda: time.monotonic() > deadline)
            for partition, end in ends.items():
                expected = digest(self.seed, partition, end)
                assert found[partition].hex == expected.hex, (
                    f"partition {partition} through {proxy.bootstrap}: {found[partition]}, written was {expected}"
                )
        verified = self._proxies[0].cli("archive", "verify", check=False)
        assert verified.returncode == 0, f"tierproxy archive verify: {verified.stdout}{verified.stderr}"
        read = sum(follower.records for follower in followers)
        return (
            f"seed {self.seed}: {len(self.events)} events in {self._seconds:.0f} s; {sum(ends.values())} records "
            f"written, {read} read meanwhile, all read twice at the end, archive verified"
        )

    # ---- trouble ------------------------------------------------------------------------------------------

    def _spoil(self, until: float) -> None:
        kinds: list[tuple[Callable[[], None], int]] = [
            (self._kill_proxy, 4),
            (self._restart_proxy, 1),
            (self._pause_proxy, 4),
            (self._kill_broker, 1),
            (self._pause_broker, 2),
            (self._pause_store, 3),
            (self._cut_store, 4),
            (self._hold_store, 3),
        ]
        while time.monotonic() < until and self._failure is None:
            pause = threading.Event()
            pause.wait(self._dice.uniform(0.2, 2.5))
            self._dice.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()
            now = time.monotonic()
            for what in [what for what, (at, _) in self._spoiled.items() if at <= now]:
                self._make_good(what)
        self._raise_failure()

    def _kill_proxy(self) -> None:
        proxy, name = self._some_proxy()
        if name not in self._spoiled:
            self._note(f"{name} is killed")
            proxy.kill()
            self._later(name, 4, lambda: self._start_proxy(proxy))

    def _restart_proxy(self) -> None:
        proxy, name = self._some_proxy()
        if name not in self._spoiled:
            self._note(f"{name} is restarted in order")
            proxy.stop()
            proxy.start(wait=False)

    def _pause_proxy(self) -> None:
        proxy, name = self._some_proxy()
        if name not in self._spoiled:
            self._pause(name, proxy.process, 12)

    def _kill_broker(self) -> None:
        node = self._kafka.nodes[0]
        if "the broker" not in self._spoiled:
            self._note("the broker is killed")
            node.kill()
            self._later("the broker", 3, node.restart)

    def _pause_broker(self) -> None:
        if "the broker" not in self._spoiled:
            self._pause("the broker", self._kafka.nodes[0].process, 6)

    def _pause_store(self) -> None:
        if "the store" not in self._spoiled:  # never killed: its objects live in its memory
            self._pause("the store", self._s3.process, 10)

    def _cut_store(self) -> None:
        self._note(f"{self._relay.cut()} connections to the store are cut")

    def _hold_store(self) -> None:
        if "the way to the store" not in self._spoiled:
            self._note("the way to the store is held")
            self._relay.hold()
            self._later("the way to the store", 8, self._relay.release)

    def _some_proxy(self) -> tuple[Proxy, str]:
        proxy = self._dice.choice(self._proxies)
        return proxy, f"tierproxy {proxy.directory.name}"

    def _start_proxy(self, proxy: Proxy) -> None:
        proxy.start(wait=False)

    def _pause(self, what: str, process: Process | None, most: float) -> None:
        assert process is not None
        self._note(f"{what} is paused")
        os.killpg(process.pid, signal.SIGSTOP)
        self._later(what, most, lambda: os.killpg(process.pid, signal.SIGCONT))

    def _later(self, what: str, most: float, make_good: Callable[[], None]) -> None:
        self._spoiled[what] = time.monotonic() + self._dice.uniform(0.2, most), make_good

    def _make_good(self, what: str) -> None:
        _, make_good = self._spoiled.pop(what)
        make_good()
        self._note(f"{what} goes on")

    # ---- what is seen -------------------------------------------------------------------------------------

    def _wait_trimmed(self, kafka: Cluster) -> None:
        deadline = time.monotonic() + RECOVERY
        while (starts := admin.earliest(kafka.bootstrap, TOPIC, PARTITIONS)) != self._writer.ends:
            self._raise_failure()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {RECOVERY:.0f} s the broker's log starts at {starts}, not {self._writer.ends}"
                )
            threading.Event().wait(0.5)

    def _note(self, what: str) -> None:
        line = f"{time.monotonic() - self._began:8.1f} s  {what}"
        self.events.append(line)
        self._say(line)

    def _failed(self, what: str) -> None:
        """From any thread; the first one counts."""
        if self._failure is None:
            self._failure = what
            self._note(f"FAILED: {what}")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise AssertionError(self._failure)
