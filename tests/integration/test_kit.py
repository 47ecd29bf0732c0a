"""The kit keeps its promises: nothing that it starts outlives us, and a program that dies says why."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import PROJECT
from tests.kit.processes import Died, Process, wait_for

_STARTS_A_SLEEPER = """
import signal, sys, time
from pathlib import Path
from tests.kit.processes import Process
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a shell's background
sleeper = Process("sleeper", ["sh", "-c", "sleep 600 & wait"], log=Path(sys.argv[1]))
print(sleeper.pid, flush=True)
time.sleep(600)
"""


def _group_is_gone(group: int) -> bool:
    """True when no process of the group runs any more; a zombie that nobody has reaped counts as gone."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return not any(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _STARTS_A_SLEEPER, str(tmp_path / "log")],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        group = int(parent.stdout.readline())
        assert not _group_is_gone(group)
        os.kill(parent.pid, number)
        parent.wait(30)
        wait_for(lambda: _group_is_gone(group), seconds=90, what="end of the sleeper's group", pause=0.05)


def test_a_program_that_dies_says_why(tmp_path: Path) -> None:
    process = Process("the loser", ["sh", "-c", "echo no luck today; exit 3"], log=tmp_path / "log")
    with pytest.raises(Died, match=r"the loser ended \(3\) before a miracle.*\n.*no luck today"):
        process.wait_until(lambda: False, seconds=10, what="a miracle")
    assert process.kill() == 3
