"""What is found in an archive whose cluster is gone."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, PID, TIME, Archive, batch, run_now
from tierproxy.alone.stock import Stock, take_stock
from tierproxy.archive.library import Library
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store_file import FileStore
from tierproxy.config import TopicPolicy
from tierproxy.errors import TierproxyError


def policy_for(topic: str, internal: bool) -> TopicPolicy | None:
    return TopicPolicy(match="*", archive="local") if topic != "other" else None


def stock_of(**roots: Path) -> Stock:
    async def look() -> Stock:
        libraries = {name: Library(FileStore(root), CLUSTER) for name, root in roots.items()}
        try:
            return await take_stock(libraries, policy_for)
        finally:
            for library in libraries.values():
                await library.store.close()

    return run_now(look())


def claimed(archive: Archive, cluster_id: str = CLUSTER_ID) -> Archive:
    async def claim(library: Library) -> None:
        await library.claim(cluster_id)

    archive.do(claim)
    return archive


def archive(directory: Path, pid: PartitionId = PID, values: int = 2) -> Archive:
    directory.mkdir(exist_ok=True)
    return claimed(Archive(directory, pid).add(batch(0, [b"v"] * values)).save())


def test_topics_are_found_by_name_and_by_id(tmp_path: Path) -> None:
    archive(tmp_path)
    archive(tmp_path, replace_partition(3), 5)
    stock = stock_of(local=tmp_path / "archive")
    assert stock.cluster_id == CLUSTER_ID
    assert list(stock.topics) == ["flights"]
    assert {p: m.end_offset for p, m in stock.topics["flights"].partitions.items()} == {0: 2, 3: 5}
    assert stock.topic(PID.topic_id) is stock.topic("flights") is stock.topics["flights"]
    assert stock.topic("nobody") is None
    assert stock.topic(b"x" * 16) is None
    assert stock.manifest("flights", 1) is None


def replace_partition(partition: int) -> PartitionId:
    return PartitionId(PID.topic, PID.topic_id, partition)


def test_of_several_topics_of_a_name_it_is_the_newest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive(tmp_path, PartitionId("flights", b"\xff" * 16, 0), 9)
    newer = archive(tmp_path)
    entry = replace(newer.manifest.segments[0], created_ms=TIME * 2)
    newer.save(replace(newer.manifest, segments=(entry,)))
    with caplog.at_level(logging.WARNING):
        stock = stock_of(local=tmp_path / "archive")
    assert stock.topics["flights"].topic_id == PID.topic_id
    assert "2 topics called flights are archived" in caplog.text


def test_what_no_policy_names_is_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive(tmp_path)
    archive(tmp_path, PartitionId("other", b"o" * 16, 0))
    with caplog.at_level(logging.WARNING):
        assert list(stock_of(local=tmp_path / "archive").topics) == ["flights"]
    assert "not served, because no policy under topics names their archive: other" in caplog.text


def _nothing(directory: Path) -> dict[str, Path]:
    return {"local": directory / "archive"}


def _only_others(directory: Path) -> dict[str, Path]:
    archive(directory, PartitionId("other", b"o" * 16, 0))
    return {"local": directory / "archive"}


def _two_clusters(directory: Path) -> dict[str, Path]:
    archive(directory / "one")
    claimed(Archive(directory / "one"))
    (directory / "two").mkdir()
    claimed(Archive(directory / "two").add(batch(0, [b"v"])).save(), "another")
    return {"local": directory / "one" / "archive", "cloud": directory / "two" / "archive"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_nothing, "no archive in the configuration was ever written to"),
        (_only_others, "nothing is archived of the topics"),
        (_two_clusters, "are of several Kafka clusters"),
    ],
)
def test_where_there_is_nothing_to_serve_it_says_so(
    tmp_path: Path, made: Callable[[Path], dict[str, Path]], said: str
) -> None:
    roots = made(tmp_path)
    with pytest.raises(TierproxyError, match=said):
        stock_of(**roots)
