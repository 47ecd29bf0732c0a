"""The JSON schema of the configuration file, for editors that check while one types."""

from typing import Any

from tierproxy.config.model import Config
from tierproxy.config.units import DURATION_PATTERN, SIZE_PATTERN, format_duration, format_size


def json_schema() -> dict[str, Any]:
    """A JSON schema (2020-12) drawn from the model; defaults are shown in the units of the file."""
    schema = Config.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "tierproxy configuration"
    _defaults_with_units(schema)
    return schema


def _defaults_with_units(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _defaults_with_units(item)
    if not isinstance(node, dict):
        return
    default, pattern = node.get("default"), node.get("pattern")
    if isinstance(default, int) and pattern == SIZE_PATTERN:
        node["default"] = format_size(default).replace(" ", "")
    elif isinstance(default, int) and pattern == DURATION_PATTERN:
        node["default"] = format_duration(default)
    elif isinstance(default, int) and str(pattern).startswith("^zstd"):
        node["default"] = f"zstd-{default}"
    elif isinstance(default, dict):
        del node["default"]  # a section's own defaults are shown at its keys
    for child in node.values():
        _defaults_with_units(child)
