"""The Helm chart in helm/tierproxy: its tools, its values' schema, and what it renders.

Helm and kubeconform are made by `go install`, which takes some minutes the first time. The Go that makes Helm leaves it
without the number of a Kubernetes version, so one is always named.

    python -m tests.kit.chart tools  builds them
    python -m tests.kit.chart        makes anew what follows from something else: in values.schema.json, README.md
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.kit import PROJECT, golang
from tierproxy.config import json_schema

CHART = PROJECT / "helm" / "tierproxy"
EXAMPLE = PROJECT / "helm" / "examples" / "consumer-with-sidecar"
SCHEMA = CHART / "values.schema.json"
VALUES = CHART / "values.yaml"
README = CHART / "README.md"
HELM = ("helm.sh/helm/v3/cmd/helm", "v3.19.5")
KUBECONFORM = ("github.com/yannh/kubeconform/cmd/kubeconform", "v0.7.0")
KUBERNETES = "1.37.0"

Manifest = dict[str, Any]

_REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')


class Refused(RuntimeError):
    """Helm did not render it; the message is Helm's."""


@cache
def helm_program() -> Path:
    """Raises golang.NoGo."""
    return golang.install(*HELM)


@cache
def kubeconform_program() -> Path:
    """Raises golang.NoGo."""
    return golang.install(*KUBECONFORM)


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
    """What Helm prints, with `values` in place of the chart's where both have them. Raises Refused, golang.NoGo."""
    given = ["--values", "-"] if values is not None else []
    done = subprocess.run(
        [helm_program(), *arguments, *given],
        input=yaml.safe_dump(dict(values)) if values is not None else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(f"{done.stderr}{done.stdout}")
    return done.stdout


def render(
    values: Mapping[str, Any], chart: Path = CHART, release: str = "kit", kubernetes: str = KUBERNETES
) -> list[Manifest]:
    """What `helm install` would hand to Kubernetes. Raises Refused, golang.NoGo."""
    text = helm("template", release, chart, "--namespace", "kit", "--kube-version", kubernetes, values=values)
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """By name."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def config_schema() -> dict[str, Any]:
    """`$defs` of values.schema.json: tierproxy's own schema, without what the chart writes, and without secrets."""
    schema = json_schema()
    parts: dict[str, Any] = schema.pop("$defs")
    parts["Config"] = {key: value for key, value in schema.items() if key != "$schema"}
    for part, keys in _THE_CHARTS.items():
        for key in keys:
            parts[part]["properties"].pop(key)
    parts["Config"]["required"] = ["cluster"]
    _no_secrets(parts)
    _without(parts, "title")
    return used(parts, {"$ref": "#/$defs/Config"})


_THE_CHARTS = {
    "Config": ("listen", "workers"),
    "ArchiverConfig": ("enabled", "spool", "trim_delay"),
    "CacheConfig": ("disk",),
}
"""What is not for the user of the chart to write."""


def _no_secrets(node: Any) -> None:
    """A ConfigMap can be read by many: what is secret comes from ${NAME} or a file."""
    if isinstance(node, dict):
        if node.get("format") == "password":
            node["pattern"] = r"^\$\{.+\}$"
        for each in node.values():
            _no_secrets(each)
    elif isinstance(node, list):
        for each in node:
            _no_secrets(each)


def _without(node: Any, key: str) -> None:
    if isinstance(node, dict):
        if isinstance(node.get(key), str):
            del node[key]
        for each in node.values():
            _without(each, key)
    elif isinstance(node, list):
        for each in node:
            _without(each, key)


def used(parts: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """Those of `parts`, in order of their names, that a schema refers to as `#/$defs/name`, and those that they do."""
    found: set[str] = set()
    look = [schema]
    while look:
        new = set(_REFERENCE.findall(json.dumps(look.pop()))) - found
        found |= new
        look += [parts[each] for each in new]
    return {name: parts[name] for name in sorted(found)}


def schema_text() -> str:
    """What values.schema.json must be: as it is, with the configuration's part made anew."""
    schema = json.loads(SCHEMA.read_text())
    return json.dumps(schema | {"$defs": config_schema()}, indent=2) + "\n"


def readme_text() -> str:
    """What README.md must be: as it is, with its table made anew."""
    above = README.read_text().partition(_TABLE)[0]
    values = yaml.safe_load(VALUES.read_text())
    rows = [f"| `{path}` | {f'`{default}`' if default else ''} |" for path, default in _leaves(values)]
    return above + "\n".join([_TABLE + "|---|---|", *rows]) + "\n"


_TABLE = "| value | default |\n"


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each value's path, and its default as it would be written in one line. Of `resources` and the like the whole."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value and key not in _WHOLE:
            yield from _leaves(value, f"{above}{key}.")
        else:
            text = json.dumps(value) if isinstance(value, Mapping | list) else str(value)
            yield f"{above}{key}", text.lower() if isinstance(value, bool) else text


_WHOLE = ("resources", "podSecurityContext", "securityContext", "labels")


def tools_are_here() -> bool:
    """Whether nothing is left to be built."""
    return all(golang.installed(*each).exists() for each in (HELM, KUBECONFORM))


if __name__ == "__main__":
    if "tools" in sys.argv[1:]:
        with suppress(golang.NoGo):
            helm_program()
            kubeconform_program()
    else:
        SCHEMA.write_text(schema_text())
        README.write_text(readme_text())
