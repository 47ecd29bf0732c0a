"""DeleteRecords by a user: the broker deletes, then the archive's start follows.

It is the user's decision, and the broker has checked that they may. Without this, what they deleted stays readable.
"""

from dataclasses import dataclass

from protocol.errors import ErrorCode
from protocol.messages import DeleteAnswer, DeleteRecordsRequest, DeleteRecordsResponse
from tierproxy.catalog import Catalog, Tier

TO_HIGH_WATERMARK = -1


@dataclass(slots=True)
class Deletion:
    """One partition whose records the broker has deleted, and which may be archived.

    `start` is where the user wants the log to begin: the broker reports its own log start instead when that is higher
    already, because the archiver has trimmed it.
    """

    answer: DeleteAnswer
    start: int
    tier: Tier | None  # None: the topic may be archived, but isn't known yet


def deletions(response: DeleteRecordsResponse, request: DeleteRecordsRequest, catalog: Catalog) -> list[Deletion]:
    """What to delete in the archive too. A partition named twice counts as asked last, as at a broker."""
    asked = {(topic, partition): offset for topic, partition, offset in request.partitions}
    found: list[Deletion] = []
    for answer in response.partitions:
        offset = asked.get((answer.topic, answer.partition))
        if answer.error != ErrorCode.NONE or offset is None:
            continue
        tier = catalog.find(answer.topic, answer.partition)
        if tier is not None or catalog.might_be_archived(answer.topic):
            start = answer.low_watermark if offset == TO_HIGH_WATERMARK else offset
            found.append(Deletion(answer, start, tier))
    return found
