import subprocess
import sys
from pathlib import Path

from pydantic import SecretStr

from tests.kit import PROJECT
from tests.kit.s3 import S3Server
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.store_s3 import S3Store
from tierproxy.archive.stores import open_store, s3_place
from tierproxy.config.model import ArchiveConfig


async def test_a_directory(tmp_path: Path) -> None:
    store = open_store(ArchiveConfig(url=f"file://{tmp_path}/an%20archive"))
    assert isinstance(store, FileStore)
    await store.put("a/b", b"x")
    assert (tmp_path / "an archive" / "a" / "b").read_bytes() == b"x"
    await store.close()


async def test_a_bucket(s3: S3Server) -> None:
    s3.make_bucket("open-store")
    config = ArchiveConfig(**s3.archive("open-store", "some/prefix"))
    store = open_store(config)
    assert isinstance(store, S3Store)
    await store.check()
    await store.put("a", b"x")
    assert await store.size("a") == 1
    await store.close()
    whole = open_store(config.model_copy(update={"url": "s3://open-store"}))
    assert [info.key async for info in whole.list("")] == ["some/prefix/a"]
    await whole.close()


def test_what_is_handed_on_to_s3() -> None:
    about = ArchiveConfig(
        url="s3://bucket/a/b/",
        region="eu-central-1",
        endpoint_url="https://s3.example.com",
        access_key=SecretStr("key"),
        secret_key=SecretStr("secret"),
        session_token=SecretStr("token"),
        storage_class="STANDARD_IA",
    )
    assert s3_place(about) == S3Place(
        bucket="bucket",
        prefix="a/b/",
        region="eu-central-1",
        endpoint_url="https://s3.example.com",
        access_key="key",
        secret_key="secret",
        session_token="token",
        storage_class="STANDARD_IA",
    )
    assert s3_place(ArchiveConfig(url="s3://bucket")) == S3Place("bucket")
    assert s3_place(ArchiveConfig(url="s3://bucket/")) == S3Place("bucket")


def test_a_process_without_s3_does_not_import_its_client() -> None:
    ask = "import sys, tierproxy.app; print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True, cwd=PROJECT)
    assert done.stdout == b"False\n"
