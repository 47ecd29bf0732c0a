"""Pieces of configuration in the pages: each must be one that tierproxy would take."""

from typing import Any

import yaml
from pydantic import BaseModel

from tierproxy.config import Config, TopicPolicy, parse_config, warnings
from tierproxy.config.load import sections_in
from tierproxy.errors import ConfigError

LEAST = {
    "cluster": {"name": "prod", "bootstrap": ["kafka-0:9092"]},
    "listen": {"advertised_host": "localhost"},
    "archives": {name: {"url": f"s3://my-bucket/{name}"} for name in ("main", "cold", "local")},
}
"""What a piece is laid upon that isn't a whole file."""


def complaints(text: str) -> list[str]:
    """What tierproxy would say to a file, or to a piece of one."""
    piece: dict[str, Any] = yaml.safe_load(text)
    whole = piece if "cluster" in piece else LEAST | piece | {"listen": LEAST["listen"] | piece.get("listen", {})}
    try:
        config = parse_config(yaml.safe_dump(whole), environ={})
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return [str(fault) for fault in warnings(config)] if whole is piece else []


def piece(text: str) -> str | None:
    """The text as a piece of configuration, if it is one: `workers: 4`, or of a policy: `trim: never`."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(value, dict) or None in value.values():
        return None
    if value.keys() <= _keys(Config).keys():
        return text
    if value.keys() <= _keys(TopicPolicy).keys():
        return yaml.safe_dump({"topics": [{"match": "any", "archive": "main", **value}]})
    return None


def is_path(text: str) -> bool:
    """Whether it looks like a key with the sections that it is in: `limits.cold_read_rate`."""
    first, dot, _ = text.replace("[]", "").partition(".")
    return bool(dot) and first in _keys(Config) and text.replace("[]", "").replace(".", "").isidentifier()


def exists(path: str) -> bool:
    section: list[type[BaseModel]] = [Config]
    for key in path.replace("[]", "").split("."):
        found = [_keys(each)[key] for each in section if key in _keys(each)]
        if not found:
            return False
        section = [child for annotation in found for child in sections_in(annotation)]
    return True


def _keys(section: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in section.model_fields.items()}
