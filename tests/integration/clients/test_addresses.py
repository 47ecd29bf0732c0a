"""No broker's address ever reaches a client, whatever clients do and whatever happens to the brokers.

One story on three brokers (`hidden` says how they are hidden): producers, consumers of every library, a share group and
administrators work while leaders move, a broker stops and comes back, another one comes back at another port. All that
clients were told is recorded, and searched for every address that a broker ever told.
"""

import gc
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from protocol.apis import ApiKey
from protocol.endpoints import Endpoint, carries_endpoints, node_endpoints, read_endpoints
from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition
from protocol.fetch_response import parse_fetch_response
from tests.clients.client import At, Client
from tests.clients.hidden import HOSTS, OUTSIDE, Hidden, hidden
from tests.clients.java import TOOL_SECONDS, JavaClient, settings
from tests.clients.matrix import CLIENTS, Row
from tests.clients.raw import Raw
from tests.clients.tap import Recording, can_listen
from tests.clients.tools import TOOLS
from tests.clients.wire import Exchange, exchanges
from tests.clients.work import Crew, Work, crew
from tests.kit import admin
from tests.kit.processes import wait_for
from tests.kit.producing import Recorder, produce
from tests.kit.records import Log, assert_same, drafts, ends
from tests.unit.batch_maker import make_batch

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.platform != "linux" or not can_listen(OUTSIDE, *HOSTS.values()),
        reason="needs loopback addresses from 127.0.0.2 on and /proc, as Linux has them",
    ),
]

ARCHIVED, LIVE, LOOSE, SINGLE = "cold.addresses", "live.addresses", "loose.addresses", "single.addresses"
PARTITIONS = 3
SPEAKERS = (
    *(ApiKey.METADATA, ApiKey.FIND_COORDINATOR, ApiKey.DESCRIBE_CLUSTER),
    *(ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.SHARE_FETCH),
)
"""The APIs whose answers carry addresses. Those of ShareAcknowledge can too, but Kafka 4.3 won't be made to do it."""


@dataclass
class Story:
    """What was recorded, and what the producers of ARCHIVED were told: per producer (partition, offset, value)."""

    stage: Hidden
    taken: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    read: dict[str, Log] = field(default_factory=dict)
    large: bytes = b""


@pytest.fixture(scope="module")
def story(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    java: JavaClient,
    client_of: Callable[[Row], Client],
) -> Iterator[Story]:
    readers = _readers(client_of)
    with ExitStack() as stack:
        stage = stack.enter_context(hidden(tmp_path_factory.mktemp("hidden")))
        story = Story(stage)
        for topic, replicas in ((ARCHIVED, 3), (LIVE, 3), (LOOSE, 3), (SINGLE, 1)):
            admin.create_topic(
                stage.gateway, topic, PARTITIONS, replicas, internal_segment_bytes=65_536, retention_ms=-1
            )
        files = tmp_path_factory.mktemp("plans")
        with _forgetful_libraries(), crew(_works(story, java, readers)) as working:
            working.wait_all_work()
            for _ in range(3 if request.config.getoption("--all-clients") else 1):
                _trouble(stage, java, working, files)
        _strangers(story)
        # Readers wait for a record, and the last offset may be a transaction's marker.
        last = ends(
            produce(stage.gateway, ARCHIVED, (d for p in range(PARTITIONS) for d in drafts(1, partition=p, seed=9)))
        )
        for name, (client, at) in readers.items():
            story.read[name] = client.read(at(stage.gateway, ARCHIVED), last)
        yield story


@contextmanager
def _forgetful_libraries() -> Iterator[None]:
    """kafka-python and aiokafka leave a socket open when a client fails to start: not a fault of the tests'."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def _readers(client_of: Callable[[Row], Client]) -> dict[str, tuple[Client, Callable[[str, str], At]]]:
    """Every client that this machine has, with every group protocol."""
    found: dict[str, tuple[Client, Callable[[str, str], At]]] = {}
    for row in CLIENTS:
        for protocol in row.protocols:
            try:
                client = client_of(row)
            except pytest.skip.Exception:
                continue

            def at(bootstrap: str, topic: str, protocol: str = protocol) -> At:
                return At(bootstrap, topic, False, protocol)

            found[f"{row.name}-{protocol}"] = (client, at)
    return found


# -- what goes on all the time -----------------------------------------------------------------------------------------


def _works(story: Story, java: JavaClient, readers: dict[str, tuple[Client, Callable[[str, str], At]]]) -> list[Work]:
    gateway = story.stage.gateway
    numbers = count()

    def producing(topic: str, **more: str | int | bool) -> Callable[[], object]:
        config = dict(settings(bootstrap_servers=gateway, linger_ms=0, **more))

        def act() -> None:
            work = {"topic": topic, "config": config, "partitions": PARTITIONS}
            where = java.worker.begin("produce", **work, count=30, burst=3, pause=50).result(240)
            if topic == ARCHIVED:
                story.taken += [(p, offset, str(i).encode()) for i, (p, offset) in enumerate(where)]

        return act

    def recording() -> None:
        recorder = Recorder(gateway, ARCHIVED)
        for turn in range(10):
            recorder.send(d for p in range(PARTITIONS) for d in drafts(5, partition=p, seed=turn))
            recorder.flush()
        story.taken += [(r.partition, r.offset, r.value) for records in recorder.log.values() for r in records]

    def reading(names: Sequence[str]) -> None:
        for name in names:
            client, at = readers[name]
            client.group(at(gateway, ARCHIVED), f"addresses-{next(numbers)}", 20)

    def sharing() -> None:
        produce(gateway, LIVE, (d for p in range(PARTITIONS) for d in drafts(10, partition=p, seed=1)))
        group = f"sharing-{next(numbers)}"
        place = ("--alter", "--entity-type", "groups", "--entity-name", group, "--bootstrap-server", gateway)
        java.tool(TOOLS["kafka-configs"].main, *place, "--add-config", "share.auto.offset.reset=earliest")
        config = dict(settings(bootstrap_servers=gateway, group_id=group))
        java.worker.call("share", topic=LIVE, config=config, count=20)

    def looking() -> None:
        place = ("--bootstrap-server", gateway)
        java.tool(TOOLS["kafka-broker-api-versions"].main, *place)
        java.tool(TOOLS["kafka-topics"].main, "--describe", *place)
        java.tool(TOOLS["kafka-groups"].main, "--list", *place)
        java.tool(TOOLS["kafka-get-offsets"].main, "--time", "earliest", *place)

    half = len(readers) // 2
    return [
        Work("idempotent", producing(ARCHIVED, enable_idempotence=True)),
        Work("transactional", producing(ARCHIVED, transactional_id="addresses")),
        Work("acks=0", producing(LOOSE, acks="0", enable_idempotence=False)),
        Work("librdkafka", recording),
        Work("readers", partial(reading, list(readers)[:half])),
        Work("more readers", partial(reading, list(readers)[half:])),
        Work("share group", sharing),
        Work("tools", looking),
    ]


# -- what happens ------------------------------------------------------------------------------------------------------


def _trouble(stage: Hidden, java: JavaClient, working: Crew, files: Path) -> None:
    _move_leaders(stage, java, files)
    working.wait_all_work()

    two = stage.cluster.nodes[1]
    two.stop()
    wait_for(lambda: two.id not in _leaders(stage).values(), seconds=120, what="other leaders", pause=0.2)
    two.restart()
    wait_for(lambda: two.id in _elected(stage, java).values(), seconds=120, what="the old leader", pause=0.2)
    working.wait_all_work()

    three = stage.cluster.nodes[2]
    three.stop()
    stage.move(three)
    wait_for(lambda: three.id in _elected(stage, java).values(), seconds=120, what="the moved leader", pause=0.2)
    working.wait_all_work()


def _leaders(stage: Hidden, topic: str = LIVE) -> dict[int, int]:
    """By a client's view."""
    described = AdminClient({"bootstrap.servers": stage.gateway, "log_level": 2}).list_topics(topic, timeout=90)
    return {p: about.leader for p, about in described.topics[topic].partitions.items()}


def _elected(stage: Hidden, java: JavaClient) -> dict[int, int]:
    """The leaders after each partition that can have it has got its preferred one."""
    place = ("--bootstrap-server", stage.gateway)
    everywhere = ("--election-type", "preferred", "--all-topic-partitions")
    election = TOOLS["kafka-leader-election"].main
    java.worker.call("tool", seconds=TOOL_SECONDS, main=election, arguments=[*place, *everywhere])
    return _leaders(stage)


def _move_leaders(stage: Hidden, java: JavaClient, files: Path) -> None:
    """Every leader to the next broker, by giving its partition's replicas another order."""
    before = _leaders(stage)
    plan = files / "plan.json"
    moved = {p: leader % 3 + 1 for p, leader in before.items()}
    partitions = [
        {"topic": topic, "partition": p, "replicas": [leader, leader % 3 + 1, (leader + 1) % 3 + 1]}
        for topic in (ARCHIVED, LIVE, LOOSE)
        for p, leader in moved.items()
    ]
    plan.write_text(json.dumps({"version": 1, "partitions": partitions}))
    place = ("--bootstrap-server", stage.gateway, "--reassignment-json-file", str(plan))
    java.tool(TOOLS["kafka-reassign-partitions"].main, *place, "--execute")
    wait_for(lambda: _elected(stage, java) == moved, seconds=120, what="the new leaders", pause=0.2)


def _strangers(story: Story) -> None:
    """Asks brokers about partitions that others have: each API that then names the leader's address (KIP-951)."""
    stage = story.stage
    produce(stage.gateway, SINGLE, (d for p in range(PARTITIONS) for d in drafts(50, partition=p, seed=1)))
    leaders = _leaders(stage, SINGLE)
    mine, other = 0, next(p for p, leader in leaders.items() if leader != leaders[0])
    topic_id = _topic_id(stage, SINGLE)
    with Raw(stage.gate_of(leaders[mine])) as connection:
        connection.produce(SINGLE, other, make_batch(0))

        def asked(*partitions: int) -> list[FetchPartition]:
            return [FetchPartition(None, topic_id, p, -1, 0, -1, 4 << 20) for p in partitions]

        small = connection.fetch(17, asked(other))
        assert small.partitions[0].error == ErrorCode.NOT_LEADER_OR_FOLLOWER
        large = connection.fetch(17, asked(mine, other))
        assert len(large.partitions[0].records or b"") > 10_000, "small answers are treated otherwise"
        story.large = large.tags
        connection.share_fetch("strangers", 0, topic_id, [mine, other])


def _topic_id(stage: Hidden, topic: str) -> bytes:
    asking = AdminClient({"bootstrap.servers": stage.gateway, "log_level": 2})
    about = asking.describe_topics(TopicCollection([topic]), request_timeout=90)[topic].result(90)
    halves = (about.topic_id.get_most_significant_bits(), about.topic_id.get_least_significant_bits())
    return b"".join(half.to_bytes(8, "big", signed=True) for half in halves)


# -- what must hold ----------------------------------------------------------------------------------------------------


def _patterns(addresses: set[tuple[str, int]]) -> re.Pattern[bytes]:
    """An address as text, or as a string and the number behind it; the brokers' hosts even alone."""
    forms = [re.escape(host.encode()) for host in HOSTS.values()]
    for host, port in addresses:
        forms += [re.escape(f"{host}:{port}".encode()), re.escape(host.encode() + port.to_bytes(4, "big"))]
    return re.compile(b"|".join(forms))


def _found(recordings: list[Recording], pattern: re.Pattern[bytes]) -> dict[ApiKey, int]:
    """How many answers hold one, by API."""
    found: dict[ApiKey, int] = {}
    for recording in recordings:
        for exchange in exchanges(recording):
            if exchange.answer is not None and pattern.search(exchange.answer):
                found[exchange.key] = found.get(exchange.key, 0) + 1
    return found


def test_clients_were_never_told_a_brokers_address(story: Story) -> None:
    pattern = _patterns(story.stage.told)
    for recording in story.stage.outer.recordings:
        hit = pattern.search(recording.down)
        if hit is not None:
            around = bytes(recording.down[max(0, hit.start() - 200) : hit.end() + 20])
            raise AssertionError(f"{hit[0]!r} was told to a client, in {_found([recording], pattern)}: {around!r}")


def test_the_brokers_did_tell_them(story: Story) -> None:
    """In each API that can: else there was nothing to hide."""
    assert len(story.stage.told) == 10, "one of the brokers has had two ports"
    inside = _found(story.stage.recorded_inside(), _patterns(story.stage.told))
    assert set(SPEAKERS) <= set(inside), inside


def test_clients_were_told_the_proxys_addresses(story: Story) -> None:
    stage = story.stage
    advertised = {Endpoint(n, OUTSIDE, stage.proxy.port + 1 + n) for n in HOSTS}
    told: dict[ApiKey, set[Endpoint]] = {}
    for recording in stage.outer.recordings:
        for exchange in exchanges(recording):
            if exchange.answer is not None:
                told.setdefault(exchange.key, set()).update(_endpoints(exchange))
    assert {key for key, endpoints in told.items() if endpoints} - {ApiKey.SHARE_ACKNOWLEDGE} == set(SPEAKERS)
    assert ApiKey.SHARE_ACKNOWLEDGE in told
    assert set().union(*told.values()) == advertised


def _endpoints(exchange: Exchange) -> list[Endpoint]:
    assert exchange.answer is not None
    version = exchange.header.version
    if exchange.key is ApiKey.FETCH:
        return node_endpoints(parse_fetch_response(exchange.answer, version).tags) if version >= 16 else []
    if not carries_endpoints(exchange.key, version):
        return []
    return read_endpoints(exchange.key, version, exchange.answer)


def test_a_large_answer_names_nobody(story: Story) -> None:
    """It streams, and its length is sent before the brokers' addresses are seen: they are made a tag nobody knows."""
    assert re.fullmatch(rb"\x01\x7f[\x01-\x7f]\0+", story.large), story.large


def test_nobody_but_the_proxy_came_to_a_broker(story: Story) -> None:
    assert story.stage.intruders == []
    assert len(story.stage.recorded_inside()) > 100, "the taps have seen who came"


def test_nothing_was_lost_on_the_way(story: Story) -> None:
    """Every client reads the same, and everything of which a producer was told that it is there."""
    first, *others = story.read
    for other in others:
        assert_same(story.read[first], story.read[other])
    there = {(r.partition, r.offset): r.value for records in story.read[first].values() for r in records}
    assert len(story.taken) > 500
    missing = [each for each in story.taken if there.get(each[:2]) != each[2]]
    assert missing == []
