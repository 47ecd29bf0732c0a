"""docs/metrics.md lists every metric there is, as it is."""

from prometheus_client import REGISTRY

import tierproxy.cli  # noqa: F401  # whatever has metrics is imported by it
from tests.documents.metrics import PAGE, groups, page

ALL = [each for metrics in groups().values() for each in metrics]


def test_the_page_is_as_it_is_made() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.documents.metrics`"


def test_no_metric_is_left_out_or_named_twice() -> None:
    names = [each.name for each in ALL]
    assert len(names) == len(set(names))
    made = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("tierproxy_")}
    assert made <= {name.removesuffix("_total") for name in names}


def test_each_says_what_it_is_in_a_unit_of_prometheus() -> None:
    for each in ALL:
        assert each.about[0].isupper() or each.about[0].isdigit(), each.name
        assert not each.about.endswith("."), each.name
        assert not each.name.endswith(("_ms", "_milliseconds", "_kib", "_percent")), each.name
        assert (each.kind == "gauge") == bool(each.workers) or each.name == "tierproxy_workers", each.name


def test_no_label_is_a_clients_word() -> None:
    bounded = "api cache end kind limit operation outcome part result role source tier topic version what why"
    assert {label for each in ALL for label in each.labels} <= set(bounded.split())
