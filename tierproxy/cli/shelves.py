"""Which archived partitions a command is about."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, Sums
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.archive.stores import open_store
from tierproxy.cli.output import complain
from tierproxy.config import Config
from tierproxy.config.model import pattern
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
    if archive_name is not None and archive_name not in config.archives:
        known = ", ".join(config.archives) or "none"
        raise click.BadParameter(f"{archive_name!r} is not in the configuration; known: {known}")
    async with _libraries(config, archive_name) as libraries:
        shelves = [
            await _shelf(name, library, pid)
            for name, library in libraries.items()
            async for pid in library.partitions()
            if (not topics or any(pattern(topic).fullmatch(pid.topic) for topic in topics))
            and partition in (None, pid.partition)
        ]
        for topic in topics:
            if not any(pattern(topic).fullmatch(shelf.pid.topic) for shelf in shelves):
                asked = topic if partition is None else f"{topic}, partition {partition},"
                raise TierproxyError(f"nothing of {asked} is archived; tierproxy archive ls shows what is")
        shelves.sort(key=lambda each: (each.archive, each.pid.topic, each.pid.topic_id, each.pid.partition))
        return await work(shelves)


@asynccontextmanager
async def _libraries(config: Config, archive_name: str | None) -> AsyncIterator[dict[str, Library]]:
    libraries: dict[str, Library] = {}
    try:
        for name, about in config.archives.items():
            if archive_name in (None, name):
                libraries[name] = Library(open_store(about), config.cluster.name)
        yield libraries
    finally:
        for library in libraries.values():
            await library.store.close()


async def _shelf(name: str, library: Library, pid: PartitionId) -> Shelf:
    try:
        found = await library.load(pid)
    except TierproxyError as error:
        return Shelf(name, library, pid, None, str(error))
    if found is None:
        problem = (
            "has segments but no manifest: it is lost, or its first one is being archived right now; "
            "`tierproxy archive repair` can make it anew"
        )
        return Shelf(name, library, pid, None, problem)
    try:
        sums = await library.sums(found.manifest)
    except TierproxyError:  # a page is damaged, as verify will say
        sums = found.manifest.sums
    return Shelf(name, library, pid, found.manifest, sums=sums)


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
