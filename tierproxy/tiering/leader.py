"""What a worker asks its partition's leader besides fetching: where the log lies, and to trim it.

DeleteRecords and ListOffsets know topics by name only, so they would as well speak of a namesake that was
created after the topic was deleted. Trimming that one would delete records that nobody archived: so the topic's
id is looked up right before, each time.
"""

from dataclasses import dataclass, replace

from protocol.errors import ErrorCode, error_name
from tierproxy.archive.manifest import NO_EPOCH, Manifest
from tierproxy.archive.names import PartitionId
from tierproxy.archive.retention import reappeared
from tierproxy.errors import TierproxyError
from tierproxy.tiering.history import Behind, Same, judge, narrow
from tierproxy.tiering.steps import Loaded
from tierproxy.tiering.trims import Trims
from tierproxy.upstream import EARLIEST, LATEST, Cluster, EndOfEpoch, TopicPartition

METADATA_ERRORS = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REPLICA_NOT_AVAILABLE,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INCONSISTENT_TOPIC_ID,
    }
)
"""Errors that say: what you know of topics and leaders is old."""


class LeaderTrouble(TierproxyError):
    """The leader did not do what it was asked; try again later. `stale`: refresh the metadata before."""

    def __init__(self, what: str, error: int) -> None:
        self.error = error
        self.stale = error in METADATA_ERRORS
        super().__init__(f"{what}: {error_name(error)}")


class TopicGone(TierproxyError):
    """The topic does not exist any more, or is another one of the same name."""


class Disagreement(TierproxyError):
    """The log is not, or not yet, what was archived, see `history.judge`."""


@dataclass(frozen=True, slots=True)
class Borders:
    """`end` is the high watermark, `leader_epoch` the leader's current one, -1 if it does not say."""

    start: int
    end: int
    leader_epoch: int


class Leader:
    """Questions about one partition."""

    def __init__(self, cluster: Cluster, pid: PartitionId) -> None:
        self._cluster = cluster
        self._pid = pid
        self._tp = TopicPartition(pid.topic, pid.partition)

    async def borders(self) -> Borders:
        """Where the log begins and ends now. Raises LeaderTrouble."""
        start = (await self._cluster.list_offsets({self._tp: EARLIEST}))[self._tp]
        if start.error != ErrorCode.NONE:
            raise LeaderTrouble(f"asking for the log start of {self._tp}", start.error)
        end = (await self._cluster.list_offsets({self._tp: LATEST}))[self._tp]
        if end.error != ErrorCode.NONE:
            raise LeaderTrouble(f"asking for the log end of {self._tp}", end.error)
        return Borders(start.offset, end.offset, end.leader_epoch)

    async def compare(self, manifest: Manifest | None) -> Loaded:
        """The log's facts beside the manifest's. Raises LeaderTrouble.

        Where they contradict it, or show a gap, they may be a namesake's: then TopicGone.
        """
        facts = await self._facts(manifest)
        gap = manifest is not None and facts.log_start > manifest.end_offset
        if gap or not isinstance(judge(facts), Same | Behind):
            await self.check_topic()
        return facts

    async def _facts(self, manifest: Manifest | None) -> Loaded:
        borders = await self.borders()
        facts = Loaded(manifest, borders.start, borders.end, borders.leader_epoch)
        if manifest is None or borders.start > manifest.end_offset:
            return facts
        if borders.end < manifest.end_offset and borders.leader_epoch != NO_EPOCH:
            # Where the current epoch ends is where the log does.
            facts = replace(facts, log_reach=(await self._end_of(borders.leader_epoch)).end_offset)
        if manifest.last_epoch != NO_EPOCH:
            facts = replace(facts, same_to=await self._same_to(manifest))
        return facts

    async def _same_to(self, manifest: Manifest) -> int:
        same_to, epoch = manifest.end_offset, manifest.last_epoch
        while epoch != NO_EPOCH:
            answer = await self._end_of(epoch)
            same_to, epoch = narrow(manifest, epoch, answer.leader_epoch, answer.end_offset)
        return same_to

    async def _end_of(self, epoch: int) -> EndOfEpoch:
        answer = (await self._cluster.ends_of_epochs({self._tp: epoch}))[self._tp]
        if answer.error != ErrorCode.NONE:
            raise LeaderTrouble(f"asking {self._tp} for the end of epoch {epoch}", answer.error)
        return answer

    async def check_topic(self) -> None:
        """Make sure that its leader still means this topic by the name. Raises TopicGone, LeaderTrouble."""
        said = (await self._cluster.topic_ids([self._tp]))[self._tp]
        if said.error != ErrorCode.NONE:
            if self._pid.topic not in (await self._cluster.refresh([self._pid.topic])).topics:
                raise TopicGone(f"topic {self._pid.topic} does not exist any more")
            raise LeaderTrouble(f"asking which topic {self._tp} belongs to", said.error)
        if said.topic_id != self._pid.topic_id:
            raise TopicGone(f"topic {self._pid.topic} was deleted and created again")

    async def trim(self, trims: Trims, offset: int, manifest: Manifest | None) -> int:
        """Delete the records below `offset` if they still are what was archived; the log start afterwards.

        Raises LeaderTrouble, TopicGone, Disagreement, Unreachable.
        """

        async def check() -> None:
            facts = await self._facts(manifest)  # an election may have rewritten the log since
            await self.check_topic()  # last, as all else goes by name; and a namesake's facts are no disagreement
            if manifest is not None and facts.log_start > manifest.end_offset:
                raise Disagreement("the log starts above what is archived, so there is nothing to trim")
            if not isinstance(judge(facts), Same):
                raise Disagreement("the log is not, or not yet, what was archived, so nothing is trimmed")
            lost = reappeared(manifest, facts.log_start) if manifest is not None else None
            if lost is not None and lost < offset:
                raise Disagreement(
                    f"offsets from {lost} on that were recorded as lost are there again; not trimming them"
                )

        answer = await trims.trim(self._tp, offset, check)
        if answer.error == ErrorCode.NONE:
            return answer.low_watermark
        if answer.error in (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NETWORK_EXCEPTION):
            # The leader trims at once and only waits for its followers, or its answer was lost: look.
            borders = await self.borders()
            if borders.start >= offset:
                return borders.start
        raise LeaderTrouble(f"deleting records of {self._tp} below {offset}", answer.error)
