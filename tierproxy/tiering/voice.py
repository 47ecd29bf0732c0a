"""What a partition's worker says of its troubles: once when each begins, once when it is over.

Whatever fails and may be tried again becomes `steps.Failed` here, with its line in the log. Where it is a broker, the
archive or this machine's disk that fails, there is one line for all the partitions that notice.
"""

from tierproxy.archive.names import PartitionId
from tierproxy.archive.retention import reappeared
from tierproxy.errors import TierproxyError
from tierproxy.tiering import steps
from tierproxy.tiering.around import Surroundings, leader_trouble, partition_troubles
from tierproxy.tiering.history import Behind, Foreign, Rewritten, Same, judge
from tierproxy.tiering.leader import LeaderTrouble
from tierproxy.upstream import NOBODY, TopicPartition

_SPOOL = "spool"


class Voice:
    """One partition's. `of` makes the key of a trouble of its own; the other methods are named after what is said."""

    def __init__(self, pid: PartitionId, around: Surroundings) -> None:
        self._tp = TopicPartition(pid.topic, pid.partition)
        self._own = partition_troubles(pid)
        self._around = around

    def of(self, what: str) -> str:
        return self._own + what

    def failed(self, key: str, message: str) -> steps.Failed:
        self._around.troubles.began(key, message)
        return steps.Failed(message)

    def ended(self, key: str, message: str) -> None:
        self._around.troubles.ended(key, message)

    def leave(self) -> None:
        """End all of the partition's own without a word: nobody works on it any more."""
        self._around.troubles.forget(self._own)

    # ---- what partitions share -----------------------------------------------------------------------------

    def leader_failed(self, key: str, error: TierproxyError) -> steps.Failed:
        if isinstance(error, LeaderTrouble) and not error.stale:
            return self.failed(key, f"{error}; trying again")
        self._around.stale()
        leader = self._leader_id
        if leader == NOBODY:
            return self.failed(key, f"{self._tp} has no leader that could be asked: {error}; trying again")
        return self.failed(leader_trouble(leader), f"broker {leader} can't be asked: {error}; trying again")

    def leader_works(self) -> None:
        self.ended(leader_trouble(self._leader_id), f"broker {self._leader_id} answers for its partitions again")

    def archive_failed(self, error: TierproxyError) -> steps.Failed:
        return self.failed(self._archive_key, f"archive {self._around.archive}: {error}; trying again")

    def archive_works(self) -> None:
        self.ended(self._archive_key, f"archive {self._around.archive} can be used again")

    def spoiled(self, error: OSError) -> steps.Spoiled:
        self.failed(_SPOOL, f"segments can't be written on this machine: {error}; trying again")
        return steps.Spoiled(str(error))

    def spool_works(self) -> None:
        self.ended(_SPOOL, "segments can be written on this machine again")

    # ---- the partition's own -------------------------------------------------------------------------------

    def compared(self, facts: steps.Loaded) -> None:
        """What the leader's log and the manifest say of each other."""
        key = self.of("doubt")
        match judge(facts):
            case Behind():
                self._around.troubles.began(
                    key,
                    f"{self._tp}: the leader shows its log only up to {facts.log_end}, and it is archived further; "
                    "waiting until it shows the rest, as after an election",
                )
            case Foreign(reason):
                self._around.troubles.began(key, f"{self._tp}: {reason}. Looking some more times")
            case Rewritten() | Same():
                self.ended(key, f"{self._tp}: the leader's log and the archive can be compared again")
        key, manifest = self.of("reappeared"), facts.manifest
        lost = reappeared(manifest, facts.log_start) if manifest is not None else None
        if lost is None:
            self.ended(key, f"{self._tp}: no lost records are there any more, so trimming goes on")
        else:
            self._around.troubles.began(
                key,
                f"{self._tp}: the broker has records again that were recorded as lost, from offset {lost} on. They are "
                "not archived, so nothing is trimmed there until retention deletes them, or somebody by "
                "kafka-delete-records",
            )

    def transaction_stays_open(self, stable: int, lasted: float) -> None:
        """At last stable offset `stable`, for `lasted` seconds."""
        self._around.troubles.began(
            self.of("transaction"),
            f"{self._tp}: a transaction has been open at offset {stable} for more than {lasted:.0f} s; nothing behind "
            "it can be archived or trimmed until it ends",
        )

    def transaction_ended(self) -> None:
        self.ended(self.of("transaction"), f"{self._tp}: the transaction has ended")

    @property
    def _leader_id(self) -> int:
        return self._around.cluster.view.leader(self._tp)

    @property
    def _archive_key(self) -> str:
        return f"archive {self._around.archive}"
