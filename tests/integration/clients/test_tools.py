"""Kafka's own command-line tools through the proxy: they show one log, from the archive's start to the live end.

The `shop` has one topic whose older half the broker no longer has; tests that change a topic make their own.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer

from protocol.errors import ErrorCode
from tests.clients.client import CLASSIC, NEXT, At
from tests.clients.java import JavaClient, settings
from tests.clients.libraries import KafkaPython, Librdkafka
from tests.clients.raw import fetch_one
from tests.clients.tools import TOOLS
from tests.clients.worker import to_record
from tests.integration.clients.conftest import TappedStage
from tests.kit import admin
from tests.kit.console import CONSOLE_CONSUMER, read_as_group
from tests.kit.kafka import run_tool
from tests.kit.processes import wait_for
from tests.kit.producing import merged, produce
from tests.kit.records import Log, assert_same, drafts, ends, first_at, since

GROUPS = "kafka-consumer-groups"

pytestmark = pytest.mark.timeout(600)  # the first run compiles the Java program


@dataclass
class Shop:
    """A topic with a seam, and the tools to look at it with. `cold` is where the broker's log begins."""

    stage: TappedStage
    java: JavaClient
    topic: str
    log: Log
    cold: dict[int, int]

    @property
    def node(self) -> str:
        """Where the only broker is to be found."""
        host, port = self.stage.gateway.split(":")
        return self.stage.broker if self.stage.proxy is None else f"{host}:{int(port) + 1 + 1}"

    def tool(self, name: str, *arguments: str, at: str | None = None) -> str:
        """What it prints. `AT` is where it wants to read which servers to ask, if not at the end."""
        place = ("--bootstrap-server", at or self.stage.gateway)
        where = arguments.index("AT") if "AT" in arguments else len(arguments)
        return self.java.tool(TOOLS[name].main, *arguments[:where], *place, *arguments[where + 1 :])

    def offsets(self, time: str, topic: str | None = None) -> dict[int, int]:
        """What kafka-get-offsets prints for `--time`."""
        printed = self.tool("kafka-get-offsets", "--topic", topic or self.topic, "--time", time)
        return {int(p): int(o) for _, p, o in (line.rsplit(":", 2) for line in printed.split())}

    def local_earliest_is_the_brokers(self) -> bool:
        """Whether the tool prints the broker's log starts; trimming may still move them while it runs."""
        start = admin.earliest(self.stage.broker, self.topic, 2)
        return self.offsets("earliest-local") == start

    def group_offsets(self, group: str) -> dict[int, tuple[int, int, int]]:
        """What kafka-consumer-groups --describe prints: current offset, log end, lag."""
        rows = _table(self.tool(GROUPS, "--group", group, "--describe"))
        columns = ("CURRENT-OFFSET", "LOG-END-OFFSET", "LAG")
        return {int(row["PARTITION"]): tuple(int(row[name]) for name in columns) for row in rows}  # type: ignore[misc] # three


def _table(printed: str) -> list[dict[str, str]]:
    """Rows of a table whose cells have no blanks, under their headings."""
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    at = next(i for i, words in enumerate(lines) if "PARTITION" in words or "NEW-OFFSET" in words)
    return [dict(zip(lines[at], row, strict=False)) for row in lines[at + 1 :]]


@pytest.fixture(scope="module")
def shop(front: TappedStage, java: JavaClient) -> Shop:
    """In partition 1 the record with the highest time is an early one."""
    topic = front.topic("matrix.seam.tools", partitions=2)
    early = next(drafts(1, partition=1, seed=1, start_ms=1_400_000_000_000))
    log = merged(
        produce(front.broker, topic, drafts(2000, partition=0, seed=31)),
        produce(front.broker, topic, drafts(50, partition=1, seed=32)),
        produce(front.broker, topic, [replace(early, key=b"early")]),
        produce(front.broker, topic, drafts(2000, partition=1, seed=33)),
    )
    cold = front.wait_trimmed(topic, log)
    return Shop(front, java, topic, log, cold)


# -- kafka-get-offsets -------------------------------------------------------------------------------------------------


def test_get_offsets_of_each_kind(shop: Shop) -> None:
    end = {p: last + 1 for p, last in ends(shop.log).items()}
    assert shop.offsets("earliest") == {0: 0, 1: 0}
    assert shop.offsets("latest") == end
    newest = {p: min(records, key=lambda r: (-r.timestamp, r.offset)).offset for p, records in shop.log.items()}
    assert newest[1] == 50 < shop.cold.get(1, 0) or shop.stage.proxy is None
    assert shop.offsets("max-timestamp") == newest
    # Questions about the broker's own disk, and about Kafka's tiered storage, are the broker's to answer.
    wait_for(shop.local_earliest_is_the_brokers, seconds=60, what="earliest-local to be what the broker says")
    for time in ("latest-tiered", "earliest-pending-upload"):
        assert shop.tool("kafka-get-offsets", "--topic", shop.topic, "--time", time).split() == []


def test_get_offsets_of_chosen_partitions(shop: Shop) -> None:
    """However they are chosen, "earliest" is the archive's start."""
    whole, second = {f"{shop.topic}:{p}:0" for p in (0, 1)}, {f"{shop.topic}:1:0"}

    def printed(*chosen: str) -> set[str]:
        return set(shop.tool("kafka-get-offsets", "--time", "earliest", *chosen).split())

    assert printed("--topic", shop.topic, "--partitions", "1") == second
    assert printed("--topic-partitions", f"{shop.topic}:1-,no.such.topic") == second
    assert printed("--topic", f"{shop.topic[:-1]}.") == whole
    everything = printed("--exclude-internal-topics")
    assert whole <= everything
    assert not [line for line in everything if line.startswith("__")]


@pytest.mark.parametrize("share", [0.1, 0.9], ids=["cold", "hot"])
def test_get_offsets_by_time(shop: Shop, share: float) -> None:
    time = shop.log[0][int(len(shop.log[0]) * share)].timestamp
    wanted = {p: first_at(records, time) for p, records in shop.log.items()}
    assert shop.offsets(str(time)) == {p: record.offset for p, record in wanted.items() if record is not None}


# -- kafka-consumer-groups ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def group(shop: Shop) -> str:
    """A group that stopped in the cold part of both partitions."""
    name = "tools"
    shop.tool(GROUPS, *("--group", name, "--topic", shop.topic, "--reset-offsets", "--to-offset", "100", "--execute"))
    return name


def test_describe_shows_the_lag_over_both_tiers(shop: Shop, group: str) -> None:
    reset = ("--reset-offsets", "--to-offset", "123", "--execute")
    shop.tool(GROUPS, *("--group", group, "--topic", shop.topic, *reset))
    end = {p: last + 1 for p, last in ends(shop.log).items()}
    assert shop.group_offsets(group) == {p: (123, end[p], end[p] - 123) for p in end}


def _utc(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


RESETS: dict[str, Callable[[Shop], tuple[list[str], dict[int, int]]]] = {
    "to-earliest": lambda shop: ([], {0: 0, 1: 0}),
    "to-latest": lambda shop: ([], {p: last + 1 for p, last in ends(shop.log).items()}),
    "to-offset": lambda shop: (["77"], {0: 77, 1: 77}),
    "shift-by": lambda shop: (["-60"], {0: 40, 1: 40}),
    "to-datetime": lambda shop: (
        [_utc(shop.log[0][200].timestamp)],
        {
            p: found.offset
            for p, records in shop.log.items()
            if (found := first_at(records, shop.log[0][200].timestamp))
        },
    ),
    "to-current": lambda shop: ([], {0: 100, 1: 100}),
}


@pytest.mark.parametrize("how", RESETS)
def test_reset_offsets(shop: Shop, group: str, how: str) -> None:
    """Planned, carried out, and read on from."""
    words, wanted = RESETS[how](shop)
    place = ("--group", group, "--topic", shop.topic, "--reset-offsets")
    shop.tool(GROUPS, *place, "--to-offset", "100", "--execute")
    planned = _table(shop.tool(GROUPS, *place, f"--{how}", *words, "--dry-run"))
    assert {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in planned} == wanted
    shop.tool(GROUPS, *place, f"--{how}", *words, "--execute")
    assert {p: offset for p, (offset, *_) in shop.group_offsets(group).items()} == wanted
    if how == "to-datetime":
        rest = since(shop.log, wanted)
        records = Librdkafka().group(At(shop.stage.gateway, shop.topic), group, sum(map(len, rest.values())))
        assert_same(rest, {p: [r for r in records if r.partition == p] for p in rest})


# -- producing and consuming tools -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [CLASSIC, NEXT])
def test_console_consumer(shop: Shop, protocol: str) -> None:
    """`kafka-console-consumer` as a group's member stops in the cold part and resumes."""
    assert TOOLS["kafka-console-consumer"].main == CONSOLE_CONSUMER
    group = f"console-{protocol}"
    first = read_as_group(shop.stage.gateway, shop.topic, group, 100, protocol=protocol)
    rest = read_as_group(
        shop.stage.gateway, shop.topic, group, sum(map(len, shop.log.values())) - 100, protocol=protocol
    )
    assert_same(shop.log, {p: [r for r in first + rest if r.partition == p] for p in shop.log})


@pytest.mark.parametrize("protocol", [CLASSIC, NEXT])
def test_verifiable_producer_and_consumer(shop: Shop, protocol: str) -> None:
    topic = shop.stage.topic(f"matrix.cold.verifiable-{protocol}")
    count = 500
    # These two end Java as they end, so each has one of its own.
    place = ("--bootstrap-server", shop.stage.gateway, "--topic", topic, "--max-messages", str(count))
    produced = run_tool(TOOLS["kafka-verifiable-producer"].main, *place, "--acks", "-1")
    assert f'"sent":{count},"acked":{count}' in produced.replace(" ", "")
    if shop.stage.proxy is not None:
        admin.wait_trimmed(shop.stage.broker, topic, {0: count})
    group = ("--group-id", f"verifiable-{protocol}", "--group-protocol", protocol, "--reset-policy", "earliest")
    consumed = run_tool(TOOLS["kafka-verifiable-consumer"].main, *place, *group)
    ranges = re.findall(r'"minOffset":(\d+),"maxOffset":(\d+)', consumed.replace(" ", ""))
    assert sum(int(last) - int(first) + 1 for first, last in ranges) == count
    assert (ranges[0][0], ranges[-1][1]) == ("0", str(count - 1))


def test_performance_tools(shop: Shop) -> None:
    number = sum(map(len, shop.log.values()))
    printed = shop.tool(
        "kafka-consumer-perf-test", "--topic", shop.topic, "--num-records", str(number), "--hide-header"
    )
    assert int(printed.split(",")[4]) >= number


# -- kafka-delete-records ----------------------------------------------------------------------------------------------


def _delete(shop: Shop, topic: str, offset: int, tmp: str) -> None:
    with open(tmp, "w") as file:
        json.dump({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": offset}]}, file)
    printed = shop.tool("kafka-delete-records", "--offset-json-file", tmp)
    assert "error" not in printed.lower(), printed


@pytest.fixture
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("delete") / "offsets.json")


def test_delete_records_in_the_cold_part_and_then_in_the_hot_part(shop: Shop, file: str) -> None:
    """The archive's start follows, wherever a client learns it: by ListOffsets, in fetches, by a reset."""
    topic = shop.stage.topic("matrix.seam.deleted")
    log = produce(shop.stage.broker, topic, drafts(2000, partition=0, seed=34))
    cold = shop.stage.wait_trimmed(topic, log)[0]
    at = At(shop.stage.gateway, topic)
    _read_fully(shop, at, log)  # the archived records are in memory now, and must not be served from there
    for start in (cold // 2, (cold + len(log[0])) // 2):
        _delete(shop, topic, start, file)
        assert shop.offsets("earliest", topic) == {0: start}
        left = since(log, {0: start})
        _read_fully(shop, at, left)
        # One who asks for a deleted record is sent to the new start.
        for client in (Librdkafka(), KafkaPython(), shop.java):
            group = f"deleted-{start}-{type(client).__name__}"
            place = ("--group", group, "--topic", topic, "--reset-offsets", "--to-offset")
            shop.tool(GROUPS, *place, str(start), "--execute")
            assert client.group(at, group, 1)[0].offset == start
        assert fetch_one(shop.node, topic, 0, start).log_start == start
        fetch_one(shop.node, topic, 0, start - 1)  # "no error, no records": it may be there; the next one knows
        assert fetch_one(shop.node, topic, 0, start - 1).error == ErrorCode.OFFSET_OUT_OF_RANGE


def test_delete_everything(shop: Shop, file: str) -> None:
    topic = shop.stage.topic("matrix.cold.emptied")
    log = produce(shop.stage.broker, topic, drafts(300, partition=0, seed=35))
    if shop.stage.proxy is not None:
        admin.wait_trimmed(shop.stage.broker, topic, {0: 300})
    _delete(shop, topic, -1, file)
    end = ends(log)[0] + 1
    assert shop.offsets("earliest", topic) == shop.offsets("latest", topic) == {0: end}
    more = produce(shop.stage.gateway, topic, drafts(50, partition=0, seed=36))
    _read_fully(shop, At(shop.stage.gateway, topic), more)


def _read_fully(shop: Shop, at: At, log: Log) -> None:
    for client in (Librdkafka(), KafkaPython(), shop.java):
        assert_same(log, client.read(at, ends(log)))


# -- kafka-transactions ------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(shop: Shop) -> tuple[str, Producer, Log]:
    """A topic with a transaction that nobody ends."""
    topic = shop.stage.topic("matrix.cold.hanging")
    log = produce(shop.stage.broker, topic, drafts(100, partition=0, seed=37))
    producer = Producer(
        {"bootstrap.servers": shop.stage.gateway, "transactional.id": "hanging", "log_level": 2, "linger.ms": 0}
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, b"never", partition=0)
    producer.flush(60)
    return topic, producer, log


def test_transactions(shop: Shop, hanging: tuple[str, Producer, Log]) -> None:
    topic, _, log = hanging
    assert re.search(r"^hanging\s.*Ongoing", shop.tool("kafka-transactions", "AT", "list"), re.MULTILINE)
    described = shop.tool("kafka-transactions", "AT", "describe", "--transactional-id", "hanging")
    assert f"{topic}-0" in described
    place = ("--topic", topic, "--partition", "0")
    assert str(ends(log)[0] + 1) in shop.tool("kafka-transactions", "AT", "describe-producers", *place)
    after = produce(shop.stage.gateway, topic, drafts(10, partition=0, seed=38))
    shop.tool("kafka-transactions", "AT", "abort", *place, "--start-offset", str(ends(log)[0] + 1))
    whole = merged(log, after)
    for client in (Librdkafka(), KafkaPython(), shop.java):
        assert_same(whole, client.read(At(shop.stage.gateway, topic, committed=True), ends(whole)))


# -- share groups ------------------------------------------------------------------------------------------------------


def test_a_share_group_reads_what_the_broker_has(shop: Shop) -> None:
    """Kafka hands out and locks those records itself, so the archive has no part in it."""
    topic = shop.stage.topic("matrix.kept.shared")
    group = "sharing"
    config = settings(bootstrap_servers=shop.stage.gateway, group_id=group, share_acknowledgement_mode="implicit")
    earliest = ("--alter", "--entity-type", "groups", "--entity-name", group)
    shop.tool("kafka-configs", *earliest, "--add-config", "share.auto.offset.reset=earliest")
    sharing = shop.java.worker.begin("share", topic=topic, config=dict(config), count=100)
    log = produce(shop.stage.gateway, topic, drafts(100, partition=0, seed=41))
    assert_same(log, {0: [to_record(line) for line in sharing.result(60)]})
    assert group in shop.tool("kafka-share-groups", "--list").split()
    assert topic in shop.tool("kafka-share-groups", "--describe", "--group", group)


# -- kafka-topics ------------------------------------------------------------------------------------------------------


def test_a_topic_is_created_grown_deleted_and_created_again(shop: Shop) -> None:
    """All through the proxy. The namesake's archive is never shown."""
    topic = "matrix.cold.through-tools"
    small = ("--config", "internal.segment.bytes=65536", "--config", "retention.ms=-1")
    create = ("--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1", *small)
    at = At(shop.stage.gateway, topic)
    shop.tool("kafka-topics", *create)
    log = produce(shop.stage.gateway, topic, drafts(200, partition=0, seed=39))
    shop.tool("kafka-topics", "--alter", "--topic", topic, "--partitions", "2")
    grown = wait_for(
        lambda: merged(log, produce(shop.stage.gateway, topic, drafts(200, partition=1, seed=39))),
        seconds=90,
        what="the new partition",
    )
    if shop.stage.proxy is not None:
        admin.wait_trimmed(shop.stage.broker, topic, {0: 200, 1: 200})
    _read_fully(shop, at, grown)
    described = shop.tool("kafka-topics", "--describe", "--topic", topic)
    assert "PartitionCount: 2" in described
    old_id = re.search(r"TopicId: (\S+)", described)
    assert old_id is not None

    shop.tool("kafka-topics", "--delete", "--topic", topic)
    wait_for(lambda: topic not in shop.tool("kafka-topics", "--list").split(), seconds=90, what="end of the topic")
    shop.tool("kafka-topics", *create)
    assert old_id[1] not in shop.tool("kafka-topics", "--describe", "--topic", topic)
    wait_for(lambda: shop.offsets("latest", topic) == {0: 0}, seconds=90, what="the new topic's leader")
    assert shop.offsets("earliest", topic) == {0: 0}
    assert shop.offsets("max-timestamp", topic) in ({}, {0: -1})
    new = produce(shop.stage.gateway, topic, drafts(150, partition=0, seed=40))
    _read_fully(shop, at, new)
    if shop.stage.proxy is not None:
        admin.wait_trimmed(shop.stage.broker, topic, {0: 150})
    _read_fully(shop, at, new)
    assert shop.offsets("earliest", topic) == {0: 0}


# -- what only passes --------------------------------------------------------------------------------------------------

SAME: dict[str, list[str]] = {
    "kafka-topics": ["--describe"],
    "kafka-configs": ["--describe", "--entity-type", "topics", "--entity-name", "matrix.seam.tools", "--all"],
    "kafka-groups": ["--list"],
    "kafka-cluster": ["cluster-id"],
    "kafka-features": ["AT", "describe"],
    "kafka-metadata-quorum": ["AT", "describe", "--status"],
    "kafka-log-dirs": ["--describe", "--topic-list", "matrix.seam.tools"],
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_through_the_proxy_as_from_the_broker(shop: Shop, name: str) -> None:
    through, direct = (shop.tool(name, *SAME[name], at=at) for at in (shop.stage.gateway, shop.stage.broker))
    moves = r"^.*(HighWatermark|Lag|Timestamp|FinalizedVersionLevel).*$"  # from one moment to the next
    assert re.sub(moves, "", through, flags=re.MULTILINE) == re.sub(moves, "", direct, flags=re.MULTILINE)
    assert through.strip()


def test_broker_api_versions(shop: Shop) -> None:
    """Only what the proxy looks into is capped, and only keys that nobody knows are hidden."""
    through, direct = (shop.tool("kafka-broker-api-versions", at=at) for at in (shop.stage.gateway, shop.stage.broker))
    apis, kafkas = (dict(re.findall(r"^\t(\w+\(\d+\)): (.*?),?$", text, re.MULTILINE)) for text in (through, direct))
    different = {name: (apis.get(name), was) for name, was in kafkas.items() if apis.get(name) != was}
    assert set(kafkas) == set(apis)
    assert all("SaslHandshake" in name for name in different), different
    if shop.stage.tap is not None:
        assert through.startswith(shop.stage.gateway.split(":")[0])
