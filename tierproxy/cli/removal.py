"""`tierproxy archive gc` and `rm`: what removes objects from archives because a person says so."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.errors import ErrorCode, error_name
from protocol.messages import NO_TOPIC_ID
from tierproxy.access import service_access
from tierproxy.archive.collector import Collected, collect
from tierproxy.archive.errors import FormatError
from tierproxy.archive.library import Library
from tierproxy.archive.names import MANIFEST_FILE, cluster_prefix, encode_part, parse_key, topic_id_text
from tierproxy.archive.store import ObjectInfo
from tierproxy.cli.shelves import Shelf
from tierproxy.clock import Clock
from tierproxy.config import Config
from tierproxy.errors import TierproxyError
from tierproxy.upstream import Cluster

CLIENT_ID = "tierproxy-archive"
NOTHING = Collected()


@dataclass(frozen=True, slots=True)
class Tidied:
    """One partition after `gc`; `problem` says why nothing could be done."""

    shelf: Shelf
    found: Collected = NOTHING
    problem: str = ""


async def tidy(shelves: Sequence[Shelf], clock: Clock, grace_ms: int, *, delete: bool, dry_run: bool) -> list[Tidied]:
    """Collect garbage, partition by partition."""
    done: list[Tidied] = []
    for shelf in shelves:
        if shelf.manifest is None:
            done.append(Tidied(shelf, problem=shelf.problem))
            continue
        try:
            found = await collect(
                shelf.library,
                shelf.pid,
                clock.now_ms(),
                grace_ms,
                delete=delete and not dry_run,
                remember=not dry_run,
            )
            done.append(Tidied(shelf, found))
        except TierproxyError as error:
            done.append(Tidied(shelf, problem=str(error)))
    return done


@dataclass
class DeadTopic:
    """What one archive holds of a topic id, whose topic may be gone."""

    archive: str
    library: Library
    topic: str
    topic_id: bytes
    objects: list[ObjectInfo] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(each.size for each in self.objects)


async def topics_called(name: str, archive: str, library: Library) -> list[DeadTopic]:
    """All that an archive holds under a topic's name, by topic id; folders without a manifest as well."""
    found: dict[bytes, DeadTopic] = {}
    async for each in library.store.list(f"{cluster_prefix(library.cluster)}{encode_part(name)}/"):
        try:
            _, pid, _ = parse_key(each.key)
        except FormatError:  # somebody else's file
            continue
        found.setdefault(pid.topic_id, DeadTopic(archive, library, name, pid.topic_id)).objects.append(each)
    return list(found.values())


async def remove(dead: DeadTopic) -> None:
    """Delete all of it: the manifests first, so that nobody reads what is half gone. May be repeated."""
    for each in sorted(dead.objects, key=lambda each: not each.key.endswith(f"/{MANIFEST_FILE}")):
        await dead.library.store.delete(each.key)


async def must_be_dead(config: Config, clock: Clock, dead: Sequence[DeadTopic]) -> None:
    """TierproxyError unless the brokers, of the cluster that the archive is of, say that the topic is gone."""
    cluster = Cluster(config.cluster.bootstrap, service_access(config.cluster.security), CLIENT_ID, clock)
    try:
        await cluster.start()
        for each in dead:
            owner, asked = await each.library.owner(), cluster.view.cluster_id
            if owner is None or owner != asked:
                raise TierproxyError(
                    f"archive {each.archive} is of Kafka cluster {owner or '(not recorded)'}, the brokers are of "
                    f"{asked}: they can't say whether the topic is gone. --force removes its archive all the same"
                )
            said = await cluster.identity(each.topic)
            if said.error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                continue
            if said.error != ErrorCode.NONE:
                raise TierproxyError(
                    f"the brokers don't say whether topic {each.topic} exists ({error_name(said.error)}): may "
                    "tierproxy's account DESCRIBE it? --force removes its archive all the same"
                )
            if said.topic_id == each.topic_id or NO_TOPIC_ID in (said.topic_id, each.topic_id):
                raise TierproxyError(
                    f"topic {each.topic} ({topic_id_text(each.topic_id)}) exists, and its archive is in use. --force "
                    "removes the archive all the same: stop tierproxy before, or what it has archived and trimmed is "
                    "lost to consumers without a word"
                )
    finally:
        await cluster.close()
