"""Two pictures of a run: how fast the routes are beside the direct one, and where the CPU seconds go."""

from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.results import PARTIES, Results
from tests.bench.turns import DIRECT

mpl.use("agg")  # no window, wherever we are

_COLORS = {"client": "#9aa5b1", "broker": "#5b8def", "tierproxy": "#e4572e", "s3": "#f3a712", "front": "#c9cba3"}
_ROUTES = ("#9aa5b1", "#e4572e", "#f3a712", "#76b041", "#5b8def", "#8e6c8a", "#2a9d8f")


def draw(results: Results, directory: Path) -> list[Path]:
    """Writes `ratios.png` and `cpu.png`, as far as there is something to show; the files."""
    made = [_ratios(results, directory / "ratios.png"), _cpu(results, directory / "cpu.png")]
    return [file for file in made if file is not None]


def _ratios(results: Results, file: Path) -> Path | None:
    bars = [key for key in _readings(results) if key[3] != DIRECT.name]
    if not bars:
        return None
    groups = list(dict.fromkeys((question, corpus, reader) for question, corpus, reader, _ in bars))
    routes = list(dict.fromkeys(route for *_, route in bars))

    def fill(axes: Axes) -> None:
        width = 0.8 / len(routes)
        for number, route in enumerate(routes):
            there = [(at, (*group, route)) for at, group in enumerate(groups) if (*group, route) in bars]
            heights = [results.value("/".join([*key, "ratio"])) or 0.0 for _, key in there]
            places = [at + (number - (len(routes) - 1) / 2) * width for at, _ in there]
            drawn = axes.bar(places, heights, width, label=route, color=_ROUTES[number % len(_ROUTES)])
            axes.bar_label(drawn, fmt="%.2f", fontsize=7)
        axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(groups)), ["\n".join(group) for group in groups], fontsize=7)
        axes.set_ylabel("throughput / hot, direct")

    return _saved(file, "Throughput beside a direct read of the same bytes", len(groups), fill)


def _cpu(results: Results, file: Path) -> Path | None:
    bars = list(_readings(results))
    if not bars:
        return None

    def fill(axes: Axes) -> None:
        bottom = [0.0] * len(bars)
        for party in PARTIES:
            heights = [results.value("/".join([*key, f"cpu {party}"])) or 0.0 for key in bars]
            axes.bar(range(len(bars)), heights, 0.7, bottom=bottom, label=party, color=_COLORS[party])
            bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
        labels = [f"{corpus} {reader}\n{route}" for _, corpus, reader, route in bars]
        axes.set_xticks(range(len(bars)), labels, fontsize=6, rotation=90)
        axes.set_ylabel("CPU seconds per GB of log")

    return _saved(file, "Where the CPU seconds go", len(bars) * 0.45, fill)


def _readings(results: Results) -> Iterable[tuple[str, str, str, str]]:
    return dict.fromkeys((s.question, s.corpus, s.reader, s.route) for s in results.samples)


def _saved(file: Path, title: str, width: float, fill: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=(max(6.0, 1.3 * width), 4.5), layout="constrained")
    axes = figure.subplots()
    fill(axes)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    return file
