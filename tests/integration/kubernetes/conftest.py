"""Helm is built by Go. Without Go, or where Go can't bring it, what asks for it is skipped and says so. So is what asks
for the image where pip can't reach its index."""

from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from tests.kit import golang
from tests.kit.chart import CHART, EXAMPLE, helm, helm_program
from tests.kit.image import CantBuild, Image, build, checkout


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


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What the Containerfile makes of a clean copy of the files that git tracks."""
    try:
        return build(checkout(tmp_path_factory.mktemp("checkout")), tmp_path_factory.mktemp("image"))
    except CantBuild as error:
        if "No matching distribution" in str(error) or "Connection" in str(error):
            pytest.skip(f"pip can't reach its index: {str(error).splitlines()[-1]}")
        raise
