"""What the proxy adds to the way of a record from producer to consumer, when nothing else goes on.

A consumer's fetch waits at the broker; a record of 1 KiB is produced (acks=all); the time until the fetch is answered
is taken. Both go directly or both through tierproxy, by turns. tierproxy archives the topic meanwhile.
"""

import time
from statistics import median

from confluent_kafka import Producer
from rich.table import Table

from protocol.batches import walk
from tests.bench.backend import LIVE
from tests.bench.corpus import values
from tests.bench.raw import Address, Connection, asked
from tests.bench.results import percentile
from tests.bench.turns import Bench
from tests.kit import admin

ORDER = 50
TRIPS = 500
"""Of each route in a round."""
WARM_UP = 50
PAUSE = 0.004
"""Seconds between two trips, in which the fetch reaches the broker and everything comes to rest."""


class _Route:
    def __init__(self, address: Address) -> None:
        self._consumer, self._producer = Connection(address), Connection(address)
        self.milliseconds: list[float] = []

    def trip(self, offset: int, batch: bytes) -> int:
        """The next offset. The log must end at `offset`."""
        self._consumer.send_fetch([asked(LIVE, 0, offset, 1 << 20)], max_wait_ms=5000)
        time.sleep(PAUSE)  # the load is light, and the fetch waits at the broker by then
        began = time.perf_counter()
        self._producer.send_produce(LIVE, 0, batch)
        while not (records := self._consumer.receive_fetched().partitions[0].records):
            self._consumer.send_fetch([asked(LIVE, 0, offset, 1 << 20)], max_wait_ms=5000)
        self.milliseconds.append((time.perf_counter() - began) * 1e3)
        header, _ = next(walk(records))
        self._producer.receive_produced()
        return header.next_offset

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()


def ask(bench: Bench) -> Table:
    scene = bench.scene
    scene.restart(archiver=True)
    offset, batch = _a_batch(bench)
    routes = {"direct": _Route(scene.direct), "tierproxy": _Route(scene.proxied)}
    trips = WARM_UP + TRIPS * bench.options.rounds
    try:
        for number in range(trips):
            if not number % 50:
                bench.say(f"latency: trip {number} of {trips}")
            for name in sorted(routes, reverse=bool(number & 1)):
                offset = routes[name].trip(offset, batch)
    finally:
        for route in routes.values():
            route.close()
        scene.restart()
    table = Table(title="A record's way from producer to consumer at light load, milliseconds")
    for column in ("", "p50", "p99", "p99.9"):
        table.add_column(column, justify="right" if column else "left")
    found = {name: route.milliseconds[WARM_UP:] for name, route in routes.items()}
    rows: dict[str, tuple[float, ...]] = {
        name: (median(ms), percentile(ms, 0.99), percentile(ms, 0.999)) for name, ms in found.items()
    }
    rows["added"] = tuple(a - b for a, b in zip(rows["tierproxy"], rows["direct"], strict=True))
    for name, (p50, p99, p999) in rows.items():
        bench.results.figure(f"latency/{name} p50", p50, "ms")
        bench.results.figure(f"latency/{name} p99", p99, "ms")
        table.add_row(name, f"{p50:.2f}", f"{p99:.2f}", f"{p999:.2f}")
    table.caption = f"{len(found['direct']):,} trips each."
    return table


def _a_batch(bench: Bench) -> tuple[int, bytes]:
    """The log's end, and a batch of one record as a stock producer makes it."""
    bootstrap = bench.scene.backend.bootstrap
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
    producer.produce(LIVE, value=next(values("latency", 1)), partition=0)
    if producer.flush(60):
        raise RuntimeError("the broker did not take a record within a minute")
    end = admin.latest(bootstrap, LIVE, 1)[0]
    with Connection(bench.scene.direct) as connection:
        connection.send_fetch([asked(LIVE, 0, end - 1, 1 << 20)])
        _, batch = next(walk(connection.receive_fetched().partitions[0].records or memoryview(b"")))
        return end, bytes(8) + bytes(batch[8:])
