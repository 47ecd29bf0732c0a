"""Every client library reads what was produced, to the byte: cold, hot and across the seam.

Two topics: one with transactions, committed and aborted, for both isolation levels; one with the codecs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from protocol.apis import ApiKey
from tests.clients.client import At, Client
from tests.clients.matrix import CLIENTS, OLDER, Row
from tests.clients.wire import versions
from tests.integration.clients.conftest import TappedStage
from tests.kit import admin
from tests.kit.producing import CODECS, Recorder, merged, produce
from tests.kit.records import Log, Record, assert_same, count, drafts, ends, first_at, since

pytestmark = pytest.mark.timeout(600)  # the first run brings and builds clients

PLAIN = 2
LEVELS = {"uncommitted": False, "committed": True}


@dataclass
class Told:
    """What was produced to a topic. Per partition `cold` is where the broker's log begins, and `end` where it ends."""

    topic: str
    committed: Log
    everything: Log
    cold: dict[int, int]
    end: dict[int, int]

    def seen(self, committed: bool) -> Log:
        return self.committed if committed else self.everything


@dataclass
class Case:
    """One client with one group protocol on the stage."""

    row: Row
    client: Client
    protocol: str
    stage: TappedStage

    def at(self, topic: str, committed: bool = False) -> At:
        return At(self.stage.gateway, topic, committed, self.protocol)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a `case` runs for each client and each group protocol that it has."""
    if "case" in metafunc.fixturenames:
        rows = CLIENTS + (OLDER if metafunc.config.getoption("--all-clients") else [])
        pairs = [(row, protocol) for row in rows for protocol in row.protocols]
        names = [
            "-".join([row.name, *([row.version] if row in OLDER else []), *([p] if len(row.protocols) > 1 else [])])
            for row, p in pairs
        ]
        metafunc.parametrize("case", pairs, ids=names, indirect=True)


@pytest.fixture
def case(request: pytest.FixtureRequest, front: TappedStage, client_of: Callable[[Row], Client]) -> Case:
    row, protocol = request.param
    return Case(row, client_of(row), protocol, front)


@pytest.fixture(scope="module")
def story(front: TappedStage) -> Told:
    """Transactions of one producer, each third aborted, among records of a plain one; partition 2 has plain ones only.

    In the two codecs that all clients have.
    """
    topic = front.topic("matrix.seam.transactions", partitions=3)
    writers = [Recorder(front.broker, topic, compression_type=codec) for codec in ("none", "gzip")]
    transactional = Recorder(front.broker, topic, transactional=True)
    for turn in range(12):
        transactional.begin()
        for p in range(2):
            transactional.send(drafts(60, partition=p, seed=100 + turn))
        if turn % 3 == 1:
            transactional.abort()
        else:
            transactional.commit()
        for p, writer in enumerate(writers):
            writer.send(drafts(60, partition=p, seed=200 + turn))
            writer.flush()
    writers[1].send(drafts(2500, partition=PLAIN, seed=400))
    writers[1].flush()
    logs = [writer.log for writer in writers]
    return _told(front, topic, merged(transactional.log, *logs), merged(transactional.everything, *logs))


@pytest.fixture(scope="module")
def codecs(front: TappedStage) -> Told:
    topic = front.topic("matrix.seam.codecs", partitions=len(CODECS))
    log = merged(
        *(
            produce(front.broker, topic, drafts(2500, partition=p, seed=300), compression_type=codec)
            for p, codec in enumerate(CODECS)
        )
    )
    return _told(front, topic, log, log)


def _told(front: TappedStage, topic: str, committed: Log, everything: Log) -> Told:
    cold = front.wait_trimmed(topic, everything, share=0.4)
    if front.proxy is None:
        cold = {p: last // 2 for p, last in ends(everything).items()}  # the same questions, without a seam
    assert all(0 < cold[p] < last for p, last in ends(everything).items()), cold
    return Told(topic, committed, everything, cold, admin.latest(front.broker, topic, len(cold)))


def test_it_is_the_version_the_readme_names(case: Case) -> None:
    assert case.client.version() == case.row.version


@pytest.mark.parametrize("level", LEVELS)
def test_reads_across_the_seam(case: Case, story: Told, level: str) -> None:
    wanted = story.seen(LEVELS[level])
    assert_same(wanted, case.client.read(case.at(story.topic, LEVELS[level]), ends(wanted)))


def test_seeks_into_the_cold_part(case: Case, codecs: Told) -> None:
    """To places inside batches, in every codec; then on over the seam."""
    if case.row.codecs != CODECS:
        pytest.skip(f"{case.row.name} alone reads only {', '.join(case.row.codecs)}")
    starts = {p: border // 2 + p for p, border in codecs.cold.items()}
    wanted = since(codecs.everything, starts)
    assert_same(wanted, case.client.read(case.at(codecs.topic), ends(wanted), starts))


def test_seeks_into_a_cold_transaction(case: Case, story: Told) -> None:
    starts = {p: border // 2 for p, border in story.cold.items()}
    wanted = since(story.committed, starts)
    assert_same(wanted, case.client.read(case.at(story.topic, committed=True), ends(wanted), starts))


@pytest.mark.parametrize("level", LEVELS)
def test_a_group_resumes_in_the_cold_part(case: Case, story: Told, level: str) -> None:
    wanted = story.seen(LEVELS[level])
    at = case.at(story.topic, LEVELS[level])
    group = f"matrix-{case.row.name}-{case.row.version}-{case.protocol}-{level}"
    first = case.client.group(at, group, 150)
    assert all(record.offset < story.cold[record.partition] for record in first), "it read on past the cold part"
    second = case.client.group(at, group, count(wanted) - len(first))
    assert_same(wanted, _by_partition(first + second))


def test_resets_by_time(case: Case, story: Told) -> None:
    """Times before all, in the cold part, at the seam, in the hot part, after all: found, and read on from."""
    records, border = story.everything[PLAIN], story.cold[PLAIN]
    chosen = [records[i].timestamp for i in (0, border // 2, border - 1, border, (border + len(records)) // 2)]
    asked = [chosen[0] - 1, *chosen, max(record.timestamp for record in records) + 1]
    at = case.at(story.topic)
    found = case.client.times(at, PLAIN, asked)
    end = records[-1].offset + 1
    for time, answer in zip(asked, found, strict=True):
        wanted = first_at(records, time)
        if wanted is None:
            assert answer is None or answer == (end, None), f"{answer} for a time after all records"
        else:
            assert answer is not None
            assert answer[0] == wanted.offset, f"for {time}"
            assert answer[1] in (wanted.timestamp, None)
    assert found[2] is not None
    rest = since({PLAIN: records}, {PLAIN: found[2][0]})
    assert_same(rest, case.client.read(at, ends(rest), {PLAIN: found[2][0]}))


@pytest.mark.parametrize("level", LEVELS)
def test_knows_beginning_and_end(case: Case, story: Told, level: str) -> None:
    bounds = case.client.bounds(case.at(story.topic, LEVELS[level]), [0, 1, PLAIN])
    assert bounds == {p: (0, end) for p, end in story.end.items()}


@pytest.fixture
def spoken(case: Case, story: Told) -> dict[ApiKey, set[int]]:
    """The versions of the requests that the client sends when it is in a group, and asks for times."""
    before = len(case.stage.recorded())
    case.client.group(case.at(story.topic), f"spoken-{case.row.name}-{case.protocol}", 10)
    case.client.times(case.at(story.topic), 0, [0])
    return versions(case.stage.recorded()[before:])


def test_speaks_the_versions_the_readme_names(case: Case, story: Told, spoken: dict[ApiKey, set[int]]) -> None:
    assert {key: max(spoken[key]) for key in case.row.wire} == case.row.wire
    assert (ApiKey.CONSUMER_GROUP_HEARTBEAT in spoken) == (case.protocol == "consumer")
    assert (ApiKey.JOIN_GROUP in spoken) == (case.protocol == "classic")


def _by_partition(records: list[Record]) -> Log:
    log: Log = {}
    for record in records:
        log.setdefault(record.partition, []).append(record)
    return log
