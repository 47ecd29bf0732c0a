"""Files that are whole or not there."""

import errno
from pathlib import Path

import pytest

from tierproxy.durable import CantWrite, written_whole


def write(file: Path, fault: Exception) -> None:
    with written_whole(file) as out:
        out.write(b"some")
        raise fault


def test_a_file_appears_when_it_is_finished(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "file"
    with written_whole(file) as out:
        out.write(b"all of it")
        assert not file.exists()
    assert file.read_bytes() == b"all of it"
    assert list(file.parent.iterdir()) == [file]


def test_it_replaces_an_older_one_only_then(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write(file, ZeroDivisionError())
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "there is no room on the disk for"), (errno.EDQUOT, "no room"), (errno.EIO, "can't be written")],
)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, number: int, said: str) -> None:
    file = tmp_path / "file"
    with pytest.raises(CantWrite, match=said):
        write(file, OSError(number, "as the system says"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CantWrite, match="can't be written"), written_whole(tmp_path / "file" / "below"):
        pass
