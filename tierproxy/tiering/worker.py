"""One partition's worker: carries out what the machine in `fsm` decides, one action at a time.

A worker is one task, and only that task touches the segment. While the machine wants to copy, `ask` says what to
fetch, a copier brings the answer by `deliver` (`handover.py`), and the worker's own task appends it.

Failures become events here: what may be tried again is Failed, and `voice.py` says it; what a person must look at is
Hopeless.
"""

import asyncio
import logging
import random
from dataclasses import replace
from typing import assert_never

from protocol.errors import ErrorCode, error_name
from protocol.fetch import FetchPartition
from protocol.fetch_response import FetchedPartition, diverging_epoch
from tierproxy import telemetry
from tierproxy.archive.errors import ArchiveError, FormatError
from tierproxy.archive.manifest import NO_EPOCH, Gap, Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.segment_index import SegmentInfo
from tierproxy.archive.store import StoreError
from tierproxy.config.units import format_size
from tierproxy.tiering import steps
from tierproxy.tiering.around import Surroundings
from tierproxy.tiering.fsm import Machine
from tierproxy.tiering.handover import Delivery, Handover
from tierproxy.tiering.headroom import Standing
from tierproxy.tiering.history import Rewritten, Same, data_end, judge
from tierproxy.tiering.leader import METADATA_ERRORS, Disagreement, Leader, LeaderTrouble, TopicGone
from tierproxy.tiering.publisher import Publisher
from tierproxy.tiering.spool import CorruptBatch, OpenSegment, OtherHistory, SpoolSettings, UnreadableBatch
from tierproxy.tiering.stalls import StallWatch
from tierproxy.tiering.voice import Voice
from tierproxy.upstream import TopicPartition, Unreachable, UnsupportedBroker

log = logging.getLogger("tierproxy.archiver")

FETCH_LEAST_BYTES = 64 * 1024
"""Asked for even if less is missing to a larger segment: a batch that does not fit is not sent at all."""
REFUSALS_WORTH_A_LINE = 5
"""Leaders come and go; only what goes on after some refreshes of the metadata is said."""


class PartitionWorker:
    """`run` it as a task. `state` is for people and tests."""

    def __init__(
        self,
        pid: PartitionId,
        rules: steps.Rules,
        spool: SpoolSettings,
        around: Surroundings,
        storage_class: str | None = None,
    ) -> None:
        self.pid = pid
        self.tp = TopicPartition(pid.topic, pid.partition)
        self._machine = Machine(rules)
        self._voice = Voice(pid, around)
        self._spool = spool
        self._around = around
        self._leader = Leader(around.cluster, pid)
        self._publisher = Publisher(around.library, around.cluster_id, pid, around.clock, storage_class)
        self._segment: OpenSegment | None = None
        self._handover = Handover(around.clock)
        self._stalls = StallWatch()
        self._log_end = -1  # the leader's high watermark, as last heard
        self.silent = True
        """Whether nothing was heard of the log's end since the last `look`."""
        self._refusals = 0  # in a row, of the kind that fresh metadata should cure
        self._closed_at: float | None = None  # when the segment was first to be uploaded
        self._by_name = False  # some batch of the open segment was fetched by the topic's name

    @property
    def state(self) -> steps.State:
        return self._machine.state

    @property
    def log_start(self) -> int:
        """The leader's, as last heard; -1 before that."""
        return self._machine.log_start

    @property
    def hurried(self) -> bool:
        """Whether its copying goes first, whatever `archiver.read_rate` says: the brokers will soon delete what is not
        archived. Who sets it calls `around.ready`."""
        return self._machine.hurried

    @hurried.setter
    def hurried(self, hurried: bool) -> None:
        self._machine.hurried = hurried

    def heard(self, log_end: int) -> None:
        """The leader's high watermark, from an answer of whatever kind."""
        if log_end >= 0:
            self._log_end, self.silent = log_end, False

    def look(self) -> Standing:
        """How far archiving is behind, by what was heard last."""
        self.silent = True
        manifest, segment = self._machine.manifest, self._segment
        newest = manifest.segments[-1] if manifest is not None and manifest.segments else None
        oldest = segment.oldest_ms if segment is not None else -1
        if oldest < 0 and newest is not None:
            oldest = newest.max_timestamp
        offset_bytes = 0.0
        if newest is not None:
            offset_bytes = newest.plain_size / (newest.last_offset + 1 - newest.base_offset)
        elif segment is not None and segment.next_offset > segment.fetched_at:
            offset_bytes = segment.plain_bytes / (segment.next_offset - segment.fetched_at)
        known = self._machine.log_start >= 0  # else nothing was loaded yet
        return Standing(self._machine.archived_to, self._log_end if known else -1, oldest, offset_bytes)

    @property
    def next_offset(self) -> int:
        """Up to where it is copied, or was when it last looked."""
        return self._machine.next_offset

    @property
    def untrimmed(self) -> int:
        """Offsets that the leader still has although it need not."""
        return max(0, self._machine.trim_to - self._machine.log_start) if self._machine.log_start >= 0 else 0

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Those of the archive, as far as it is loaded."""
        return self._machine.manifest.gaps if self._machine.manifest is not None else ()

    @property
    def stalled_for(self) -> float:
        """Seconds for which an open transaction has held the archive back."""
        return self._stalls.lasting(self._around.clock.monotonic())

    def change(self, rules: steps.Rules, level: int, recompress: bool, storage_class: str | None) -> None:
        """Another policy for the same archive. The open segment keeps its compression; nothing is copied again."""
        self._machine.change(rules)
        self._spool = replace(self._spool, level=level, recompress=recompress)
        self._publisher.storage_class = storage_class
        self._handover.wake()  # it may be waiting for a time that the old rules gave

    # ---- the copier's side ---------------------------------------------------------------------------------

    def ask(self, most_bytes: int) -> FetchPartition | None:
        """What to fetch now, at most about `most_bytes`; None if nothing, or not yet."""
        action = self._handover.wanted
        if action is None:
            return None
        topic = self._around.cluster.view.topics.get(self.pid.topic)
        if topic is None or topic.topic_id != self.pid.topic_id or self.pid.partition not in topic.partitions:
            return None
        held = self._segment.plain_bytes if self._segment is not None else 0
        whole = self._machine.rules.segment_bytes
        missing = max(whole - held, min(whole, FETCH_LEAST_BYTES))
        return FetchPartition(
            topic=self.pid.topic,
            topic_id=self.pid.topic_id,
            index=self.pid.partition,
            current_leader_epoch=topic.partitions[self.pid.partition].leader_epoch,
            fetch_offset=action.offset,
            last_fetched_epoch=action.last_epoch,
            max_bytes=min(missing, most_bytes),
        )

    @property
    def resting_until(self) -> float | None:
        """The clock's monotonic time before which `ask` has nothing because something failed; None: no such."""
        return self._handover.resting_until

    def deliver(self, asked: FetchPartition, answer: FetchedPartition, version: int) -> asyncio.Event | None:
        """Hand over the answer to `ask`. What is returned is set when its bytes are not needed any more; None: now."""
        return self._handover.bring(asked.fetch_offset, answer, version)

    # ---- the worker's own task -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until the topic is gone, the partition must be stopped, or the task is cancelled."""
        action = self._machine.begin()
        try:
            while not isinstance(action, steps.Stop):
                event = await self._carry_out(action)
                if isinstance(event, steps.Conflicted):
                    log.warning("%s: %s; looking again", self.tp, event.reason)
                state = self._machine.state
                action = self._machine.on(event, self._now())
                if self._machine.state is not state:
                    log.debug("%s: %s -> %s", self.tp, state.name, self._machine.state.name)
        except TopicGone as gone:
            log.info("%s: %s; its archive stays as it is", self.tp, gone)
        finally:
            self._drop_segment()
            self._voice.leave()
        if isinstance(action, steps.Stop):
            log.error(
                "%s is not archived any further and will not be trimmed: %s. Nothing of what is archived was "
                "changed; look at it, then restart the archiver",
                self.tp,
                action.reason,
            )

    async def _carry_out(self, action: steps.Action) -> steps.Event:
        if isinstance(action, steps.Copy):
            return await self._copy(action)
        if not isinstance(action, steps.Look | steps.Trim | steps.Stop):
            await asyncio.sleep(max(0.0, action.not_before - self._around.clock.monotonic()))
        trouble = self._voice.of(type(action).__name__)
        try:
            event = await self._do(action)
        except (LeaderTrouble, Unreachable, UnsupportedBroker) as error:
            return self._voice.leader_failed(trouble, error)
        except StoreError as error:
            return self._voice.archive_failed(error)
        except FormatError as error:  # nothing is trimmed meanwhile, and whoever mends it need not restart us
            return self._voice.failed(trouble, f"{self.tp}: {error}; trying again")
        except ArchiveError as error:
            return steps.Hopeless(str(error))
        except OSError as error:
            if isinstance(action, steps.Upload):
                return self._voice.spoiled(error)
            return self._voice.failed(trouble, f"{self.tp}: {error}; trying again")
        if isinstance(action, steps.Load | steps.Trim):
            self._voice.leader_works()
        if not isinstance(event, steps.Failed):
            self._voice.ended(trouble, f"{self.tp}: going on")
        return event

    async def _do(self, action: steps.Action) -> steps.Event:
        match action:
            case steps.Load():
                return await self._load()
            case steps.Upload():
                if self._closed_at is None:
                    self._closed_at = self._around.clock.monotonic()
                async with self._around.uploads:
                    uploaded = await self._publisher.upload(self._open_segment())
                self._voice.archive_works()
                return uploaded
            case steps.Verify():
                async with self._around.uploads:
                    verified = await self._publisher.verify()
                self._voice.archive_works()
                if isinstance(verified, steps.Damaged):
                    telemetry.SEGMENTS_DAMAGED.inc()
                    log.error("%s: %s; storing it once more", self.tp, verified.reason)
                else:
                    telemetry.SEGMENTS_VERIFIED.inc()
                return verified
            case steps.Commit():
                return await self._commit(action)
            case steps.RecordGap():
                return await self._record_gap(action)
            case steps.Look():
                return await self._look(action)
            case steps.Trim():
                return await self._trim(action)
            case steps.Rewind():
                return await self._rewind(action)
            case steps.Copy() | steps.Stop():
                raise AssertionError(action)
            case _:
                assert_never(action)

    async def _load(self) -> steps.Loaded:
        self._drop_segment()
        manifest = await self._publisher.load()
        self._voice.archive_works()
        if manifest is not None:
            self._around.observer.committed(self.pid, manifest)
        facts = await self._leader.compare(manifest)
        self.heard(facts.log_end)
        self._voice.compared(facts)
        return facts

    async def _copy(self, action: steps.Copy) -> steps.Event:
        with self._handover.begin(action):
            self._around.ready(self.tp)
            delivery = await self._handover.wait()
            return steps.Due() if delivery is None else await self._take(action, delivery)

    async def _take(self, action: steps.Copy, delivery: Delivery) -> steps.Event:
        answer, trouble = delivery.answer, self._voice.of("Copy")
        if not answer.records:
            delivery.taken.set()
        if answer.error == ErrorCode.OFFSET_OUT_OF_RANGE:
            return await self._out_of_range(action)
        if answer.error != ErrorCode.NONE:
            if answer.error in METADATA_ERRORS:
                self._around.stale()
                self._refusals += 1
                if self._refusals < REFUSALS_WORTH_A_LINE:
                    log.debug("%s: fetching at %d: %s", self.tp, action.offset, error_name(answer.error))
                    return steps.Failed(error_name(answer.error))
            return self._voice.failed(trouble, f"{self.tp} can't be fetched: {error_name(answer.error)}; trying again")
        if (diverging := diverging_epoch(answer.tags)) is not None:
            return steps.Diverged(diverging[1])
        try:
            if answer.records:
                self._by_name |= delivery.by_name
                async with self._around.takers:
                    await asyncio.to_thread(self._segment_for(action).take, answer)
        except CorruptBatch as error:
            telemetry.BATCHES_DAMAGED.inc()
            return self._voice.failed(trouble, f"{self.tp}: {error}; fetching it again")
        except OtherHistory as error:  # from a broker that doesn't say "diverged" (before Kafka 2.7)
            self._voice.failed(trouble, f"{self.tp}: {error}; looking whether history was rewritten")
            return steps.Diverged(action.offset) if error.begins is None else steps.Overlapped(error.begins)
        except (UnreadableBatch, ArchiveError) as error:
            return steps.Hopeless(str(error))
        except OSError as error:
            return self._voice.spoiled(error)
        self._refusals = 0
        self.heard(answer.high_watermark)
        self._voice.ended(trouble, f"{self.tp} is copied again")
        if answer.records:
            self._voice.spool_works()
        segment = self._segment
        if segment is None or not segment.plain_bytes:  # an empty one says nothing of where we are
            self._watch(action.offset, answer)
            return steps.Copied(action.offset, action.last_epoch, 0, answer.log_start)
        self._watch(segment.next_offset, answer)
        stable = answer.last_stable_offset
        return steps.Copied(segment.next_offset, segment.last_epoch, segment.plain_bytes, answer.log_start, stable)

    async def _out_of_range(self, action: steps.Copy) -> steps.Event:
        try:
            facts = await self._leader.compare(self._machine.manifest)
        except (LeaderTrouble, Unreachable, UnsupportedBroker) as error:
            self._around.stale()
            return self._voice.failed(self._voice.of("Copy"), f"{self.tp}: {error}; trying again")
        if not isinstance(judge(facts), Same):
            return steps.Diverged(facts.log_end)
        if facts.log_start <= action.offset <= facts.log_end:
            # The leader has just changed; or it has never heard of the epoch that we claim for the batch before.
            self._voice.failed(
                self._voice.of("Copy"),
                f"{self.tp}: the broker refuses offset {action.offset} (epoch {action.last_epoch}) although its log "
                f"goes from {facts.log_start} to {facts.log_end}; trying again",
            )
        return steps.OutOfRange(facts.log_start, facts.log_end)

    async def _commit(self, action: steps.Commit) -> steps.Event:
        if self._by_name:
            await self._leader.check_topic()  # or what was fetched by name may be a namesake's
            self._voice.leader_works()
        if not await self._same_before(action.manifest):
            return steps.Conflicted("the leader's log is not what was archived before")
        event = await self._publisher.commit(action)
        self._voice.archive_works()
        if isinstance(event, steps.Committed):
            entry = event.manifest.segments[-1]
            if self._closed_at is not None:
                telemetry.COMMIT_SECONDS.observe(self._around.clock.monotonic() - self._closed_at)
            telemetry.SEGMENTS_ARCHIVED.inc()
            telemetry.ARCHIVED_BYTES.inc(entry.plain_size)
            telemetry.ARCHIVED_STORED_BYTES.inc(entry.stored_size)
            log.info(
                "%s: archived offsets %d to %d, %s as %s",
                self.tp,
                entry.base_offset,
                entry.last_offset,
                format_size(entry.plain_size),
                format_size(entry.stored_size),
            )
            self._around.observer.committed(self.pid, event.manifest)
            self._drop_segment()
        return event

    async def _same_before(self, manifest: Manifest | None) -> bool:
        """Whether the open segment follows what is archived. Asked where no fetch could say so: behind a gap, and where
        the leader has changed, for brokers before 2.7 don't look at the epoch that a fetch follows.
        """
        if manifest is None:
            return True
        if data_end(manifest) == manifest.end_offset and self._open_segment().last_epoch == manifest.last_epoch:
            return True
        return isinstance(judge(await self._leader.compare(manifest)), Same)

    async def _record_gap(self, action: steps.RecordGap) -> steps.Event:
        cause = (
            f"the broker's log began at {action.end} when the archive ended at {action.start}: the records "
            "between were deleted before they were archived"
        )
        event = await self._publisher.record_gap(action, cause)
        self._voice.archive_works()
        if isinstance(event, steps.Committed):
            telemetry.GAPS.inc()
            log.error("%s: offsets %d to %d are lost: %s", self.tp, action.start, action.end - 1, cause)
            self._around.observer.committed(self.pid, event.manifest)
            self._drop_segment()  # empty: it was opened for a batch that came damaged from before the gap
        return event

    async def _rewind(self, action: steps.Rewind) -> steps.Event:
        facts = await self._leader.compare(action.manifest)
        await self._leader.check_topic()  # last: a namesake's log differs, too, and proves nothing
        if action.leader_epoch == NO_EPOCH:
            found = judge(facts)
            proved = isinstance(found, Rewritten) and found.offset == action.offset
        else:
            proved = facts.leader_epoch == action.leader_epoch
        if not proved:
            return steps.Conflicted("the log has changed meanwhile")
        event = await self._publisher.rewind(action, self._spool)
        self._voice.archive_works()
        if isinstance(event, steps.Committed):
            telemetry.HISTORIES_REWRITTEN.inc()
            quarantined = event.manifest.quarantined[-1]
            log.error(
                "%s: %s. Offsets %d to %d are quarantined: %d segments stay in the archive, named in the manifest, and "
                "are not served; archiving goes on at %d",
                self.tp,
                action.reason,
                quarantined.start,
                quarantined.end - 1,
                len(quarantined.segments),
                event.manifest.end_offset,
            )
            self._around.observer.committed(self.pid, event.manifest)
        elif isinstance(event, steps.Failed):
            return self._voice.failed(self._voice.of("Rewind"), f"{self.tp}: {event.reason}; storing it once more")
        return event

    async def _look(self, action: steps.Look) -> steps.Event:
        try:
            return await self._publisher.look(action)
        except ArchiveError as error:
            return self._voice.failed(
                self._voice.of("Look"),
                f"{self.tp} is archived, but not trimmed: how far it may be can't be told, {error}; `tierproxy archive "
                "repair` may help; trying again",
            )

    async def _trim(self, action: steps.Trim) -> steps.Event:
        assert self._machine.manifest is not None
        if not await self._publisher.holds(action.offset, self._machine.manifest):
            return steps.Conflicted(f"the manifest holds another history below {action.offset}, so nothing is trimmed")
        try:
            log_start = await self._leader.trim(self._around.trims, action.offset, self._machine.manifest)
        except Disagreement as error:
            return steps.Conflicted(str(error))
        telemetry.TRIMS.inc()
        log.info("%s: the broker's log starts at %d now", self.tp, log_start)
        self._around.observer.trimmed(self.tp, log_start)
        return steps.Trimmed(log_start)

    def _watch(self, next_offset: int, answer: FetchedPartition) -> None:
        stable = answer.last_stable_offset
        lasted = self._stalls.see(next_offset, stable, answer.high_watermark, self._around.clock.monotonic())
        if lasted is not None:
            self._voice.transaction_stays_open(stable, lasted)
        elif stable != next_offset or answer.high_watermark == next_offset:
            self._voice.transaction_ended()

    # ---- small things --------------------------------------------------------------------------------------

    def _segment_for(self, action: steps.Copy) -> OpenSegment:
        if self._segment is None:
            manifest = self._machine.manifest
            # The log may begin inside a batch: that batch is kept whole, if nothing archived lies before it.
            follows = (
                manifest is not None
                and manifest.last_archived >= 0
                and manifest.last_archived + 1 == manifest.end_offset
            )
            about = SegmentInfo(self._around.library.cluster, self.pid.topic, self.pid.topic_id, self.pid.partition)
            self._segment = OpenSegment(about, self._spool, action.offset, action.last_epoch, first_is_cut=not follows)
        return self._segment

    def _open_segment(self) -> OpenSegment:
        assert self._segment is not None, "there is no open segment"
        return self._segment

    def _drop_segment(self) -> None:
        segment, self._segment, self._by_name, self._closed_at = self._segment, None, False, None
        if segment is not None:
            segment.discard()

    def _now(self) -> steps.Now:
        return steps.Now(self._around.clock.monotonic(), self._around.clock.now_ms(), random.random())
