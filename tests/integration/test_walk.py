"""A newcomer's walk: README's quick start from an empty directory to records that are read back from the archive.

In short form: the environment that these tests run in takes the place of `make setup`. `make walk` does that, too.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import Block
from tests.kit import admin
from tests.kit.golang import NoGo
from tests.kit.kafka import Cluster
from tests.kit.s3 import S3Server
from tests.walk import places
from tests.walk.steps import Begin, Consume, Repeat, Run, Write, step_of, steps
from tests.walk.walker import Walker, origin

NUMBER = 100_000
TOPIC = "tierproxy-trial"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def walker(tmp_path: Path, kafka: Cluster, s3: S3Server, said: list[str]) -> Iterator[Walker]:
    s3.make_bucket(places.BUCKET)
    setup, environment = places.setup_here(tmp_path)
    substitutions = {**places.substitutions(origin(tmp_path), kafka, s3), **setup}
    with Walker(tmp_path, substitutions, NUMBER, environment=environment, say=said.append) as walker:
        yield walker


@pytest.mark.timeout(900)
def test_readme_leads_from_an_empty_directory_to_records_from_the_archive(
    walker: Walker, kafka: Cluster, said: list[str]
) -> None:
    expected = {f"record {n}" for n in range(1, NUMBER + 1)}
    assert not list(walker.where.iterdir())
    ways = 0
    for step in steps():
        try:
            values = walker.do(step)
        except NoGo:
            continue
        if isinstance(step, Consume):
            assert len(values) == NUMBER
            assert set(values) == expected, step.block
            ways += 1
        if isinstance(step, Repeat) and step.shows.startswith(TOPIC):  # what follows must not come from the broker
            admin.wait_trimmed(kafka.bootstrap, TOPIC, admin.latest(kafka.bootstrap, TOPIC, 3))
    assert "all of them, from the archive" in "\n".join(said)
    assert ways >= 3
    assert walker.unused == set()

    # What README says in passing of how to be rid of it all.
    admin.delete_topic(kafka.bootstrap, TOPIC)
    remove = f"""
        said=$(.venv/bin/tierproxy archive rm {TOPIC} --config config.yaml 2>&1) || true
        id=$(echo "$said" | sed -n 's/.*--topic-id: \\([^ ,]*\\).*/\\1/p')
        .venv/bin/tierproxy archive rm {TOPIC} --topic-id "$id" --yes --config config.yaml
        .venv/bin/tierproxy archive ls --config config.yaml 2>&1
    """
    walker.do(step_of(Block(Path(__file__), 0, "sh", remove, "walk: until it shows nothing is archived yet")))


def test_the_walk_has_every_kind_of_step() -> None:
    """Else a comment that lost its word would make the walk shorter without a sound."""
    kinds = [type(step) for step in steps()]
    assert kinds[0] is Run
    assert {Begin, Consume, Repeat, Run, Write} == set(kinds)
    assert kinds.count(Begin) == kinds.count(Write) == 1
    assert kinds.count(Consume) == 5
