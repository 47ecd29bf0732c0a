"""Which archived partitions a command is about."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest, Sums
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.archive.store import Conflict
from tierproxy.archive.stores import open_store
from tierproxy.cli.output import complain
from tierproxy.config import Config
from tierproxy.config.patterns import takes
from tierproxy.errors import TierproxyError

T = TypeVar("T")

NOTHING = Sums()


@dataclass(frozen=True, slots=True)
class Shelf:
    """One partition in one archive. Without a manifest, `problem` says why it can't be read.

    `sums` is what its segments come to.
    """

    archive: str
    library: Library
    pid: PartitionId
    manifest: Manifest | None
    problem: str = ""
    sums: Sums = NOTHING


async def with_shelves(
    config: Config,
    archive_name: str | None,
    topics: tuple[str, ...],
    partition: int | None,
    work: Callable[[list[Shelf]], Coroutine[Any, Any, T]],
) -> T:
    """Do `work` with all that is archived under the names asked for, while the stores are open."""
    if archive_name is not None:
        must_be_known(config, archive_name)
    async with open_libraries(config) as libraries:
        found: dict[tuple[str, PartitionId], Shelf] = {}
        for library in libraries.values():
            if archive_name not in (None, library.name):
                continue
            async for pid in library.partitions():
                if named(pid, topics, partition):
                    shelf = await _shelf(library, pid)
                    if archive_name in (None, shelf.archive):  # or it was moved
                        found[shelf.archive, pid] = shelf
        shelves = [*found.values()]
        for topic in topics:
            if not any(takes(topic, shelf.pid.topic) for shelf in shelves):
                asked = topic if partition is None else f"{topic}, partition {partition},"
                raise TierproxyError(f"nothing of {asked} is archived; tierproxy archive ls shows what is")
        shelves.sort(key=lambda each: (each.archive, each.pid.topic, each.pid.topic_id, each.pid.partition))
        return await work(shelves)


def named(pid: PartitionId, topics: tuple[str, ...], partition: int | None) -> bool:
    """Whether a command that was given these topics (none: all) and this partition is about `pid`."""
    try:
        wanted = not topics or any(takes(topic, pid.topic) for topic in topics)
    except ValueError as error:
        raise TierproxyError(str(error)) from None
    return wanted and partition in (None, pid.partition)


def must_be_known(config: Config, archive_name: str) -> None:
    if archive_name not in config.archives:
        known = ", ".join(config.archives) or "none"
        raise click.BadParameter(f"{archive_name!r} is not in the configuration; known: {known}")


@asynccontextmanager
async def open_libraries(config: Config) -> AsyncIterator[dict[str, Library]]:
    """All archives of the configuration, each beside the others."""
    libraries: dict[str, Library] = {}
    try:
        for name, about in config.archives.items():
            libraries[name] = Library(open_store(about), config.cluster.name)
            libraries[name].stand_beside(name, libraries)
        yield libraries
    finally:
        for library in libraries.values():
            await library.store.close()


async def _shelf(library: Library, pid: PartitionId) -> Shelf:
    """Where the partition lies, if it was moved from here."""
    try:
        found = await library.load(pid)
    except TierproxyError as error:
        return Shelf(library.name, library, pid, None, str(error))
    if found is None:
        problem = (
            "has segments but no manifest: it is lost, or its first one is being archived right now; "
            "`tierproxy archive repair` can make it anew"
        )
        return Shelf(library.name, library, pid, None, problem)
    home = library.home(pid)
    try:
        sums = await home.sums(found.manifest)
    except TierproxyError:  # a page is damaged, as verify will say
        sums = found.manifest.sums
    return Shelf(home.name, home, pid, found.manifest, sums=sums)


async def accept_gaps(library: Library, pid: PartitionId, now_ms: int) -> list[Gap]:
    """Accept all gaps of a partition that nobody has accepted yet; those. The archiver may be writing, too."""
    while True:
        found = await library.load(pid)
        if found is None:
            return []
        manifest = found.manifest.with_gaps_accepted(now_ms)
        if manifest is found.manifest:
            return []
        try:
            await library.save(pid, manifest, found.version)
        except Conflict:
            continue
        return [gap for gap in found.manifest.gaps if gap.accepted_ms < 0]


def one_topic(shelves: list[Shelf]) -> list[Shelf]:
    """The partitions of one archive and one topic id: the one that was written last."""

    def written(shelf: Shelf) -> int:
        return shelf.sums.created_ms

    newest = max(shelves, key=written)
    chosen = [s for s in shelves if (s.archive, s.pid.topic_id) == (newest.archive, newest.pid.topic_id)]
    if len(chosen) < len(shelves):
        topic_id = topic_id_text(newest.pid.topic_id)
        complain(f"several topics of this name are archived; showing the newest: {topic_id} in {newest.archive}")
    return chosen
