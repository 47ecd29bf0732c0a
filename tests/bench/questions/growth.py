"""Whether a fetch of archived records costs more where there are more segments, and more for each of its partitions
where there are more partitions.

In this process, without a broker: `python -m tests.bench.questions.growth` asks nothing else.
"""

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.growing import PARTITIONS, SEGMENTS, measure
from tests.bench.results import Results
from tests.bench.turns import Bench

ORDER = 90
ROUNDS = 5


def ask(bench: Bench) -> Table:
    bench.say("growth: segments and partitions")
    return asked(bench.results)


def asked(results: Results) -> Table:
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory), ROUNDS)
    table = Table(title="Archived records in memory: tierproxy's CPU microseconds for a partition's part of an answer")
    table.add_column("")
    for column in ("read in order", "at random", "in order, part of a fetch"):
        table.add_column(column, justify="right")
    figure = results.figure
    for segments in SEGMENTS:
        costs = (
            figure(f"growth/{segments} segments/{how}", cost[segments] * 1e6, "µs")
            for how, cost in (("sequential", found.sequential), ("random", found.random))
        )
        table.add_row(f"{segments:,} segments", *(f"{cost:,.0f}" for cost in costs), "")
    table.add_section()
    for partitions in PARTITIONS:
        cost = figure(f"growth/{partitions} partitions", found.partitions[partitions] * 1e6, "µs")
        table.add_row(f"{partitions:,} partitions", "", "", f"{cost:,.0f}")
    few, many = SEGMENTS[0], SEGMENTS[-1]
    ratios = (
        figure("growth/sequential", found.sequential[many] / found.sequential[few]),
        figure("growth/random", found.random[many] / found.random[few]),
        figure("growth/partitions", found.partitions[1_000] / found.partitions[100]),
    )
    table.caption = (
        f"{many:,} segments / {few:,}: {ratios[0]:.2f} in order, {ratios[1]:.2f} at random; "
        f"1,000 partitions / 100: {ratios[2]:.2f}"
    )
    return table


if __name__ == "__main__":
    Console(width=120).print(asked(Results()))
