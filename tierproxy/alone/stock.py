"""What an archive holds, found by listing it once: there is nobody else to ask which topics there are."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import PartitionId, topic_id_text
from tierproxy.config import TopicPolicy
from tierproxy.errors import TierproxyError

log = logging.getLogger("tierproxy.alone")

AT_A_TIME = 16
"""Manifests that are read at the same time."""

PolicyFor = Callable[[str, bool], TopicPolicy | None]


@dataclass(frozen=True, slots=True)
class HeldTopic:
    """A topic, and the manifests of those of its partitions that can be read, by their numbers."""

    name: str
    topic_id: bytes
    partitions: Mapping[int, Manifest]


@dataclass(frozen=True, slots=True)
class Stock:
    """All topics to serve. `cluster_id` is that of the Kafka cluster that they are of."""

    cluster_id: str
    topics: Mapping[str, HeldTopic]
    names: Mapping[bytes, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", {topic.topic_id: topic.name for topic in self.topics.values()})

    def topic(self, key: str | bytes) -> HeldTopic | None:
        """By name or id."""
        name = self.names.get(key) if isinstance(key, bytes) else key
        return None if name is None else self.topics.get(name)

    def manifest(self, key: str | bytes, partition: int) -> Manifest | None:
        topic = self.topic(key)
        return None if topic is None else topic.partitions.get(partition)


async def take_stock(libraries: Mapping[str, Library], policy_for: PolicyFor) -> Stock:
    """Every topic in the archive that its policy names. Of several topics of one name it is the one written last.

    What is left out is said in the log. Raises TierproxyError where an archive can't be read, or holds nothing.
    """
    owners: dict[str, str] = {}
    manifests: list[Manifest] = []
    elsewhere: set[str] = set()
    for name, library in libraries.items():
        owner = await library.owner()
        if owner is None:
            continue
        owners[name] = owner
        pids = []
        async for pid in library.partitions():
            policy = policy_for(pid.topic, False)
            if policy is not None and policy.archive == name:
                pids.append(pid)
            else:
                elsewhere.add(pid.topic)
        manifests += await _read(library, pids)
    if not owners:
        raise TierproxyError("no archive in the configuration was ever written to: is it mounted, and the right one?")
    if len(set(owners.values())) > 1:
        found = ", ".join(f"{name} of {owner}" for name, owner in owners.items())
        raise TierproxyError(f"the archives are of several Kafka clusters ({found}): serve one at a time")
    if elsewhere:
        log.warning("not served, because no policy under topics names their archive: %s", ", ".join(sorted(elsewhere)))
    topics = _newest(manifests)
    if not topics:
        raise TierproxyError("nothing is archived of the topics that the configuration names an archive for")
    return Stock(next(iter(owners.values())), topics)


async def _read(library: Library, pids: list[PartitionId]) -> list[Manifest]:
    turns = asyncio.Semaphore(AT_A_TIME)

    async def read(pid: PartitionId) -> Manifest | None:
        async with turns:
            found = await library.load(pid)
        return None if found is None else found.manifest

    found = await asyncio.gather(*(read(pid) for pid in pids))
    return [manifest for manifest in found if manifest is not None]


def _newest(manifests: list[Manifest]) -> dict[str, HeldTopic]:
    by_name: dict[str, dict[bytes, dict[int, Manifest]]] = {}
    for manifest in manifests:
        by_name.setdefault(manifest.topic, {}).setdefault(manifest.topic_id, {})[manifest.partition] = manifest
    topics = {}
    for name, by_id in sorted(by_name.items()):
        topic_id = max(by_id, key=lambda each: _written(by_id[each]))
        if len(by_id) > 1:
            log.warning(
                "%d topics called %s are archived, for it was deleted and created again: serving the newest, %s",
                len(by_id),
                name,
                topic_id_text(topic_id),
            )
        topics[name] = HeldTopic(name, topic_id, dict(sorted(by_id[topic_id].items())))
    return topics


def _written(partitions: Mapping[int, Manifest]) -> int:
    return max((m.sums.created_ms for m in partitions.values() if m.sums.segments), default=-1)
