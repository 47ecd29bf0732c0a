import json

import pytest

from tierproxy.insight.told import MOST_STATES, Told, told_here
from tierproxy.recent import Trouble


def test_it_is_the_same_behind_a_channel() -> None:
    troubles = Trouble("scout", 30, "away", 5), Trouble("scout", 40, "gone", 1, 2)
    told = Told("archiver", {"copy": 3}, {"a-0": "upload"}, troubles)
    assert Told.from_json(json.loads(json.dumps(told.to_json()))) == told


def test_what_is_unusual_is_told_by_name_and_what_stands_still_before_all_else() -> None:
    states = {f"t-{n}": "upload" for n in range(MOST_STATES)} | {"a-0": "copy", "z-1": "stopped"}
    told = told_here("", states)
    assert told.counts == {"upload": MOST_STATES, "copy": 1, "stopped": 1}
    assert len(told.states) == MOST_STATES
    assert told.states["z-1"] == "stopped"
    assert "a-0" not in told.states
    json.dumps(told.to_json())


def test_what_nobody_told_is_refused() -> None:
    with pytest.raises((KeyError, TypeError)):
        Told.from_json({"who": "x"})
    with pytest.raises((KeyError, TypeError)):
        Told.from_json({"who": "x", "counts": {}, "states": {}, "troubles": [{"what": 1}]})
