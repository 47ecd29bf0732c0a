"""The memory that two hundred consumers take who replay different ranges at the same time."""

import json

from rich.table import Table

from tests.bench.meters import Meter
from tests.bench.options import MAIN
from tests.bench.programs import Program, python
from tests.bench.turns import Bench

ORDER = 70
CONSUMERS = 200
BYTES = 2 << 20
"""Each reads so much, a megabyte at a time."""


def ask(bench: Bench) -> Table:
    stored = bench.stored(MAIN)
    assert stored is not None
    scene = bench.scene
    scene.far(30)
    scene.restart()
    partitions = list(stored.ends)
    starts = [
        # Evenly over each partition, but for its last tenth.
        (partition, int(stored.ends[partition] * 0.9 * (number // len(partitions)) * len(partitions) / CONSUMERS))
        for number in range(CONSUMERS)
        for partition in [partitions[number % len(partitions)]]
    ]
    host, port = scene.proxied
    about = {"bootstrap": f"{host}:{port}", "topic": stored.corpus.cold, "starts": starts, "bytes": BYTES}
    bench.say(f"crowd: {CONSUMERS} consumers")
    with Program("the crowd", python("tests.bench.reading", "crowd", json.dumps(about))) as program:
        meter = Meter({**scene.parties, "client": program.pid}, scene.backend.front)
        meter.begin()
        program.begin()
        read = json.loads(program.result())
        usage = meter.end()
    gigabytes = read["log_bytes"] / 1e9
    table = Table(title=f"{CONSUMERS} consumers replay different ranges of {BYTES >> 20} MiB at once, raw, 30 ms S3")
    for column in ("MB/s together", "tierproxy s/GB", "tierproxy peak MiB", "S3 bytes / log bytes", "S3 GETs"):
        table.add_column(column, justify="right")
    figure = bench.results.figure
    table.add_row(
        f"{figure('crowd/speed', gigabytes * 1e3 / read['seconds'], 'MB/s'):,.0f}",
        f"{figure('crowd/cpu tierproxy', usage.cpu['tierproxy'] / gigabytes, 's/GB'):.2f}",
        f"{figure('crowd/peak', usage.peaks['tierproxy'] / (1 << 20), 'MiB'):,.0f}",
        f"{figure('crowd/fetched', usage.s3.sent / read['log_bytes']):.2f}",
        f"{usage.s3.gets:,}",
    )
    return table
