"""Which store an archive's configuration means.

What S3 needs is imported with the first such archive: botocore takes a sixth of the time of a start.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from tierproxy.archive.store import Store
from tierproxy.archive.store_file import FileStore
from tierproxy.config.model import ArchiveConfig

if TYPE_CHECKING:
    from tierproxy.archive.s3_client import S3Place


def open_store(about: ArchiveConfig) -> Store:
    """The store at `about.url`: `file:///directory` or `s3://bucket/prefix`. Connects to nothing yet."""
    parts = urlsplit(about.url)
    if parts.scheme == "file":
        return FileStore(Path(unquote(parts.path)))
    from tierproxy.archive.store_s3 import S3Store

    return S3Store(s3_place(about))


async def warm_up(stores: Iterable[Store], key: str) -> None:
    """Do now what would take its time, and everybody else's, when a store is asked the first time; `key` is what it is
    asked for. Raises nothing."""
    async with asyncio.TaskGroup() as tasks:
        for store in stores:
            if not isinstance(store, FileStore):
                from tierproxy.archive.store_s3 import S3Store

                assert isinstance(store, S3Store)
                tasks.create_task(store.warm_up(key))


def s3_place(about: ArchiveConfig) -> "S3Place":
    """Where the bucket of an `s3://` archive is, and how to get in."""
    from tierproxy.archive.s3_client import S3Place

    parts = urlsplit(about.url)
    prefix = parts.path.strip("/")
    return S3Place(
        bucket=parts.netloc,
        prefix=f"{prefix}/" if prefix else "",
        region=about.region,
        endpoint_url=about.endpoint_url,
        access_key=_revealed(about.access_key),
        secret_key=_revealed(about.secret_key),
        session_token=_revealed(about.session_token),
        storage_class=about.storage_class,
        access_key_file=about.access_key_file,
        secret_key_file=about.secret_key_file,
        session_token_file=about.session_token_file,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
