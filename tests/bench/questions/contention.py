"""What eight replays take from a consumer of what is on the broker.

The measure is the same consumer beside programs that just burn as much CPU as the replays took, clients, S3 and all:
a machine that is busy is slow for everybody, and that is not tierproxy's doing.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from tests.bench.backend import Stored
from tests.bench.meters import Meter, Usage
from tests.bench.options import MAIN
from tests.bench.programs import Program, python
from tests.bench.results import percentile
from tests.bench.scene import Scene
from tests.bench.turns import Bench

ORDER = 70
REPLAYS = 8
SECONDS = 6.0
HOT_BYTES = 1 << 20
"""A partition and fetch: small ones, so that there are enough for a 99th percentile."""
RATE = "40MiB/s"
ALONE, SHARED, LIMITED = "alone", "8 replays, fair shares", f"8 replays, {RATE}"
BURNING = {SHARED: "as much CPU burnt ", LIMITED: "as much CPU burnt"}
KEYS = {SHARED: "fair", LIMITED: "limited"}
"""In figures' names."""


@dataclass(frozen=True)
class Stretch:
    """The hot consumer's MB/s and the 99th percentile of its fetches in ms; what the others had: MB/s, and CPU seconds
    a second that were not spent for the hot consumer."""

    speed: float
    p99: float
    replayed: float
    others_cpu: float


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    found: dict[str, list[Stretch]] = {}
    for number in range(bench.options.rounds):
        bench.say(f"contention, round {number + 1} of {bench.options.rounds}")
        _round(bench.scene, stored, found)
    table = Table(title=f"A consumer of hot records beside {REPLAYS} replays")
    for column in ("", "MB/s", "p99 ms", "replays MB/s", "their CPU", "speed kept", "p99 grown"):
        table.add_column(column, justify="right" if column else "left")
    for name, stretches in found.items():
        cells = [
            f"{median(s.speed for s in stretches):,.0f}",
            f"{median(s.p99 for s in stretches):.1f}",
            f"{median(s.replayed for s in stretches):,.0f}",
            f"{median(s.others_cpu for s in stretches):.2f}",
        ]
        if name in BURNING:
            pairs = list(zip(stretches, found[BURNING[name]], strict=True))
            kept = bench.results.figure(f"contention/{KEYS[name]}/speed", median(a.speed / b.speed for a, b in pairs))
            grown = bench.results.figure(f"contention/{KEYS[name]}/p99", median(a.p99 / b.p99 for a, b in pairs))
            cells += [f"{kept:.2f}", f"{grown:.2f}"]
        table.add_row(name.strip(), *cells)
    bench.results.details["contention"] = {name: [vars(s) for s in stretches] for name, stretches in found.items()}
    table.caption = "Speed kept and p99 grown: against as much CPU burnt by others."
    return table


def _round(scene: Scene, stored: Stored, found: dict[str, list[Stretch]]) -> None:
    with _limited(scene, stored, {}):
        alone, hot_cost = _stretch(scene, stored, 0, 0.0, None)
        found.setdefault(ALONE, []).append(alone)
        shared, _ = _stretch(scene, stored, REPLAYS, 0.0, hot_cost)
        found.setdefault(SHARED, []).append(shared)
        burning, _ = _stretch(scene, stored, 0, shared.others_cpu, hot_cost)
        found.setdefault(BURNING[SHARED], []).append(burning)
    with _limited(scene, stored, {"cold_read_rate": RATE}):
        limited, _ = _stretch(scene, stored, REPLAYS, 0.0, hot_cost)
        found.setdefault(LIMITED, []).append(limited)
        burning, _ = _stretch(scene, stored, 0, limited.others_cpu, hot_cost)
        found.setdefault(BURNING[LIMITED], []).append(burning)


@contextmanager
def _limited(scene: Scene, stored: Stored, limits: Mapping[str, str]) -> Iterator[None]:
    """A new tierproxy with these limits, that knows the archive."""
    before = scene.proxy.config
    try:
        scene.proxy.write_config({**before, "limits": {**before.get("limits", {}), **limits}})
        scene.far(30)
        scene.restart()
        scene.learn(stored)
        yield
    finally:
        scene.proxy.write_config(before)


def _stretch(scene: Scene, stored: Stored, replays: int, burnt: float, hot_cost: float | None) -> tuple[Stretch, float]:
    """`burnt`: CPU seconds a second that others burn; `hot_cost`: of tierproxy, for a hot byte, if it is known. And
    what that was here."""
    common = {"address": scene.proxied, "ends": stored.ends, "seconds": SECONDS}
    hot = {**common, "topic": stored.corpus.hot, "begin": 0.0, "partition_bytes": HOT_BYTES}
    cold = {**common, "topic": stored.corpus.cold, "partition_bytes": 1 << 20}
    with ExitStack() as stack:

        def start(kind: str, about: Mapping[str, Any]) -> Program:
            return stack.enter_context(Program(kind, python("tests.bench.contending", kind, json.dumps(about))))

        consumer = start("read", hot)
        others = [start("read", {**cold, "begin": number / REPLAYS}) for number in range(replays)]
        share = {"share": burnt / REPLAYS, "seconds": SECONDS}
        burners = [start("burn", share) for _ in range(REPLAYS if burnt else 0)]
        parties = {f"other {number}": program.pid for number, program in enumerate([*others, *burners])}
        meter = Meter({**scene.parties, **parties}, scene.backend.front)
        meter.begin()
        for program in (*others, *burners, consumer):
            program.begin()
        read = json.loads(consumer.result())
        replayed = sum(json.loads(program.result())["bytes"] for program in others)
        for program in burners:
            program.result()
        usage = meter.end()
    cost = usage.cpu["tierproxy"] / read["bytes"]
    spent = _for_others(usage, parties, read["bytes"] * (hot_cost if hot_cost is not None else cost))
    found = Stretch(
        read["bytes"] / 1e6 / read["seconds"],
        percentile(read["waits"], 0.99) * 1000,
        replayed / 1e6 / usage.seconds,
        spent / usage.seconds,
    )
    return found, cost


def _for_others(usage: Usage, parties: Mapping[str, int], hot_cost: float) -> float:
    """CPU seconds of the others' programs, of S3, and of tierproxy but for what it had to do for the hot consumer."""
    theirs = sum(usage.cpu[name] for name in (*parties, "s3", "front"))
    return theirs + max(0.0, usage.cpu["tierproxy"] - hot_cost)
