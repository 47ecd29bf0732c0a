"""What a second worker gives two clients, and whether workers read from S3 what one of them has read already."""

from rich.table import Table

from tests.bench.options import MAIN
from tests.bench.turns import Bench

ORDER = 65
WORKERS = (1, 2)
CLIENTS = 2
CROWD = 16
PART = 4
"""Of the crowd, each reads the first quarter."""


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    scene, figure = bench.scene, bench.results.figure
    scene.far(30)
    table = Table(title=f"{CLIENTS} clients that read the same, raw, 30 ms S3")
    for column in ("", "MB/s together", "tierproxy s/GB", "peak MiB", "S3 MB"):
        table.add_column(column, justify="right" if column else "left")
    together = CLIENTS * stored.log_bytes / 1e6
    for cold in (False, True):
        for workers in WORKERS:
            way = f"{'cold' if cold else 'hot'}, {workers} workers"
            bench.say(f"workers: {way}")
            scene.restart(workers=workers)
            reads, usage = scene.read_together("raw", [scene.job(stored, cold=cold)] * CLIENTS)
            speed = figure(f"workers/{way}/speed", together / max(read.seconds for read in reads), "MB/s")
            cpu = figure(f"workers/{way}/cpu tierproxy", usage.cpu["tierproxy"] / together * 1e3, "s/GB")
            peak = figure(f"workers/{way}/peak", usage.peaks["tierproxy"] / (1 << 20), "MiB")
            table.add_row(way, f"{speed:,.0f}", f"{cpu:.2f}", f"{peak:,.0f}", f"{usage.s3.sent / 1e6:,.0f}")
    ends = {partition: end // PART for partition, end in stored.ends.items()}
    fetched = {}
    for clients in (1, CROWD):
        bench.say(f"workers: {clients} clients replay the same")
        scene.restart(workers=WORKERS[-1])
        _, usage = scene.read_together("raw", [scene.job(stored, cold=True, ends=ends)] * clients)
        fetched[clients] = usage.s3.sent
    share = figure("workers/fetched", fetched[CROWD] / fetched[1])
    table.caption = f"S3 bytes fetched for {CROWD} clients by {WORKERS[-1]} workers / for one: {share:.2f}"
    scene.restart()
    return table
