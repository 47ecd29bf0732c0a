"""The dashboard and the alerts of the chart ask for metrics and labels that exist, and each alert has its page."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import ProcessCollector

from protocol.apis import ApiKey
from tests.documents.metrics import groups
from tests.documents.promql import Wrong, result_labels, selectors
from tests.kit import PROJECT
from tierproxy.telemetry.traffic import api_name

CHART = PROJECT / "helm" / "tierproxy"
RUNBOOK = PROJECT / "docs" / "runbook.md"
RULES: list[dict[str, Any]] = [
    rule
    for path in sorted((CHART / "alerts").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "tierproxy.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def series() -> dict[str, frozenset[str]]:
    """Each with its own labels."""
    found: dict[str, frozenset[str]] = {}
    for metrics in groups().values():
        for each in metrics:
            for name in each.series:
                found[name] = frozenset(each.labels) | ({"le"} if name.endswith("_bucket") else set())
    for metric in ProcessCollector(registry=None).collect():
        found |= {sample.name: frozenset() for sample in metric.samples}
    return found


SERIES = series()


def rule_id(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


def queries() -> Iterator[tuple[str, str, str]]:
    """Title, expression, legend."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"]


# -- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=rule_id)
def test_an_alert_asks_for_what_exists(rule: dict[str, Any]) -> None:
    labels = result_labels(rule["expr"], SERIES)
    said = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= labels


@pytest.mark.parametrize("rule", RULES, ids=rule_id)
def test_an_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_nothing_else() -> None:
    assert re.findall(r"^## (.*)$", RUNBOOK.read_text(), re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_each_section_says_what_it_means_how_to_look_and_what_to_do() -> None:
    _, *sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)
    for section in sections:
        assert "**Means**" in section, section
        assert "**Do**" in section, section


# -- the dashboard ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("title", "expression", "legend"), list(queries()))
def test_a_panel_asks_for_what_exists(title: str, expression: str, legend: str) -> None:
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= result_labels(expression, SERIES)


def test_a_panel_names_alerts_that_exist() -> None:
    named = {name for panel in PANELS for name in re.findall(r"Runbook: (\w+)", panel["description"])}
    assert named
    assert named <= {rule["alert"] for rule in RULES}


def test_variables_ask_for_what_exists() -> None:
    asked = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    for query in asked:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found is not None, query
        assert found[2] in result_labels(found[1], SERIES)
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used <= names


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


# -- both -------------------------------------------------------------------------------------------------------------


def test_apis_are_named_as_they_are_labelled() -> None:
    names = {api_name(key) for key in ApiKey}
    for expression in [rule["expr"] for rule in RULES] + [expression for _, expression, _ in queries()]:
        for selector in selectors(expression):
            for matcher in selector.matchers.matchers:
                assert matcher.name != "api" or set(matcher.value.split("|")) <= names, expression


def test_what_matters_at_night_is_on_the_dashboard() -> None:
    shown = {selector.name for _, expression, _ in queries() for selector in selectors(expression)}
    for rule in RULES:
        assert {selector.name for selector in selectors(rule["expr"])} <= shown, rule["alert"]


@pytest.mark.parametrize(
    "wrong",
    [
        "tierproxy_conections > 1",
        "tierproxy_ready{pod='x'}",
        "sum by (topic) (tierproxy_ready)",
        "sum by (le) (rate(tierproxy_requests_total[5m]))",
        "tierproxy_request_seconds",
        "tierproxy_requests",
    ],
)
def test_what_does_not_exist_is_found(wrong: str) -> None:
    with pytest.raises(Wrong):
        result_labels(wrong, SERIES)


def test_what_is_left_of_labels_is_known() -> None:
    assert "topic" not in result_labels("sum(tierproxy_holes)", SERIES)
    assert "topic" in result_labels("topk(3, max by (topic) (tierproxy_holes)) > 0", SERIES)
    assert result_labels("absent(tierproxy_ready)", SERIES) == frozenset()
