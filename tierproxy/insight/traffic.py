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
COLD_BYTES = "tierproxy_cold_read_bytes_total"
ARCHIVED_BYTES = "tierproxy_archived_bytes_total"
STORE_ERRORS = "tierproxy_store_errors_total"
CONNECTIONS = "tierproxy_client_connections"
LAG_SECONDS = "tierproxy_archive_lag_seconds"

_COUNTERS = (TO_CLIENTS, COLD_FETCHES, COLD_BYTES, ARCHIVED_BYTES, STORE_ERRORS)


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    values: Mapping[str, float]
    sources: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Passing:
    """`speeds`: a second, by the counters' names; None while there is no earlier sample. `past`: of the sums of some
    counters, oldest first. `sources`: archived bytes a second by what gave them (memory, disk, store, …). `connections`
    of clients; `lag_seconds` by topic, where an archiver here tells."""

    speeds: Mapping[str, float] | None
    past: Mapping[str, Sequence[float]]
    connections: int
    lag_seconds: Mapping[str, float]
    totals: Mapping[str, float]
    sources: Mapping[str, float]


class Traffic:
    """`registry` has this tierproxy's metrics, of all its processes."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def look(self) -> Passing:
        now = self._clock.monotonic()
        totals = dict.fromkeys(_COUNTERS, 0.0)
        connections, lags, sources = 0.0, {}, dict[str, float]()
        for metric in self._registry.collect():
            for sample in metric.samples:
                if sample.name in totals:
                    totals[sample.name] += sample.value
                    if sample.name == COLD_BYTES:
                        source = sample.labels.get("source", "")
                        sources[source] = sources.get(source, 0.0) + sample.value
                elif sample.name == CONNECTIONS:
                    connections += sample.value
                elif sample.name == LAG_SECONDS:
                    lags[sample.labels.get("topic", "")] = sample.value
        samples = self._samples
        while samples and now - samples[0].at > FORGOTTEN:
            samples.popleft()
        if not samples or now - samples[-1].at >= AT_MOST_EVERY:
            samples.append(_Sample(now, totals, sources))
        newest = samples[-1]
        olds = [sample for sample in samples if newest.at - sample.at >= SPEED_OVER]
        old = olds[-1] if olds else samples[0]
        took = newest.at - old.at
        speeds = _speeds(old.values, newest.values, took) if took else None
        given = _speeds(old.sources, newest.sources, took) if took else {}
        return Passing(speeds, self._past(), round(connections), lags, totals, given)

    def _past(self) -> Mapping[str, Sequence[float]]:
        between = [_speeds(old.values, new.values, new.at - old.at) for old, new in pairwise(self._samples)]
        return {name: [speeds[name] for speeds in between] for name in (COLD_FETCHES, COLD_BYTES, TO_CLIENTS)}


def _speeds(old: Mapping[str, float], new: Mapping[str, float], took: float) -> dict[str, float]:
    """A worker that died and came back may have made a sum smaller; nothing flows backwards."""
    return {name: max(0.0, value - old.get(name, 0.0)) / took for name, value in new.items()}
