"""The archivers' group in this process, at real coordinators: of an old Kafka and a new one, by the lowest versions of
each request and the highest, and when the coordinator dies.

What archivers make of it is shown by test_archivers.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from protocol import codec
from protocol.group_codec import GROUP_VERSIONS
from tests.kit import jars
from tests.kit.kafka import Cluster as Kafka
from tierproxy.access import Access
from tierproxy.clock import SystemClock
from tierproxy.cluster_view import TopicPartition
from tierproxy.coordinator import Coordinator
from tierproxy.tasks import Tasks
from tierproxy.telemetry import OncePerChange
from tierproxy.tiering.group import ArchiverGroup
from tierproxy.upstream import Cluster

pytestmark = pytest.mark.timeout(300)

SESSION = 6.0
TOPICS = {"a": range(5), "b": range(2), "not wanted": range(9)}
ALL = [TopicPartition(topic, index) for topic in ("a", "b") for index in TOPICS[topic]]


class Member:
    """One archiver's membership. The topics need not exist: that is nobody's business but the archivers'."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        coordinator = Coordinator(cluster, group, "kit", round(SESSION * 1000), 20_000)
        troubles = OncePerChange(logging.getLogger("tierproxy.archiver"))
        self.group = ArchiverGroup(coordinator, SESSION, SystemClock(), troubles, lambda: None)
        self.want(TOPICS)

    def want(self, partitions: dict[str, range]) -> None:
        self.group.want(partitions.keys() - {"not wanted"}, partitions)

    def share(self, of: Iterable[TopicPartition] = ALL) -> set[TopicPartition]:
        return {tp for tp in of if self.group.mine(tp)}


Join = Callable[..., contextlib.AbstractAsyncContextManager[Member]]


@asynccontextmanager
async def joining(kafka: Kafka) -> AsyncIterator[Join]:
    """`async with join() as member`; all are in one group."""
    tasks, name, opened = Tasks(), f"group-{uuid4()}", list[Cluster]()

    @asynccontextmanager
    async def join() -> AsyncIterator[Member]:
        addresses = [(host, int(port)) for host, port in (each.split(":") for each in kafka.bootstrap.split(","))]
        cluster = Cluster(addresses, Access(), "tierproxy-test", SystemClock())
        opened.append(cluster)
        await cluster.start()
        member = Member(cluster, name)
        task = tasks.spawn(member.group.run(), "member")
        try:
            yield member
        finally:
            task.cancel()
            await asyncio.wait([task])

    try:
        yield join
    finally:
        await tasks.close()
        for cluster in opened:
            await cluster.close()


async def eventually(probe: Callable[[], bool], what: str, seconds: float = 90) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not probe():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"no {what} within {seconds:g} s")


def shared(*members: Member, of: Iterable[TopicPartition] = ALL) -> bool:
    """Whether each partition is one member's, and all have about the same."""
    partitions = list(of)
    shares = [member.share(partitions) for member in members]
    sizes = [len(share) for share in shares]
    return set().union(*shares) == set(partitions) and sum(sizes) == len(partitions) and max(sizes) - min(sizes) <= 1


@pytest.fixture(params=["lowest", "highest"])
def versions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "lowest":
        for key, (first, _) in GROUP_VERSIONS.items():
            monkeypatch.setitem(codec.CODEC_VERSIONS, key, (first, first))


@pytest.fixture(scope="module", params=[jars.KAFKA_3_9, jars.KAFKA_VERSION])
def coordinators(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka"), version=request.param) as cluster:
        yield cluster


@pytest.mark.usefixtures("versions")
async def test_members_come_and_go(coordinators: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tierproxy.archiver"):
        async with joining(coordinators) as join, join() as one:
            await eventually(lambda: shared(one), "share of the first")
            async with join() as two:
                await eventually(lambda: shared(one, two), "shares of two")
                kept = one.share() | two.share()
                async with join() as three:
                    await eventually(lambda: shared(one, two, three), "shares of three")
                await eventually(lambda: shared(one, two), "shares of two again")
                assert kept == set(ALL)
            await eventually(lambda: shared(one), "all for the one that is left")
    assert "7 partitions are ours, 7 of them new, and 0 went to others; we lead the group" in caplog.text
    assert "WARNING" not in caplog.text


async def test_topics_come_and_go(coordinators: Kafka) -> None:
    """Whoever notices first: one that leads shares out what is new, one that doesn't says that it wants more."""
    more = {**TOPICS, "a": range(8), "c": range(3)}
    new = [TopicPartition(topic, index) for topic in ("a", "b", "c") for index in more[topic]]
    async with joining(coordinators) as join, join() as one, join() as two:
        await eventually(lambda: shared(one, two), "shares")
        for first, second in ((one, two), (two, one)):
            first.want(more)
            await asyncio.sleep(0)
            second.want(more)
            await eventually(lambda: shared(one, two, of=new), "shares of what is new")
            first.want(TOPICS)
            second.want(TOPICS)
            await eventually(lambda: shared(one, two) and not one.share(new[-3:]), "shares without what is gone")


async def test_a_topic_goes_to_who_wants_it(coordinators: Kafka) -> None:
    """As while a changed configuration is brought to one archiver after the other."""
    async with joining(coordinators) as join, join() as one, join() as two:
        one.group.want(["a"], TOPICS)
        await eventually(lambda: two.share() >= {TopicPartition("b", 0), TopicPartition("b", 1)}, "share of topic b")
        await eventually(lambda: one.share() | two.share() == set(ALL), "whole")
        assert not one.share() & two.share()
        assert len(one.share()) in (3, 4)


async def test_the_coordinator_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing changes but where heartbeats go; and the next one to leave is noticed by the new coordinator."""
    with Kafka(tmp_path / "kafka", nodes=3) as kafka:
        async with joining(kafka) as join, join() as one:
            async with join() as two:
                await eventually(lambda: shared(one, two), "shares")
                shares = one.share(), two.share()
                node = one.group._membership.node_id
                kafka.nodes[node - 1].kill()
                await eventually(lambda: one.group._membership.node_id != node, "another coordinator")
                assert (one.share(), two.share()) == shares
            await eventually(lambda: shared(one), "all for the one that is left")
