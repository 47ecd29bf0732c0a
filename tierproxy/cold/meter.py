"""Counts where archived bytes come from."""

from typing import Literal

from tierproxy import tracing
from tierproxy.telemetry import COLD_READ_BYTES, COLD_READS

Source = Literal["memory", "worker", "disk", "store"]


def came_from(source: Source, size: int) -> None:
    """A read of `size` bytes, as they are stored, was answered."""
    COLD_READS.labels(source).inc()
    COLD_READ_BYTES.labels(source).inc(size)
    tracing.note(source=source, bytes=size)
