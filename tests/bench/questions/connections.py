"""What two thousand clients cost that are connected and ask for next to nothing."""

import time

from rich.table import Table

from protocol.apis import ApiKey
from protocol.headers import request_header
from tests.bench.raw import CLIENT, Connection
from tests.bench.turns import Bench

ORDER = 80
CONNECTIONS = 2000
SECONDS = 20
EACH_SECONDS = 10
"""How often each asks something (ApiVersions)."""


def ask(bench: Bench) -> Table:
    scene = bench.scene
    scene.restart()
    bench.say(f"connections: opening {CONNECTIONS}")
    open_ones: list[Connection] = []
    try:
        for _ in range(CONNECTIONS):
            open_ones.append(Connection(scene.proxied, buffer=4096))
            _ask_something(open_ones[-1])
        bench.say(f"connections: {SECONDS} s of little")
        meter = scene.meter()
        meter.begin()
        began = time.perf_counter()
        asked = CONNECTIONS * SECONDS // EACH_SECONDS
        for number in range(asked):
            _ask_something(open_ones[number % CONNECTIONS])
            # Requests come evenly, as from 2,000 clients that know nothing of each other.
            time.sleep(max(0.0, began + (number + 1) * SECONDS / asked - time.perf_counter()))
        usage = meter.end()
    finally:
        for connection in open_ones:
            connection.close()
    table = Table(title=f"{CONNECTIONS:,} connections, each with a request every {EACH_SECONDS} s")
    for column in ("of a core", "memory MiB"):
        table.add_column(column, justify="right")
    share = bench.results.figure("connections/of a core", usage.cpu["tierproxy"] / usage.seconds)
    peak = bench.results.figure("connections/peak", usage.peaks["tierproxy"] / (1 << 20), "MiB")
    table.add_row(f"{share:.1%}", f"{peak:,.0f}")
    return table


def _ask_something(connection: Connection) -> None:
    connection.send(request_header(ApiKey.API_VERSIONS, 0, 1, CLIENT))
    connection.receive()
