"""Counts what is asked of stores, and how they fail."""

from collections.abc import Iterator
from contextlib import contextmanager

from tierproxy.archive.store import StoreError
from tierproxy.telemetry import STORE_ERRORS, STORE_REQUESTS, STORE_SECONDS


@contextmanager
def counted(operation: str) -> Iterator[None]:
    """One request. That an object is not there, or of another version, counts by its kind as well."""
    STORE_REQUESTS.labels(operation).inc()
    try:
        with STORE_SECONDS.labels(operation).timed():
            yield
    except StoreError as error:
        STORE_ERRORS.labels(operation, type(error).__name__).inc()
        raise
