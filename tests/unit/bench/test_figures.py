"""From samples to figures: shares within rounds, percentiles, targets, and two runs beside each other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import compare, plots
from tests.bench.meters import Usage
from tests.bench.questions import all_questions
from tests.bench.questions.produce import parse_java as parse_producer
from tests.bench.raw import Read
from tests.bench.readers import Job, parse_java
from tests.bench.results import Results, Sample, cpu_ratio, percentile, ratio_of
from tests.bench.s3 import Counts
from tests.bench.targets import TARGETS, Target, targets_table

USAGE = Usage(1.0, {"tierproxy": 0.5, "client": 2.0}, 0.1, 0.0, {"tierproxy": 100 << 20}, Counts(gets=7, sent=100))


def sample(route: str, number: int, seconds: float) -> Sample:
    return Sample("cold", "json-3", "raw", route, number, 500_000_000, Read(seconds, 0.1, 0, 0), USAGE)


def test_speed_and_cpu_are_for_bytes_of_log() -> None:
    one = sample("direct", 0, 2.0)
    assert one.mb_per_second == 250
    assert one.cpu_per_gb("tierproxy") == 1.0
    assert one.cpu_per_gb("broker") == 0


def test_routes_are_compared_within_a_round() -> None:
    """The second round was slow for both: the speeds' medians would say 0.5 / 0.55."""
    direct = [sample("direct", 0, 1.0), sample("direct", 1, 10.0), sample("direct", 2, 1.0)]
    cold = [sample("cold", 0, 2.0), sample("cold", 1, 20.0), sample("cold", 2, 2.5)]
    assert ratio_of(cold, direct) == pytest.approx(0.5)


def test_the_cpu_of_all_parties_says_what_a_quiet_machine_would() -> None:
    dear = Usage(1.0, {"tierproxy": 3.0, "client": 2.0}, 0.1, 0.0, {}, Counts())
    cold = [replace(sample("cold", 0, 9.9), usage=dear)]
    assert cpu_ratio(cold, [sample("direct", 0, 1.0)]) == pytest.approx(0.5)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.99) == 100
    assert percentile(values, 0.5) == 51
    assert percentile([3.0], 0.99) == 3


def test_a_target_is_met_at_its_limit_and_its_goal_beyond() -> None:
    least = Target("least", lambda results: results.value("x"), at_least=0.5, goal=0.75)
    most = Target("most", lambda results: results.value("x"), at_most=1.3, goal=0.4)
    assert [least.met(value) for value in (0.49, 0.5)] == [False, True]
    assert [least.goal_met(value) for value in (0.7, 0.8)] == [False, True]
    assert [most.met(value) for value in (1.3, 1.31)] == [True, False]
    assert [most.goal_met(value) for value in (0.4, 0.5)] == [True, False]
    assert least.judged(Results())["met"] is None


def test_targets_ask_for_figures_by_the_names_that_questions_give() -> None:
    """A figure of the scenes with a reader is named question/corpus/reader/route/what."""
    results = Results()
    results.figure("hot/json-3/java/hot, tierproxy/ratio", 0.91)
    results.figure("cold/json-3/raw/cold, 30 ms/cpu tierproxy", 4.2)
    judged = {target.name: target.judged(results) for target in TARGETS}
    assert (judged["hot, Java / direct"]["met"], judged["hot, Java / direct"]["goal_met"]) == (True, True)
    assert judged["cold, proxy's CPU, compressible"]["met"] is False
    table = targets_table(results)
    assert (len(table.rows), table.caption) == (2, f"{len(TARGETS) - 2} more were not measured.")


def test_the_questions_are_asked_in_their_order() -> None:
    names = list(all_questions())
    assert names[:2] == ["archiving", "hot"]
    assert {"cold", "first", "produce", "latency", "sharing"} <= set(names)


def test_two_runs_are_put_beside_each_other() -> None:
    one, other = Results(), Results()
    one.figure("a/speed", 100, "MB/s")
    one.figure("b/ratio", 0.5)
    other.figure("a/speed", 200, "MB/s")
    other.figure("c/ratio", 0.7)
    a, b = json.loads(one.as_json()), json.loads(other.as_json())
    assert compare.differences(a, b) == [
        ("a/speed", 100, 200, "MB/s"),
        ("b/ratio", 0.5, None, ""),
        ("c/ratio", None, 0.7, ""),
    ]
    assert [name for name, *_ in compare.differences(a, b, ("ratio",))] == ["b/ratio", "c/ratio"]


def test_a_run_can_be_drawn(tmp_path: Path) -> None:
    results = Results(samples=[sample("hot, direct", 0, 1.0), sample("cold, 30 ms", 0, 2.0)])
    results.figure("cold/json-3/raw/cold, 30 ms/ratio", 0.5)
    results.figure("cold/json-3/raw/cold, 30 ms/cpu tierproxy", 1.0)
    files = plots.draw(results, tmp_path)
    assert [file.name for file in files] == ["ratios.png", "cpu.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert plots.draw(Results(), tmp_path) == []


def test_samples_survive_in_json() -> None:
    written = json.loads(Results(samples=[replace(sample("direct", 0, 2.0))]).as_json())
    assert written["samples"][0]["usage"]["s3"]["gets"] == 7


def test_the_java_tools_lines_are_understood() -> None:
    job = Job("b", "t", {0: 379_304})
    line = (
        "2026-11-26 01:20:01:000, 2026-11-26 01:20:06:000, 385.2848, 77.0, 379304, 75860.8, 487, 4513, 85.3, 84047.0\n"
    )
    assert parse_java(job, line) == Read(4.513, 0.0, int(385.2848 * (1 << 20)), 379_304)
    said = (
        "100000 records sent, 20000.0 records/sec (19.53 MB/sec), 2.0 ms avg latency, 5.0 ms max latency.\n"
        "150000 records sent, 25000.0 records/sec (24.41 MB/sec), 2.0 ms avg latency, 5.0 ms max latency, 2 ms 50th.\n"
    )
    assert parse_producer(said) == pytest.approx(25.6, abs=0.1)
    with pytest.raises(RuntimeError):
        parse_producer("nothing")
