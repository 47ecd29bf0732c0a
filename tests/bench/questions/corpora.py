"""The same with one and with fifty partitions, and with what the producer has compressed."""

from rich.table import Table

from tests.bench import turns
from tests.bench.options import MAIN
from tests.bench.turns import COLD_30, DIRECT, HOT, Bench

ORDER = 40
READERS = ("librdkafka", "raw")


def ask(bench: Bench) -> Table | None:
    corpora = [stored for name, stored in bench.scene.backend.stored.items() if name != MAIN]
    if not corpora:
        return None
    for stored in corpora:
        turns.take(bench, "corpora", stored, READERS, [DIRECT, HOT, COLD_30])
    names = [stored.corpus.name for stored in corpora]
    return turns.table(bench, "corpora", "Other data and other numbers of partitions", names, READERS)
