from typing import Any

from tierproxy.config import Config
from tierproxy.tiering.policies import CHANGED_REST, Replaced, trims, unfit


def config(*topics: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "cluster": {"name": "c", "bootstrap": ["b:1"]},
            "listen": {"advertised_host": "localhost"},
            "archives": {"a": {"url": "file:///x"}},
            "topics": topics,
        }
    )


def test_what_others_may_still_take_for_just_proxied_is_not_trimmed() -> None:
    replaced = Replaced()
    assert replaced.trim_from("t", False) == 0.0
    replaced.add(config({"match": "old.*", "archive": "a"}, {"match": "*", "archive": "none"}), 100.0)
    assert replaced.trim_from("t", False) == 100 + CHANGED_REST
    assert replaced.trim_from("old.t", False) == 0.0
    assert replaced.trim_from("__consumer_offsets", True) == 100 + CHANGED_REST
    replaced.add(config({"match": "*", "archive": "a"}), 150.0)
    assert replaced.trim_from("t", False) == 100 + CHANGED_REST
    replaced.add(config({"match": "*", "archive": "a"}), 101.0 + CHANGED_REST)
    assert replaced.trim_from("t", False) == 0.0


def test_who_is_trimmed_and_who_is_unfit() -> None:
    made = config(
        {"match": "a", "archive": "a", "keep_on_broker": {"time": "1d"}},
        {"match": "b", "archive": "a", "keep_on_broker": {"time": "1d"}, "trim": "never"},
        {"match": "c", "archive": "a"},
    )
    assert [trims(policy) for policy in made.topics] == [True, False, False]
    assert unfit({}) is None
    assert unfit({"cleanup.policy": "delete,compact"}) is not None
