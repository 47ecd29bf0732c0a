"""What tierproxy takes from, and costs, readers of what the broker still has."""

from rich.table import Table

from tests.bench import turns
from tests.bench.options import MAIN
from tests.bench.readers import READERS
from tests.bench.turns import DIRECT, HOT, Bench

ORDER = 10


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    turns.take(bench, "hot", stored, list(READERS), [DIRECT, HOT])
    return turns.table(bench, "hot", "Reading what is on the broker", [MAIN], list(READERS))
