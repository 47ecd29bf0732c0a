"""One topic's restore from its plan to its end: what is to be done, the topic to do it in, the lanes that do it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.archive.names import topic_id_text
from tierproxy.clock import Clock
from tierproxy.restore.lane import Lane, Pace, Shared
from tierproxy.restore.state import Progress, State, load, save, state_file
from tierproxy.restore.target import SETTINGS, Target, faults_of
from tierproxy.upstream import EARLIEST, LATEST, TopicPartition, TopicView

SAVE_EVERY = 1.0
"""Seconds between two savings of the state: what lies between is found in the target."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done, for every topic alike. `options` are those that say what is restored, as text."""

    options: tuple[str | None, ...]
    partition: int | None
    """The only one that is wanted; then others may be restored into the same topic by runs of their own."""
    offset_header: str | None
    topic_settings: Mapping[str, str]
    resume: bool
    state_folder: Path


@dataclass(frozen=True, slots=True)
class Source:
    """One archived partition and the offsets [first, stop) of it; what that is, at the most."""

    library: Library
    manifest: Manifest
    first: int
    stop: int
    records: int
    bytes: int
    oldest_ms: int
    newest_ms: int


async def measured(library: Library, manifest: Manifest, first: int, stop: int) -> Source:
    """By manifest and indexes: aborted records and markers are counted, and at the borders whole chunks."""
    records = size = 0
    oldest, newest = -1, -1
    async for entry in library.segments(manifest, first):
        if entry.base_offset >= stop or first >= stop:
            break
        if first <= entry.base_offset and entry.last_offset < stop:
            records += entry.records
            size += entry.plain_size
            times = (entry.min_timestamp, entry.max_timestamp)
        else:
            index = await library.load_index(manifest.pid, entry)
            chunks = [each for each in index.chunks if each.last_offset >= first and each.base_offset < stop]
            records += min(entry.records, min(stop, entry.last_offset + 1) - max(first, entry.base_offset))
            size += sum(each.plain_size for each in chunks)
            known = [each.min_timestamp for each in chunks if each.min_timestamp >= 0]
            times = (min(known, default=-1), max((each.max_timestamp for each in chunks), default=-1))
        if times[0] >= 0 and (oldest < 0 or times[0] < oldest):
            oldest = times[0]
        newest = max(newest, times[1])
    return Source(library, manifest, first, stop, records, size, oldest, newest)


class Job:
    """Restores `sources`, partitions of one topic, into `name` of the target."""

    def __init__(
        self, target: Target, name: str, sources: Sequence[Source], partitions: int, asked: Asked, clock: Clock
    ) -> None:
        """`partitions` is how many the target must have."""
        self._target = target
        self.name = name
        self.sources = sources
        self._partitions = partitions
        self._asked = asked
        self._clock = clock
        self._saved_at = clock.monotonic()
        self.state: State | None = None
        """Known from `begin` on."""
        self.resumed = False

    @property
    def topic(self) -> str:
        """Its name in the archive."""
        return self.sources[0].manifest.topic

    @property
    def file(self) -> Path:
        """Where the state is."""
        cluster = self._target.view.cluster_id or "unknown"
        only = "" if self._asked.partition is None else f"-{self._asked.partition}"
        return state_file(self._asked.state_folder, f"{self.topic}{only}", self.name, cluster)

    async def look(self) -> list[str]:
        """What stands in the way of it, before anything is changed; an earlier run's state is taken up."""
        topic = self._target.view.topics.get(self.name)
        state = load(self.file)
        if state is not None:
            return self._look_at_state(state, topic)
        if topic is None:
            return []
        oldest = min((each.oldest_ms for each in self.sources if each.oldest_ms >= 0), default=-1)
        settings = (await self._target.topic_configs([self.name])).get(self.name, {})
        faults = faults_of(topic, settings, self._partitions, oldest, self._clock.now_ms())
        if not faults:
            faults += [
                f"its partition {p} isn't empty" for p, (start, end) in (await self._bounds()).items() if start < end
            ]
        return faults

    def _look_at_state(self, state: State, topic: TopicView | None) -> list[str]:
        here = (topic_id_text(self.sources[0].manifest.topic_id), list(self._asked.options))
        if not self._asked.resume:
            return [f"a restore into it was begun: go on with --resume, or delete {self.file} and the target's topic"]
        if (state.topic_id, state.asked) != here:
            return [f"{self.file} is of a restore of something else: {state.asked} of topic {state.topic_id}"]
        if topic is None or topic_id_text(topic.topic_id) != state.target_topic_id:
            return [f"the target's topic is another one than that which {self.file} tells of: delete that file"]
        self.state, self.resumed = state, True
        return []

    async def begin(self) -> None:
        """Create the topic if need be, and write down where everything begins."""
        if self.state is not None:
            return
        if self.name not in self._target.view.topics:
            await self._target.create_topic(self.name, self._partitions, {**SETTINGS, **self._asked.topic_settings})
        view, manifest = self._target.view, self.sources[0].manifest
        producer_id, epoch = await self._target.producer_id()
        bounds = await self._bounds()
        self.state = State(
            topic=self.topic,
            topic_id=topic_id_text(manifest.topic_id),
            asked=list(self._asked.options),
            target_cluster=view.cluster_id or "unknown",
            target_topic=self.name,
            target_topic_id=topic_id_text(view.topics[self.name].topic_id),
            producer_id=producer_id,
            producer_epoch=epoch,
            partitions={
                each.manifest.partition: Progress(each.first, each.stop, each.first, bounds[each.manifest.partition][1])
                for each in self.sources
            },
        )
        save(self.file, self.state)

    async def run(self, lanes: asyncio.Semaphore, pace: Pace, sent: Callable[[int], None]) -> None:
        """Until all is there. What is acknowledged is written down, however it ends."""
        assert self.state is not None, "begin() comes first"
        shared = Shared(self._target, self.state, self._clock, sent, self._save_now_and_then, pace)
        try:
            async with asyncio.TaskGroup() as group:
                for source in self.sources:
                    if not self.state.partitions[source.manifest.partition].done:
                        group.create_task(self._lane(shared, source, lanes))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            save(self.file, self.state)

    async def _lane(self, shared: Shared, source: Source, lanes: asyncio.Semaphore) -> None:
        tp = TopicPartition(self.name, source.manifest.partition)
        async with lanes:
            lane = Lane(shared, source.library, source.manifest, tp, self._asked.offset_header)
            if self.resumed:
                await lane.find_place()
            await lane.run()

    def _save_now_and_then(self) -> None:
        now = self._clock.monotonic()
        if now - self._saved_at >= SAVE_EVERY:
            assert self.state is not None
            save(self.file, self.state)
            self._saved_at = now

    async def _bounds(self) -> dict[int, tuple[int, int]]:
        """Log start and end by partition, of those that are restored. Raises TierproxyError."""
        asked = [TopicPartition(self.name, each.manifest.partition) for each in self.sources]
        starts, ends = await self._target.offsets(asked, EARLIEST), await self._target.offsets(asked, LATEST)
        return {tp.partition: (starts[tp], ends[tp]) for tp in asked}
