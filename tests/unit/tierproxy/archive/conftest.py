"""Both stores and the simulation's, each new and empty for every test, behind the interface that the rest sees."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import pytest

from tests.kit.s3 import S3Server
from tests.simulation.disk import Disk, SimStore
from tierproxy.archive.s3_client import S3Place
from tierproxy.archive.store import Store
from tierproxy.archive.store_file import FileStore
from tierproxy.archive.store_s3 import S3Store

Open: TypeAlias = Callable[[], Store]
"""Opens the same place once more, as another process would."""


@pytest.fixture
def s3_place(s3: S3Server) -> S3Place:
    """A bucket of its own in moto's server."""
    bucket = f"b{uuid4().hex}"
    s3.make_bucket(bucket)
    return S3Place(bucket, "some/prefix/", "us-east-1", s3.endpoint_url, "kit", "kit-secret")


@pytest.fixture(params=["file", "s3", "simulated"])
async def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    opened: list[Store] = []
    disk = Disk()
    place = request.getfixturevalue("s3_place") if request.param == "s3" else None

    def open_one() -> Store:
        if request.param == "simulated":
            opened.append(SimStore(disk))
        elif place is None:
            opened.append(FileStore(tmp_path / "archive"))
        else:
            opened.append(S3Store(place, pauses=(0.01, 0.02), page_keys=3))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_again: Open) -> Store:
    return open_again()
