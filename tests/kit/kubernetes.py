"""Is it what Kubernetes takes? Asked of kubeconform, with the schemas that the package `kubernetes-validate` carries.

The schemas are made stricter: a key that no Kubernetes knows is a fault. Kinds that a cluster has only with the
Prometheus Operator (UNKNOWN) have no schema there and are not looked at.
"""

import importlib.util
import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.kit.chart import Manifest, kubeconform_program, used

OLDEST, NEWEST = "1.29.0", "1.37.0"
"""The first version that the chart says it works with, and the last that the package knows."""
UNKNOWN = ("ServiceMonitor", "PrometheusRule")


def faults(manifests: Sequence[Manifest], version: str, folder: Path) -> list[str]:
    """What Kubernetes would refuse in them. `folder` keeps the schemas that it was asked by. Raises golang.NoGo."""
    known = [each for each in manifests if each["kind"] not in UNKNOWN]
    for each in known:
        _schema_file(folder, version, each["apiVersion"], each["kind"])
    done = subprocess.run(
        [
            *(kubeconform_program(), "-strict", "-output", "json", "-kubernetes-version", version),
            *("-schema-location", f"{folder}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", "-"),
        ],
        input=yaml.safe_dump_all(known),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    try:
        found = json.loads(done.stdout)["resources"]
    except (ValueError, KeyError):
        raise RuntimeError(f"kubeconform: {done.stdout}{done.stderr}") from None
    told = [f"{each['kind']} {each['name']}: {each['status']}: {each['msg']}" for each in found]
    assert done.returncode != 0 or not told
    return told


def _schema_file(folder: Path, version: str, api: str, kind: str) -> None:
    group, _, number = api.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.split(".")[0], number))) + ".json"
    made = folder / version / name
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        text = (_package() / f"v{version}-local" / name).read_text()
        schema = json.loads(text.replace("/api/_definitions.json#", "#"))
        schema["$defs"] = used(_definitions(version), schema)
        _no_more(schema)
        made.write_text(json.dumps(schema))


@cache
def _package() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "kubernetes-json-schema"


@cache
def _definitions(version: str) -> dict[str, Any]:
    text = (_package() / f"v{version}-local" / "_definitions.json").read_text()
    definitions: dict[str, Any] = json.loads(text.replace("/api/_definitions.json#", "#"))["$defs"]
    return definitions


def _no_more(node: Any) -> None:
    """Keys that are not named are faults, wherever some are."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
            node["additionalProperties"] = False
        for each in node.values():
            _no_more(each)
    elif isinstance(node, list):
        for each in node:
            _no_more(each)
