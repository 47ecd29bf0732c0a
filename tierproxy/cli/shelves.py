"""Which archived partitions a command is about."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.archive.store import Conflict
from tierproxy.archive.stores import open_store
from tierproxy.cli.output import complain
from tierproxy.config import Config
from tierproxy.config.model import pattern
from tierproxy.errors import TierproxyError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shelf:
    """One partition in one archive. Without a manifest, `problem` says why it can't be read."""

    archive: str
    library: Library
    pid: PartitionId
    manifest: Manifest | None
    problem: str = ""


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
        return Shelf(name, library, pid, None, "has no manifest")
    return Shelf(name, library, pid, found.manifest)


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
        segments = shelf.manifest.segments if shelf.manifest is not None else ()
        return segments[-1].created_ms if segments else -1

    newest = max(shelves, key=written)
    chosen = [s for s in shelves if (s.archive, s.pid.topic_id) == (newest.archive, newest.pid.topic_id)]
    if len(chosen) < len(shelves):
        topic_id = topic_id_text(newest.pid.topic_id)
        complain(f"several topics of this name are archived; showing the newest: {topic_id} in {newest.archive}")
    return chosen
