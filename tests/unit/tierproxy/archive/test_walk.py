"""Walking through a partition's archive: every chunk of a range once, and where a time begins."""

from pathlib import Path

import pytest

from tests.unit.tierproxy.cli.archives import TIME, Archive, batch
from tierproxy.archive import walk
from tierproxy.archive.library import Library
from tierproxy.archive.walk import Stretch, offset_at, stretches

Offsets = list[tuple[int, int]]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Offsets 0-5 in two segments, a batch a chunk, 6-9 lost, 10-11 in a third; times are TIME + offset."""
    archive = Archive(tmp_path)
    archive.add(batch(0, [b"a", b"b"]), batch(2, [b"c"]))
    archive.add(batch(3, [b"d", b"e", b"f"], epoch=2, codec=1))
    return archive.gap(6, 10).add(batch(10, [b"g", b"h"], epoch=2)).save()


@pytest.mark.parametrize(
    ("start", "end", "chunks"),
    [
        (0, 99, [(0, 1), (2, 2), (3, 5), (10, 11)]),
        (1, 3, [(0, 1), (2, 2)]),
        (2, 4, [(2, 2), (3, 5)]),
        (6, 10, []),
        (6, 11, [(10, 11)]),
        (12, 99, []),
    ],
)
@pytest.mark.parametrize("together", [1, 1 << 20])
def test_the_chunks_of_a_range(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    start: int,
    end: int,
    chunks: list[tuple[int, int]],
    together: int,
) -> None:
    monkeypatch.setattr(walk, "READ_BYTES", together)

    async def read(library: Library) -> list[Stretch]:
        return [each async for each in stretches(library, archive.manifest, start, end)]

    found = archive.do(read)
    assert [(c.base_offset, c.last_offset) for each in found for c in each.chunks] == chunks
    assert [(h.base_offset, h.last_offset) for each in found for h, _ in each.batches()] == chunks
    if together == 1:
        assert all(len(each.chunks) == 1 for each in found)


@pytest.mark.parametrize(
    ("time", "offset"), [(0, 0), (TIME, 0), (TIME + 1, 1), (TIME + 4, 4), (TIME + 6, 10), (TIME + 12, 12)]
)
def test_where_a_time_begins(archive: Archive, time: int, offset: int) -> None:
    async def find(library: Library) -> int:
        return await offset_at(library, archive.manifest, time)

    assert archive.do(find) == offset


def test_nothing_below_the_archives_start_is_shown(archive: Archive) -> None:
    archive.save(archive.manifest.with_start(4))

    async def look(library: Library) -> tuple[list[int], int]:
        found = [each async for each in stretches(library, archive.manifest, 0, 99)]
        return [c.base_offset for each in found for c in each.chunks], await offset_at(library, archive.manifest, 0)

    assert archive.do(look) == ([3, 10], 4)
