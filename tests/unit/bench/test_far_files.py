"""A directory that is far away: as slow as it is told to be, and everything is counted."""

import time
from pathlib import Path

import pytest

from tests.bench.far_files import FilesPage, far
from tests.bench.s3 import Counts
from tierproxy.archive.store_file import FileStore


async def test_a_far_directory_waits_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileStore, "_run", far(FileStore._run, tmp_path))
    page, store = FilesPage(tmp_path), FileStore(tmp_path / "objects")
    await store.put("a/b", b"0123456789")
    page.reset()
    page.set(delay_ms=50)
    page.set(bytes_per_second=50)
    began = time.perf_counter()
    assert await store.get_range("a/b", 2, 7) == b"23456"
    assert time.perf_counter() - began >= 0.05 + 5 / 50
    assert (await store.get("a/b")).data == b"0123456789"
    assert page.counts() == Counts(gets=2, whole=1, asked=5, sent=15)
    await store.close()
