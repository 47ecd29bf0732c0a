"""A short run of tests.chaos; `make soak` makes long ones."""

from pathlib import Path

import pytest

from tests.chaos.run import Chaos


@pytest.mark.timeout(900)
def test_what_is_killed_paused_and_cut_comes_out_whole(tmp_path: Path) -> None:
    Chaos(tmp_path, seed=1, seconds=25).run()
