"""What a PromQL expression asks of metrics: which, by which labels, and which labels its result has."""

from collections.abc import Iterator, Mapping
from typing import Final

import promql_parser as promql

TARGET: Final = frozenset({"job", "instance"})
"""Labels that Prometheus itself gives to all that it scrapes from one place."""


class Wrong(Exception):
    """The expression names what there is not."""


def result_labels(text: str, metrics: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """`metrics`: all series and their own labels. Raises Wrong, or ValueError where it is no PromQL."""
    return _labels(promql.parse(text), metrics)


def selectors(text: str) -> Iterator[promql.VectorSelector]:
    """What is asked for, in order."""
    found: list[promql.VectorSelector] = []

    def visit(expr: promql.Expr) -> bool:
        if isinstance(expr, promql.VectorSelector):
            found.append(expr)
        elif isinstance(expr, promql.MatrixSelector):
            found.append(expr.vector_selector)
        return True

    promql.walk(promql.parse(text), visit)
    return iter(found)


def _labels(expr: promql.Expr, metrics: Mapping[str, frozenset[str]]) -> frozenset[str]:
    match expr:
        case promql.VectorSelector():
            return _selected(expr, metrics)
        case promql.MatrixSelector():
            return _selected(expr.vector_selector, metrics)
        case promql.AggregateExpr():
            inner = _labels(expr.expr, metrics)
            if expr.modifier is None:
                return inner if str(expr).startswith(("topk", "bottomk")) else frozenset()
            if expr.modifier.type != promql.AggModifierType.By:
                return inner - set(expr.modifier.labels)
            by = frozenset(expr.modifier.labels)
            if not by <= inner:
                raise Wrong(f"{sorted(by - inner)} in {expr}")
            return by
        case promql.Call():
            parts = [_labels(arg, metrics) for arg in expr.args]
            if expr.func.name == "absent":
                return frozenset()
            return frozenset().union(*parts) - ({"le"} if expr.func.name == "histogram_quantile" else set())
        case promql.BinaryExpr():
            left, right = _labels(expr.lhs, metrics), _labels(expr.rhs, metrics)
            if isinstance(expr.lhs, promql.NumberLiteral):
                return right
            return left & right if str(expr.op) == "or" else left
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(expr.expr, metrics)
        case _:
            return frozenset()


def _selected(selector: promql.VectorSelector, metrics: Mapping[str, frozenset[str]]) -> frozenset[str]:
    if selector.name is None or selector.name not in metrics:
        raise Wrong(f"there is no metric {selector.name}")
    known = metrics[selector.name] | TARGET
    if unknown := {matcher.name for matcher in selector.matchers.matchers} - known:
        raise Wrong(f"{selector.name} has no label {', '.join(sorted(unknown))}")
    return known
