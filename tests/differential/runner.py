"""Plays numbered plays of a seed, and says how to repeat the ones that failed."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.differential.findings import Allowed
from tests.differential.generator import Generator
from tests.differential.plays import (
    Play,
    Table,
    absurd_version,
    growth,
    long_poll,
    old_fetch,
    one_fetch,
    pipeline,
    reader,
    some_epochs,
    some_offsets,
)
from tests.differential.scene import Scene
from tests.differential.sessions import session
from tests.differential.wire import Line

CHANGES: dict[Play, int] = {growth: 3, long_poll: 3}
"""Plays that change the log, with their weights: to repeat a later one, these have to be repeated too."""

PLAYS: dict[Play, int] = {
    one_fetch: 500,
    reader: 60,
    some_offsets: 200,
    some_epochs: 80,
    pipeline: 50,
    session: 40,
    absurd_version: 3,
    old_fetch: 2,
    **CHANGES,
}

ENOUGH = 20
"""So many failures are enough to read."""


@dataclass
class Report:
    seed: int
    kafka: str
    plays: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    seconds: float = 0.0
    allowed: Counter[Allowed] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"Kafka {self.kafka}, seed {self.seed}: {self.requests} requests put to both sides in {self.seconds:.0f} s",
            "  plays: " + ", ".join(f"{name} {count}" for name, count in self.plays.most_common()),
            "  allowed: " + ", ".join(f"{why.value} {count}" for why, count in self.allowed.most_common()),
        ]
        if self.failures:
            lines.append(f"  {len(self.failures)} plays differ:")
            lines += self.failures
        return "\n".join(lines)


def drawn(seed: int, number: int) -> tuple[Play, random.Random]:
    """Play `number` of `seed`, and the random numbers it is played with."""
    chance = random.Random(f"{seed}/{number}")
    return chance.choices(list(PLAYS), list(PLAYS.values()))[0], chance


def run(
    scene: Scene,
    seed: int,
    requests: int,
    *,
    only: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Plays until `requests` have been put to both sides; or only play `only`, and the changes that came before it."""
    report = Report(seed, scene.kafka.version)
    tables = [
        Table(scene.world, Line(scene.broker), Line(scene.through(number)), scene.grow)
        for number in range(len(scene.proxies))
    ]
    began = time.monotonic()
    number = -1
    while len(report.failures) < ENOUGH and (report.requests < requests if only is None else number < only):
        number += 1
        play, chance = drawn(seed, number)
        if only is not None and number < only and play not in CHANGES:
            continue
        table = tables[chance.randrange(len(tables))]
        _play(play, table, Generator(chance, scene.world, scene.versions), report, number)
        if number % 1000 == 999:
            progress(f"{report.requests} requests, {time.monotonic() - began:.0f} s")
    for table in tables:
        table.close()
    report.seconds = time.monotonic() - began
    return report


def _play(play: Play, table: Table, make: Generator, report: Report, number: int) -> None:
    findings = table.begin()
    play(table, make)
    report.plays[play.__name__] += 1
    report.requests += table.requests
    report.allowed.update(findings.allowed)
    if findings.differences:
        table.close()  # the next play begins on fresh connections
        version = "" if report.kafka.startswith("4") else f" KAFKA={report.kafka}"
        told = "\n".join(f"      {line}" for line in findings.differences[:6])
        report.failures.append(
            f"    play {number} ({play.__name__}, through {table.arc.address[1]}):\n{told}\n"
            f"      asked: {table.asked}\n"
            f"      again: make differential SEED={report.seed} ONLY={number}{version}"
        )
