"""tierproxy.cold.limits: rates hold, whoever shares one gets an equal part, and nobody waits for those who don't come.

In virtual time; clients are of two kinds: those that stay away for as long as they are told, and those that come back
at once and are held.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierproxy.archive.names import PartitionId
from tierproxy.catalog import Tier
from tierproxy.cold.limits import SHARE, Claim, ColdLimits, Limit, SharedRate
from tierproxy.config import Config
from tierproxy.rates import BURST
from tierproxy.routing.fetch import Refused
from tierproxy.routing.holds import Client

MIB = 1 << 20


@dataclass
class Reader:
    name: str
    obeys: bool  # throttle_time_ms
    batch: int = 16 << 10
    since: float = 0.0
    until: float = 1e9
    late: float = 0.001  # seconds that a request is on its way


def play(rate: int, readers: list[Reader], seconds: float) -> Counter[str]:
    """Bytes that each was sent."""
    shared = SharedRate(Limit("process", "limits.cold_read_rate", rate), 0.0)
    got: Counter[str] = Counter()
    due = [(reader.since, number) for number, reader in enumerate(readers)]
    heapq.heapify(due)
    while due and due[0][0] < seconds:
        now, number = heapq.heappop(due)
        reader = readers[number]
        if now >= reader.until:
            continue
        wait = shared.wait(reader.name, now)
        if not wait:
            size = max(1, shared.share(now) // reader.batch) * reader.batch
            shared.take(reader.name, size, now)
            got[reader.name] += size
            told = shared.wait(reader.name, now) if reader.obeys else 0.0
            heapq.heappush(due, (now + told + reader.late, number))
        else:
            heapq.heappush(due, (now + max(wait if reader.obeys else wait / 2, 0.002), number))
    return got


KINDS = [[True, True], [False, False], [True, False]]


@pytest.mark.parametrize("obeys", KINDS, ids=["who obey", "who are held", "of both kinds"])
@pytest.mark.parametrize("count", [1, 2, 8, 50])
def test_the_rate_is_used_and_shared_equally(obeys: list[bool], count: int) -> None:
    readers = [Reader(f"r{n}", obeys[n % 2]) for n in range(count)]
    got = play(10 * MIB, readers, 30)
    assert 0.95 * 10 * MIB * 30 <= sum(got.values()) <= 10 * MIB * (30 + BURST + SHARE)
    assert min(got.values()) >= 0.8 * sum(got.values()) / count
    assert len(got) == count


def test_large_batches_are_shared_as_well() -> None:
    got = play(MIB, [Reader("a", True, batch=2 * MIB), Reader("b", False, batch=2 * MIB)], 60)
    assert 0.9 * MIB * 60 <= sum(got.values()) <= MIB * 60 + 3 * MIB
    assert min(got.values()) >= 0.8 * sum(got.values()) / 2


def test_who_has_left_keeps_nobody_waiting() -> None:
    readers = [Reader(f"gone{n}", True, until=5.0) for n in range(20)]
    got = play(10 * MIB, [Reader("stays", False), *readers], 10)
    alone = got["stays"] - 5 * 10 * MIB / 21
    assert alone >= 0.9 * 5 * 10 * MIB


def test_a_newcomer_gets_its_part_at_once() -> None:
    before = play(10 * MIB, [Reader("old", True)], 10)["old"]
    got = play(10 * MIB, [Reader("old", True), Reader("new", True, since=5.0)], 10)
    assert got["new"] >= 0.45 * 5 * 10 * MIB
    assert before - got["old"] <= 0.55 * 5 * 10 * MIB


# -- the configuration ---------------------------------------------------------------------------------------------


def question(topic: str | None = "a", at: int = 0, max_bytes: int = MIB) -> Refused:
    tier = Tier(PartitionId(topic, bytes(16), at), "main", "skip") if topic else None
    return Refused(at, bytes(16), at, tier, 0, max_bytes)


def limits(topics: tuple[dict[str, Any], ...] = (), **rates: Any) -> ColdLimits:
    config = Config.model_validate(
        {
            "cluster": {"name": "c", "bootstrap": ["b:1"]},
            "listen": {},
            "archives": {"main": {"url": "file:///x"}},
            "topics": [*topics, {"match": "*", "archive": "main"}],
            "limits": rates,
        }
    )
    return ColdLimits(config)


def spend(claim: Claim, size: int, now: float = 0.0, topic: str = "a") -> None:
    claim.use(question(topic), size)
    claim.close(now)


ALICE, BOB = Client("spark-1", "alice"), Client("spark-2", "bob")


def test_without_limits_everything_may_go() -> None:
    claim = limits().claim(ALICE, [question()], 0.0)
    assert (claim.wait, claim.blocked, claim.left(question())) == (0.0, None, MIB)
    assert claim.chosen([question(at=0), question(at=1)], [1, 0]) == [1, 0]


def test_the_process_limit_is_everybodys() -> None:
    made = limits(cold_read_rate=MIB)
    spend(made.claim(ALICE, [question()], 0.0), MIB)
    blocked = made.claim(BOB, [question()], 0.0)
    assert blocked.wait == 1.0
    assert blocked.blocked == Limit("process", "limits.cold_read_rate", MIB)
    assert blocked.chosen([question()], [0]) == []


def test_what_was_not_used_is_given_back() -> None:
    made = limits(cold_read_rate=MIB)
    claim = made.claim(ALICE, [question()], 0.0)
    assert made.claim(BOB, [question()], 0.0).wait == pytest.approx(SHARE)
    claim.close(0.0)
    claim.close(0.0)
    assert not made.claim(BOB, [question()], 0.0).wait


@pytest.mark.parametrize(
    ("entry", "other", "waits"),
    [
        ({"client_id": "spark-*"}, Client("spark-2"), False),
        ({"client_id": "spark-*"}, Client("spark-1", "bob"), True),
        ({"client_id": "spark-*", "shared": True}, Client("spark-2"), True),
        ({"client_id": "spark-*", "shared": True}, Client("flink"), False),
        ({"user": "alice"}, Client("flink", "alice"), True),
        ({"user": "alice"}, Client("flink"), False),
        ({"user": "*", "client_id": "*"}, Client("spark-2", "alice"), False),
        ({"user": "*", "client_id": "*"}, Client("spark-1", "alice", "another.host"), True),
    ],
)
def test_whose_bucket_it_is(entry: dict[str, Any], other: Client, waits: bool) -> None:
    made = limits(cold_clients=[{**entry, "cold_read_rate": MIB}])
    spend(made.claim(ALICE, [question()], 0.0), 10 * MIB)
    claim = made.claim(other, [question()], 0.0)
    assert bool(claim.wait) == waits
    if waits:
        assert claim.blocked is not None
        assert claim.blocked.kind == ("client" if "client_id" in entry else "user")


def test_the_first_entry_that_matches_counts() -> None:
    made = limits(
        cold_clients=[{"client_id": "spark-1", "cold_read_rate": None}, {"client_id": "*", "cold_read_rate": MIB}]
    )
    spend(made.claim(ALICE, [question()], 0.0), 10 * MIB)
    assert not made.claim(ALICE, [question()], 0.0).wait


def test_a_policys_limit_is_for_its_topics_alone() -> None:
    made = limits(topics=({"match": "a*", "archive": "main", "cold_read_rate": MIB},))
    spend(made.claim(ALICE, [question("a1")], 0.0), 10 * MIB, topic="a1")
    alone = made.claim(BOB, [question("a2")], 0.0)
    assert (alone.wait, alone.blocked) == (10.0, Limit("policy", "topics[0].cold_read_rate", MIB))
    questions = [question("a2", 0), question("b", 1), question(None, 2)]
    mixed = made.claim(BOB, questions, 0.0)
    assert (mixed.wait, mixed.shut) == (0.0, frozenset({"a2"}))
    assert mixed.chosen(questions, [0, 1, 2]) == [1, 2]


def test_nobody_reserves_of_one_rate_what_another_holds_up() -> None:
    made = limits(cold_read_rate=10 * MIB, cold_clients=[{"client_id": "spark-1", "cold_read_rate": MIB}])
    spend(made.claim(ALICE, [question()], 0.0), 2 * MIB)
    for _ in range(5):
        assert made.claim(ALICE, [question()], 0.5).wait == 1.5
    assert not made.claim(BOB, [question()], 0.5).wait


def test_no_more_partitions_are_read_than_there_is_a_portion_for() -> None:
    claim = limits(cold_read_rate=8 * MIB).claim(ALICE, [], 0.0)
    many = [question(at=at) for at in range(50)]
    assert claim.chosen(many, [*range(7, 50), *range(7)]) == [7, 8]
    small = [question(at=at, max_bytes=1024) for at in range(50)]
    assert len(claim.chosen(small, range(50))) == 50


def test_the_portion_gets_less_as_it_is_used() -> None:
    claim = limits(cold_read_rate=8 * MIB).claim(ALICE, [question()], 0.0)
    assert claim.left(question()) == 2 * MIB
    claim.use(question(), 3 * MIB)
    assert claim.left(question()) == -MIB
    claim.close(0.0)
    assert claim.next_wait(0.0)[0] == pytest.approx(3 / 8)


clients = st.builds(Client, st.sampled_from(["x1", "x2", "y"]), st.sampled_from([None, "alice", "bob"]))


@given(st.lists(st.tuples(clients, st.floats(0, 0.5), st.integers(0, 2 * MIB)), max_size=60))
def test_no_limit_is_ever_exceeded(asked: list[tuple[Client, float, int]]) -> None:
    """But for the burst and the last answer before."""
    made = limits(
        cold_read_rate=2 * MIB,
        topics=({"match": "a", "archive": "main", "cold_read_rate": MIB},),
        cold_clients=[{"client_id": "x*", "cold_read_rate": MIB // 2}],
    )
    now, total = 0.0, 0
    by_client: Counter[str] = Counter()
    for client, pause, size in asked:
        now += pause
        claim = made.claim(client, [question()], now)
        if claim.wait:
            continue
        assert total <= MIB * (now + BURST) + 1
        if client.client_id.startswith("x"):
            assert by_client[client.client_id] <= MIB // 2 * (now + BURST) + 1
        size = min(size, max(1, claim.left(question())))
        spend(claim, size, now)
        total += size
        by_client[client.client_id] += size


def test_rates_may_change() -> None:
    made = limits(cold_read_rate=MIB)
    open_claim = made.claim(ALICE, [question()], 0.0)
    spend(open_claim, 10 * MIB)
    assert made.claim(ALICE, [question()], 0.0).wait > 0
    made.change(None)
    assert made.claim(ALICE, [question()], 0.0).wait == 0
    config = Config.model_validate(
        {
            "cluster": {"name": "c", "bootstrap": ["b:1"]},
            "listen": {},
            "archives": {"main": {"url": "file:///x"}},
            "topics": [{"match": "a", "archive": "main", "cold_read_rate": MIB}],
        }
    )
    made.change(config)
    spend(made.claim(ALICE, [question()], 1.0), 2 * MIB, 1.0)
    assert made.claim(BOB, [question()], 1.0).wait > 0
    open_claim.close(1.0)  # by the rates that it was made with
