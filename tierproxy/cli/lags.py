"""How far archives are behind, where it matters: of topics whose records the brokers delete by themselves.

The manifests say up to where it is archived, and each leader which offset the records had that are now three quarters
as old as retention allows. What is archived up to there is in no danger.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import ErrorCode
from tierproxy.archive.library import Library
from tierproxy.archive.names import PartitionId
from tierproxy.cli.shelves import open_libraries
from tierproxy.config import Config
from tierproxy.errors import TierproxyError
from tierproxy.upstream import EARLIEST, LATEST, Cluster, TopicPartition

AT_A_TIME = 16
TIMEOUT = 30.0
OLD = 0.75
"""Part of retention after which a record is old."""


@dataclass(frozen=True, slots=True)
class Lag:
    """One partition that is being archived. Offsets; `old_to`: everything below is old, -1: nothing is."""

    partition: int
    archived_to: int
    log_start: int
    log_end: int
    old_to: int

    @property
    def endangered(self) -> bool:
        return self.archived_to < self.old_to

    @property
    def lost(self) -> bool:
        """Whether brokers have deleted what had not been archived, since the archiver has last looked."""
        return self.archived_to < self.log_start


async def ask_lags(
    config: Config, cluster: Cluster, settings: Mapping[str, Mapping[str, str]], now_ms: int
) -> dict[str, list[Lag]]:
    """Topic → its partitions of which something is archived. Whatever doesn't answer is left out: others say so."""
    asked: dict[TopicPartition, tuple[PartitionId, str, int]] = {}
    for name, known in settings.items():
        topic = cluster.view.topics.get(name)
        policy = config.policy_for(name, topic.internal) if topic is not None else None
        retention = known.get("retention.ms", "-1")
        if topic is None or policy is None or policy.archive is None or not retention.isdigit():
            continue
        old_ms = now_ms - round(OLD * int(retention))
        for index, part in topic.partitions.items():
            if part.leader >= 0:
                pid = PartitionId(name, topic.topic_id, index)
                asked[TopicPartition(name, index)] = pid, policy.archive, max(0, old_ms)
    if not asked:
        return {}
    try:
        async with asyncio.timeout(TIMEOUT):
            ends = await _archived(config, {tp: (pid, archive) for tp, (pid, archive, _) in asked.items()})
            starts, latest, young = await asyncio.gather(
                cluster.list_offsets(dict.fromkeys(ends, EARLIEST)),
                cluster.list_offsets(dict.fromkeys(ends, LATEST)),
                cluster.list_offsets({tp: asked[tp][2] for tp in ends}),
            )
    except (TimeoutError, TierproxyError):
        return {}
    found: dict[str, list[Lag]] = {}
    for tp, end in ends.items():
        answers = [each[tp] for each in (starts, latest, young)]
        if all(each.error == ErrorCode.NONE for each in answers):
            start, last, first_young = (each.offset for each in answers)
            old_to = first_young if first_young >= 0 else last
            found.setdefault(tp.topic, []).append(Lag(tp.partition, end, start, last, old_to))
    return found


async def _archived(
    config: Config, asked: Mapping[TopicPartition, tuple[PartitionId, str]]
) -> dict[TopicPartition, int]:
    """Up to where it is archived; without those of which nothing is."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def end(library: Library, pid: PartitionId) -> int | None:
        async with places:
            try:
                found = await library.load(pid)
            except TierproxyError:
                return None
        return None if found is None or found.manifest.is_bare else found.manifest.end_offset

    async with open_libraries(config) as libraries:
        ends = await asyncio.gather(*(end(libraries[archive], pid) for pid, archive in asked.values()))
    return {tp: each for tp, each in zip(asked, ends, strict=True) if each is not None}
