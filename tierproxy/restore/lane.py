"""One partition's way into the target: its batches in order, a few at a time, each acknowledged by all replicas.

Nothing twice and nothing left out, by two means. The producer is idempotent: batches have sequence numbers, so a broker
that has one already says so instead of writing it again. But brokers forget producers by the time of their last record
(producer.id.expiration.ms, a day), when they start and now and then: of old records, which are what is restored, they
may know nothing after a crash. So after each failure, and from run to run, the target tells: behind what was
acknowledged can only lie what was sent after that, and what was sent follows from the archive. Whoever goes on compares
the two, record by record, and begins behind the last one that is there, with the same producer id and the next number:
what earlier requests may still bring is then recognised too, by a broker that was there all the time.

All of that holds only while nobody else writes into the topic. Where a batch is not put where it must go, somebody
does.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protocol.batches import walk
from protocol.errors import ErrorCode, error_name
from protocol.fetch import FetchPartition
from protocol.producing import Produced
from protocol.rebatch import SEQUENCES, raw_records, stamp
from tierproxy.archive.library import Library
from tierproxy.archive.manifest import Manifest
from tierproxy.broker_connection import Unreachable
from tierproxy.clock import Clock
from tierproxy.errors import TierproxyError
from tierproxy.restore.outgoing import Outgoing, Part, outgoing
from tierproxy.restore.state import Progress, State
from tierproxy.restore.target import Target, pauses
from tierproxy.upstream import LATEST, TopicPartition

WINDOW = 5
"""Batches on their way at a time: of so many a broker remembers the numbers (ProducerStateEntry)."""
WINDOW_BYTES = 4 << 20

_RETRIABLE = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.THROTTLING_QUOTA_EXCEEDED,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,  # of a batch behind one that failed
    }
)

_HINTS = {
    ErrorCode.MESSAGE_TOO_LARGE: "it is larger than the topic's max.message.bytes: raise that",
    ErrorCode.RECORD_LIST_TOO_LARGE: "it is larger than the topic's segment.bytes: raise that",
    ErrorCode.INVALID_TIMESTAMP: "raise the topic's message.timestamp.before.max.ms and message.timestamp.after.max.ms",
    ErrorCode.INVALID_RECORD: "a compacted topic takes no records without a key: set cleanup.policy=delete",
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: "the account may not WRITE there",
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: "the account needs IDEMPOTENT_WRITE on the cluster",
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: "has the target lost records, in an unclean election for example?",
}


class NotOurs(TierproxyError):
    """What lies in the target is not what was restored."""


class Unreadable(TierproxyError):
    """What lies in the target can't be read, now or at all."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the lanes of a restore have in common."""

    target: Target
    state: State
    clock: Clock
    sent: Callable[[int], None]
    """Told the bytes of batches that are in the target now."""
    saved: Callable[[], None]
    """Told that there is progress to write down."""
    pace: "Pace"


class Pace:
    """At most so many bytes a second; None: as many as there can be."""

    def __init__(self, per_second: int | None, clock: Clock) -> None:
        self._per_second = per_second
        self._clock = clock
        self._free_at = clock.monotonic()

    async def take(self, size: int) -> None:
        """Wait until `size` bytes more may be sent. A second's worth may come at once."""
        if self._per_second is None:
            return
        now = self._clock.monotonic()
        self._free_at = max(self._free_at, now - 1.0) + size / self._per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Lane:
    """Restores one partition; `find_place` before `run` where an earlier run may have been."""

    def __init__(
        self,
        shared: Shared,
        library: Library,
        manifest: Manifest,
        tp: TopicPartition,
        offset_header: str | None,
    ) -> None:
        self._shared = shared
        self._library = library
        self._manifest = manifest
        self._tp = tp
        self._offset_header = offset_header

    @property
    def _progress(self) -> Progress:
        return self._shared.state.partitions[self._tp.partition]

    async def run(self) -> None:
        """Until everything is there. Raises TierproxyError; what is acknowledged by then stands in the progress."""
        window: list[Outgoing] = []
        size = 0
        async for batches in outgoing(self._library, self._manifest, self._part()):
            for each in batches:
                if window and (len(window) == WINDOW or size + len(each.batch) > WINDOW_BYTES):
                    await self._send(window)
                    window, size = [], 0
                window.append(each)
                size += len(each.batch)
        if window:
            await self._send(window)
        self._progress.next = self._progress.stop  # what follows is no data
        self._shared.saved()

    def _part(self) -> Part:
        return Part(self._progress.next, self._progress.stop, self._offset_header)

    # -- going on ---------------------------------------------------------------------------------------------------

    async def find_place(self) -> None:
        """Step over what an earlier run has sent after its last words. Raises NotOurs, Unreadable."""
        progress = self._progress
        end = (await self._shared.target.offsets([self._tp], LATEST))[self._tp]
        if end < progress.target_offset:
            raise NotOurs(
                f"{self._tp} ends at {end} in the target, but {progress.target_offset} was acknowledged: has it lost "
                "records, in an unclean election for example? Restore into a new topic"
            )
        ahead = end - progress.target_offset
        if not ahead:
            return
        there = _Tail(self._shared.target, self._tp, progress.target_offset)
        async for batches in outgoing(self._library, self._manifest, self._part()):
            for each in batches:
                if not ahead:
                    return
                if each.count > ahead or not await there.holds(each):
                    raise self._not_ours(progress.target_offset)
                ahead -= each.count
                self._acknowledged(each)
        if ahead:
            raise self._not_ours(progress.target_offset)

    def _not_ours(self, offset: int) -> NotOurs:
        return NotOurs(
            f"{self._tp} holds something else at offset {offset} of the target than what was restored: somebody else "
            "writes into it. Restore into a topic that nobody else uses"
        )

    # -- sending ----------------------------------------------------------------------------------------------------

    async def _send(self, window: list[Outgoing]) -> None:
        """All of it, in order, however often that takes."""
        await self._shared.pace.take(sum(len(each.batch) for each in window))
        waiting = deque(window)
        tries = pauses(self._shared.clock)
        lost = None
        while waiting:
            answers = await self._try(waiting) if lost is None else [lost]
            before = len(waiting)
            while answers and (answers[0].error in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER)):
                answer = answers.pop(0)
                if answer.error == ErrorCode.NONE and answer.base_offset not in (-1, self._progress.target_offset):
                    raise self._not_ours(self._progress.target_offset)
                self._acknowledged(waiting.popleft())
            if not waiting:
                break
            if len(waiting) < before:
                tries = pauses(self._shared.clock)
            failed = answers[0]
            pause = next(tries, None)
            if failed.error == ErrorCode.UNKNOWN_PRODUCER_ID or failed.error not in _RETRIABLE or pause is None:
                raise self._given_up(waiting[0], failed)
            await asyncio.sleep(pause)
            lost = await self._look_around(waiting)
        self._shared.saved()

    async def _try(self, waiting: Iterable[Outgoing]) -> list[Produced]:
        """Send each; the answers, with what is ours where there was none."""
        shared, sequence = self._shared, self._progress.sequence
        for each in waiting:
            stamp(each.batch, shared.state.producer_id, shared.state.producer_epoch, sequence)
            sequence = (sequence + each.count) % SEQUENCES
        try:
            connection = await shared.target.writer(self._tp)
        except Unreachable as error:
            return [Produced(ErrorCode.NETWORK_EXCEPTION, -1, str(error))]
        requests = [shared.target.produce(connection, self._tp, each.batch) for each in waiting]
        answers: list[Produced] = []
        for found in await asyncio.gather(*requests, return_exceptions=True):
            if isinstance(found, Unreachable):
                found = Produced(ErrorCode.NETWORK_EXCEPTION, -1, str(found))
            if isinstance(found, BaseException):
                raise found
            answers.append(found)
        return answers

    def _acknowledged(self, each: Outgoing) -> None:
        progress = self._progress
        progress.next = each.next_offset
        progress.target_offset += each.count
        progress.sequence = (progress.sequence + each.count) % SEQUENCES
        progress.records += each.count
        progress.bytes += len(each.batch)
        self._shared.sent(len(each.batch))

    async def _look_around(self, waiting: deque[Outgoing]) -> Produced | None:
        """Leave only that of `waiting` which the target does not have; or why it can't be told. Raises NotOurs."""
        shared, progress, tp = self._shared, self._progress, self._tp
        try:
            await shared.target.refresh([tp.topic])
            found = (await shared.target.list_offsets({tp: LATEST})).get(tp)
            if found is None or found.error != ErrorCode.NONE:
                return Produced(ErrorCode.NETWORK_EXCEPTION, -1, "it does not tell where its log ends")
            ahead = found.offset - progress.target_offset
            if ahead < 0:  # a new leader's high watermark lags at first
                what = f"it ends at {found.offset}, but {progress.target_offset} was acknowledged: has it lost records?"
                return Produced(ErrorCode.NETWORK_EXCEPTION, -1, what)
            there = _Tail(shared.target, tp, progress.target_offset)
            while waiting and ahead:
                if waiting[0].count > ahead or not await there.holds(waiting[0]):
                    raise self._not_ours(progress.target_offset)
                ahead -= waiting[0].count
                self._acknowledged(waiting.popleft())
        except (Unreachable, Unreadable) as error:
            return Produced(ErrorCode.NETWORK_EXCEPTION, -1, str(error))
        if ahead:
            raise self._not_ours(progress.target_offset)
        return None

    def _given_up(self, each: Outgoing, answer: Produced) -> TierproxyError:
        hint = next((text for code, text in _HINTS.items() if code == answer.error), "")
        why = "; ".join(text for text in (answer.message, hint) if text)
        return TierproxyError(
            f"{self._tp}: the target does not take the batch of {len(each.batch)} bytes at archived offset "
            f"{each.first}: {error_name(answer.error)}{why and f' ({why})'}. Put it right and go on with --resume"
        )


class _Tail:
    """Records of the target from an offset on, to be compared in order with those that were sent."""

    def __init__(self, target: Target, tp: TopicPartition, offset: int) -> None:
        self._target = target
        self._tp = tp
        self._offset = offset
        self._records: deque[tuple[int, bytes]] = deque()

    async def holds(self, sent: Outgoing) -> bool:
        """Whether the next records are these, in time, key, value and headers. Raises Unreadable."""
        while len(self._records) < sent.count:
            await self._fetch()
        ours = [(record.timestamp, record.body) for record in raw_records(sent.batch)]
        return ours == [self._records.popleft() for _ in ours]

    async def _fetch(self) -> None:
        tp, view = self._tp, self._target.view
        topic = view.topics.get(tp.topic)
        if topic is None:
            raise Unreadable(f"{tp}: the target does not know the topic")
        asked = FetchPartition(tp.topic, topic.topic_id, tp.partition, -1, self._offset, -1, 4 << 20)
        answer = await self._target.fetch(view.leader(tp), [asked], max_wait_ms=500, max_bytes=4 << 20)
        (found,) = answer.partitions
        if found.error != ErrorCode.NONE:
            raise Unreadable(f"{tp} can't be read in the target: {error_name(found.error)} (may the account READ it?)")
        before = self._offset
        for header, batch in walk(memoryview(found.records or b"")):
            for record in raw_records(batch):
                if record.offset >= self._offset:
                    self._records.append((record.timestamp, record.body))
            self._offset = max(self._offset, header.next_offset)
        if self._offset == before:
            raise Unreadable(
                f"{tp}: the target has no records at offset {before}, and says that its log ends behind it"
            )
