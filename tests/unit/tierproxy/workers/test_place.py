import subprocess
import sys
from pathlib import Path

import pytest

from tierproxy.errors import TierproxyError
from tierproxy.workers.place import private_directory

HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from tierproxy.workers.place import private_directory
with private_directory(Path(sys.argv[1])) as place:
    (place / "left").write_text("behind")
    os.kill(os.getpid(), 9)
"""


def test_it_is_ours_alone_and_goes_with_us(tmp_path: Path) -> None:
    with private_directory(tmp_path) as first, private_directory(tmp_path) as second:
        assert first.is_dir()
        assert first != second
        assert first.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_left_is_removed_by_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    assert (left / "left").exists()
    with private_directory(tmp_path) as place:
        assert list(tmp_path.iterdir()) == [place]


def test_no_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(TierproxyError, match="can't have a directory of their own"), private_directory(tmp_path / "no"):
        pass
