"""Kinds of metrics that prometheus_client doesn't have as we need them.

With several workers each process keeps its numbers in files, and /metrics shows what they come to (workers/metrics.py):
counters and histograms are sums over all that there were; a gauge says how it is to be taken together.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from prometheus_client import Gauge, Histogram, disable_created_metrics

# Each counter would be shown twice, the second time as the moment it was made.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library forgot the annotation

QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds, in seconds, for what should take milliseconds."""
SLOW = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Bounds, in seconds, for what is done in the background."""

MOST_TOPICS = 200
"""How many topics have a label of their own. A cluster may have 10,000, and each is a series of each gauge."""
OTHER = "(other)"
"""The label of all other topics: brackets are in no topic's name."""


def gauge(
    name: str, about: str, labels: Sequence[str] = (), workers: Literal["livesum", "livemin", "livemax"] = "livesum"
) -> Gauge:
    """With several `workers`, what is shown is the sum, the least or the most of those that live."""
    return Gauge(name, about, labels, multiprocess_mode=workers)


class Tally(Histogram):
    """A histogram that can also be told what was counted elsewhere: an observation costs a microsecond and more."""

    def add(self, counts: Sequence[float], total: float) -> None:
        """As many observations for each bound, the last for what is above all; `total` is their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Observe how long it takes, however it ends."""
        began = perf_counter()
        try:
            yield
        finally:
            self.observe(perf_counter() - began)


class TopicLabels:
    """Which topics have a label of their own: the first `most` that came, as long as they are there."""

    def __init__(self, most: int = MOST_TOPICS) -> None:
        self._most = most
        self._named: set[str] = set()

    def of(self, topics: Collection[str]) -> dict[str, str]:
        """The label of each; whoever isn't named here any more has lost its own."""
        self._named &= set(topics)
        free = sorted(topic for topic in topics if topic not in self._named)
        self._named.update(free[: self._most - len(self._named)])
        return {topic: topic if topic in self._named else OTHER for topic in topics}


def remove(metric: Gauge, label: str, neutral: float) -> None:
    """Show `label` no more. What a worker once has shown stays in its file: there it becomes `neutral`."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        metric.labels(label).set(neutral)
    else:
        metric.remove(label)
