"""What a run has found: samples as they were taken, figures made of them, and both as JSON."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tests.bench.meters import Usage
from tests.bench.raw import Read

PARTIES = ("client", "broker", "tierproxy", "s3", "front")


@dataclass(frozen=True)
class Sample:
    """One reading of a topic by one route. Bytes are of log, seconds the reader's own."""

    question: str
    corpus: str
    reader: str
    route: str
    round: int
    log_bytes: int
    read: Read
    usage: Usage

    @property
    def mb_per_second(self) -> float:
        return self.log_bytes / 1e6 / self.read.seconds

    def cpu_per_gb(self, party: str) -> float:
        """CPU seconds for 1e9 bytes of log."""
        return self.usage.cpu.get(party, 0.0) / (self.log_bytes / 1e9)


@dataclass(frozen=True)
class Figure:
    """One number that runs are compared by."""

    value: float
    unit: str = ""


@dataclass
class Results:
    settings: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    """By name: `question/corpus/reader/route/what`, as far as each makes sense."""
    details: dict[str, Any] = field(default_factory=dict)
    """What questions have found besides, in a form of their own."""

    def figure(self, name: str, value: float, unit: str = "") -> float:
        """Keeps and returns it."""
        self.figures[name] = Figure(value, unit)
        return value

    def value(self, name: str) -> float | None:
        found = self.figures.get(name)
        return found.value if found is not None else None

    def of(self, question: str, corpus: str, reader: str, route: str) -> list[Sample]:
        wanted = (question, corpus, reader, route)
        return [s for s in self.samples if (s.question, s.corpus, s.reader, s.route) == wanted]

    def as_json(self) -> str:
        return json.dumps(
            {
                **self.settings,
                "figures": {name: asdict(figure) for name, figure in self.figures.items()},
                "details": self.details,
                "samples": [asdict(sample) for sample in self.samples],
            },
            indent=1,
        )


def cpu_ratio(over: list[Sample], under: list[Sample]) -> float:
    """What `ratio_of` would be if every processor were busy all the time: how much more CPU all parties together take.

    Programs that run beside the bench hardly disturb it.
    """
    total = [median(sum(map(s.cpu_per_gb, PARTIES)) for s in samples) for samples in (over, under)]
    return total[1] / total[0]


def ratio_of(over: list[Sample], under: list[Sample]) -> float:
    """Speeds by rounds: the median of the ratios within a round, as rounds differ more than routes do."""
    pairs = [(a.mb_per_second, b.mb_per_second) for a in over for b in under if a.round == b.round]
    return median(a / b for a, b in pairs)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie: the nearest of those that are there."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
