"""What to change in a fetch answer that streams, whose length is already sent."""

from dataclasses import dataclass, field

from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition, FetchRequest
from tierproxy.catalog import Catalog, TopicKey
from tierproxy.routing.fetch import offsets_asked


@dataclass(slots=True)
class StreamPatch:
    """Decides partition by partition; see FetchStream. Without a catalog it leaves every partition as it is, so that
    only the endpoints behind all records are blanked."""

    catalog: Catalog | None
    request: FetchRequest | None = None
    _asked: dict[tuple[TopicKey, int], FetchPartition] | None = field(default=None, init=False)  # once it is needed

    def decide(self, topic: TopicKey, partition: int, error: int, log_start: int) -> tuple[int, int] | None:
        if self.catalog is None:
            return None
        if error == ErrorCode.NONE:
            shown = self.catalog.shown_start(topic, partition, log_start)
            return None if shown == log_start else (error, shown)
        if error == ErrorCode.OFFSET_OUT_OF_RANGE and self.catalog.might_be_archived(topic):
            # Not foreseen, and the answer's length is already sent: "no error, no records" has the same length. The
            # next fetch comes at once, is held, and gets records or the error, whichever is the truth.
            tier = self.catalog.find(topic, partition)
            if tier is None:
                self.catalog.doubtful.add(topic)
            elif (asked := self._question(topic, partition)) is not None:
                tier.doubt(asked.fetch_offset)
            return ErrorCode.NONE, log_start
        return None

    def _question(self, topic: TopicKey, partition: int) -> FetchPartition | None:
        if self._asked is None:
            self._asked = offsets_asked(self.request) if self.request is not None else {}
        return self._asked.get((topic, partition))
