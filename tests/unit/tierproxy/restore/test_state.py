"""The file that says how far a restore is."""

from pathlib import Path

import pytest

from tierproxy.errors import TierproxyError
from tierproxy.restore.state import Progress, State, load, save, state_file


@pytest.fixture
def state() -> State:
    partitions = {0: Progress(0, 10, 5, 5, 5, 5, 100), 3: Progress(2, 9, 9, 7)}
    return State("a", "id", ["1", None], "cluster", "b", "other-id", 4001, 0, partitions)


def test_what_is_saved_is_loaded(tmp_path: Path, state: State) -> None:
    file = state_file(tmp_path, "a", "b", "cluster")
    assert load(file) is None
    save(file, state)
    assert load(file) == state
    assert not state.done
    state.partitions[0].next = 10
    assert state.done


@pytest.mark.parametrize(
    ("found", "changed"),
    [
        ('"version": 1', '"version": 2'),
        ("tierproxy-restore", "other"),
        ('"next": 5', '"nxt": 5'),
        ("{", "["),
        ('"0": {', '"x": {'),
    ],
)
def test_what_can_not_be_understood_is_never_taken_for_a_beginning(
    tmp_path: Path, state: State, found: str, changed: str
) -> None:
    file = tmp_path / "state.json"
    save(file, state)
    text = file.read_text()
    assert found in text
    file.write_text(text.replace(found, changed, 1))
    with pytest.raises(TierproxyError, match="can't be read as the state of a restore"):
        load(file)
