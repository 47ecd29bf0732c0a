"""The demonstration from beginning to end. Every step leaves its figures in `Facts`, which the report prints."""

import fcntl
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.demo import segments
from tests.demo.consumers import Follower
from tests.demo.digest import Digest
from tests.demo.producer import Sender
from tests.demo.source import Flights, Item, Lines
from tests.kit import PROJECT, admin, jars
from tests.kit.kafka import Cluster
from tests.kit.processes import wait_for
from tests.kit.proxy import Proxy

HOME = PROJECT / os.environ.get("DEMO_HOME", ".demo")
PARTITIONS = 4
LIVE_SHARE = 10  # one record in so many is kept back for the producer that writes while consumers read
LIVE_CLIENTS = ("librdkafka", "aiokafka")
LATER_CLIENTS = ("java",)


class Busy(RuntimeError):
    """Another demonstration is running in this checkout."""


@dataclass
class Facts:
    """What the report is made of."""

    title: str = ""
    topic: str = ""
    gateway: str = ""
    bulk: int = 0
    live: int = 0
    plain_bytes: int = 0  # keys and values
    earliest_before: dict[int, int] = field(default_factory=dict)
    earliest_after: dict[int, int] = field(default_factory=dict)
    latest_after: dict[int, int] = field(default_factory=dict)
    disk_before: int = 0
    disk_after: int = 0
    log_archived: int = 0  # bytes of Kafka log that the archive holds
    stored: int = 0  # bytes that they take there
    objects: int = 0
    sent: dict[int, str] = field(default_factory=dict)
    read: dict[str, dict[int, str]] = field(default_factory=dict)
    records_read: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    segment: segments.Checked | None = None

    @property
    def matched(self) -> bool:
        return bool(self.read) and all(digests == self.sent for digests in self.read.values())

    @property
    def ok(self) -> bool:
        return self.matched and self.segment is not None and self.segment.all_valid


class Story:
    """Runs the steps; `facts` fills up on the way. Servers live as long as the `with`."""

    def __init__(self, console: Console, source: Flights | Lines) -> None:
        self.console = console
        self.source = source
        self.facts = Facts(title=source.title, topic=source.name)
        self.digests = {p: Digest() for p in range(PARTITIONS)}
        self._open = ExitStack()

    def __enter__(self) -> "Story":
        self._lock = _take_lock()
        self._open.callback(self._lock.close)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def run(self) -> Facts:
        self.start_kafka()
        total = len(self.source)
        self.facts.live = max(total // LIVE_SHARE, min(1, total - 1))
        self.facts.bulk = total - self.facts.live
        items = iter(self.source)
        self.produce(itertools.islice(items, self.facts.bulk))
        self.start_proxy()
        self.archive()
        self.read_while_writing(items)
        self.read_again()
        self.open_a_segment()
        return self.facts

    def start_kafka(self) -> None:
        what = "starting Apache Kafka" if jars.is_here() else "downloading Apache Kafka (once, about 60 MB)"
        with self.console.status(f"{what} {jars.KAFKA_VERSION}"):
            jars.class_path()
            self.kafka = self._open.enter_context(Cluster(HOME / "kafka", jvm=()))
            admin.create_topic(
                *(self.kafka.bootstrap, self.source.name, PARTITIONS),
                segment_bytes=1 << 20,
                retention_ms=-1,  # nothing but tierproxy deletes here
                max_message_bytes=32 << 20,
            )
        self._tell(f"Apache Kafka {jars.KAFKA_VERSION} is up at {self.kafka.bootstrap}, topic {self.source.name!r}")

    def produce(self, items: Iterator[Item]) -> None:
        facts = self.facts
        with self._bar("producing to the broker", facts.bulk) as advance:
            self.sender = Sender(self.kafka.bootstrap, facts.topic, self.digests)
            self.sender.send(items, advance)
            self.sender.flush()
        facts.earliest_before = admin.earliest(self.kafka.bootstrap, facts.topic, PARTITIONS)
        facts.disk_before = self.kafka.log_bytes(facts.topic)
        self._tell(f"the broker holds {facts.bulk:,} {facts.title}, {size(facts.disk_before)} on its disk")

    def start_proxy(self) -> None:
        policy = {
            "match": self.source.name,
            "archive": "local",
            "segment": {"bytes": "8MiB", "age": "3s"},
            "keep_on_broker": {"bytes": "0B"},  # as little as can be: the active segment
        }
        with self.console.status("starting tierproxy"):
            proxy = Proxy(HOME / "tierproxy", self.kafka.bootstrap, [policy], cluster="demo")
            self.proxy = self._open.enter_context(proxy)
            self.facts.gateway = self.proxy.bootstrap
        self._tell(f"tierproxy is up at {self.proxy.bootstrap}, archive in {short(self.proxy.archive)}")

    def archive(self) -> None:
        """Waits until all that was produced is archived, the broker trimmed and its disk freed."""
        facts = self.facts
        kafka, topic = self.kafka, facts.topic
        ends = admin.latest(kafka.bootstrap, topic, PARTITIONS)
        with self._bar("archiving", sum(ends.values())) as advance:
            done = 0

            def archived() -> bool:
                nonlocal done
                now = {p: int(m["end_offset"]) for p, m in self.proxy.manifests(topic).items()}
                advance(sum(now.values()) - done)
                done = sum(now.values())
                return all(now.get(p, 0) >= end for p, end in ends.items())

            wait_for(self._while_alive(archived), seconds=600, what="complete archive", pause=0.1)
        with self.console.status("the broker deletes what is archived"):
            facts.earliest_after = admin.wait_trimmed(kafka.bootstrap, topic, ends, seconds=60)
            wait_for(self._while_alive(self._disk_is_calm()), seconds=60, what="calm disk", pause=0.2)
        facts.latest_after = ends
        facts.disk_after = kafka.log_bytes(topic)
        start, end = sum(facts.earliest_after.values()), sum(ends.values())
        self._tell(
            f"archived and trimmed: the broker's own log now starts at record {start:,} of {end:,}, "
            f"{size(facts.disk_after)} on its disk"
        )

    def read_while_writing(self, items: Iterator[Item]) -> None:
        """Two consumers read from offset 0 through the proxy while the producer goes on, also through it."""
        facts = self.facts
        ends_file = HOME / "ends.json"
        followers = [self._follow(client, ends_file) for client in LIVE_CLIENTS]
        sender = Sender(self.proxy.bootstrap, facts.topic, self.digests)
        failed: list[BaseException] = []

        def write() -> None:
            try:
                sender.send(items, lambda number: None, per_second=max(10, facts.live / 6))
                sender.flush()
                ends = {p: digest.last_offset + 1 for p, digest in self.digests.items()}
                _write(ends_file, json.dumps(ends))
            except BaseException as error:  # noqa: BLE001 - carried to the main thread, which raises it
                failed.append(error)

        writer = threading.Thread(target=write, name="live producer", daemon=True)
        writer.start()
        self._watch("reading from offset 0, the producer writes on", followers, failed)
        writer.join()
        facts.sent = {p: digest.hex for p, digest in self.digests.items()}
        facts.plain_bytes = sum(digest.size for digest in self.digests.values())
        self._tell(f"{' and '.join(LIVE_CLIENTS)} read all of it, across the seam, to the live end")

    def read_again(self) -> None:
        followers = [self._follow(client, HOME / "ends.json") for client in LATER_CLIENTS]
        self._watch("reading with Kafka's own console consumer", followers, [])

    def open_a_segment(self) -> None:
        facts = self.facts
        with self.console.status("decompressing a segment, checking it with kafka-dump-log"):
            self._measure_archive()
            files = self._segments()
            largest = max(files, key=lambda file: file.stat().st_size)
            facts.segment = segments.check(largest, HOME / "segment")

    def _measure_archive(self) -> None:
        facts = self.facts
        files = self._segments()
        facts.objects, facts.stored = len(files), sum(file.stat().st_size for file in files)
        for manifest in self.proxy.manifests(facts.topic).values():
            facts.log_archived += sum(int(entry["plain_size"]) for entry in manifest["segments"])

    def _segments(self) -> list[Path]:
        return list(self.proxy.archive.rglob("*.log.zst"))

    def _follow(self, client: str, ends: Path) -> Follower:
        follower = Follower(client, self.proxy.bootstrap, self.facts.topic, PARTITIONS, ends, HOME / "logs")
        self._open.callback(follower.process.kill)
        return follower

    def _watch(self, title: str, followers: list[Follower], failed: list[BaseException]) -> None:
        """Shows how the consumers get on until all of them are through."""
        total = self.facts.bulk + self.facts.live
        with self._progress() as progress:
            tasks = {f.client: progress.add_task(f"{title}: {f.client}", total=total) for f in followers}

            def all_through() -> bool:
                if failed:
                    raise failed[0]
                through = [follower.finished for follower in followers]
                for follower in followers:
                    progress.update(tasks[follower.client], completed=follower.records)
                return all(through)

            wait_for(self._while_alive(all_through), seconds=600, what="end of the reading", pause=0.1)
        for follower in followers:
            self.facts.read[follower.client] = follower.digests
            self.facts.records_read[follower.client] = follower.records
            self.facts.seconds[follower.client] = float(follower.say["seconds"])

    def _disk_is_calm(self) -> Callable[[], bool]:
        """True when only active segments are left, or when nothing has been deleted for a while.

        The broker deletes whole segments, at its own retention check and a moment later from the disk.
        """
        looks: list[int] = []

        def calm() -> bool:
            looks.append(self.kafka.log_bytes(self.facts.topic))
            return looks[-1] <= PARTITIONS << 20 or looks[-20:-1] == [looks[-1]] * 19

        return calm

    def _while_alive(self, condition: Callable[[], bool]) -> Callable[[], bool]:
        """`condition`, but an error with its log when tierproxy or Kafka has ended meanwhile."""

        def check() -> bool:
            for process in (self.proxy.process, self.kafka.nodes[0].process):
                if process is not None and not process.alive:
                    process.wait_until(lambda: False, seconds=0, what="the end of the demonstration")
            return condition()

        return check

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        with self._progress() as progress:
            task = progress.add_task(title, total=total)
            yield lambda number: progress.advance(task, number)

    def _progress(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_interactive,  # a log file is not to be full of empty lines
        )

    def _tell(self, text: str) -> None:
        self.console.print(f"[green]✓[/] {escape(text)}", highlight=False, soft_wrap=True)


def _take_lock() -> IO[str]:
    """Sole use of `.demo`, emptied. Held until the file is closed, so also when we are killed."""
    HOME.parent.mkdir(exist_ok=True)
    HOME.mkdir(exist_ok=True)
    lock = (HOME / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Busy(f"another demonstration is using {short(HOME)}; stop it first") from None
    for entry in HOME.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return lock


def _write(file: Path, text: str) -> None:
    """All or nothing, as others are waiting for the file."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text)
    os.replace(unfinished, file)


def short(path: Path) -> str:
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def size(number: int) -> str:
    """Bytes for people."""
    return f"{number / 1e6:,.1f} MB" if number >= 100_000 else f"{number / 1e3:,.1f} kB"
