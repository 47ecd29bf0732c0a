import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.errors import ErrorCode
from protocol.messages import DeleteAnswer, DeleteRecordsRequest, DeleteRecordsResponse
from tests.unit.tierproxy.cli.archives import PID, Archive, batch
from tests.unit.tierproxy.cold.shelf import Shelf, three_segments
from tests.unit.tierproxy.cold.test_answers import World
from tierproxy.archive.library import Library, VersionedManifest
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.store import Unavailable
from tierproxy.catalog import ArchivedTopic, Catalog
from tierproxy.cold.deletions import Deletions
from tierproxy.routing.deletes import deletions
from tierproxy.routing.holds import DeletesHold


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return three_segments(tmp_path)  # offsets 0 to 299; the broker's log starts at 200


@pytest.fixture
async def shelf(archive: Archive) -> AsyncIterator[Shelf]:
    async with Shelf(archive) as made:
        yield made


async def delete(library: Library, manifest: Manifest, asked: int, low_watermark: int) -> tuple[DeleteAnswer, Catalog]:
    """A user's DeleteRecords that the broker has answered with success."""
    catalog = Catalog(lambda name: name == PID.topic, True)
    catalog.set_topics([ArchivedTopic(PID.topic, PID.topic_id, 1, "local", "skip")], [])
    answer = DeleteAnswer(PID.topic, 0, low_watermark, 0)
    response = DeleteRecordsResponse(0, [answer])
    found = deletions(response, DeleteRecordsRequest(1000, [(PID.topic, 0, asked)]), catalog)
    await Deletions(catalog, World(manifest, 200), {"local": library}).finish(DeletesHold(2, 1, response, found))
    return answer, catalog


@pytest.mark.parametrize(
    ("asked", "low_watermark", "start", "shown"),
    [
        (150, 200, 150, 150),  # below the broker's own log start: it changes nothing and reports that
        (250, 250, 250, 250),
        (-1, 1000, 1000, 1000),  # to the high watermark: the archive is empty then
        (0, 200, 0, 0),
    ],
)
async def test_the_archives_start_follows(
    shelf: Shelf, archive: Archive, asked: int, low_watermark: int, start: int, shown: int
) -> None:
    answer, catalog = await delete(shelf.library, archive.manifest, asked, low_watermark)
    assert (answer.error, answer.low_watermark) == (0, shown)
    stored = await shelf.library.load(PID)
    assert stored is not None
    assert stored.manifest.start_offset == start
    tier = catalog.find(PID.topic, 0)
    assert tier is not None
    assert tier.manifest == stored.manifest, "and it counts at once"


async def test_what_was_deleted_before_stays_deleted(shelf: Shelf, archive: Archive) -> None:
    await delete(shelf.library, archive.manifest, 250, 250)
    answer, _ = await delete(shelf.library, archive.manifest, 100, 250)
    assert answer.low_watermark == 250


async def test_it_wins_a_race_with_the_archiver_and_keeps_what_that_has_added(shelf: Shelf, archive: Archive) -> None:
    class Racing(Library):
        """Somebody else commits a segment between this library's first look and its write."""

        raced = False

        async def save(self, pid: PartitionId, manifest: Manifest, version: str | None) -> VersionedManifest:
            if not self.raced:
                self.raced = True
                await asyncio.to_thread(lambda: archive.add(more).save())
            return await super().save(pid, manifest, version)

    more = batch(300, [b"more"] * 10, epoch=2)
    await delete(Racing(shelf.store, shelf.library.cluster), archive.manifest, 150, 200)
    stored = await shelf.library.load(PID)
    assert stored is not None
    assert (stored.manifest.start_offset, stored.manifest.end_offset) == (150, 310)


async def test_an_archive_that_cannot_be_written_is_a_retriable_error(shelf: Shelf, archive: Archive) -> None:
    class Down(Library):
        async def load(self, pid: PartitionId) -> VersionedManifest | None:
            raise Unavailable("down")

    answer, _ = await delete(Down(shelf.store, shelf.library.cluster), archive.manifest, 150, 200)
    assert (answer.error, answer.low_watermark) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)


async def test_before_anything_is_archived_the_start_is_written_down_for_the_archiver(
    shelf: Shelf, archive: Archive
) -> None:
    library = Library(shelf.store, "elsewhere")
    answer, _ = await delete(library, archive.manifest, 250, 260)
    assert (answer.error, answer.low_watermark) == (0, 260)
    stored = await library.load(PID)
    assert stored is not None
    assert (stored.manifest.start_offset, stored.manifest.end_offset, stored.manifest.segments) == (260, 260, ())


def test_what_the_broker_refused_is_not_deleted() -> None:
    catalog = Catalog(lambda name: True, True)
    refused = DeleteRecordsResponse(0, [DeleteAnswer(PID.topic, 0, -1, 29)])
    assert deletions(refused, DeleteRecordsRequest(1000, [(PID.topic, 0, 5)]), catalog) == []
