"""Twice a second: how late the event loop is, and what is counted elsewhere, into the metrics."""

import asyncio
from collections.abc import Callable, Sequence

from prometheus_client import generate_latest

from tierproxy.telemetry.kinds import QUICK, Tally
from tierproxy.telemetry.traffic import TRAFFIC

EVERY = 0.5

LOOP_LAG = Tally(
    "tierproxy_event_loop_lag_seconds",
    "How late the event loop does what is due, looked at twice a second: all clients wait so long",
    buckets=QUICK,
)


async def pulse(measures: Sequence[Callable[[], None]] = (), every: float = EVERY) -> None:
    """For ever, every so many seconds. `measures` set gauges that nobody else keeps up to date."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            LOOP_LAG.observe(max(0.0, loop.time() - due))
            TRAFFIC.flush()
            for measure in measures:
                measure()
    finally:
        TRAFFIC.flush()


def exposition() -> bytes:
    """What /metrics shows of this process, in Prometheus' text format."""
    TRAFFIC.flush()
    return generate_latest()
