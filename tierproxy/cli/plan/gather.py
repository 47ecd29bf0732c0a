"""`tierproxy plan`, first half: ask the brokers and the archives, and change nothing.

Metadata, settings, ListOffsets, DescribeLogDirs and a few fetches of the service account, which belongs to no group and
commits nothing; of the archives only manifests are read. Bounded: partitions are asked about so many at a time, a
broker that does not answer once is not asked again, samples are few and small, and `seconds` is the end of all of it.
What is not known by then stays unknown, and is told as a trouble.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice

from protocol.errors import ErrorCode
from tierproxy.access import service_access
from tierproxy.cli.plan.facts import DAY_MS, Facts
from tierproxy.cli.plan.reading import ask_archives, take_samples
from tierproxy.cli.plan.shelve import LogFacts
from tierproxy.cli.shelves import open_libraries
from tierproxy.clock import Clock
from tierproxy.config import Config
from tierproxy.errors import TierproxyError
from tierproxy.tiering.policies import unfit
from tierproxy.upstream import EARLIEST, LATEST, NOBODY, READ_COMMITTED, Cluster, ListedOffset, TopicPartition

CLIENT_ID = "tierproxy-plan"
PARTITIONS_AT_ONCE = 2_000
BROKER_SECONDS = 30.0


async def gather(
    config: Config, clock: Clock, wanted: Callable[[str], bool], sample_bytes: int, seconds: float
) -> Facts:
    """`wanted` says which topics the plan is about. Raises TierproxyError if no broker can be asked at all."""
    cluster = Cluster(config.cluster.bootstrap, service_access(config.cluster.security), CLIENT_ID, clock)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    try:
        async with asyncio.timeout_at(end):
            await cluster.start()
    except TimeoutError:
        await cluster.close()
        raise TierproxyError(f"no broker has answered within {seconds:g} s") from None
    facts = Facts(clock.now_ms(), cluster.view)
    try:
        _choose(config, wanted, facts)
        async with _within(end, facts, "the brokers have not told all about their logs"):
            await _ask_settings(cluster, facts)
            await asyncio.gather(_ask_logs(cluster, facts), _ask_sizes(cluster, facts))
        async with _within(end, facts, "not all manifests could be read"), open_libraries(config) as libraries:
            await ask_archives(libraries, facts)
        if sample_bytes:
            async with _within(end, facts, "not all samples could be taken"):
                await take_samples(config, cluster, facts, sample_bytes)
    finally:
        await cluster.close()
    return facts


@asynccontextmanager
async def _within(end: float, facts: Facts, otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(end):
            yield
    except TimeoutError:
        facts.troubles.append(f"{otherwise} in the time given (--timeout)")


def _choose(config: Config, wanted: Callable[[str], bool], facts: Facts) -> None:
    for topic in sorted(facts.view.topics.values(), key=lambda each: each.name):
        policy = config.policy_for(topic.name, topic.internal)
        if policy is not None and policy.archive is not None and wanted(topic.name):
            facts.topics[topic.name] = policy


# ---- brokers -----------------------------------------------------------------------------------------------


async def _ask_settings(cluster: Cluster, facts: Facts) -> None:
    try:
        facts.settings.update(await cluster.topic_configs(facts.topics))
    except TierproxyError as error:
        facts.troubles.append(f"topics' settings can't be read: {error}")
        return
    for name, settings in facts.settings.items():
        reason = unfit(settings)
        if reason is not None:
            facts.unfit[name] = reason


async def _ask_logs(cluster: Cluster, facts: Facts) -> None:
    silent: set[int] = set()
    partitions = facts.partitions()
    while part := list(islice(partitions, PARTITIONS_AT_ONCE)):
        asked = [tp for tp in part if facts.view.leader(tp) not in silent]
        facts.logs.update({tp: LogFacts(ErrorCode.NETWORK_EXCEPTION) for tp in part if tp not in asked})
        facts.logs.update(await _logs_of(cluster, facts, asked))
        silent |= {facts.view.leader(tp) for tp in asked if facts.logs[tp].error == ErrorCode.NETWORK_EXCEPTION}


async def _logs_of(cluster: Cluster, facts: Facts, asked: list[TopicPartition]) -> dict[TopicPartition, LogFacts]:
    times = {tp: facts.topics[tp.topic].keep_on_broker.time_ms for tp in asked}
    by_time = {tp: facts.at_ms - keep for tp, keep in times.items() if keep is not None}
    starts, stable, ends, kept, first, day = await asyncio.gather(
        cluster.list_offsets(dict.fromkeys(asked, EARLIEST)),
        cluster.list_offsets(dict.fromkeys(asked, LATEST), READ_COMMITTED),
        cluster.list_offsets(dict.fromkeys(asked, LATEST)),
        cluster.list_offsets(by_time),
        cluster.list_offsets(dict.fromkeys(asked, 0)),
        cluster.list_offsets(dict.fromkeys(asked, facts.at_ms - DAY_MS)),
    )

    def since(answer: ListedOffset | None, end: int) -> int | None:
        """The first record of a time; the log's end if none is that young."""
        if answer is None or answer.error:
            return None
        return answer.offset if answer.offset >= 0 else end

    found = {}
    for tp in asked:
        end = ends[tp].offset
        found[tp] = LogFacts(
            starts[tp].error or stable[tp].error or ends[tp].error,
            starts[tp].offset,
            stable[tp].offset,
            end,
            since(kept.get(tp), end),
            first[tp].timestamp,
            since(day[tp], end),
        )
    return found


async def _ask_sizes(cluster: Cluster, facts: Facts) -> None:
    """Each broker about the copies that it should have."""
    by_broker: dict[int, list[TopicPartition]] = {}
    for tp in facts.partitions():
        about = facts.view.topics[tp.topic].partitions[tp.partition]
        for node in about.replicas or (about.leader,):
            by_broker.setdefault(node, []).append(tp)

    async def ask(node: int, partitions: Iterable[TopicPartition]) -> None:
        try:
            async with asyncio.timeout(BROKER_SECONDS):
                facts.sizes[node] = await cluster.log_sizes(node, partitions)
        except TimeoutError:
            facts.sizes[node] = f"no answer within {BROKER_SECONDS:g} s"
        except TierproxyError as error:
            facts.sizes[node] = str(error)

    by_broker.pop(NOBODY, None)
    await asyncio.gather(*(ask(node, partitions) for node, partitions in by_broker.items()))
