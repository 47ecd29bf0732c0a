"""A share of the seeds, that a seed plays the same twice, and that wrong versions of tierproxy are found out.

`make simulate` plays thousands more; one that failed says how to play it again.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.play import Play

pytestmark = pytest.mark.timeout(600)  # a busy machine is no fault of the code's

SEEDS = 500
PER_TEST = 20
MUTANT_SEEDS = 150


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_no_seed_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        outcome = Play(seed).run()
        assert outcome.broken is None, str(outcome)


def test_the_seeds_are_worth_playing() -> None:
    """They do meet what must be survived: each kind of thing many times."""
    outcomes = [Play(seed).run() for seed in range(40)]
    assert sum(each.deaths for each in outcomes) > 100
    assert sum(each.pauses for each in outcomes) > 100
    counts = [each.truth.counts for each in outcomes]
    assert sum(count.commits for count in counts) > 300
    assert sum(count.trims for count in counts) > 200
    assert sum(count.gaps for count in counts) > 10
    assert sum(count.rewritten for count in counts) > 10
    assert sum(count.rewinds for count in counts) > 0
    assert sum(count.reads for count in counts) > 1000
    lines = "\n".join(line for each in outcomes for line in each.trace.lines())
    for what in ("late: put", "is refused", "which the store will spoil", "somebody else changed the manifest",
                 "storing it once more", "is of Kafka cluster", "does not match its checksum"):  # fmt: skip
        assert what in lines, what


def test_a_seed_plays_the_same_twice_and_another_one_differently() -> None:
    first, again, other = (Play(seed).run().trace for seed in (7, 7, 8))
    assert first.lines() == again.lines()
    assert first.digest() != other.digest()


def test_a_seed_plays_the_same_in_another_process() -> None:
    """Python mixes the hashes of strings anew in each process, so an order that hangs on them would show."""
    command = [sys.executable, "-m", "tests.simulation", "--seed", "7"]
    said = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in ("1", "2")
    ]
    assert said[0].stdout == said[1].stdout
    assert Play(7).run().trace.digest() in said[0].stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    for seed in range(mutant.first, mutant.first + MUTANT_SEEDS):
        with mutant.at_work():
            outcome = Play(seed).run()
        if outcome.broken is not None:
            assert re.search(mutant.broken, outcome.broken), str(outcome)
            return
    pytest.fail(f"nobody noticed within {MUTANT_SEEDS} seeds")
