"""`tierproxy check`, first half: ask the brokers and the archives, harmlessly, and write down what they say.

Rights are proved by real requests of the service account, one partition of each topic that is to be
archived: DESCRIBE by listing its offsets, READ by a fetch at its end that returns at once, DELETE by deleting
records below offset 0, of which no log has any, DESCRIBE_CONFIGS by reading its settings. READ on the archivers' group
by a heartbeat of nobody, whom the coordinator doesn't know, once it has looked at rights.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition
from tierproxy.access import service_access
from tierproxy.archive.library import Library
from tierproxy.archive.stores import open_store
from tierproxy.cli.lags import Lag, ask_lags
from tierproxy.clock import Clock
from tierproxy.cold.disk_room import free_and_used
from tierproxy.cold.disk_threads import DiskThreads
from tierproxy.config import Config
from tierproxy.coordinator import Coordinator
from tierproxy.errors import TierproxyError
from tierproxy.upstream import EARLIEST, LATEST, BrokerConnection, Cluster, ClusterView, TopicPartition

CLIENT_ID = "tierproxy-check"
DELETE_TIMEOUT_MS = 5_000
ARCHIVE_TIMEOUT = 30.0
DISK_TIMEOUT = 10.0
GROUP_TRIES, GROUP_PAUSE = 40, 0.25
"""A cluster whose first group is asked for needs some seconds until there is a coordinator."""
COORDINATOR_COMES = (
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR,
)

DESCRIBE, READ, DELETE, DESCRIBE_CONFIGS = "DESCRIBE", "READ", "DELETE", "DESCRIBE_CONFIGS"

Versions = Mapping[int, tuple[int, int]]


@dataclass
class Facts:
    """What was found. A str in place of an answer is the reason why there is none."""

    bootstrap: dict[str, str | None] = field(default_factory=dict)
    """Configured address → None, or why it can't be reached."""
    view: ClusterView | None = None
    brokers: dict[int, Versions | str] = field(default_factory=dict)
    """Each broker of the cluster, asked at the address that it advertises."""
    settings: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Of the topics that are to be archived, where the broker tells them."""
    rights: dict[str, dict[str, int]] = field(default_factory=dict)
    """Topic → right → the error code of the request that needed it (0: granted)."""
    lags: dict[str, list[Lag]] = field(default_factory=dict)
    """Of topics whose records the brokers delete by themselves: partitions of which something is archived."""
    group: tuple[str, int | str] | None = None
    """The archivers' group, and the error code of the request that needed READ on it; None: there is none to be in."""
    archives: dict[str, str | None] = field(default_factory=dict)
    """Archive → None, or what is wrong with it."""
    owners: dict[str, str] = field(default_factory=dict)
    """Archive → the id of the Kafka cluster whose archive it is, where something is in it already."""
    disk_cache: tuple[int, int] | str | None = None
    """Bytes free for the disk cache, and bytes in it; None: there is none."""


async def gather(config: Config, clock: Clock) -> Facts:
    """Ask everybody at the same time; nothing that is out of order raises."""
    facts = Facts()
    await asyncio.gather(
        _ask_cluster(config, clock, facts), _ask_archives(config, facts), _ask_disk_cache(config, facts)
    )
    return facts


async def _ask_disk_cache(config: Config, facts: Facts) -> None:
    about = config.cache.disk
    if about is None:
        return
    threads = DiskThreads(1, "check-disk-cache")
    try:
        facts.disk_cache = await threads.answer(partial(free_and_used, about.path), DISK_TIMEOUT)
    except TierproxyError as error:
        facts.disk_cache = str(error)
    except OSError as error:
        facts.disk_cache = f"can't be used: {error.strerror or error}"
    finally:
        threads.close()


async def _ask_archives(config: Config, facts: Facts) -> None:
    async def ask(name: str) -> None:
        try:
            store = open_store(config.archives[name])
            try:
                async with asyncio.timeout(ARCHIVE_TIMEOUT):
                    await store.check()
                    owner = await Library(store, config.cluster.name).owner()
                    if owner is not None:
                        facts.owners[name] = owner
            finally:
                await store.close()
        except TimeoutError:
            facts.archives[name] = f"no answer within {ARCHIVE_TIMEOUT:g} s"
        except TierproxyError as error:
            facts.archives[name] = str(error)
        else:
            facts.archives[name] = None

    await asyncio.gather(*(ask(name) for name in config.archives))


async def _ask_cluster(config: Config, clock: Clock, facts: Facts) -> None:
    access = service_access(config.cluster.security)

    async def ask_bootstrap(host: str, port: int, shown: str) -> None:
        connection = BrokerConnection(host, port, CLIENT_ID, access)
        try:
            await connection.connect()
        except TierproxyError as error:
            facts.bootstrap[shown] = str(error)
        finally:
            connection.close()

    facts.bootstrap = {str(address): None for address in config.cluster.bootstrap}  # in the file's order
    await asyncio.gather(*(ask_bootstrap(*address, str(address)) for address in config.cluster.bootstrap))
    if None not in facts.bootstrap.values():
        return
    cluster = Cluster(config.cluster.bootstrap, access, CLIENT_ID, clock)
    try:
        await cluster.start()
        facts.view = cluster.view
        await asyncio.gather(*(_ask_broker(cluster, node, facts) for node in cluster.view.brokers))
        await _ask_topics(config, cluster, facts)
        facts.lags = await ask_lags(config, cluster, facts.settings, clock.now_ms())
        await _ask_group(config, cluster, facts)
    except TierproxyError as error:
        facts.bootstrap["cluster"] = str(error)
    finally:
        await cluster.close()


async def _ask_broker(cluster: Cluster, node: int, facts: Facts) -> None:
    try:
        facts.brokers[node] = await cluster.api_versions(node)
    except TierproxyError as error:
        facts.brokers[node] = str(error)


async def _ask_group(config: Config, cluster: Cluster, facts: Facts) -> None:
    name = config.archiver_group
    if name is None or not config.archiver.enabled or not any(policy.archive for policy in config.topics):
        return
    coordinator = Coordinator(cluster, name)
    for _ in range(GROUP_TRIES):
        try:
            found = await coordinator.find()
            error = found.error or await coordinator.heartbeat(found.node_id, -1, "")
        except TierproxyError as trouble:
            facts.group = name, str(trouble)
            return
        facts.group = name, ErrorCode.NONE if error == ErrorCode.UNKNOWN_MEMBER_ID else error
        if error not in COORDINATOR_COMES:
            return
        await asyncio.sleep(GROUP_PAUSE)


async def _ask_topics(config: Config, cluster: Cluster, facts: Facts) -> None:
    """Rights and settings of the topics that are to be archived, by one partition each that has a leader."""
    tried: dict[TopicPartition, bool] = {}
    for topic in cluster.view.topics.values():
        policy = config.policy_for(topic.name, topic.internal)
        if policy is None or policy.archive is None:
            continue
        led = next((index for index, part in topic.partitions.items() if part.leader >= 0), None)
        if led is not None:
            tried[TopicPartition(topic.name, led)] = policy.trim == "delete-records"
            facts.rights[topic.name] = {}
    if not tried:
        return
    facts.settings.update(await cluster.topic_configs([tp.topic for tp in tried]))
    starts = await cluster.list_offsets(dict.fromkeys(tried, EARLIEST))
    ends = await cluster.list_offsets(dict.fromkeys(tried, LATEST))
    for tp in tried:
        rights = facts.rights[tp.topic]
        rights[DESCRIBE] = starts[tp].error or ends[tp].error
        told = tp.topic in facts.settings
        rights[DESCRIBE_CONFIGS] = ErrorCode.NONE if told else ErrorCode.TOPIC_AUTHORIZATION_FAILED
    await _try_read(cluster, {tp: ends[tp].offset for tp in tried if not ends[tp].error}, facts)
    trimmed = [tp for tp, trim in tried.items() if trim]
    if trimmed:
        deleted = await cluster.delete_records(dict.fromkeys(trimmed, 0), DELETE_TIMEOUT_MS)
        for tp, answer in deleted.items():
            facts.rights[tp.topic][DELETE] = _granted(answer.error)


async def _try_read(cluster: Cluster, ends: Mapping[TopicPartition, int], facts: Facts) -> None:
    by_leader: dict[int, list[FetchPartition]] = {}
    for tp, end in ends.items():
        topic = cluster.view.topics[tp.topic]
        part = topic.partitions[tp.partition]
        wanted = FetchPartition(tp.topic, topic.topic_id, tp.partition, part.leader_epoch, end, -1, 1)
        by_leader.setdefault(part.leader, []).append(wanted)

    async def fetch(node: int, partitions: list[FetchPartition]) -> None:
        try:
            answer = await cluster.fetch(node, partitions, max_wait_ms=0, max_bytes=1, min_bytes=0)
        except TierproxyError:
            for part in partitions:
                facts.rights[str(part.topic)][READ] = ErrorCode.NETWORK_EXCEPTION
            return
        errors = {part.topic: part.error for part in answer.partitions}
        for part in partitions:
            error = answer.error or errors.get(part.topic, ErrorCode.UNKNOWN_SERVER_ERROR)
            facts.rights[str(part.topic)][READ] = _granted(error)

    await asyncio.gather(*(fetch(node, partitions) for node, partitions in by_leader.items()))


def _granted(error: int) -> int:
    """Brokers look at rights first: to say that an offset is out of range is to grant them."""
    return ErrorCode.NONE if error == ErrorCode.OFFSET_OUT_OF_RANGE else error
