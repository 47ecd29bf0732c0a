"""How long a reader waits for the first record at an offset out of the blue.

S3 is 30 ms away, the partition's manifest is known and nothing else: not the segment's index, not the chunk. Further
offsets in the same segment follow, whose index is known then. An answer for which S3 was not asked is not counted.
"""

import random
import time
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from tests.bench.backend import Stored
from tests.bench.options import MAIN
from tests.bench.raw import Connection, asked
from tests.bench.results import percentile
from tests.bench.scene import Scene
from tests.bench.turns import Bench

ORDER = 30
DELAY_MS = 30
STARTS = 5
"""Restarts of tierproxy in a round."""
FURTHER = 4
"""Offsets in each segment after the first."""


@dataclass
class Waits:
    """In milliseconds."""

    unknown: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    cached: int = 0


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    scene, waits = bench.scene, Waits()
    chance = random.Random(1)
    scene.far(DELAY_MS)
    for number in range(STARTS * bench.options.rounds):
        bench.say(f"first record, start {number + 1} of {STARTS * bench.options.rounds}")
        scene.restart()
        scene.learn(stored)
        _wait_often(scene, stored, chance, waits)
    table = Table(title=f"First record from a random cold offset, {DELAY_MS} ms S3, milliseconds")
    for column in ("", "samples", "p50", "p99", "least", "median over 30 ms"):
        table.add_column(column, justify="right" if column else "left")
    figure = bench.results.figure
    for name, path, found in (
        ("index and chunk unknown", "first", waits.unknown),
        ("index known, chunk unknown", "first, index known", waits.known),
    ):
        p50, p99 = figure(f"{path}/p50", median(found), "ms"), figure(f"{path}/p99", percentile(found, 0.99), "ms")
        table.add_row(name, str(len(found)), f"{p50:.1f}", f"{p99:.1f}", f"{min(found):.1f}", f"{p50 / DELAY_MS:.2f}")
    table.caption = f"{waits.cached} more were answered from the cache. From the request to the whole answer."
    bench.results.details["first"] = {"unknown": waits.unknown, "known": waits.known, "cached": waits.cached}
    return table


def _wait_often(scene: Scene, stored: Stored, chance: random.Random, waits: Waits) -> None:
    topic = stored.corpus.cold
    with Connection(scene.proxied) as connection:
        for partition, manifest in scene.backend.manifests(topic).items():
            for segment in manifest["segments"][:-1]:  # the last one has been asked for already
                first, last = int(segment["base_offset"]), int(segment["last_offset"])
                for number in range(1 + FURTHER):
                    before = scene.backend.front.counts().gets
                    milliseconds = _wait(connection, topic, partition, chance.randint(first, last))
                    if scene.backend.front.counts().gets == before:
                        waits.cached += 1
                    else:
                        (waits.known if number else waits.unknown).append(milliseconds)


def _wait(connection: Connection, topic: str, partition: int, offset: int) -> float:
    began = time.perf_counter()
    while True:
        connection.send_fetch([asked(topic, partition, offset, 1 << 20)])
        if connection.receive_fetched().partitions[0].records:
            return (time.perf_counter() - began) * 1e3
