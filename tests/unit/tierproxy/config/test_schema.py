import json
import re

import yaml

from tierproxy.config import json_schema, parse_config
from tierproxy.config.units import DURATION_PATTERN, SIZE_PATTERN


def test_schema_shows_keys_and_defaults_as_the_file_has_them() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert set(schema["required"]) == {"cluster", "listen"}
    parts = schema["$defs"]
    assert parts["Keep"]["properties"].keys() == {"time", "bytes"}
    assert parts["SegmentPolicy"]["properties"]["bytes"]["default"] == "128MiB"
    assert parts["SegmentPolicy"]["properties"]["age"]["default"] == "10m"
    assert parts["TopicPolicy"]["properties"]["compression"]["default"] == "zstd-3"
    assert parts["TopicPolicy"]["additionalProperties"] is False


def test_every_default_in_the_schema_is_read_back_as_itself() -> None:
    """What an editor fills in must mean what leaving it out means."""
    parts = json_schema()["$defs"]

    def filled(name: str) -> dict[str, object]:
        return {
            key: about["default"]
            for key, about in parts[name]["properties"].items()
            if about.get("default") is not None
        }

    data: dict[str, object] = {
        "cluster": {"name": "a", "bootstrap": ["b:1"]},
        "listen": {"advertised_host": "c", **filled("ListenConfig")},
        "archives": {"m": {"url": "file:///x"}},
        "topics": [{"match": "a", "archive": "m"}],
    }
    plain = parse_config(yaml.safe_dump(data))
    data |= {"cache": filled("CacheConfig"), "archiver": filled("ArchiverConfig")}
    data |= {"limits": filled("LimitsConfig"), "log": filled("LogConfig")}
    data |= {"prices": filled("PricesConfig")}
    data["topics"] = [{"match": "a", "archive": "m", **filled("TopicPolicy"), "segment": filled("SegmentPolicy")}]
    assert parse_config(yaml.safe_dump(data)) == plain


def test_patterns_are_plain_regular_expressions() -> None:
    assert re.search(SIZE_PATTERN, "128MiB")
    assert not re.search(SIZE_PATTERN, "128")
    assert not re.search(SIZE_PATTERN, "128M")
    assert not re.search(DURATION_PATTERN, "10")


def test_examples_match_their_patterns() -> None:
    def look(node: object) -> int:
        if isinstance(node, list):
            return sum(map(look, node))
        if not isinstance(node, dict):
            return 0
        if "pattern" in node and "examples" in node:
            assert all(re.search(node["pattern"], example) for example in node["examples"]), node
            return 1 + sum(map(look, node.values()))
        return sum(map(look, node.values()))

    assert look(json_schema()) > 20


def test_a_rate_is_of_the_schemas_pattern_as_it_is_written() -> None:
    pattern = json_schema()["$defs"]["TopicPolicy"]["properties"]["cold_read_rate"]["pattern"]
    assert [bool(re.search(pattern, text)) for text in ("50MiB/s", "50MiB", "none", "50", "50MiB/h", "nonesense")] == [
        *(True, True, True, False, False, False)
    ]
