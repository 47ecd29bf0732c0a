"""The chart's values: file, schema and table say the same, and the schema knows what tierproxy's configuration is."""

import json
from typing import Any

import yaml

from tests.kit import PROJECT
from tests.kit.chart import CHART, README, SCHEMA, VALUES, readme_text, schema_text


def test_the_schema_knows_the_configuration_that_tierproxy_reads() -> None:
    assert SCHEMA.read_text() == schema_text(), "run `make chart`"


def test_the_table_of_values_is_that_of_the_file() -> None:
    assert README.read_text() == readme_text(), "run `make chart`"


def test_every_value_is_in_the_file_of_defaults() -> None:
    defaults = yaml.safe_load(VALUES.read_text())

    def compare(schema: dict[str, Any], values: Any, path: str) -> None:
        for key, about in schema.get("properties", {}).items():
            if key not in ("global", "claims") and "$ref" not in about:
                assert key in values, f"{path}{key} is not in values.yaml"
                compare(about, values[key], f"{path}{key}.")

    compare(json.loads(SCHEMA.read_text()), defaults, "")


def test_the_chart_is_of_this_version_of_tierproxy() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (PROJECT / "pyproject.toml").read_text()
