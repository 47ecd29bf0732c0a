"""The work of `tierproxy archive move`, and how it is shown."""

from dataclasses import dataclass
from typing import Any

import click

from protocol.errors import MalformedError
from tierproxy.archive.library import VersionedManifest
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.moving import Move
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.cli.output import complain, progress_bar
from tierproxy.cli.shelves import must_be_known, named, open_libraries
from tierproxy.config import Config
from tierproxy.errors import TierproxyError


@dataclass(frozen=True, slots=True)
class Moving:
    """A partition that was moved, or why not."""

    pid: PartitionId
    manifest: Manifest | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.manifest is not None


async def move_topics(
    config: Config, source: str, target: str, topics: tuple[str, ...], partition: int | None
) -> list[Moving]:
    """One partition after the other; what goes wrong with one does not keep others back."""
    must_be_known(config, source)
    must_be_known(config, target)
    if source == target:
        raise click.BadParameter("--from and --to are the same archive")
    async with open_libraries(config) as libraries:
        here = libraries[source]
        found = [pid async for pid in here.partitions() if named(pid, topics, partition)]
        if not found:
            raise TierproxyError(
                f"nothing of {' '.join(topics)} was ever in archive {source}; see tierproxy archive ls"
            )
        moved: list[Moving] = []
        with progress_bar() as progress:
            for pid in sorted(found, key=lambda each: (each.topic, each.topic_id, each.partition)):
                task = progress.add_task(str(pid), total=None)
                policy = config.policy_for(pid.topic, False)
                try:
                    before = await here.look(pid)
                    if isinstance(before, VersionedManifest):
                        progress.update(task, total=before.manifest.sums.stored_size)
                    move = Move(
                        here,
                        libraries[target],
                        pid,
                        storage_class=policy.storage_class if policy is not None else None,
                        spool=config.archiver.spool,
                        progress=lambda count, task=task: progress.advance(task, count),  # type: ignore[misc]
                    )
                    moved.append(Moving(pid, await move.run()))
                except (TierproxyError, MalformedError) as error:
                    moved.append(Moving(pid, None, str(error)))
        return moved


def move_json(moving: Moving) -> dict[str, Any]:
    manifest = moving.manifest
    return {
        "topic": moving.pid.topic,
        "topic_id": topic_id_text(moving.pid.topic_id),
        "partition": moving.pid.partition,
        "ok": moving.ok,
        "start_offset": manifest.start_offset if manifest is not None else None,
        "end_offset": manifest.end_offset if manifest is not None else None,
        "problem": moving.problem,
    }


def show_moves(moved: list[Moving], source: str, target: str) -> None:
    for each in moved:
        if each.manifest is not None:
            click.echo(
                f"{each.pid}: offsets {each.manifest.start_offset} to {each.manifest.end_offset} are in {target}"
            )
        else:
            complain(f"{each.pid}: {each.problem}")
    if all(each.ok for each in moved):
        click.echo(
            f"New segments go to {target} as well. Write 'archive: {target}' into the policy of these topics; when no "
            f"tierproxy runs with the old configuration any more, their folders in {source} can be deleted."
        )
