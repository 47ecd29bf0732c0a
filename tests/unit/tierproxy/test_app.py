"""What a process does before it serves. The rest of it is started for real, in tests/integration."""

import subprocess
import sys

import pytest

LIMITED = """
import logging, resource, sys
from tierproxy import app
logging.basicConfig(stream=sys.stdout, format="%(message)s")
soft, hard, connections, spools = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
app._make_room(connections, spools)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "spools", "said"),
    [
        (100, 2_000, 500, 0, ["1200"]),
        (100, 2_000, 500, 300, ["1500"]),
        (1_500, 2_000, 500, 0, ["1500"]),
        (100, 2_000, 1_000, 0, ["2000"]),
        (100, 2_000, 800, 10_000, ["2000"]),
        (100, 2_000, 1_100, 0, ["enough for some 900 clients only, not for limits.connections = 1100", "2000"]),
    ],
    ids=[
        "raised as far as needed",
        "and for segments",
        "enough already",
        "raised to the utmost",
        "segments take what there is",
        "not to be had",
    ],
)
def test_as_many_files_may_be_open_as_clients_and_segments_need(
    soft: int, hard: int, connections: int, spools: int, said: list[str]
) -> None:
    command = [sys.executable, "-c", LIMITED, *map(str, (soft, hard, connections, spools))]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert len(lines) == len(said)
    assert all(each in line for each, line in zip(said, lines, strict=True))
