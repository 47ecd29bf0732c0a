"""config.example.yaml is what people start from: it loads, it says what the defaults are, it leaves nothing out."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tierproxy.config import Config, load_config, parse_config, warnings
from tierproxy.config.load import sections_in

EXAMPLE = Path(__file__).parents[4] / "config.example.yaml"
MINIMUM = """\
cluster: {name: prod, bootstrap: [kafka-0:9092, kafka-1:9092]}
listen: {advertised_host: localhost}
"""


def sections(section: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {section.__name__: section}
    for info in section.model_fields.values():
        for child in sections_in(info.annotation):
            found |= sections(child)
    return found


@pytest.fixture(scope="module")
def example() -> Config:
    return load_config(EXAMPLE, environ={})


def test_it_loads_without_a_warning(example: Config) -> None:
    assert warnings(example) == []
    policy = example.policy_for("payments.eu", internal=False)
    assert policy is not None
    assert policy.archive == "main"


def test_values_that_claim_to_be_defaults_are(example: Config) -> None:
    least = parse_config(MINIMUM)
    for name in ("cluster", "listen", "cache", "archiver", "limits", "log", "prices"):
        assert getattr(example, name) == getattr(least, name), name
    first = example.topics[0]
    plain = parse_config(MINIMUM + 'topics: [{match: "a", archive: none}]').topics[0]
    same: dict[str, Any] = {"match": "a", "archive": None, "keep_on_broker": plain.keep_on_broker}
    assert first.model_copy(update=same) == plain


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (name, info.alias or field)
        for name, section in sections(Config).items()
        for field, info in section.model_fields.items()
    ],
)
def test_every_key_is_shown(section: str, key: str) -> None:
    assert re.search(rf"(^|[\s{{]){key}:", EXAMPLE.read_text(), re.MULTILINE), f"{key} of {section}"
