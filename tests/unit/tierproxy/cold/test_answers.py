"""Held fetches, carried out: a real archive behind a gate, and a scout that knows the truth of a small world."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from protocol.errors import ErrorCode
from protocol.fetch import FetchRequest
from protocol.fetch_response import FetchedPartition, FetchResponse, parse_fetch_response
from protocol.messages import ListOffsetsResponse, OffsetAnswer
from tests.unit.tierproxy.cli.archives import CLUSTER_ID, PID, TIME, Archive, batch
from tests.unit.tierproxy.cold.shelf import BATCHES, Shelf, three_segments
from tests.unit.tierproxy.talk import archived
from tierproxy.archive.manifest import Gap, Manifest
from tierproxy.archive.store import Unavailable
from tierproxy.catalog import ArchivedTopic, Catalog, Tier
from tierproxy.cold.allowance import CHUNK, AnswerMemory
from tierproxy.cold.answers import ColdAnswers
from tierproxy.cold.budget import ByteBudget
from tierproxy.cold.limits import Claim, ColdLimits
from tierproxy.config import Config
from tierproxy.routing.fetch import Refused, Verdict
from tierproxy.routing.holds import Client, FetchHold, OffsetsHold
from tierproxy.routing.offsets import Question
from tierproxy.telemetry.conditions import CHANGES
from tierproxy.tracing import use


@dataclass
class World:
    """The truth about one partition, and a scout (answers.Facts) that tells it, unless it is cut off."""

    manifest: Manifest | None
    broker_start: int
    log_end: int = 1000
    cut_off: bool = False
    asked: list[str] = field(default_factory=list)
    trusted: bool = True
    undecided_time: int = -1
    topic_id: bytes = PID.topic_id  # what the name stands for
    catalog: Catalog = field(default_factory=lambda: Catalog(lambda name: True, True))
    learned: asyncio.Event = field(default_factory=asyncio.Event)
    old_news: int | None = None  # a log start that an old answer writes into the tier after every question
    coming: Manifest | None = None  # by a read that began before the question

    def __post_init__(self) -> None:
        self.learned.set()

    async def broker_now(self, tier: Tier) -> tuple[int, int]:
        self._ask("broker")
        await self.learned.wait()
        tier.broker_start, tier.high_watermark, tier.last_stable = self.broker_start, self.log_end, self.log_end
        if self.old_news is not None:
            tier.broker_start = self.old_news
        return self.broker_start, self.log_end

    async def manifest_now(self, tier: Tier) -> Manifest | None:
        self._ask("manifest")
        await self.learned.wait()
        tier.manifest, tier.manifest_known = self.manifest, True
        return self.manifest

    async def manifest_coming(self, tier: Tier) -> Manifest | None:
        return self.coming

    async def topics_now(self) -> None:
        self._ask("topics")

    async def same_topic_now(self, tier: Tier) -> bool:
        self._ask("name")
        if tier.pid.topic_id != self.topic_id:
            self.catalog.set_topics([ArchivedTopic(PID.topic, self.topic_id, 1, "local", "skip")], [])
        return tier.pid.topic_id == self.topic_id

    async def highest_time(self, tier: Tier) -> int:
        self._ask("highest time")
        return self.undecided_time

    def trusts(self, tier: Tier) -> bool:
        return self.trusted

    async def owner(self, tier: Tier) -> str:
        return CLUSTER_ID

    def used(self, tier: Tier) -> None:
        pass

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.cut_off:
            raise Unavailable("cut off")


@dataclass
class Stage:
    shelf: Shelf
    world: World
    catalog: Catalog
    memory: AnswerMemory = field(default_factory=lambda: AnswerMemory(64 << 20))
    holds: int = 0

    def __post_init__(self) -> None:
        self.answers = ColdAnswers(
            self.catalog, self.world, self.shelf.reader, self.memory, {"local": self.shelf.library}, self.shelf.tasks
        )
        tier = self.catalog.find(PID.topic_id, 0)
        assert tier is not None
        self.tier = tier
        self.world.catalog = self.catalog

    def hold(
        self,
        *offsets: int,
        max_wait_ms: int = 60_000,
        hot: bytes = b"",
        max_bytes: int = 1 << 20,
        min_bytes: int = 1,
        since: float = 0.0,
        topic: str | bytes = PID.topic_id,
    ) -> FetchHold:
        """A fetch of offsets of the archived partition, all refused, behind a hot partition that sent `hot`.

        The client has waited for `since` seconds already."""
        request = FetchRequest(17, -1, max_wait_ms, min_bytes, max_bytes, 0, 0, -1, None, [], "")
        hot_id = bytes(16)
        partitions = [FetchedPartition(None, hot_id, 0, 0, 9, 9, 0, None, -1, memoryview(hot), b"")]
        refused = []
        for at, offset in enumerate(offsets, 1):
            empty = memoryview(b"")
            partitions.append(FetchedPartition(None, PID.topic_id, 0, 1, -1, -1, -1, None, -1, empty, b""))
            refused.append(Refused(at, topic, 0, self.tier, offset, 1 << 20))
        asked_at = asyncio.get_running_loop().time() - since
        self.holds += 1
        return FetchHold(request, FetchResponse(17, 1, 0, 0, 0, partitions, b""), refused, asked_at, number=self.holds)

    async def fetch(self, hold: FetchHold) -> list[tuple[int, bytes]]:
        """Error and records of the partitions that were refused."""
        pieces, allowance = await self.answers.fetch(hold)
        payload = b"".join(pieces)
        allowance.end()
        return [(p.error, bytes(p.records or b"")) for p in parse_fetch_response(payload, 17).partitions[1:]]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return three_segments(tmp_path)


@pytest.fixture
async def stage(archive: Archive) -> AsyncIterator[Stage]:
    """Offsets 0 to 299 are archived, the broker has 200 to 999, and nobody knows yet."""
    catalog = Catalog(lambda name: name == PID.topic, True)
    catalog.set_topics([ArchivedTopic(PID.topic, PID.topic_id, 1, "local", "skip")], [])
    async with Shelf(archive) as shelf:
        yield Stage(shelf, World(archive.manifest, 200), catalog)


async def test_a_refused_partition_gets_its_records_from_the_archive(stage: Stage) -> None:
    ((error, records),) = await stage.fetch(stage.hold(100))
    assert (error, records[: len(BATCHES[10])]) == (0, BATCHES[10])
    assert stage.world.asked == ["broker", "manifest"]
    assert not stage.tier.doubts


async def test_a_manifest_that_was_on_its_way_already_may_say_yes_but_not_no(stage: Stage) -> None:
    manifest = stage.world.coming = stage.world.manifest
    assert manifest is not None
    assert await stage.fetch(stage.hold(100)) == [(0, BATCHES[10])]
    assert stage.world.asked == ["broker"]
    stage.world.coming = replace(manifest, segments=manifest.segments[:1])
    stage.world.asked.clear()
    assert await stage.fetch(stage.hold(150)) == [(0, BATCHES[15])]
    assert stage.world.asked == ["manifest"]


async def test_what_is_known_is_not_asked_again(stage: Stage) -> None:
    await stage.fetch(stage.hold(100))
    stage.world.asked.clear()
    await stage.fetch(stage.hold(150))
    assert stage.world.asked == []


async def test_an_offset_above_the_brokers_end_is_refused_for_good(stage: Stage) -> None:
    assert await stage.fetch(stage.hold(5000)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]


async def test_an_offset_the_broker_disowns_is_refused_though_it_is_archived(stage: Stage) -> None:
    stage.world.broker_start, stage.world.log_end = 0, 100  # after an unclean election
    assert await stage.fetch(stage.hold(150)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]


async def test_a_slow_archive_answers_no_records_when_max_wait_is_over_and_has_them_next_time(stage: Stage) -> None:
    await stage.fetch(stage.hold(0))  # facts are known
    with stage.shelf.store.closed():
        assert await stage.fetch(stage.hold(150, max_wait_ms=30)) == [(0, b"")]
    ((error, records),) = await stage.fetch(stage.hold(150))
    assert (error, records[: len(BATCHES[15])]) == (0, BATCHES[15])


async def test_max_wait_is_over_where_the_broker_has_used_it_up(stage: Stage) -> None:
    """It answered late: a trim has overtaken its long poll."""
    await stage.fetch(stage.hold(0))  # facts are known
    with stage.shelf.store.closed():
        assert await asyncio.wait_for(stage.fetch(stage.hold(150, since=60)), 50) == [(0, b"")]


@pytest.mark.parametrize("limits", [{}, {"max_bytes": 11, "min_bytes": 1 << 20}], ids=["any", "as many as may be"])
async def test_hot_records_do_not_wait_for_a_slow_archive(stage: Stage, limits: dict[str, Any]) -> None:
    with stage.shelf.store.closed():
        assert await asyncio.wait_for(stage.fetch(stage.hold(150, hot=b"hot records", **limits)), 90) == [(0, b"")]


async def test_ready_records_do_not_wait_for_others_that_are_not(stage: Stage) -> None:
    await stage.fetch(stage.hold(0, max_bytes=1))
    with stage.shelf.store.closed():
        first, second = await asyncio.wait_for(stage.fetch(stage.hold(0, 150)), 90)
    assert first[1].startswith(BATCHES[0])
    assert second == (0, b"")


@pytest.mark.parametrize("hold", [{"hot": b"hot records"}, {"max_wait_ms": 0}])
async def test_facts_nobody_has_are_learned_beside_a_busy_hot_partition_and_for_who_does_not_wait(
    stage: Stage, hold: dict[str, Any]
) -> None:
    stage.world.learned.clear()
    asyncio.get_running_loop().call_later(0.2, stage.world.learned.set)
    for _ in range(50):
        ((error, records),) = await stage.fetch(stage.hold(5000, **hold))
        if error:
            break
    assert (error, records) == (ErrorCode.OFFSET_OUT_OF_RANGE, b"")


async def test_facts_have_their_moment_beside_records_that_come_sooner(stage: Stage) -> None:
    await stage.fetch(stage.hold(0))  # the broker's start is known, but no younger than this
    stage.tier.unresolved = 5  # so it is a long moment
    stage.world.learned.clear()
    asyncio.get_running_loop().call_later(0.05, stage.world.learned.set)
    answers = await stage.fetch(stage.hold(100, 5000, max_wait_ms=0))
    assert [error for error, _ in answers] == [ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE]
    assert answers[0][1]


async def test_an_offset_the_leader_has_by_now_is_asked_for_again(stage: Stage) -> None:
    assert await stage.fetch(stage.hold(500, max_wait_ms=10)) == [(0, b"")]


async def test_old_facts_are_not_trusted_for_ever(stage: Stage) -> None:
    await stage.fetch(stage.hold(100))
    stage.world.manifest = stage.shelf.archive.manifest.with_start(200)  # a user deleted, through another gateway
    stage.world.trusted = False
    assert await stage.fetch(stage.hold(100)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]


async def test_a_broken_archive_answers_a_retriable_error_and_then_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.shelf.store.broken = True
    for _ in range(3):
        assert await stage.fetch(stage.hold(150, max_wait_ms=500)) == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]
    assert [r.levelname for r in caplog.records] == ["WARNING"], "said once"
    stage.shelf.store.broken = False
    ((error, records),) = await stage.fetch(stage.hold(150))
    assert (error, records[:10]) == (0, BATCHES[15][:10])


async def test_without_facts_there_is_a_retriable_error_never_out_of_range(stage: Stage) -> None:
    stage.world.cut_off = True
    assert await stage.fetch(stage.hold(5000, max_wait_ms=500)) == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]


async def test_a_damaged_segment_is_a_retriable_error(stage: Stage, archive: Archive) -> None:
    file = archive.segment_file(1)
    data = bytearray(file.read_bytes())
    data[20] ^= 0xFF
    file.write_bytes(data)
    while (answers := await stage.fetch(stage.hold(100, max_wait_ms=10))) == [(0, b"")]:
        pass  # it was not read yet
    assert answers == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]


async def test_a_hole_nobody_has_archived_behind_holds_the_client_back(stage: Stage) -> None:
    stage.world.broker_start = 600  # 300 to 599 were deleted before they were archived
    assert await stage.fetch(stage.hold(400, max_wait_ms=10)) == [(0, b"")]


@pytest.mark.parametrize(
    ("on_gap", "accepted_ms", "error", "records"),
    [("skip", -1, 0, BATCHES[20]), ("halt", -1, 56, b""), ("halt", 5, 0, BATCHES[20])],
)
async def test_a_recorded_hole_is_skipped_or_stopped_at_until_somebody_accepts_it(
    stage: Stage, archive: Archive, on_gap: str, accepted_ms: int, error: int, records: bytes
) -> None:
    manifest = archive.manifest
    holey = Manifest(
        manifest.cluster, manifest.cluster_id, manifest.topic, manifest.topic_id, 0, 0, 300,
        (manifest.segments[0], manifest.segments[2]), manifest.epochs, (Gap(100, 200, 1, "retention", accepted_ms),),
    )  # fmt: skip
    stage.world.manifest = holey
    stage.world.broker_start = 300
    stage.tier.on_gap = on_gap
    patience = 10 if error else 60_000
    ((got, read),) = await stage.fetch(stage.hold(150, max_wait_ms=patience, max_bytes=1))
    assert (got, read) == (error, records)


def holes_met() -> float:
    return REGISTRY.get_sample_value("tierproxy_holes_met_total") or 0.0


@pytest.mark.parametrize("on_gap", ["halt", "skip"])
async def test_readers_at_a_hole_do_not_fill_the_log(
    stage: Stage, archive: Archive, caplog: pytest.LogCaptureFixture, on_gap: str
) -> None:
    """One asks for what is lost, again and again, and another reads what is there: each says the other's opposite."""
    caplog.set_level("INFO", "tierproxy.cold")
    stage.world.manifest = replace(
        archive.manifest,
        segments=(archive.manifest.segments[0], archive.manifest.segments[2]),
        gaps=(Gap(100, 200, 1, "retention"),),
    )
    stage.world.broker_start = 300
    stage.world.trusted = False
    stage.tier.on_gap = on_gap
    met = holes_met()
    for _ in range(50):
        await stage.fetch(stage.hold(150, max_wait_ms=1 if on_gap == "halt" else 60_000))
        ((error, records),) = await stage.fetch(stage.hold(0))
        assert error == 0
        assert records
    assert holes_met() >= met + 50
    assert 0 < len(caplog.records) <= CHANGES


async def test_a_traced_fetch_says_who_asked_for_what_and_where_it_came_from(stage: Stage) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(provider.get_tracer("test"))
    try:
        hold = replace(stage.hold(150, since=1.0), client=Client("app", "alice", "10.0.0.1"))
        ((error, records),) = await stage.fetch(hold)
        assert (error, records[:20]) == (0, BATCHES[15][:20])
    finally:
        use(None)
    spans = exporter.get_finished_spans()
    (fetch,) = [span for span in spans if span.name == "cold fetch"]
    about: dict[str, Any] = dict(fetch.attributes or {})
    assert {name: about[name] for name in ("topic", "partition", "offset", "client.id", "outcome")} == {
        "topic": PID.topic, "partition": 0, "offset": 150, "client.id": "app", "outcome": "records"
    }  # fmt: skip
    assert about["bytes"] >= len(records)
    assert 1.0 <= about["waited"] < 60.0
    assert "alice" not in str([span.attributes for span in spans]), "who is who is nobody's business"
    assert {"index", "read", "unpack", "facts"} <= {span.name for span in spans}
    assert {span.attributes["source"] for span in spans if span.name == "read" and span.attributes} == {"store"}
    assert fetch.context is not None
    assert all(span.context and span.context.trace_id == fetch.context.trace_id for span in spans)


# -- names ------------------------------------------------------------------------------------------------------------


async def test_who_asks_by_name_is_served_once_the_name_was_checked(stage: Stage) -> None:
    for _ in range(2):  # with the records still to be read, and with them in memory
        stage.world.asked.clear()
        ((error, records),) = await stage.fetch(stage.hold(100, topic=PID.topic))
        assert (error, records[:20]) == (0, BATCHES[10][:20])
        assert "name" in stage.world.asked


@pytest.mark.parametrize("hold", [{"hot": b"hot records"}, {"max_wait_ms": 0}])
async def test_who_asks_by_name_is_served_beside_a_busy_hot_partition_and_without_waiting(
    stage: Stage, hold: dict[str, Any]
) -> None:
    error, records = 0, b""
    async with asyncio.timeout(90):
        while not records:
            ((error, records),) = await stage.fetch(stage.hold(100, topic=PID.topic, **hold))
            await asyncio.sleep(0.001)  # the client comes back
    assert (error, records[:20]) == (0, BATCHES[10][:20])


@pytest.mark.parametrize("in_memory", [False, True])
async def test_no_record_of_a_deleted_topic_for_who_asks_its_namesake(stage: Stage, in_memory: bool) -> None:
    if in_memory:
        await stage.fetch(stage.hold(100))
    stage.world.topic_id = bytes(reversed(range(16)))
    stage.world.manifest = None  # nothing of the new topic is archived
    stage.world.broker_start, stage.world.log_end = 0, 50
    assert await stage.fetch(stage.hold(100, topic=PID.topic)) == [(ErrorCode.OFFSET_OUT_OF_RANGE, b"")]


async def test_a_name_that_cannot_be_checked_is_a_retriable_error(stage: Stage) -> None:
    await stage.fetch(stage.hold(100))
    stage.world.cut_off = True
    answer = await stage.fetch(stage.hold(100, topic=PID.topic, max_wait_ms=500))
    assert answer == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]


async def test_a_topic_our_own_account_is_not_shown_is_never_out_of_range(stage: Stage) -> None:
    hold = stage.hold(100, topic=bytes(reversed(range(16))), max_wait_ms=500)
    hold.refused[0].tier = None
    assert await stage.fetch(hold) == [(ErrorCode.KAFKA_STORAGE_ERROR, b"")]


# -- the law: out of range reaches a client only when it is true ------------------------------------------------------


@given(
    truth_start=st.integers(0, 40),
    truth_end=st.integers(0, 40),
    broker_start=st.integers(0, 40),
    known_end=st.integers(0, 40) | st.none(),
    known_broker_start=st.integers(-1, 40),
    offset=st.integers(0, 60),
)
def test_whatever_old_facts_say_the_verdict_is_true(
    truth_start: int,
    truth_end: int,
    broker_start: int,
    known_end: int | None,
    known_broker_start: int,
    offset: int,
) -> None:
    """The archive only grows and is never behind what was trimmed; what is known may be any older state of it."""
    truth_end = max(truth_start, truth_end)
    world = World(_archived(truth_start, truth_end), broker_start)
    tier = Tier(PID, "local", "skip", broker_start=min(known_broker_start, broker_start))
    if known_end is not None:
        tier.manifest_known = True
        tier.manifest = _archived(truth_start, min(max(known_end, truth_start), truth_end))
    world.log_end = max(broker_start, 45)
    world.old_news = known_broker_start
    answers = object.__new__(ColdAnswers)
    answers._scout = world
    verdict, _ = asyncio.run(answers._verdict(tier, Refused(0, PID.topic_id, 0, tier, offset, 1)))
    if broker_start <= offset <= 45:
        assert verdict is Verdict.AGAIN, "the leader has it"
    elif truth_start <= offset < truth_end and offset < broker_start:
        assert verdict is Verdict.COLD
    elif truth_end <= offset < broker_start:
        assert verdict is (Verdict.HOLE if truth_end > truth_start else Verdict.BEYOND)
    else:
        assert verdict is Verdict.BEYOND


def _archived(start: int, end: int) -> Manifest | None:
    return archived(start, end) if end > start else None


# -- offsets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "told", "expected"),
    [
        (-2, (200, -1), (0, 0, -1)),
        (TIME + 150, (200, TIME + 200), (0, 150, TIME + 150)),
        (TIME + 150, (-1, -1), (0, 150, TIME + 150)),
        (TIME + 5000, (-1, -1), (0, -1, -1)),
        (-3, (999, TIME + 999), (0, 999, TIME + 999)),
        (-3, (-1, -1), (0, 299, TIME + 299)),
    ],
)
async def test_offsets_of_both_tiers(
    stage: Stage, timestamp: int, told: tuple[int, int], expected: tuple[int, int, int]
) -> None:
    answer = OffsetAnswer(PID.topic, 0, 0, told[1], told[0], 3)
    response = ListOffsetsResponse(0, [answer])
    await stage.answers.offsets(OffsetsHold(7, 1, response, [Question(answer, timestamp, stage.tier)]))
    assert (answer.error, answer.offset, answer.timestamp) == expected


@pytest.mark.parametrize(("committed", "offset"), [(False, 299), (True, -1)])
async def test_a_record_that_is_not_decided_hides_all_older_ones_from_read_committed(
    stage: Stage, committed: bool, offset: int
) -> None:
    stage.world.undecided_time = TIME + 5000
    answer = OffsetAnswer(PID.topic, 0, 0, -1, -1, -1)
    question = Question(answer, -3, stage.tier, committed)
    await stage.answers.offsets(OffsetsHold(7, 1, ListOffsetsResponse(0, [answer]), [question]))
    assert answer.offset == offset


async def test_offsets_of_a_deleted_topic_are_not_its_namesakes(stage: Stage) -> None:
    stage.world.topic_id = bytes(reversed(range(16)))
    stage.world.manifest = None
    answer = OffsetAnswer(PID.topic, 0, 0, -1, 7, 3)
    await stage.answers.offsets(OffsetsHold(7, 1, ListOffsetsResponse(0, [answer]), [Question(answer, -2, stage.tier)]))
    assert answer.offset == 7


async def test_a_time_is_looked_up_in_what_the_archive_holds_now(stage: Stage) -> None:
    stage.tier.manifest, stage.tier.manifest_known = None, True  # before anything was archived
    answer = OffsetAnswer(PID.topic, 0, 0, TIME + 200, 200, 3)
    question = Question(answer, TIME + 150, stage.tier)
    await stage.answers.offsets(OffsetsHold(7, 1, ListOffsetsResponse(0, [answer]), [question]))
    assert answer.offset == 150


async def test_offsets_while_the_archive_is_broken_are_a_retriable_error_and_said_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")

    async def ask() -> tuple[int, int, int]:
        answer = OffsetAnswer(PID.topic, 0, 0, -1, 200, 3)
        question = Question(answer, -2, stage.tier)
        await stage.answers.offsets(OffsetsHold(7, 1, ListOffsetsResponse(0, [answer]), [question]))
        return answer.error, answer.offset, answer.leader_epoch

    stage.world.cut_off = True
    for _ in range(3):
        assert await ask() == (ErrorCode.KAFKA_STORAGE_ERROR, -1, -1)
    stage.world.cut_off = False
    assert (await ask())[:2] == (0, 0)
    began, ended = [record.getMessage() for record in caplog.records if "for offsets" in record.getMessage()]
    assert "cut off" in began
    assert "again" in ended


# -- memory -------------------------------------------------------------------------------------------------------


async def test_partitions_without_room_are_told_to_come_again_and_each_has_its_turn(stage: Stage) -> None:
    stage.memory.grant(0).keep(60 * CHUNK)  # other clients don't take theirs: 4 of 64 are left, half of it for us
    await stage.fetch(stage.hold(0))  # facts are known
    offsets = [n * 10 for n in range(10)]
    got: set[int] = set()
    for _ in range(30):
        stage.world.asked.clear()
        answers = await stage.fetch(stage.hold(*offsets, max_wait_ms=50, max_bytes=50 << 20))
        assert {error for error, _ in answers} == {ErrorCode.NONE}
        served = [at for at, (_, records) in enumerate(answers) if records]
        assert 1 <= len(served) <= 2
        got.update(served)
        await stage.shelf.quiet()
    assert got == set(range(10))
    assert stage.memory.held == 60 * CHUNK


@pytest.mark.parametrize(("taken", "most"), [(0, 8), (60, 2), (63, 1)])
async def test_one_partition_gets_no_more_than_there_is_room_for(
    tmp_path_factory: pytest.TempPathFactory, stage: Stage, taken: int, most: int
) -> None:
    chance = random.Random(1)
    halves = [batch(n * 10, [chance.randbytes(CHUNK // 20 - 100)] * 10) for n in range(20)]
    folder = tmp_path_factory.mktemp("large")
    archive = await asyncio.to_thread(lambda: Archive(folder).add(*halves, chunk_bytes=CHUNK).save())
    async with Shelf(archive, memory=256 << 20) as shelf:
        large = Stage(shelf, World(archive.manifest, 200), stage.catalog)
        await asyncio.gather(*(shelf.read(offset) for offset in range(0, 200, 10)))
        hold = large.hold(0, max_bytes=50 << 20)
        hold.refused[0].max_bytes = 50 << 20
        large.memory.grant(0).keep(taken * CHUNK)  # others don't take theirs
        ((error, records),) = await large.fetch(hold)
        assert error == ErrorCode.NONE
        assert CHUNK // 2 < len(records) <= most * CHUNK
        assert len(records) > (most - 1) * CHUNK


async def test_an_answer_lets_go_of_what_it_did_not_use(stage: Stage) -> None:
    await stage.fetch(stage.hold(0))  # facts are known
    pieces, allowance = await stage.answers.fetch(stage.hold(0, 10, 190, max_bytes=50 << 20))
    assert 0 < stage.memory.held < 50_000, "three small chunks, and their next ones"
    assert stage.memory.held >= len(b"".join(pieces)) - 1000
    allowance.end()
    assert stage.memory.held == 0


async def test_a_fetch_that_ends_early_gives_back_its_memory(stage: Stage) -> None:
    with stage.shelf.store.closed():
        fetching = asyncio.ensure_future(stage.answers.fetch(stage.hold(0)))
        while not stage.shelf.store.reads:
            await asyncio.sleep(0)
        assert stage.memory.held
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
    assert stage.memory.held == 0


async def test_a_crowd_before_the_store_is_told_to_come_again(archive: Archive, stage: Stage) -> None:
    async with Shelf(archive, budget=ByteBudget(1, queue=1)) as shelf:
        crowded = Stage(shelf, World(archive.manifest, 200), stage.catalog)
        with shelf.store.closed():
            assert await crowded.fetch(crowded.hold(0, 100, 190, max_wait_ms=50)) == [(ErrorCode.NONE, b"")] * 3
            assert shelf.chunks.crowded
        await shelf.quiet()
        ((error, records),) = await crowded.fetch(crowded.hold(0))
        assert (error, records[: len(BATCHES[0])]) == (0, BATCHES[0])


# -- rates ---------------------------------------------------------------------------------------------------------

RATE = 1 << 20
"""Bytes a second."""


def limited(stage: Stage, **policy: Any) -> ColdLimits:
    """Its answers, limited."""
    config = Config.model_validate(
        {
            "cluster": {"name": "c", "bootstrap": ["b:1"]},
            "listen": {},
            "archives": {"local": {"url": "file:///x"}},
            "topics": [{"match": "*", "archive": "local", **policy}],
            "limits": {} if policy else {"cold_read_rate": RATE},
        }
    )
    limits = ColdLimits(config)
    libraries = {"local": stage.shelf.library}
    stage.answers = ColdAnswers(
        stage.catalog, stage.world, stage.shelf.reader, stage.memory, libraries, stage.shelf.tasks, limits
    )
    return limits


def cold_only(stage: Stage, offset: int, max_wait_ms: int = 60_000) -> FetchHold:
    hold = stage.hold(offset, max_wait_ms=max_wait_ms)
    del hold.response.partitions[0]
    hold.refused[0].at = 0
    return hold


def another(limits: ColdLimits, hold: FetchHold) -> Claim:
    """Somebody else's claim to the same."""
    return limits.claim(Client("another"), hold.refused, asyncio.get_running_loop().time())


def use_up(limits: ColdLimits, hold: FetchHold, seconds: float) -> None:
    """Let somebody else have had so many seconds' worth."""
    claim = another(limits, hold)
    claim.use(hold.refused[0], round(seconds * RATE))
    claim.close(asyncio.get_running_loop().time())


@pytest.mark.parametrize("policy", [{}, {"cold_read_rate": RATE}], ids=["process", "policy"])
async def test_a_rate_is_waited_for_within_max_wait(stage: Stage, policy: dict[str, Any]) -> None:
    limits = limited(stage, **policy)
    hold = cold_only(stage, 100)
    use_up(limits, hold, 0.2)
    await stage.fetch(hold)
    assert hold.response.partitions[0].records
    use_up(limits, hold, 3600)
    hold = cold_only(stage, 100, max_wait_ms=20)
    await stage.fetch(hold)
    assert (hold.response.partitions[0].error, bytes(hold.response.partitions[0].records or b"")) == (0, b"")


async def test_nothing_is_read_for_whom_no_rate_is_left(stage: Stage) -> None:
    use_up(limited(stage), stage.hold(100), 3600)
    with stage.shelf.store.closed():
        assert await stage.fetch(stage.hold(0, 100, hot=b"hot records")) == [(0, b""), (0, b"")]
    assert stage.world.asked == []


async def test_who_waits_for_a_rate_holds_no_memory(stage: Stage) -> None:
    hold = cold_only(stage, 100)
    use_up(limited(stage), hold, 3600)
    waiting = asyncio.get_running_loop().create_task(stage.answers.fetch(hold))
    await asyncio.sleep(0)
    assert stage.memory.held == 0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(("broker", "shown"), [(5, 1000), (5000, 5000)])
async def test_the_longer_wait_is_told(stage: Stage, broker: int, shown: int) -> None:
    hold = cold_only(stage, 100, max_wait_ms=0)
    hold.response.throttle_ms = broker
    use_up(limited(stage), hold, 3600)
    await stage.fetch(hold)
    assert hold.response.throttle_ms == shown


async def test_an_answer_that_is_given_up_gives_its_part_back(stage: Stage) -> None:
    limits = limited(stage)
    await stage.fetch(stage.hold(0))
    with stage.shelf.store.closed():
        waiting = asyncio.get_running_loop().create_task(stage.answers.fetch(stage.hold(150)))
        await asyncio.sleep(0)
        assert another(limits, stage.hold(150)).wait
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not another(limits, stage.hold(150)).wait
