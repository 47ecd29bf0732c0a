"""Helm is built by Go. Without Go, or where Go can't bring it, what asks for it is skipped and says so."""

from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from tests.kit import golang
from tests.kit.chart import CHART, EXAMPLE, helm, helm_program


@pytest.fixture(scope="session")
def helm_is_here() -> None:
    try:
        helm_program()
    except golang.NoGo as no:
        pytest.skip(f"Helm is built by Go: {no}")


@pytest.fixture(scope="session")
def example(helm_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of a consumer with a sidecar, with tierproxy's in it."""
    folder = tmp_path_factory.mktemp("charts")
    chart = folder / "examples" / EXAMPLE.name
    copytree(CHART, folder / "tierproxy")
    copytree(EXAMPLE, chart, ignore=ignore_patterns("charts"))
    helm("dependency", "update", chart)
    return chart
