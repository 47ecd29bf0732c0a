"""Random requests, the same for the same seed: of every version, at every edge, in every mix."""

import random
from collections.abc import Mapping
from dataclasses import replace

from tests.differential.asks import (
    EpochPlace,
    EpochsAsk,
    FetchAsk,
    FetchPlace,
    OffsetsAsk,
    TimePlace,
)
from tests.differential.deliver import READ_COMMITTED, READ_UNCOMMITTED
from tests.differential.world import UNKNOWN_TOPICS, AtRecord, World

LARGE = 1 << 31
LAST = (1 << 63) - 1
SPECIAL_TIMES = (-1, -2, -3, -4, -5, -6, -7)


class Generator:
    """Draws from `chance`. `versions` are what the broker offers."""

    def __init__(self, chance: random.Random, world: World, versions: Mapping[int, tuple[int, int]]) -> None:
        self.chance, self.world, self.versions = chance, world, versions
        self._places = sorted(world.places())

    # -- fetches ------------------------------------------------------------------------------------------------------

    def fetch(self, version: int | None = None, places: tuple[FetchPlace, ...] | None = None) -> FetchAsk:
        chance = self.chance
        version = version or self.fetch_version()
        if places is None:
            places = self.fetch_places(version)
        return FetchAsk(
            version=version,
            max_wait_ms=chance.choices([0, 1, 10, 30, 100], [6, 3, 3, 3, 1])[0],
            min_bytes=chance.choices([0, 1, 1000, 100_000, LARGE - 1], [2, 8, 2, 1, 1])[0],
            max_bytes=self._most(places),
            isolation=chance.choice([READ_UNCOMMITTED, READ_COMMITTED]),
            places=places,
            session=chance.choices([(0, -1), (0, 0), (77, -1), (77, 0), (77, 3), (0, 3)], [80, 20, 1, 1, 1, 1])[0],
            rack=chance.choice(["", "", "r1"]) if version >= 11 else "",
            replica=chance.choices([-1, 7], [80, 1])[0],
        )

    def fetch_version(self) -> int:
        lowest, highest = self.versions[FetchAsk.API]
        return self.chance.randint(max(4, lowest), min(18, highest))

    def fetch_places(self, version: int) -> tuple[FetchPlace, ...]:
        chance = self.chance
        count = chance.choices([0, 1, 2, 3, 5, 9], [1, 40, 15, 10, 8, 4])[0]
        places = [self.fetch_place(version) for _ in range(count)]
        if count > 1 and chance.random() < 0.1:  # named twice, at another offset
            twice = chance.choice(places)
            offset = min(twice.offset + chance.choice([-7, 1, 7]), LAST)
            places.insert(chance.randrange(count), replace(twice, offset=offset))
        if chance.random() < 0.5:  # clients send a topic's partitions together
            places.sort(key=lambda place: place.topic)
        return tuple(places)

    def fetch_place(self, version: int) -> FetchPlace:
        chance = self.chance
        if chance.random() < 0.04:
            topic = chance.choice(UNKNOWN_TOPICS if version < 13 else (*UNKNOWN_TOPICS, "?zero"))
            return FetchPlace(topic, chance.randrange(2), chance.randrange(5), 1 << 20)
        topic, index = self.place()
        if chance.random() < 0.02:
            return FetchPlace(topic, chance.choice([-1, 77]), chance.randrange(5), 1 << 20)
        return self.fetch_at(version, topic, index)

    def place(self) -> tuple[str, int]:
        """A partition; the large one less often."""
        place = self.chance.choice(self._places)
        return self.chance.choice(self._places) if place[0] == "bulk" else place

    def fetch_at(self, version: int, topic: str, index: int) -> FetchPlace:
        """A place in this partition."""
        chance = self.chance
        offset = self.offset(topic, index)
        current = last = -1
        known = self.world.leader_epoch
        if version >= 9:
            current = chance.choices([-1, known, known - 1, known + 1], [20, 20, 1, 1])[0]
        if version >= 12 and chance.random() < 0.15:
            last = self._epoch_before(topic, index, offset) if chance.random() < 0.6 else chance.randint(0, known + 2)
        return FetchPlace(topic, index, offset, self._partition_bytes(topic, index, offset), current, last)

    def offset(self, topic: str, index: int) -> int:
        """A fetch offset: anywhere, at the edges of batches, of the log, of the tiers, and where nothing is."""
        chance, log = self.chance, self.world.ref.logs[topic, index]
        anywhere = chance.randint(log.start, max(log.start, log.end))
        batch = log.batches[chance.randrange(len(log.batches))] if log.batches else None
        seam = self.world.seams[topic, index]
        match chance.choices(["any", "edge", "seam", "start", "end", "stable", "absurd"], [30, 25, 12, 8, 8, 6, 4])[0]:
            case "edge" if batch is not None:
                return chance.choice([batch.base, batch.last, batch.last + 1, batch.base + 1])
            case "seam" if seam is not None:
                return max(0, seam + chance.choice([-30, -2, -1, 0, 1, 20]))
            case "start":
                return log.start + chance.choice([-1, 0, 0, 1])
            case "end":
                return log.end + chance.choice([-1, 0, 0, 1, 1000])
            case "stable":
                return log.stable + chance.choice([-1, 0, 1])
            case "absurd":
                return chance.choice([-1, -2, -LARGE, 0, 1, 1 << 40, LAST])
        return anywhere

    def _epoch_before(self, topic: str, index: int, offset: int) -> int:
        """The leader epoch of the last record before `offset`: what a client that has read it would name."""
        log = self.world.ref.logs[topic, index]
        number = log.first_at(offset - 1) if offset > 0 else len(log.batches)
        return log.batches[number].header.leader_epoch if number < len(log.batches) else -1

    def _partition_bytes(self, topic: str, index: int, offset: int) -> int:
        chance, log = self.chance, self.world.ref.logs[topic, index]
        number = log.first_at(offset)
        sizes = [batch.size for batch in log.batches[number : number + 3]] or [100]
        match chance.choices(["usual", "exact", "small", "any"], [30, 15, 10, 20])[0]:
            case "usual":
                return 1 << 20
            case "exact":
                return sum(sizes[: chance.randint(1, 3)]) + chance.choice([-1, 0, 1])
            case "small":
                return chance.choice([0, 1, 12, 60, 61, 62, 100])  # never negative: see ALLOWED.md
        return chance.choice([chance.randint(1, 5_000), chance.randint(1, 60_000), LARGE - 1])

    def _most(self, places: tuple[FetchPlace, ...]) -> int:
        chance = self.chance
        if places and chance.random() < 0.3:
            enough = sum(place.max_bytes for place in places[: chance.randint(1, 2)]) + chance.choice([-1, 0, 1])
            return min(max(0, enough), LARGE - 1)
        few, some = chance.randint(0, 3_000), chance.randint(0, 50_000)
        return chance.choice([50 << 20, 50 << 20, LARGE - 1, some, few, 0])

    # -- offsets ------------------------------------------------------------------------------------------------------

    def offsets(self) -> OffsetsAsk:
        chance = self.chance
        lowest, highest = self.versions[OffsetsAsk.API]
        version = chance.randint(max(1, lowest), min(11, highest))
        count = chance.choices([1, 2, 4], [4, 2, 1])[0]
        places = [self._time_place(version) for _ in range(count)]
        if chance.random() < 0.03:
            places.append(chance.choice(places))
        isolation = chance.choice([READ_UNCOMMITTED, READ_COMMITTED]) if version >= 2 else READ_UNCOMMITTED
        return OffsetsAsk(version, isolation, tuple(places))

    def _time_place(self, version: int) -> TimePlace:
        chance = self.chance
        if chance.random() < 0.04:
            return TimePlace(chance.choice(UNKNOWN_TOPICS), 0, -1)
        topic, index = self.place()
        if chance.random() < 0.02:
            return TimePlace(topic, 77, -2)
        current, known = -1, self.world.leader_epoch
        if version >= 4:
            current = chance.choices([-1, known, known - 1, known + 1], [20, 20, 1, 1])[0]
        return TimePlace(topic, index, self._time(topic, index), current)

    def _time(self, topic: str, index: int) -> int | AtRecord:
        chance, log = self.chance, self.world.ref.logs[topic, index]
        if not log.batches or chance.random() < 0.4:
            return chance.choice(SPECIAL_TIMES)
        if chance.random() < 0.1:
            return chance.choice([0, 1, log.batches[0].header.base_timestamp - 1000, 1 << 45, LAST, -LARGE])
        offset = chance.choice(sorted(chance.choice(log.batches).times))
        return AtRecord(offset, chance.choice([-1, 0, 0, 1]))

    def epochs(self) -> EpochsAsk:
        chance = self.chance
        lowest, highest = self.versions[EpochsAsk.API]
        version = chance.randint(max(2, lowest), min(4, highest))
        known = self.world.leader_epoch
        places = []
        for _ in range(chance.choice([1, 1, 2, 4])):
            topic, index = self.place()
            if chance.random() < 0.05:
                topic, index = chance.choice([(chance.choice(UNKNOWN_TOPICS), 0), (topic, 77)])
            current = chance.choices([-1, known, known - 1, known + 1], [20, 20, 1, 1])[0]
            places.append(EpochPlace(topic, index, chance.randint(-1, known + 2), current))
        return EpochsAsk(version, tuple(places))
