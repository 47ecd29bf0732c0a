"""`tierproxy archive gc` and `rm`, run as a person runs them; `rm` asks a fake cluster."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.fakes.broker import FakeCluster
from tests.unit.tierproxy.cli.archives import PID, Archive, batch
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.cli import main


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Four segments, of which the first has expired."""
    archive = Archive(tmp_path)
    for number in range(4):
        archive.add(batch(number, [b"x"]))
    return archive.save(archive.manifest.with_start(1))


def run(archive: Archive, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["archive", *arguments, "--config", str(archive.config)])


def segments(archive: Archive) -> list[int]:
    """Base offsets of the segments that are there."""
    return sorted(int(file.name[:20]) for file in archive.folder.glob("*.log.zst"))


# ---- gc ------------------------------------------------------------------------------------------------------


def test_gc_removes_what_nothing_needs(archive: Archive) -> None:
    result = run(archive, "gc", "--grace", "0s")
    assert result.exit_code == 0
    assert "local flights-0: 1 objects (" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("1 partitions: 1 objects (")
    assert segments(archive) == [1, 2, 3]
    assert run(archive, "verify").exit_code == 0
    assert run(archive, "gc").stdout == "1 partitions: no garbage\n"


def test_gc_waits_for_the_grace_time(archive: Archive) -> None:
    for file in archive.folder.glob("*.log.zst"):
        os.utime(file, (1, 1))  # written long ago; but when did it become garbage?
    assert "1 objects (" in (told := run(archive, "gc").stdout)
    assert "wait until their grace time is over" in told
    assert segments(archive) == [0, 1, 2, 3]
    assert "garbage.json" in {file.name for file in archive.folder.iterdir()}


def test_gc_may_only_look(archive: Archive) -> None:
    before = {file.name: file.read_bytes() for file in archive.folder.iterdir()}
    result = run(archive, "gc", "fl*", "--dry-run", "--grace", "0s")
    assert "could be removed" in result.stdout
    assert {file.name: file.read_bytes() for file in archive.folder.iterdir()} == before


def test_gc_deletes_nothing_where_nothing_may_be_deleted(archive: Archive) -> None:
    archive.config.write_text(archive.config.read_text() + "archiver: {garbage: {delete: false}}\n")
    assert "could be removed" in run(archive, "gc", "--grace", "0s").stdout
    assert segments(archive) == [0, 1, 2, 3]


def test_gc_as_json(archive: Archive) -> None:
    answer: Any = json.loads(run(archive, "gc", "--grace", "0s", "--json").stdout)
    (row,) = answer["partitions"]
    assert (answer["ok"], answer["total"]["removed"]) == (True, 1)
    assert (row["topic"], row["partition"], row["topic_id"]) == ("flights", 0, topic_id_text(PID.topic_id))
    assert (row["removed"], row["ripe"], row["waiting"]) == (1, 0, 0)
    assert row["removed_bytes"] > 0


def test_gc_says_what_it_can_not_do(archive: Archive) -> None:
    (archive.folder / "manifest.json").write_text("nonsense")
    result = run(archive, "gc", "--grace", "0s")
    assert result.exit_code == 1
    assert "the manifest is no JSON" in result.stdout
    assert segments(archive) == [0, 1, 2, 3]
    result = run(archive, "gc", "--grace", "soon")
    assert result.exit_code == 2
    assert "'soon' is not a duration" in result.stderr


# ---- rm ------------------------------------------------------------------------------------------------------

ID = topic_id_text(PID.topic_id)


def owned(directory: Path, brokers: FakeCluster | None = None, topic_id: bytes = PID.topic_id) -> Archive:
    """An archive of a topic "flights" that is recorded as that cluster's."""
    archive = Archive(directory, PartitionId("flights", topic_id, 0))
    archive.add(batch(0, [b"x"])).add(batch(1, [b"y"])).save()
    if brokers is not None:
        archive.do(lambda library: library.claim(brokers.cluster_id))
        host, port = brokers.bootstrap[0]
        archive.config.write_text(archive.config.read_text().replace("127.0.0.1:1", f"{host}:{port}"))
    return archive


async def test_rm_removes_the_archive_of_a_topic_that_is_gone(tmp_path: Path) -> None:
    async with FakeCluster() as brokers:
        archive = await asyncio.to_thread(owned, tmp_path, brokers)
        result = await asyncio.to_thread(run, archive, "rm", "flights", "--topic-id", ID)
        assert (result.exit_code, segments(archive)) == (0, [0, 1])
        assert result.stdout.startswith("would remove 3 objects (")
        result = await asyncio.to_thread(run, archive, "rm", "flights", "--topic-id", ID, "--yes")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("removed 3 objects (")
        left = [file.name for file in (archive.root / "prod" / "flights").rglob("*") if file.is_file()]
        assert [name for name in left if not name.startswith(".")] == []


async def test_rm_removes_the_archive_of_a_namesake_that_is_gone_and_no_other(tmp_path: Path) -> None:
    async with FakeCluster() as brokers:
        alive = brokers.create_topic("flights").topic_id
        old = await asyncio.to_thread(owned, tmp_path, brokers)
        new = await asyncio.to_thread(owned, tmp_path, brokers, alive)
        result = await asyncio.to_thread(run, new, "rm", "flights", "--topic-id", topic_id_text(alive), "--yes")
        assert result.exit_code == 1
        assert "exists, and its archive is in use" in result.stderr
        result = await asyncio.to_thread(run, old, "rm", "flights", "--topic-id", ID, "--yes")
        assert result.exit_code == 0, result.output
        left = {file.parent.parent.name for file in (old.root / "prod" / "flights").glob("*/0/*.log.zst")}
        assert left == {topic_id_text(alive)}
        result = await asyncio.to_thread(
            run, new, "rm", "flights", "--topic-id", topic_id_text(alive), "--yes", "--force"
        )
        assert result.exit_code == 0
        assert list((old.root / "prod" / "flights").glob("*/0/*.log.zst")) == []


async def test_rm_wants_to_be_told_by_the_brokers_of_that_archive(tmp_path: Path) -> None:
    async with FakeCluster() as brokers:
        archive = await asyncio.to_thread(owned, tmp_path, brokers)
        brokers.create_topic("flights").denied.add("DESCRIBE")
        result = await asyncio.to_thread(run, archive, "rm", "flights", "--topic-id", ID, "--yes")
        assert "the brokers don't say whether topic flights exists (TOPIC_AUTHORIZATION_FAILED)" in result.stderr
        brokers.delete_topic("flights")
        brokers.cluster_id = "AnotherAnotherAnotherA"
        result = await asyncio.to_thread(run, archive, "rm", "flights", "--topic-id", ID, "--yes")
        assert "they can't say whether the topic is gone" in result.stderr
        assert segments(archive) == [0, 1]


def test_rm_does_nothing_when_no_broker_answers(tmp_path: Path) -> None:
    archive = owned(tmp_path)
    result = run(archive, "rm", "flights", "--topic-id", ID, "--yes")
    assert result.exit_code == 1
    assert segments(archive) == [0, 1]
    assert run(archive, "rm", "flights", "--topic-id", ID, "--yes", "--force").exit_code == 0
    assert segments(archive) == []


def test_rm_asks_which_topic(tmp_path: Path) -> None:
    archive = owned(tmp_path)
    assert f"--topic-id: {ID}" in run(archive, "rm", "flights", "--yes", "--force").stderr
    assert "nothing of other is archived" in run(archive, "rm", "other", "--yes").stderr
    assert f"known: {ID}" in run(archive, "rm", "flights", "--topic-id", "x", "--yes").stderr
    assert segments(archive) == [0, 1]


def test_rm_also_removes_what_was_left_half_removed(tmp_path: Path) -> None:
    archive = owned(tmp_path)
    (archive.folder / "manifest.json").unlink()
    assert run(archive, "rm", "flights", "--topic-id", ID, "--yes", "--force").exit_code == 0
    assert segments(archive) == []
