"""/metrics for several processes: counters are summed over all that there were, gauges over those that live.

Each child keeps its numbers in files (prometheus_client's multiprocess mode) that are named after its seat, not its
process: who comes after a dead one goes on counting where that stopped. Gauges begin anew.

A child's files must be chosen before `tierproxy.telemetry` is imported: see __main__.py.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from tierproxy import telemetry

_CPU, _START = "process_cpu_seconds", "process_start_time_seconds"


class WorkerMetrics:
    """What /metrics shows. `files` is the children's directory, `pids` gives all processes that live, ours first."""

    def __init__(self, files: Path, pids: Callable[[], Collection[int]]) -> None:
        self._files = files
        self.registry = CollectorRegistry()
        MultiProcessCollector(self.registry, str(files))  # type: ignore[no-untyped-call]
        self.registry.register(_Processes(pids))
        PlatformCollector(self.registry)
        for each in telemetry.CONFIG_METRICS:  # they are ours, as the file is
            self.registry.register(each)
        self.alive = Gauge("tierproxy_workers", "Worker processes that live, by role", ["role"], registry=self.registry)
        self.restarts = Counter(
            "tierproxy_worker_restarts",
            "Worker processes that died and were replaced",
            ["role"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def died(self, seat: str) -> None:
        """Its gauges count no more."""
        mark_process_dead(seat, str(self._files))  # type: ignore[no-untyped-call]


class _Processes(Collector):
    """`process_*` as a single process has them, summed. What a dead one has used of the processor stays counted."""

    def __init__(self, pids: Callable[[], Collection[int]]) -> None:
        self._pids = pids
        self._used: dict[int, float] = {}

    def collect(self) -> Iterable[Metric]:
        totals: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                total = totals.setdefault(metric.name, metric)
                value = metric.samples[0].value
                if metric.name == _CPU:
                    self._used[pid] = value
                elif total is not metric and metric.name != _START:  # that is the first one's: ours
                    total.samples[0] = total.samples[0]._replace(value=total.samples[0].value + value)
        if _CPU in totals:
            used = totals[_CPU].samples
            used[0] = used[0]._replace(value=sum(self._used.values()))
        return totals.values()
