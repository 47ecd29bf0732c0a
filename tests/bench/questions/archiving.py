"""What archiving costs, and how small it makes the data. Measured while the scene is built."""

from rich.table import Table

from tests.bench.turns import Bench

ORDER = 5


def ask(bench: Bench) -> Table:
    table = Table(title="Archiving, zstd-3, 30 ms S3")
    table.add_column("")
    for column in (
        "log MB",
        "MB/s",
        "MB/s per core",
        "tierproxy s/GB",
        "broker s/GB",
        "s3 s/GB",
        "peak MiB",
        "stored/log",
    ):
        table.add_column(column, justify="right")
    figure = bench.results.figure
    for name, stored in bench.scene.backend.stored.items():
        path = f"archiving/{name}"
        small = figure(f"{path}/stored per log", stored.stored_bytes / stored.log_bytes)
        cells = [""] * 6
        if (done := stored.archiving) is not None:
            megabytes = done.log_bytes / 1e6
            cpu = done.usage.cpu
            cells = [
                f"{figure(f'{path}/speed', megabytes / done.seconds, 'MB/s'):,.0f}",
                f"{figure(f'{path}/speed per core', megabytes / cpu['tierproxy'], 'MB/s'):,.0f}",
                *(
                    f"{figure(f'{path}/cpu {party}', cpu.get(party, 0) / megabytes * 1e3, 's/GB'):.2f}"
                    for party in ("tierproxy", "broker", "s3")
                ),
                f"{figure(f'{path}/peak', done.usage.peaks['tierproxy'] / (1 << 20), 'MiB'):,.0f}",
            ]
        table.add_row(name, f"{stored.log_bytes / 1e6:,.0f}", *cells, f"{small:.3f}")
    table.caption = "MB/s per core: of log, for a CPU second of tierproxy."
    return table
