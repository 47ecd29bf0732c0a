"""What passes right now, from the metrics: how much since the last look. Costs nothing between two looks."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client import CollectorRegistry

from tierproxy.clock import Clock

AT_MOST_EVERY = 1.0
"""Seconds between two samples that are kept."""
SAMPLES = 120
SPEED_OVER = 10.0
"""Seconds over which speeds are taken, where there are samples so old; those older than `FORGOTTEN` are dropped."""
FORGOTTEN = 1800.0

TO_CLIENTS = "tierproxy_bytes_to_clients_total"
COLD_FETCHES = "tierproxy_cold_fetches_total"
STORE_READS = "tierproxy_store_reads_total"
STORE_BYTES = "tierproxy_store_read_bytes_total"
DISK_BYTES = "tierproxy_disk_cache_read_bytes_total"
ARCHIVED_BYTES = "tierproxy_archived_bytes_total"
STORE_ERRORS = "tierproxy_store_errors_total"
CONNECTIONS = "tierproxy_client_connections"
LAG_SECONDS = "tierproxy_archive_lag_seconds"
RETENTION_LEFT = "tierproxy_retention_left_ratio"

_COUNTERS = (TO_CLIENTS, COLD_FETCHES, STORE_READS, STORE_BYTES, DISK_BYTES, ARCHIVED_BYTES, STORE_ERRORS)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Passing:
    """`speeds`: a second, by the counters' names; None while there is no earlier sample. `past`: of the sums of some
    counters, oldest first. `connections` of clients; `lag_seconds` by topic, where an archiver here tells."""

    speeds: Mapping[str, float] | None
    past: Mapping[str, Sequence[float]]
    connections: int
    lag_seconds: Mapping[str, float]
    totals: Mapping[str, float]


class Traffic:
    """`registry` has this tierproxy's metrics, of all its processes."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def look(self) -> Passing:
        now = self._clock.monotonic()
        totals = dict.fromkeys(_COUNTERS, 0.0)
        connections, lags = 0.0, {}
        for metric in self._registry.collect():
            for sample in metric.samples:
                if sample.name in totals:
                    totals[sample.name] += sample.value
                elif sample.name == CONNECTIONS:
                    connections += sample.value
                elif sample.name == LAG_SECONDS:
                    lags[sample.labels.get("topic", "")] = sample.value
        samples = self._samples
        while samples and now - samples[0].at > FORGOTTEN:
            samples.popleft()
        if not samples or now - samples[-1].at >= AT_MOST_EVERY:
            samples.append(_Sample(now, totals))
        return Passing(self._speeds(), self._past(), round(connections), lags, totals)

    def _speeds(self) -> Mapping[str, float] | None:
        newest = self._samples[-1]
        olds = [sample for sample in self._samples if newest.at - sample.at >= SPEED_OVER]
        old = olds[-1] if olds else self._samples[0]
        return _speeds(old, newest) if newest.at > old.at else None

    def _past(self) -> Mapping[str, Sequence[float]]:
        samples = list(self._samples)
        between = [_speeds(old, new) for old, new in pairwise(samples)]
        return {name: [speeds[name] for speeds in between] for name in (COLD_FETCHES, STORE_BYTES, TO_CLIENTS)}


def _speeds(old: _Sample, new: _Sample) -> dict[str, float]:
    """A worker that died and came back may have made a sum smaller; nothing flows backwards."""
    took = new.at - old.at
    return {name: max(0.0, new.values[name] - old.values[name]) / took for name in _COUNTERS}
