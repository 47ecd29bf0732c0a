"""The differential test, cut to what a run of all tests has time for; `make differential` is the long one."""

from pathlib import Path

import pytest

from tests.differential.runner import run
from tests.differential.scene import Scene
from tests.kit.jars import KAFKA_3_9, KAFKA_VERSION

SEED = 2026


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("version", "requests"), [(KAFKA_VERSION, 2000), (KAFKA_3_9, 1000)])
def test_a_trimmed_topic_is_answered_for_as_if_it_never_was(
    version: str, requests: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--direct"):
        pytest.skip("this one is about tierproxy, and --direct was asked for")
    with Scene(tmp_path, version) as scene:
        report = run(scene, SEED, requests)
    assert not report.failures, str(report)
    assert report.requests >= requests
