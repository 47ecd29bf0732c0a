"""Reading the same data by several routes, which take turns in every round, so that a slow moment hits all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.table import Table

from tests.bench.backend import Stored
from tests.bench.options import Options
from tests.bench.results import PARTIES, Results, Sample, cpu_ratio, ratio_of
from tests.bench.scene import Scene

Say = Callable[[str], None]


@dataclass
class Bench:
    """What a question has to work with."""

    scene: Scene
    options: Options
    results: Results
    say: Say

    def stored(self, name: str) -> Stored | None:
        """A corpus, if this run has it."""
        return self.scene.backend.stored.get(name)


def _nothing(scene: Scene) -> None:
    pass


@dataclass(frozen=True)
class Route:
    """A way to the data. `prepare` comes before each reading and isn't measured."""

    name: str
    cold: bool = False
    direct: bool = False
    prepare: Callable[[Scene], None] = field(default=_nothing)


def far(delay_ms: float) -> Callable[[Scene], None]:
    """S3 so far away, and nothing of it in tierproxy's caches."""

    def prepare(scene: Scene) -> None:
        scene.far(delay_ms)
        scene.restart()

    return prepare


def warm(delay_ms: float) -> Callable[[Scene], None]:
    """S3 so far away, and the caches as the route before has left them."""
    return lambda scene: scene.far(delay_ms)


DIRECT = Route("hot, direct", direct=True)
HOT = Route("hot, tierproxy")
COLD_0, COLD_30, COLD_100 = (Route(f"cold, {ms} ms", cold=True, prepare=far(ms)) for ms in (0, 30, 100))
WARM = Route("cold, warm cache", cold=True, prepare=warm(30))


def take(bench: Bench, question: str, stored: Stored, readers: Sequence[str], routes: Sequence[Route]) -> None:
    """All rounds; each reader's figures, and those of each route as a share of the first one."""
    rounds = bench.options.rounds
    for number in range(rounds):
        for reader in readers:
            for route in routes:
                bench.say(f"{question}, round {number + 1} of {rounds}: {stored.corpus.name}, {reader}, {route.name}")
                route.prepare(bench.scene)
                read, usage = bench.scene.read(reader, stored, cold=route.cold, direct=route.direct)
                sample = Sample(question, stored.corpus.name, reader, route.name, number, stored.log_bytes, read, usage)
                bench.results.samples.append(sample)
    for reader in readers:
        for route in routes:
            _figures(bench.results, question, stored, reader, route.name, routes[0].name)


def _figures(results: Results, question: str, stored: Stored, reader: str, route: str, first: str) -> None:
    samples = results.of(question, stored.corpus.name, reader, route)
    path = f"{question}/{stored.corpus.name}/{reader}/{route}"
    results.figure(f"{path}/speed", median(s.mb_per_second for s in samples), "MB/s")
    base = results.of(question, stored.corpus.name, reader, first)
    results.figure(f"{path}/ratio", ratio_of(samples, base))
    results.figure(f"{path}/ratio by CPU", cpu_ratio(samples, base))
    results.figure(f"{path}/others", median(s.usage.others for s in samples))
    results.figure(f"{path}/idle", median(s.usage.idle for s in samples))
    for party in PARTIES:
        results.figure(f"{path}/cpu {party}", median(s.cpu_per_gb(party) for s in samples), "s/GB")
    results.figure(f"{path}/peak", median(s.usage.peaks["tierproxy"] for s in samples) / (1 << 20), "MiB")
    if stored.stored_bytes:
        gigabytes = stored.stored_bytes / 1e9
        results.figure(f"{path}/gets of segments", median(s.usage.s3.gets - s.usage.s3.whole for s in samples))
        results.figure(f"{path}/gets per GB", median(s.usage.s3.gets for s in samples) / gigabytes, "/GB")
        results.figure(f"{path}/fetched", median(s.usage.s3.sent for s in samples) / stored.stored_bytes)


def table(bench: Bench, question: str, title: str, corpora: Sequence[str], readers: Sequence[str]) -> Table:
    """Everything that `take` has found for a question, a line for each reader and route."""
    made = Table(title=title)
    made.add_column("")
    for column in ("MB/s", "of direct", "by CPU", "idle", "others", *PARTIES, "peak MiB", "GETs/GB", "fetched"):
        made.add_column(column, justify="right")
    value = bench.results.value
    for corpus in corpora:
        for reader in readers:
            made.add_section()
            routes = dict.fromkeys(
                s.route for s in bench.results.samples if (s.question, s.corpus, s.reader) == (question, corpus, reader)
            )
            for route in routes:
                path = f"{question}/{corpus}/{reader}/{route}"
                cpu = [f"{value(f'{path}/cpu {party}') or 0:.2f}" for party in PARTIES]
                made.add_row(
                    f"{corpus} {reader}: {route}",
                    f"{value(f'{path}/speed'):,.0f}",
                    f"{value(f'{path}/ratio'):.2f}",
                    f"{value(f'{path}/ratio by CPU'):.2f}",
                    f"{value(f'{path}/idle'):.0%}",
                    f"{value(f'{path}/others'):.0%}",
                    *cpu,
                    f"{value(f'{path}/peak'):,.0f}",
                    f"{value(f'{path}/gets per GB') or 0:,.0f}",
                    f"{value(f'{path}/fetched') or 0:.2f}",
                )
    made.caption = (
        "Of direct by CPU: what the share would be if all were busy all the time. Others: programs that are not ours.\n"
        "Parties: CPU seconds for a GB of log. GETs and fetched: S3, for the stored bytes."
    )
    return made
