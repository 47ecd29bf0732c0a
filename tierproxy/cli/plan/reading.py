"""What a plan reads: manifests, each condensed at once, and samples of topics that nothing is archived of."""

import asyncio
import io
from collections.abc import Mapping
from itertools import islice

from protocol.batches import walk
from protocol.errors import ErrorCode, MalformedError, error_name
from protocol.fetch import FetchPartition
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest, PageRef, SegmentEntry
from tierproxy.archive.names import PartitionId
from tierproxy.archive.retention import Expiry
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.cli.plan.facts import DAY_MS, Facts, Sample
from tierproxy.cli.plan.shelve import (
    LogFacts,
    Shelved,
    bytes_between,
    first_since,
    offset_bytes,
    trim_to,
    with_backlog,
)
from tierproxy.config import Config, Keep, TopicPolicy
from tierproxy.errors import TierproxyError
from tierproxy.upstream import Cluster, TopicPartition, TopicView

PARTITIONS_AT_ONCE = 2_000
MANIFESTS_AT_ONCE = 16
ARCHIVE_SECONDS = 30.0
SAMPLED_TOPICS = 50
"""Most topics of which a sample is taken; the others are thought to be like those of their policy."""


async def ask_archives(libraries: Mapping[str, Library], facts: Facts) -> None:
    names = {policy.archive for name, policy in facts.topics.items() if name not in facts.unfit}
    used = {name: libraries[name] for name in names if name is not None}
    closed = dict(await asyncio.gather(*(_owner(name, library, facts) for name, library in used.items())))
    room = asyncio.Semaphore(MANIFESTS_AT_ONCE)

    async def ask(tp: TopicPartition) -> None:
        policy = facts.topics[tp.topic]
        assert policy.archive is not None
        trouble = closed[policy.archive]
        async with room:
            facts.shelves[tp] = trouble or await _shelf(libraries[policy.archive], policy, tp, facts)

    partitions = facts.partitions()
    while part := list(islice(partitions, PARTITIONS_AT_ONCE)):
        await asyncio.gather(*(ask(tp) for tp in part))


async def _owner(name: str, library: Library, facts: Facts) -> tuple[str, str | None]:
    """Why an archive can't be used, if so."""
    try:
        async with asyncio.timeout(ARCHIVE_SECONDS):
            owner = await library.owner()
    except TimeoutError:
        return name, f"no answer within {ARCHIVE_SECONDS:g} s"
    except TierproxyError as error:
        return name, str(error)
    if owner is None:
        facts.unclaimed.append(name)
    if owner is None or owner == facts.view.cluster_id:
        return name, None
    return name, f"it is of Kafka cluster {owner}, not of {facts.view.cluster_id}: change cluster.name"


async def _shelf(library: Library, policy: TopicPolicy, tp: TopicPartition, facts: Facts) -> Shelved | str | None:
    topic = facts.view.topics[tp.topic]
    pid = PartitionId(tp.topic, topic.topic_id, tp.partition)
    log = facts.logs.get(tp, LogFacts(ErrorCode.UNKNOWN_SERVER_ERROR))
    try:
        found = await library.load(pid)
        if found is None or found.manifest.is_bare:
            return None
        return await _condensed(library, found.manifest, policy, topic, log, facts.at_ms)
    except TierproxyError as error:
        return str(error)


async def _condensed(
    library: Library, manifest: Manifest, policy: TopicPolicy, topic: TopicView, log: LogFacts, now_ms: int
) -> Shelved:
    pages: dict[PageRef, tuple[SegmentEntry, ...]] = {}
    home, pid = library.home(manifest.pid), manifest.pid

    async def trimmed(of: Manifest) -> int:
        while isinstance(point := trim_to(of, policy, log, now_ms, pages, topic.topic_id), PageRef):
            pages[point] = tuple(await home.page(pid, point))
        return point

    dense = offset_bytes(manifest)
    later = with_backlog(manifest, policy, log, dense or 0.0, now_ms) if log.known else manifest
    now, then = await trimmed(manifest), await trimmed(later)
    keep = policy.keep_in_archive
    expiry = Expiry(later, keep.time_ms, keep.bytes, now_ms, then)
    expired_stored = 0
    if keep != Keep():
        async for entry in library.segments(manifest):
            if not expiry.goes(entry):
                break
            expired_stored += entry.stored_size
    sums, since = await home.sums(manifest), now_ms - DAY_MS
    day_from = None
    async for entry in library.segments(manifest, since_ms=since):
        day_from = first_since(entry, since)
        break
    return Shelved(
        archive=home.name,
        start=manifest.start_offset,
        end=manifest.end_offset,
        segments=sums.segments,
        plain_bytes=sums.plain_size,
        stored_bytes=sums.stored_size,
        offset_bytes=dense,
        trim_now=now,
        trim_now_bytes=bytes_between(manifest, log.start, now, pages),
        trim_later=then,
        trim_later_bytes=bytes_between(later, log.start, then, pages),
        first_ms=sums.min_timestamp,
        day_from=day_from,
        expire_to=expiry.point,
        expire_segments=expiry.segments,
        expire_bytes=expiry.plain_bytes,
        expire_stored=expired_stored,
    )


# ---- samples -----------------------------------------------------------------------------------------------


async def take_samples(config: Config, cluster: Cluster, facts: Facts, most_bytes: int) -> None:
    """Of topics of which the archive does not say how well they compress, or the brokers not how large they are."""
    missing: dict[str, tuple[int, TopicPartition]] = {}
    for tp in facts.partitions():
        log, shelf = facts.logs.get(tp), facts.shelves.get(tp)
        if log is not None and log.known and not isinstance(shelf, Shelved):
            missing[tp.topic] = max(missing.get(tp.topic, (0, tp)), (log.stable_end - log.start, tp))
    told = {tp.topic for tp, shelf in facts.shelves.items() if isinstance(shelf, Shelved) and shelf.stored_bytes}
    largest = sorted((each for each in missing.values() if each[0] and each[1].topic not in told), reverse=True)
    by_leader: dict[int, list[TopicPartition]] = {}
    for _, tp in largest[:SAMPLED_TOPICS]:
        by_leader.setdefault(facts.view.leader(tp), []).append(tp)

    async def take(node: int, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            try:
                facts.samples[tp.topic] = await _sample(config, cluster, facts, node, tp, most_bytes)
            except (TierproxyError, MalformedError) as error:
                facts.samples[tp.topic] = str(error)

    await asyncio.gather(*(take(node, partitions) for node, partitions in by_leader.items()))


async def _sample(
    config: Config, cluster: Cluster, facts: Facts, node: int, tp: TopicPartition, most_bytes: int
) -> Sample | str:
    """From the middle: neither the oldest records, which may be of another kind, nor the few newest."""
    topic, log = facts.view.topics[tp.topic], facts.logs[tp]
    middle = (log.start + log.stable_end) // 2
    wanted = FetchPartition(tp.topic, topic.topic_id, tp.partition, -1, middle, -1, most_bytes)
    answer = await cluster.fetch(node, [wanted], max_wait_ms=500, max_bytes=most_bytes)
    part = next(iter(answer.partitions), None)
    error = answer.error or (part.error if part is not None else ErrorCode.UNKNOWN_SERVER_ERROR)
    if error or part is None or not part.records:
        return f"can't be fetched: {error_name(error)}" if error else "no records where the sample was to be taken"
    about = SegmentInfo(config.cluster.name, tp.topic, topic.topic_id, tp.partition)
    return await asyncio.to_thread(_compressed, about, facts.topics[tp.topic], part.records)


def _compressed(about: SegmentInfo, policy: TopicPolicy, records: memoryview) -> Sample | str:
    writer = SegmentWriter(about, policy.compression, io.BytesIO(), recompress=policy.recompress)
    for header, batch in walk(records):
        writer.append(batch, header)
    if not writer.plain_bytes:
        return "its first batch is larger than the sample (--sample)"
    writer.finish()
    return Sample(writer.plain_bytes, writer.stored_bytes, writer.last_offset + 1 - writer.base_offset)
