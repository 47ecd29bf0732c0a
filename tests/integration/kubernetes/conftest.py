"""Helm is built by Go. Without Go, or where Go can't bring it, what asks for it is skipped and says so.

Where pip can't reach its index, there is nothing to look at in the image, and the checkout is run in its place.
"""

import os
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns, which

import pytest

from tests.kit import PROJECT, golang
from tests.kit.chart import CHART, EXAMPLE, helm, helm_program, kubeconform_program, tools_are_here
from tests.kit.image import CantBuild, Image, build, checkout
from tests.kit.processes import Process, wait_for

_building: list[Process] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """The first time, Helm is built, for minutes: beside the tests that come before those here, and after them."""
    here = Path(__file__).parent
    wanted = any(item.path.is_relative_to(here) for item in session.items)
    if wanted and not session.config.option.collectonly and not tools_are_here():
        quietly = ["nice"] if which("nice") else []
        command = [*quietly, sys.executable, "-m", "tests.kit.chart", "tools"]
        _building.append(Process("go install", command, log=golang.HOME / "install.log", cwd=PROJECT))


@pytest.fixture(scope="session")
def helm_is_here() -> None:
    wait_for(lambda: not any(process.alive for process in _building), seconds=1_000, what="Helm")
    try:
        helm_program()
        kubeconform_program()
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
def image(built: Image | str) -> Image:
    """What is run."""
    if isinstance(built, Image):
        return built
    return Image(PROJECT, [sys.executable, "-m", "tierproxy"], dict(os.environ))


@pytest.fixture(scope="session")
def whole_image(built: Image | str) -> Image:
    """The same, for those who look into it."""
    if isinstance(built, str):
        pytest.skip(built)
    return built


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Image | str:
    """What the Containerfile makes of a clean copy of the files that git tracks, or why it can't be made."""
    try:
        return build(checkout(tmp_path_factory.mktemp("checkout")), tmp_path_factory.mktemp("image"))
    except CantBuild as error:
        if "No matching distribution" in str(error) or "Connection" in str(error):
            return f"pip can't reach its index: {str(error).splitlines()[-1]}"
        raise
