"""The same commands on a bucket: moto's server, over real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.kit.s3 import S3Server
from tests.unit.tierproxy.cli.archives import CLUSTER, CLUSTER_ID, PID, Archive, batch, run_now
from tierproxy.archive.library import Library
from tierproxy.archive.names import partition_prefix
from tierproxy.archive.pages import Paging
from tierproxy.archive.stores import open_store
from tierproxy.cli import main
from tierproxy.config import ArchiveConfig, load_config


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def config(server: S3Server, tmp_path: Path) -> Path:
    """An archive whose objects were moved from a directory into a bucket as they are."""
    archive = Archive(tmp_path).add(batch(0, [b"a", b"b"])).add(batch(2, [b"c"])).save(paging=Paging(1, 1, 1))
    archive.do(lambda library: library.claim(CLUSTER_ID))
    file = tmp_path / "s3.yaml"
    (tmp_path / "secret").write_text("kit-secret\n")
    about = server.archive("bucket") | {"secret_key_file": "secret"}
    del about["secret_key"]
    settings = yaml.safe_load(archive.config.read_text()) | {"archives": {"local": about}}
    file.write_text(yaml.safe_dump(settings))

    async def move(about: ArchiveConfig) -> None:
        store = open_store(about)
        try:
            for source in archive.root.rglob("*"):
                if source.is_file() and not source.name.startswith("."):
                    await store.put(source.relative_to(archive.root).as_posix(), source.read_bytes())
            assert await Library(store, CLUSTER).load(archive.pid) is not None
        finally:
            await store.close()

    run_now(move(load_config(file).archives["local"]))
    return file


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--config", str(config)])


def test_ls_verify_and_cat_on_a_bucket(config: Path) -> None:
    row = json.loads(run(config, "archive", "ls", "--json").stdout)
    assert (row["end_offset"], row["segments"]) == (3, 2)
    verified = run(config, "archive", "verify")
    assert verified.exit_code == 0, verified.output
    assert [line.split("\t")[3] for line in run(config, "archive", "cat", "flights").stdout.splitlines()] == [
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize("lost", ["manifest.json", "page"])
def test_what_is_lost_of_a_manifest_is_made_anew_on_a_bucket(config: Path, lost: str) -> None:
    async def lose(about: ArchiveConfig) -> None:
        store = open_store(about)
        try:
            found = await Library(store, CLUSTER).load(PID)
            assert found is not None
            name = found.manifest.pages[0].name if lost == "page" else lost
            await store.delete(partition_prefix(CLUSTER, PID) + name)
        finally:
            await store.close()

    run_now(lose(load_config(config).archives["local"]))
    assert run(config, "archive", "verify").exit_code == 1
    before = json.loads(run(config, "archive", "repair", "--dry-run", "--json").stdout)
    after = json.loads(run(config, "archive", "repair", "--yes", "--json").stdout)
    assert (before["ok"], after["ok"]) == (False, True)
    assert len(after["partitions"][0]["segments"]) == (1 if lost == "page" else 2)
    verified = run(config, "archive", "verify")
    assert verified.exit_code == 0, verified.output


def test_check_proves_conditional_writes_on_a_bucket(config: Path) -> None:
    found = json.loads(run(config, "check", "--json").stdout)["findings"]
    assert [(each["level"], each["subject"]) for each in found if each["area"] == "archive"] == [("ok", "local")]


def test_a_bucket_that_is_not_there_is_told_without_a_traceback(config: Path) -> None:
    config.write_text(config.read_text().replace("s3://bucket", "s3://no-such-bucket"))
    result = run(config, "archive", "ls")
    assert result.exit_code == 1
    assert "no-such-bucket" in result.stderr
    assert "kit-secret" not in result.output
