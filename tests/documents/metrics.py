"""docs/metrics.md, made of the metrics themselves: `python -m tests.documents.metrics` writes it."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from prometheus_client import Counter, Gauge
from prometheus_client.metrics import MetricWrapperBase

from tests.kit import PROJECT
from tierproxy import telemetry
from tierproxy.telemetry import conditions, kinds, pulse, traffic
from tierproxy.workers.metrics import WorkerMetrics

PAGE = PROJECT / "docs" / "metrics.md"

HEAD = f"""# Every metric

<!-- made by `python -m tests.documents.metrics`: change what it is made of, not this -->

What /metrics on the admin port shows, beside Prometheus' own of a Python process (process_cpu_seconds_total,
process_resident_memory_bytes, process_open_fds and others). Counters count from the process's start.

Labels are bounded. Nothing that a client sends becomes one. Of topics, {kinds.MOST_TOPICS} have a label of their own,
the first that are seen, for as long as they exist; all others are together "{kinds.OTHER}": the highest of their lags,
the lowest of what is left of their retention, the sum of their offsets and holes. What no request, read or topic has
needed yet is not shown.

With several workers /metrics shows them together: counters and histograms are sums, those of a worker that died stay
in; of a gauge it is what the last column says, over those that live. What requests count is up to half a second late.
"""


@dataclass(frozen=True, slots=True)
class Described:
    """`name` is what PromQL calls it; a histogram's series have _bucket, _count and _sum behind it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str
    workers: str

    @property
    def series(self) -> set[str]:
        if self.kind == "histogram":
            return {f"{self.name}_{part}" for part in ("bucket", "count", "sum")}
        return {self.name}


def groups() -> dict[str, list[Described]]:
    """By what they are of, in the order in which they stand in the code."""
    found: dict[str, list[Described]] = {"What clients ask": _described(traffic), "The event loop": _described(pulse)}
    assert telemetry.__file__ is not None
    for title, lines in _parts(Path(telemetry.__file__).read_text()):
        named = [getattr(telemetry, name) for name in re.findall(r"^([A-Z_]+) = ", lines, re.MULTILINE)]
        found[title] = [_describe(each) for each in named if isinstance(each, MetricWrapperBase)]
    found["Troubles"] = _described(conditions)
    with tempfile.TemporaryDirectory() as files:
        workers = WorkerMetrics(Path(files), lambda: [])
        found["With several workers"] = [_describe(each) for each in (workers.alive, workers.restarts)]
    return found


def _parts(source: str) -> Iterator[tuple[str, str]]:
    """The headings of a table of metrics, and what is below each."""
    _, *parts = re.split(r"^# ---- metrics: (.*?) -+$", source, flags=re.MULTILINE)
    for title, lines in zip(parts[::2], parts[1::2], strict=True):
        yield title[0].upper() + title[1:], lines


def _described(module: ModuleType) -> list[Described]:
    return [_describe(each) for each in vars(module).values() if isinstance(each, MetricWrapperBase)]


def _describe(metric: MetricWrapperBase) -> Described:
    (about,) = metric.describe()
    name = f"{about.name}_total" if isinstance(metric, Counter) else about.name
    mode = metric._multiprocess_mode if isinstance(metric, Gauge) else ""
    workers = {"livesum": "sum", "livemin": "least", "livemax": "most"}.get(mode, "")
    return Described(name, about.type, tuple(metric._labelnames), about.documentation, workers)


def page() -> str:
    text = HEAD
    for title, metrics in groups().items():
        text += f"\n## {title}\n\n| metric | kind | labels | | workers |\n|---|---|---|---|---|\n"
        for each in metrics:
            about = each.about.replace("|", "\\|")
            text += f"| {each.name} | {each.kind} | {', '.join(each.labels)} | {about} | {each.workers} |\n"
    return text


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
