"""What S3 gives when sixteen consumers replay the same at the same time."""

from rich.table import Table

from tests.bench.options import MAIN
from tests.bench.turns import Bench

ORDER = 60
CONSUMERS = 16
PART = 4
"""Each reads the first quarter."""


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    scene = bench.scene
    ends = {partition: end // PART for partition, end in stored.ends.items()}
    log_bytes = stored.log_bytes / PART
    scene.far(30)
    table = Table(title=f"Consumers that replay the same at once, raw, 30 ms S3, {log_bytes / 1e6:,.0f} MB each")
    for column in ("consumers", "MB/s together", "S3 MB", "S3 GETs", "tierproxy s/GB", "peak MiB"):
        table.add_column(column, justify="right")
    fetched = {}
    for consumers in (1, CONSUMERS):
        bench.say(f"sharing: {consumers} consumers")
        scene.restart()
        reads, usage = scene.read_together("raw", [scene.job(stored, cold=True, ends=ends)] * consumers)
        fetched[consumers] = usage.s3.sent
        together = consumers * log_bytes / 1e6
        peak = bench.results.figure(f"sharing/{consumers}/peak", usage.peaks["tierproxy"] / (1 << 20), "MiB")
        speed = bench.results.figure(f"sharing/{consumers}/speed", together / max(r.seconds for r in reads), "MB/s")
        cpu = bench.results.figure(
            f"sharing/{consumers}/cpu tierproxy", usage.cpu["tierproxy"] / together * 1e3, "s/GB"
        )
        table.add_row(
            *(str(consumers), f"{speed:,.0f}", f"{usage.s3.sent / 1e6:,.0f}", f"{usage.s3.gets:,}"),
            *(f"{cpu:.2f}", f"{peak:,.0f}"),
        )
    share = bench.results.figure("sharing/fetched", fetched[CONSUMERS] / fetched[1])
    table.caption = f"S3 bytes fetched by {CONSUMERS} / by one: {share:.2f}"
    return table
