"""`tierproxy archive move`, killed at each of its steps, while consumers read and the archiver goes on.

Both archives are in one bucket, under two prefixes, so the front in between tells each step by the key of its request.
"""

import json
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.kit import PROJECT, admin
from tests.kit.clients import READERS
from tests.kit.processes import Process, wait_for
from tests.kit.producing import merged, produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, assert_same, drafts, ends
from tests.kit.s3 import S3Server
from tests.kit.s3_front import S3Front

TOPIC = "moving.house"
PARTITIONS = 2
POLICY: dict[str, Any] = {
    "match": "moving.*",
    "archive": "old",
    "segment": {"bytes": "32KiB", "age": "200ms"},
    "keep_on_broker": {"bytes": "0B"},
}
NEW_MANIFEST, OLD_MANIFEST, NEW_SEGMENT = r"/new/.*/manifest\.json", r"/old/.*/manifest\.json", r"/new/.*\.log\.zst"
MOMENTS = [
    # partition 0
    ("hang", NEW_MANIFEST, True),  # before it is announced
    ("hang", NEW_SEGMENT, True),  # before the first copy
    ("hang_after", NEW_SEGMENT, False),  # after one
    ("hang", OLD_MANIFEST, True),  # before it is handed over
    ("hang_after", OLD_MANIFEST, True),  # after that: the archiver takes it over instead of the move
    # partition 1
    ("hang_after", NEW_MANIFEST, True),  # after it is announced
    ("hang_after", OLD_MANIFEST, False),  # after it is handed over
    ("hang", NEW_MANIFEST, False),  # before the move takes it over
    ("hang_after", NEW_MANIFEST, False),  # after that
    ("hang", OLD_MANIFEST, True),  # before the old archive lets go
]
"""What the front does to the move's next PUT, of what; and whether records are written and archived before the next."""


class Scene:
    """A topic that is written and read all the time, and moved with interruptions."""

    def __init__(self, stage: Stage, proxy: Proxy, front: S3Front, directory: Path) -> None:
        self.stage, self.proxy, self.front = stage, proxy, front
        self.log: Log = {}
        self.whole_reads = 0
        self._directory = directory
        self._seed = 0
        self._over = threading.Event()

    def write_and_archive(self) -> None:
        """Some more, until the archiver has committed and trimmed it."""
        self._seed += 1
        logs = [
            produce(self.proxy.bootstrap, TOPIC, drafts(300, partition=p, seed=self._seed)) for p in range(PARTITIONS)
        ]
        self.log = merged(self.log, *logs)
        admin.wait_trimmed(self.stage.broker, TOPIC, {p: last + 1 for p, last in ends(self.log).items()}, seconds=120)

    def read_on_and_on(self) -> None:
        """Always from the beginning; a client that is told that an offset is out of range fails."""
        while not self._over.is_set():
            log = self.log
            assert_same(log, READERS["librdkafka"](self.proxy.bootstrap, TOPIC, log))
            self.whole_reads += 1

    def wait_for_a_read(self, reading: Future[None]) -> None:
        """One that began after now, and has come to its end."""
        wanted = self.whole_reads + 2
        wait_for(lambda: reading.done() or self.whole_reads >= wanted, seconds=120, what="somebody to read it all")
        if reading.done():
            reading.result()

    def stop_reading(self) -> None:
        self._over.set()

    def kill_move(self, fault: str, key: str) -> None:
        """Begin to move, stop at the first PUT of that kind, kill -9 there."""
        done = self.front.counts().get(fault, 0)
        self.front.spoil(fault, method="PUT", key=key, times=1)
        command = [sys.executable, "-m", "tierproxy", "archive", "move", TOPIC, "--from", "old", "--to", "new"]
        move = Process(
            "move", [*command, "--config", self.proxy.config_file], log=self._directory / "move.log", cwd=PROJECT
        )
        move.wait_until(lambda: self.front.counts().get(fault, 0) > done, seconds=120, what=f"{fault} {key}")
        move.kill()
        self.front.heal()


@pytest.mark.timeout(600)
def test_a_topic_is_moved_while_it_is_read(stage: Stage, proxied: Proxy, s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("moving")
    stage.topic(TOPIC, PARTITIONS)
    with S3Front(tmp_path, s3) as front:
        archives = {"old": front.archive("moving", "old"), "new": front.archive("moving", "new")}
        proxy = Proxy(
            *(tmp_path / "proxy", stage.broker, [POLICY]),
            archives=archives,
            cluster="movers",
            settings={"cache": {"memory": "1MiB"}},
        )
        with proxy, ThreadPoolExecutor(1) as pool:
            scene = Scene(stage, proxy, front, tmp_path)
            scene.write_and_archive()
            reading = pool.submit(scene.read_on_and_on)
            try:
                for fault, key, write in MOMENTS:
                    scene.kill_move(fault, key)
                    if write:
                        scene.write_and_archive()
                    scene.wait_for_a_read(reading)
                proxy.cli("archive", "move", TOPIC, "--from", "old", "--to", "new")
                scene.write_and_archive()
            finally:
                scene.stop_reading()
            reading.result(120)
            rows = [json.loads(line) for line in proxy.cli("archive", "ls", TOPIC, "--json").stdout.splitlines()]
            assert [(row["archive"], row["partition"], row["end_offset"], row["gaps"]) for row in rows] == [
                ("new", partition, last + 1, []) for partition, last in ends(scene.log).items()
            ]
            proxy.cli("archive", "verify", TOPIC)
            assert "not archived any further" not in proxy.log()
            # At last the policy says so too, and the old archive is forgotten.
            proxy.write_config(
                {**proxy.config, "archives": {"new": archives["new"]}, "topics": [{**POLICY, "archive": "new"}]}
            )
            proxy.restart()
            scene.write_and_archive()
            assert_same(scene.log, READERS["kafka-python"](proxy.bootstrap, TOPIC, scene.log))
