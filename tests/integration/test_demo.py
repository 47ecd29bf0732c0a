"""`make demo` on a small file: what it says, what it leaves, how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit import PROJECT
from tests.kit.processes import wait_for

SECONDS = 240.0


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "own [lines].jsonl"
    file.write_text("".join(json.dumps({"id": n % 40, "text": f"number {n}" * 30}) + "\n" for n in range(20_000)))
    return file


def _heed_interrupts() -> None:
    """Whoever runs these tests in the background of a shell has SIGINT ignored, and so have all children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def demo(home: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """It runs in a session of its own, as in a terminal; its work is below `home`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.demo"],
        cwd=PROJECT,
        env={**os.environ, "DEMO_HOME": str(home), "INPUT": "", "KEY": "", "KEEP": "", "COLUMNS": "200", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def running(home: Path) -> list[str]:
    """Command lines of processes that have to do with it."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "stat=,args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(home) in line and not line.startswith("Z")]


@pytest.mark.timeout(600)
def test_the_whole_story(tmp_path: Path, lines: Path) -> None:
    home = tmp_path / "home"
    with demo(home, INPUT=str(lines), KEY="id") as process:
        said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert "Everything that was sent was read back, byte for byte." in said
    assert "20,000 lines of own [lines].jsonl" in said
    assert said.count("digests match") == 3
    assert "times smaller" in said
    assert "bootstrap.servers" in said
    assert running(home) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_however_it_is_stopped_nothing_goes_on(tmp_path: Path, lines: Path, number: int, status: int) -> None:
    home = tmp_path / "home"
    with demo(home, INPUT=str(lines)) as process:
        wait_for(lambda: any("tierproxy.yaml" in line for line in running(home)), seconds=SECONDS, what="tierproxy")
        process.send_signal(number)
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == status, said
        assert "Traceback" not in said
        wait_for(lambda: not running(home), seconds=60, what="end of all that it had started")


@pytest.mark.parametrize(
    ("content", "key", "why"),
    [
        (None, "", "there is no file"),
        ("\n \n", "", "holds no line"),
        ("no object\n", "id", "line 1 is not a JSON object"),
    ],
)
def test_an_input_that_cannot_be_used_is_said(tmp_path: Path, content: str | None, key: str, why: str) -> None:
    file = tmp_path / "input [bold].txt"
    if content is not None:
        file.write_text(content)
    with demo(tmp_path / "home", INPUT=str(file), KEY=key) as process:
        said, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, why in said) == (2, True), said
    assert "Traceback" not in said
