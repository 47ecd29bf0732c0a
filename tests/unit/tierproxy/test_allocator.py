"""How often the system has to give memory, counted in faults."""

import os
import resource
import subprocess
import sys

import pytest

from tests.kit import PROJECT
from tierproxy.allocator import unfilled

PROGRAM = """
import resource, sys
from tierproxy.allocator import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()
for turn in range(30):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(8 << 20) for _ in range(4)]
    del blocks
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(which: str, **environment: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM, which]
    done = subprocess.run(command, env=clean | environment, cwd=PROJECT, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


def test_freed_blocks_are_used_again() -> None:
    _, plain = faults("plain")
    kept, count = faults("kept")
    if not kept:
        pytest.skip("this is not glibc")
    pages = 20 * 4 * (8 << 20) // 4096
    assert plain > pages // 2, "so it would be without it"
    assert count < pages // 10


def test_what_somebody_has_set_counts_more() -> None:
    kept, _ = faults("kept", MALLOC_ARENA_MAX="4")
    assert not kept


def test_memory_that_is_to_be_filled_is_not_touched_before() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = unfilled(64 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < (64 << 20) // 4096 // 10
    assert len(block) == 64 << 20
    block[-5:] = b"whole"
    assert block.endswith(b"whole")
