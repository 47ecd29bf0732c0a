"""How fast history is replayed, from an S3 that is near or far, and again from the cache."""

from rich.table import Table

from tests.bench import turns
from tests.bench.options import MAIN
from tests.bench.readers import READERS
from tests.bench.turns import COLD_0, COLD_30, COLD_100, DIRECT, WARM, Bench

ORDER = 20


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    routes = [DIRECT, COLD_0, COLD_100, COLD_30, WARM]
    if bench.options.quick:
        routes = [DIRECT, COLD_30, WARM]
    turns.take(bench, "cold", stored, list(READERS), routes)
    return turns.table(bench, "cold", "Replaying the archive", [MAIN], list(READERS))
