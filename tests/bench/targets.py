"""What must be reached, and whether it was: the table of issue 6 in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from tests.bench.options import MAIN
from tests.bench.results import Results

QUIET = 0.1
"""Up to this share of the machine may go to others before a run is doubted."""
Value = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """`at_least` or `at_most` holds the limit; `goal` is further the same way. `of` gives None when nothing was
    measured."""

    name: str
    of: Value
    at_least: float | None = None
    at_most: float | None = None
    goal: float | None = None
    unit: str = ""

    @property
    def limit(self) -> str:
        sign, limit = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {limit:g} {self.unit}".rstrip()

    def met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None
        return value <= self.at_most

    def goal_met(self, value: float) -> bool:
        assert self.goal is not None
        return value >= self.goal if self.at_least is not None else value <= self.goal

    def judged(self, results: Results) -> dict[str, Any]:
        value = self.of(results)
        return {
            "name": self.name,
            "measured": value,
            "limit": self.limit,
            "goal": self.goal,
            "met": None if value is None else self.met(value),
            "goal_met": None if value is None or self.goal is None else self.goal_met(value),
        }


def _figure(name: str, times: float = 1.0) -> Value:
    def value(results: Results) -> float | None:
        found = results.value(name)
        return None if found is None else found * times

    return value


def _spread(reader: str) -> Value:
    """How much slower the slowest delay is than the quickest, as a share."""

    def value(results: Results) -> float | None:
        speeds = [results.value(f"cold/{MAIN}/{reader}/cold, {ms} ms/speed") for ms in (0, 30, 100)]
        known = [speed for speed in speeds if speed is not None]
        return 1 - min(known) / max(known) if len(known) == len(speeds) else None

    return value


def _cold(reader: str, what: str) -> Value:
    return _figure(f"cold/{MAIN}/{reader}/cold, 30 ms/{what}")


TARGETS = [
    Target("hot, Java / direct", _figure(f"hot/{MAIN}/java/hot, tierproxy/ratio"), at_least=0.85, goal=0.90),
    Target("hot, librdkafka / direct", _figure(f"hot/{MAIN}/librdkafka/hot, tierproxy/ratio"), at_least=0.90, goal=1.0),
    Target(
        "hot, proxy's CPU", _figure(f"hot/{MAIN}/raw/hot, tierproxy/cpu tierproxy"), at_most=0.6, goal=0.4, unit="s/GB"
    ),
    Target("hot, added latency, p99", _figure("latency/added p99"), at_most=1.0, unit="ms"),
    Target("produce, Java / direct", _figure("produce/java/ratio"), at_least=0.90),
    Target("produce, librdkafka / direct", _figure("produce/librdkafka/ratio"), at_least=0.90),
    Target("cold 30 ms, Java / hot direct", _cold("java", "ratio"), at_least=0.55, goal=0.75),
    Target("  idle meanwhile", _cold("java", "idle"), at_most=0.15),
    Target("cold 30 ms, librdkafka / hot direct", _cold("librdkafka", "ratio"), at_least=0.45, goal=0.65),
    Target("  idle meanwhile", _cold("librdkafka", "idle"), at_most=0.15),
    Target("cold 0, 30, 100 ms: spread, Java", _spread("java"), at_most=0.10),
    Target("cold 0, 30, 100 ms: spread, librdkafka", _spread("librdkafka"), at_most=0.10),
    Target(
        "cold 30 ms, one partition, raw", _figure("corpora/json-1/raw/cold, 30 ms/speed"), at_least=400, unit="MB/s"
    ),
    Target("cold, proxy's CPU, compressible", _cold("raw", "cpu tierproxy"), at_most=1.3, unit="s/GB"),
    Target("cold, proxy's CPU, lz4", _figure("corpora/lz4-3/raw/cold, 30 ms/cpu tierproxy"), at_most=1.2, unit="s/GB"),
    Target(
        "cold, proxy's CPU, zstd", _figure("corpora/zstd-3/raw/cold, 30 ms/cpu tierproxy"), at_most=1.2, unit="s/GB"
    ),
    Target(
        "second reader, warm cache: GETs of segments",
        _figure(f"cold/{MAIN}/raw/cold, warm cache/gets of segments"),
        at_most=0,
    ),
    Target("16 consumers at once: S3 bytes / once", _figure("sharing/fetched"), at_most=1.1),
    Target("  through two workers", _figure("workers/fetched"), at_most=1.1),
    Target("first record, 30 ms, p50", _figure("first/p50"), at_most=70, unit="ms"),
    Target("S3 GETs, sequential", _cold("raw", "gets per GB"), at_most=150, unit="/GB"),
    Target("200 consumers, different ranges: memory", _figure("crowd/peak"), at_most=512, unit="MiB"),
    Target("2,000 idle connections: memory", _figure("connections/peak"), at_most=300, unit="MiB"),
    Target("2,000 idle connections: of a core", _figure("connections/of a core"), at_most=0.05),
    Target("hot beside 8 limited replays: speed kept", _figure("contention/limited/speed"), at_least=0.9),
    Target("  p99 grown", _figure("contention/limited/p99"), at_most=2),
    Target("archiving, per core", _figure(f"archiving/{MAIN}/speed per core"), at_least=150, goal=250, unit="MB/s"),
    Target("cold answer, 1,000,000 segments / 10, in order", _figure("growth/sequential"), at_most=1.5),
    Target("  at random", _figure("growth/random"), at_most=1.5),
    Target("a partition's part of it, 1,000 partitions / 100", _figure("growth/partitions"), at_most=1.5),
    Target("stored / log bytes", _figure(f"archiving/{MAIN}/stored per log"), at_most=0.27),
]


def targets_table(results: Results) -> Table:
    table = Table(title="Targets")
    for column in ("", "measured", "target", "goal"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("met")
    missing = 0
    for target in TARGETS:
        judged = target.judged(results)
        value = judged["measured"]
        if value is None:
            missing += 1
            continue
        met = "[green]yes" if judged["met"] else "[red]no"
        met += " [green]goal, too" if judged["goal_met"] else ""
        measured = f"{value:.3g}" if value < 100 else f"{value:,.0f}"
        table.add_row(target.name, measured, target.limit, f"{target.goal or ''}", met)
    captions = [f"{missing} more were not measured."] if missing else []
    others = max((sample.usage.others for sample in results.samples), default=0.0)
    if others > QUIET:
        captions.append(f"Other programs took up to {others:.0%} of the machine: speeds and ratios say little.")
    table.caption = "\n".join(captions)
    return table
