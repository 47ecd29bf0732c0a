"""The kept inputs through every target, and some seconds of fuzzing; `make fuzz` is the long form."""

import importlib.util
import subprocess
import sys

import pytest

from tests.fuzz.corpus import CORPUS, kept
from tests.fuzz.targets import TARGETS
from tests.kit import PROJECT

SECONDS = 20


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_kept_holds(target: str) -> None:
    inputs = kept(target)
    assert len(inputs) > 1, "run python -m tests.fuzz.corpus"
    for data in inputs:
        TARGETS[target](data)


def test_nothing_is_kept_for_targets_that_are_no_more() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="there is no atheris for this Python or machine"
)
def test_some_seconds_of_new_inputs_hold() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SECONDS), "--forget"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert "runs in" in done.stderr, "libFuzzer says how often it ran"
