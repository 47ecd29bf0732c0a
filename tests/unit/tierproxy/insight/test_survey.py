"""Who is asked, how often, and what comes of answers that fail. Brokers are fakes, archives are real directories."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from protocol.apis import ApiKey
from tests.fakes.broker import FakeCluster
from tests.unit.batch_maker import make_batch, plain_records
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Gap, Manifest, SegmentEntry
from tierproxy.archive.names import PartitionId, manifest_key
from tierproxy.archive.store import StoredObject, Unavailable
from tierproxy.archive.store_file import FileStore
from tierproxy.clock import ManualClock
from tierproxy.config import Config, parse_config
from tierproxy.config.settings import Settings
from tierproxy.insight import survey as module
from tierproxy.insight.facts import Facts
from tierproxy.insight.survey import STILL_MS, Survey

NAME = "{base:020}-{last:020}-0badcafe.log.zst"


def entry(base: int, last: int) -> SegmentEntry:
    name = NAME.format(base=base, last=last)
    offsets = last + 1 - base
    return SegmentEntry(name, base, last, offsets * 10, offsets * 100, 9, offsets, 1000, 2000, "0" * 64, 3000)


@dataclass
class World:
    brokers: FakeCluster
    library: Library
    root: Path
    config: Config
    clock: ManualClock
    survey: Survey

    def topic(self, name: str, partitions: int = 1, records: int = 10) -> None:
        topic = self.brokers.create_topic(name, partitions=partitions)
        for partition in topic.partitions:
            partition.append(make_batch(0, plain_records(records)))

    def pid(self, name: str, partition: int = 0) -> PartitionId:
        return PartitionId(name, self.brokers.topics[name].topic_id, partition)

    async def archive(self, name: str, *segments: tuple[int, int], partition: int = 0) -> Manifest:
        pid = self.pid(name, partition)
        found = await self.library.load(pid)
        manifest = found.manifest if found else Manifest.empty("prod", self.brokers.cluster_id, pid, 0)
        for base, last in segments:
            manifest = manifest.with_segment(entry(base, last), ((0, 0),), fetched_at=manifest.end_offset)
        return (await self.library.save(pid, manifest, found.version if found else None)).manifest

    def reads(self) -> int:
        """Manifests that were read since the last call."""
        store = self.survey.libraries["local"].store
        assert isinstance(store, Counting)
        read, store.read = store.read, 0
        return read


class Counting(FileStore):
    read = 0

    async def get(self, key: str) -> StoredObject:
        self.read += 1
        return await super().get(key)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    root = tmp_path / "archive"
    root.mkdir()
    monkeypatch.setattr(module, "open_store", lambda about: Counting(root))
    async with FakeCluster() as brokers:
        ((host, port),) = brokers.bootstrap
        config = parse_config(
            f"cluster: {{name: prod, bootstrap: ['{host}:{port}']}}\n"
            "listen: {advertised_host: localhost}\n"
            f"archives: {{local: {{url: '{root.as_uri()}'}}}}\n"
            "topics: [{match: 'plain*', archive: none}, {match: '*', archive: local}]\n"
        )
        clock = ManualClock()
        library = Library(FileStore(root), "prod")
        survey = Survey(Settings(config), clock)
        yield World(brokers, library, root, config, clock, survey)
        await survey.close()
        await library.store.close()


async def test_it_tells_what_brokers_and_archives_say(world: World) -> None:
    world.topic("payments", 2, records=20)
    world.topic("plain")
    await world.archive("payments", (0, 4), (5, 9))
    world.brokers.topics["payments"][0].log.trim(6)
    found = await world.survey.look(None)
    assert (found.problems, found.proxied, found.pending, [*found.topics]) == ((), 1, 0, ["payments"])
    topic = found.topics["payments"]
    assert (topic.policy_at, topic.replicas, topic.topic_id) == (1, 1.0, world.pid("payments").topic_id)
    first, second = topic.partitions
    assert (first.partition, first.log_start, first.high_watermark, first.last_stable) == (0, 6, 20, 20)
    assert first.archived is not None
    assert (first.archived.archive, first.archived.start, first.archived.end) == ("local", 0, 10)
    assert (first.archived.sums.plain_size, first.archived.freed_bytes) == (1000, 500)
    assert second.archived is not None
    assert (second.archived.sums.segments, second.archived.end, second.log_start) == (0, 0, 0)
    assert found.group is not None
    assert found.group.problem != "", "a fake broker describes no groups"


async def test_what_stands_still_is_not_read_again_for_a_while(world: World) -> None:
    for name in ("still", "moving"):
        world.topic(name)
        await world.archive(name, (0, 9))
    facts = await world.survey.look(None)
    assert world.reads() == 2
    world.clock.advance(5)
    facts = await world.survey.look(facts)
    assert world.reads() == 0
    world.brokers.topics["moving"][0].append(make_batch(10, plain_records(5)))
    facts = await world.survey.look(facts)
    assert world.reads() == 1
    world.clock.advance(STILL_MS / 1000)
    facts = await world.survey.look(facts)
    assert world.reads() == 2
    await world.archive("moving", (10, 14))
    facts = await world.survey.look(facts)
    assert world.reads() == 1
    facts = await world.survey.look(facts)
    assert world.reads() == 0
    world.brokers.topics["still"][0].log.trim(10)
    facts = await world.survey.look(facts)
    (trimmed,) = facts.topics["still"].partitions
    assert trimmed.archived is not None
    assert (world.reads(), trimmed.archived.freed_bytes) == (1, 1000), "what was freed is counted again"


async def test_of_very_many_some_are_read_again_at_a_time_the_oldest_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANIFESTS_A_LOOK", 3)
    world.topic("many", 8)
    facts = await world.survey.look(None)
    assert (world.reads(), facts.pending) == (8, 0)
    seen: set[int] = set()
    for round_ in range(1, 4):
        world.clock.advance(5)
        facts = await world.survey.look(facts)
        assert world.reads() <= 3
        seen |= {p.partition for p in facts.topics["many"].partitions if p.archived and p.archived.read_ms > _T0}
        assert len(seen) == min(8, 3 * round_)


_T0 = ManualClock().now_ms()


async def test_reading_stops_when_it_takes_too_long_and_goes_on_in_the_next_survey(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANIFESTS_SECONDS", 0.0)
    world.topic("many", 5)
    facts = await world.survey.look(None)
    assert (world.reads(), facts.pending) == (0, 5)
    monkeypatch.setattr(module, "MANIFESTS_SECONDS", 9.0)
    assert (await world.survey.look(facts)).pending == 0


async def test_what_was_archived_and_trimmed_meanwhile_does_not_look_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.topic("payments", 3, records=20)
    for partition in range(3):
        await world.archive("payments", (0, 4), partition=partition)
    facts = await world.survey.look(None)
    monkeypatch.setattr(module, "MANIFESTS_A_LOOK", 0)
    await world.archive("payments", (5, 19), partition=2)
    world.brokers.topics["payments"][2].log.trim(20)
    found = (await world.survey.look(facts)).topics["payments"].partitions[2]
    assert found.archived is not None
    assert (found.log_start, found.archived.end) == (20, 20)


async def test_how_long_something_has_waited_is_what_surveys_have_seen(world: World) -> None:
    world.topic("payments", records=20)
    await world.archive("payments", (0, 4))

    async def since(facts: Facts | None) -> tuple[Facts, int | None]:
        found = await world.survey.look(facts)
        waiting = found.topics["payments"].partitions[0].waiting_since_ms
        return found, None if waiting is None else waiting - _T0

    facts, waiting = await since(None)
    assert waiting == 0
    world.clock.advance(60)
    facts, waiting = await since(facts)
    assert waiting == 0
    await world.archive("payments", (5, 9))
    facts, waiting = await since(facts)
    assert waiting == 60_000
    await world.archive("payments", (10, 19))
    _, waiting = await since(facts)
    assert waiting is None


async def test_a_damaged_manifest_is_told_from_a_store_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.topic("payments", 2)
    for partition in (0, 1):
        await world.archive("payments", (0, 9), partition=partition)
    file = world.root / manifest_key("prod", world.pid("payments", 1))
    file.write_text(file.read_text().replace('"end_offset": 10', '"end_offset": 11'))
    facts = await world.survey.look(None)
    fine, broken = facts.topics["payments"].partitions
    assert (fine.archive_problem, fine.damaged) == ("", False)
    assert broken.damaged
    assert "tierproxy archive repair" in broken.archive_problem
    assert facts.problems == ()
    monkeypatch.setattr(Counting, "get", _away)
    world.clock.advance(STILL_MS / 1000)
    for part in (await world.survey.look(facts)).topics["payments"].partitions:
        assert not part.damaged
        assert "the store is away" in part.archive_problem
    assert fine.archived is not None


async def _away(store: Counting, key: str) -> StoredObject:
    store.read += 1
    raise Unavailable("the store is away")


async def test_a_store_that_is_away_is_not_asked_for_each_of_very_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.topic("many", 60)
    monkeypatch.setattr(Counting, "get", _away)
    facts = await world.survey.look(None)
    assert world.reads() < 2 * module.GIVE_UP_AFTER
    assert facts.problems == ("archive local can't be read: the store is away",)
    assert all("the store is away" in part.archive_problem for part in facts.topics["many"].partitions)


async def test_when_brokers_are_away_what_is_known_is_shown_with_its_age(world: World) -> None:
    world.topic("payments")
    facts = await world.survey.look(None)
    for node in world.brokers.nodes.values():
        await node.stop()
    world.clock.advance(60)
    found = await world.survey.look(facts)
    assert replace(found, problems=()) == facts
    assert "the brokers can't be asked" in found.problems[0]
    nothing = await world.survey.look(None)
    assert (nothing.topics, len(nothing.problems)) == ({}, 1)


async def test_a_broker_that_has_no_settings_to_tell_is_no_problem(world: World) -> None:
    """As that of `serve --from-archive`."""
    world.topic("payments")
    world.brokers.versions.pop(ApiKey.DESCRIBE_CONFIGS)
    found = await world.survey.look(None)
    assert (found.problems, found.topics["payments"].settings) == ((), {})


async def test_a_leader_that_is_away_spoils_its_partitions_only(world: World) -> None:
    world.topic("payments", 2)
    world.brokers.topics["payments"][1].leader = -1
    one, other = (await world.survey.look(None)).topics["payments"].partitions
    assert one.broker_problem == ""
    assert other.broker_problem == "its leader doesn't tell its offsets: LEADER_NOT_AVAILABLE"


async def test_holes_and_a_recreated_topic(world: World) -> None:
    world.topic("payments")
    manifest = await world.archive("payments", (0, 4))
    pid = world.pid("payments")
    found = await world.library.load(pid)
    assert found is not None
    await world.library.save(pid, manifest.with_gap(Gap(5, 10, 9, "gone")), found.version)
    facts = await world.survey.look(None)
    about = facts.topics["payments"].partitions[0].archived
    assert about is not None
    assert [(gap.start, gap.end) for gap in about.gaps] == [(5, 10)]
    world.brokers.delete_topic("payments")
    world.topic("payments")
    about = (await world.survey.look(facts)).topics["payments"].partitions[0].archived
    assert about is not None
    assert (about.gaps, about.sums.segments) == ((), 0)


async def test_only_what_it_is_about_is_asked_for(world: World) -> None:
    for name in ("payments", "clicks"):
        world.topic(name)
    found = await world.survey.look(None, lambda topic: topic == "clicks")
    assert [*found.topics] == ["clicks"]
    asked = {topic.name for request in world.brokers.asked(ApiKey.LIST_OFFSETS) for topic in request.message.topics}
    assert asked == {"clicks"}
    assert world.reads() == 1
