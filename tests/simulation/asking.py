"""One process's way to the simulated brokers: `tierproxy.upstream.Cluster` with its questions answered in memory.

The way may be slow, cut before or after the broker has done what it was asked, and metadata may be old. What a
broker was asked before an election (or before its topic was deleted) and had not done by then, it never does: an
election takes longer than a request is on its way.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any

from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition
from protocol.fetch_response import FetchedPartition, FetchResponse
from protocol.messages import NO_TOPIC_ID
from tests.fakes.broker.log import NO_EPOCH, OutOfRange
from tests.simulation.brokers import Brokers, Partition
from tests.simulation.loop import Process, VirtualLoop, answered
from tests.simulation.trace import Trace
from tests.simulation.truth import Truth
from tierproxy.broker_connection import Unreachable
from tierproxy.cluster_view import (
    NOBODY,
    ClusterView,
    DeletedRecords,
    EndOfEpoch,
    ListedOffset,
    TopicIdentity,
    TopicPartition,
)
from tierproxy.upstream import EARLIEST, LATEST, READ_COMMITTED, READ_UNCOMMITTED, Cluster

FETCH_VERSION = 17
NO_TAGS = b"\x00"
_TRY_AGAIN = (
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode.LEADER_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.NETWORK_EXCEPTION,
)


@dataclass
class BrokerWeather:
    """Chances of each kind of trouble, per request; `slow` is the most seconds that one takes."""

    slow: float = 0.0
    cut: float = 0.0
    lost: float = 0.0
    stale: float = 0.0
    corrupt: float = 0.0


class SimCluster(Cluster):
    """Answers what tierproxy asks of brokers; everything else of `Cluster` is not there."""

    def __init__(
        self,
        brokers: Brokers,
        weather: BrokerWeather,
        chance: random.Random,
        process: Process,
        truth: Truth,
        trace: Trace,
    ) -> None:
        self.view = ClusterView.unknown()
        self._brokers = brokers
        self._weather = weather
        self._chance = chance
        self._process = process
        self._truth = truth
        self._trace = trace

    async def close(self) -> None:
        """There are no connections."""

    # ---- any broker ----------------------------------------------------------------------------------------

    async def refresh(self, topics: Iterable[str] | None = None) -> ClusterView:
        behind = self._chance.random() < self._weather.stale
        found: ClusterView = await self._ask("Metadata", lambda: self._brokers.some_view(behind))
        if topics is None:
            self.view = found
            return found
        merged = dict(self.view.topics)
        for topic in topics:
            if topic in found.topics:
                merged[topic] = found.topics[topic]
            else:
                merged.pop(topic, None)
        self.view = ClusterView(found.cluster_id, found.brokers, merged)
        return self.view

    async def topic_configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        names = list(topics)
        settings = {name: {"cleanup.policy": "delete"} for name in names}
        await self._ask("DescribeConfigs", lambda: None)
        return settings

    # ---- leaders -------------------------------------------------------------------------------------------

    async def list_offsets(
        self, asked: Mapping[TopicPartition, int], isolation: int = READ_UNCOMMITTED
    ) -> dict[TopicPartition, ListedOffset]:
        def answer(partition: Partition, at: int) -> ListedOffset:
            log = partition.log
            if at == EARLIEST:
                return ListedOffset(0, log.start, -1, log.epoch_at_start())
            assert at == LATEST, "no other time is asked for here"
            if log.high_watermark < partition.caught_up_at:
                return ListedOffset(ErrorCode.OFFSET_NOT_AVAILABLE, -1, -1, -1)
            end = log.bound(isolation == READ_COMMITTED)
            return ListedOffset(0, end, -1, partition.leader_epoch)

        return await self._ask_leaders_of("ListOffsets", asked, answer, lambda error: ListedOffset(error, -1, -1, -1))

    async def ends_of_epochs(self, asked: Mapping[TopicPartition, int]) -> dict[TopicPartition, EndOfEpoch]:
        def answer(partition: Partition, epoch: int) -> EndOfEpoch:
            return EndOfEpoch(0, *partition.log.epoch_end(epoch))

        return await self._ask_leaders_of(
            "OffsetForLeaderEpoch", asked, answer, lambda error: EndOfEpoch(error, -1, -1)
        )

    async def topic_ids(self, asked: Iterable[TopicPartition]) -> dict[TopicPartition, TopicIdentity]:
        def answer(partition: Partition, _: None) -> TopicIdentity:
            return TopicIdentity(0, partition.pid.topic_id)

        return await self._ask_leaders_of(
            "Metadata of leader", dict.fromkeys(asked), answer, lambda error: TopicIdentity(error, NO_TOPIC_ID)
        )

    async def delete_records(
        self, asked: Mapping[TopicPartition, int], timeout_ms: int = 30_000
    ) -> dict[TopicPartition, DeletedRecords]:
        late_followers = self._chance.random() < self._weather.lost

        def answer(partition: Partition, offset: int) -> DeletedRecords:
            log = partition.log
            if offset > log.high_watermark:
                return DeletedRecords(ErrorCode.OFFSET_OUT_OF_RANGE, -1)
            self._truth.trims(partition.pid, log, offset)
            log.trim(offset)
            if late_followers:
                return DeletedRecords(ErrorCode.REQUEST_TIMED_OUT, -1)
            return DeletedRecords(0, log.start)

        return await self._ask_leaders_of(
            "DeleteRecords", asked, answer, lambda error: DeletedRecords(error, -1), repeat=False
        )

    async def fetch(
        self,
        node_id: int,
        partitions: Sequence[FetchPartition],
        *,
        max_wait_ms: int,
        max_bytes: int,
        min_bytes: int = 1,
    ) -> FetchResponse:
        turns = [self._turn(part) for part in partitions]
        most = self._chance.randint(0, 8)  # a broker may give fewer batches than fit
        wait = max_wait_ms / 1000 if self._chance.random() < 0.3 else 0.0

        def answer() -> list[FetchedPartition]:
            return [self._fetch_one(node_id, part, turn, most) for part, turn in zip(partitions, turns, strict=True)]

        what = "Fetch " + " ".join(f"{part.topic}-{part.index}@{part.fetch_offset}" for part in partitions)
        found = await self._ask(what, answer, node_id, wait)
        if not wait and not any(part.records or part.error or part.tags != NO_TAGS for part in found):
            found = await self._ask(what + " (the rest of the wait)", answer, node_id, max_wait_ms / 1000)
        return FetchResponse(FETCH_VERSION, 0, 0, 0, 0, found, NO_TAGS)

    def _turn(self, part: FetchPartition) -> int:
        partition = self._brokers.find_by_id(part.topic_id, part.index)
        return partition.turn if partition is not None else -1

    def _fetch_one(self, node_id: int, part: FetchPartition, turn: int, most: int) -> FetchedPartition:
        partition = self._brokers.find_by_id(part.topic_id, part.index)
        if partition is None:
            return _refused(part, ErrorCode.UNKNOWN_TOPIC_ID)
        if partition.leader != node_id or partition.turn != turn:
            return _refused(part, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if 0 <= part.current_leader_epoch < partition.leader_epoch:
            return _refused(part, ErrorCode.FENCED_LEADER_EPOCH)
        if part.current_leader_epoch > partition.leader_epoch:
            return _refused(part, ErrorCode.UNKNOWN_LEADER_EPOCH)
        log = partition.log
        tags = NO_TAGS
        records, aborted = b"", list[tuple[int, int]]()
        if part.last_fetched_epoch >= 0:
            epoch, end = log.epoch_end(part.last_fetched_epoch)
            if (epoch, end) == NO_EPOCH:
                return _refused(part, ErrorCode.OFFSET_OUT_OF_RANGE)
            if epoch < part.last_fetched_epoch or end < part.fetch_offset:
                tags = b"\x01\x00\x0d" + pack(">iqB", epoch, end, 0)
        if tags == NO_TAGS:
            try:
                size = part.max_bytes if most == 0 else min(part.max_bytes, 120 * most)
                read = log.read(part.fetch_offset, size, at_least_one=True, committed=True)
            except OutOfRange:
                return _refused(part, ErrorCode.OFFSET_OUT_OF_RANGE)
            records, aborted = read.records, read.aborted
            if records and self._chance.random() < self._weather.corrupt:
                records = _spoiled(records, self._chance)
        self._truth.stable(partition.pid, log.last_stable)
        return FetchedPartition(
            topic=part.topic,
            topic_id=part.topic_id,
            index=part.index,
            error=0,
            high_watermark=log.high_watermark,
            last_stable_offset=log.last_stable,
            log_start=log.start,
            aborted=aborted,
            preferred_replica=-1,
            records=memoryview(records),
            tags=tags,
        )

    # ---- how they are asked --------------------------------------------------------------------------------

    async def _ask_leaders_of(
        self,
        what: str,
        asked: Mapping[TopicPartition, Any],
        answer: Callable[[Partition, Any], Any],
        failed: Callable[[int], Any],
        repeat: bool = True,
    ) -> dict[TopicPartition, Any]:
        """As the real one: by leader, and once more after a refresh where the leader was another."""
        answers: dict[TopicPartition, Any] = {}
        todo = dict(asked)
        for last_try in (False, True) if repeat else (True,):
            by_leader: dict[int, dict[TopicPartition, Any]] = {}
            for tp, question in todo.items():
                by_leader.setdefault(self.view.leader(tp), {})[tp] = question
            for tp in by_leader.pop(NOBODY, {}):
                answers[tp] = failed(ErrorCode.LEADER_NOT_AVAILABLE)
            said = await asyncio.gather(
                *(self._ask_leader(what, node, part, answer, failed) for node, part in by_leader.items())
            )
            for each in said:
                answers.update(each)
            todo = {tp: question for tp, question in todo.items() if answers[tp].error in _TRY_AGAIN}
            if last_try or not todo:
                break
            try:
                await self.refresh({tp.topic for tp in todo})
            except Unreachable:
                break
        return answers

    async def _ask_leader(
        self,
        what: str,
        node: int,
        asked: Mapping[TopicPartition, Any],
        answer: Callable[[Partition, Any], Any],
        failed: Callable[[int], Any],
    ) -> dict[TopicPartition, Any]:
        found = {tp: self._brokers.find(tp.topic, tp.partition) for tp in asked}
        turns = {tp: partition.turn if partition is not None else -1 for tp, partition in found.items()}

        def effect() -> dict[TopicPartition, Any]:
            answers = {}
            for tp, question in asked.items():
                partition = self._brokers.find(tp.topic, tp.partition)
                if partition is None:
                    answers[tp] = failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                elif partition is not found[tp] or partition.leader != node or partition.turn != turns[tp]:
                    answers[tp] = failed(ErrorCode.NOT_LEADER_OR_FOLLOWER)
                else:
                    answers[tp] = answer(partition, question)
            return answers

        try:
            text = " ".join(f"{tp}" if question is None else f"{tp}:{question}" for tp, question in asked.items())
            said: dict[TopicPartition, Any] = await self._ask(f"{what} {text}", effect, node)
            return said
        except Unreachable:
            return {tp: failed(ErrorCode.NETWORK_EXCEPTION) for tp in asked}

    async def _ask(self, what: str, effect: Callable[[], Any], node: int | None = None, wait: float = 0.0) -> Any:
        self._process.must_live()
        self._say(f">> {what}")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        weather, dice = self._weather, self._chance.random()
        delay = wait + (self._chance.uniform(0, weather.slow) if weather.slow else 0.001)
        answer_delay = self._chance.uniform(0, weather.slow) if weather.slow else 0.001

        def reached() -> Any:
            if node in self._brokers.down:
                raise Unreachable(f"broker {node}: connection refused")
            return effect()

        def cut() -> Any:
            raise Unreachable("the connection was cut")

        try:
            if dice < weather.cut:
                answer = await answered(loop, delay, cut, answer_delay)
            elif dice < weather.cut + weather.lost:
                answer = await answered(loop, delay, reached, answer_delay, Unreachable("the answer was lost"))
            else:
                answer = await answered(loop, delay, reached, answer_delay)
        except Unreachable as error:
            self._say(f"<< {what}: {error}")
            raise
        self._say(f"<< {what}: {_short(answer)}")
        return answer

    def _say(self, what: str) -> None:
        if self._process.alive:
            self._trace.note(self._process.name, what)


def _short(answer: Any) -> str:
    if isinstance(answer, dict):
        return " ".join(str(value) for value in answer.values())
    if isinstance(answer, list):
        return " ".join(
            f"error {part.error}"
            if part.error
            else f"{len(part.records)} bytes, {part.log_start} to {part.high_watermark}"
            for part in answer
        )
    return "done"


def _short_part(part: FetchedPartition) -> str:
    if part.error:
        return f"error {part.error}"
    return f"{len(part.records or b'')} bytes, {part.log_start} to {part.high_watermark}"


def _refused(part: FetchPartition, error: int) -> FetchedPartition:
    return FetchedPartition(part.topic, part.topic_id, part.index, error, -1, -1, -1, None, -1, None, NO_TAGS)


def _spoiled(records: bytes, chance: random.Random) -> bytes:
    """One bit of the first batch is another, where its checksum tells: TCP's is weak, and memory fails."""
    size = int.from_bytes(records[8:12], "big") + 12
    at = chance.randrange(21, min(size, len(records)))
    return records[:at] + bytes([records[at] ^ 1 << chance.randrange(8)]) + records[at + 1 :]
