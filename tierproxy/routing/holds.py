"""What an answer can be held for: plans that the shell carries out before the answer can be sent."""

from dataclasses import dataclass

from protocol.fetch import FetchRequest
from protocol.fetch_response import FetchResponse
from protocol.messages import DeleteRecordsResponse, ListOffsetsResponse
from tierproxy.routing.deletes import Deletion
from tierproxy.routing.fetch import Refused
from tierproxy.routing.offsets import Question


@dataclass(slots=True)
class FetchHold:
    """A fetch answer with partitions that the broker refused; `refused` are those that may be archived.

    `asked_at` is when the request came, in the seconds that the shell counts in: max_wait counts from then, for the
    broker may have used up some of it.
    """

    request: FetchRequest
    response: FetchResponse
    refused: list[Refused]
    asked_at: float


@dataclass(slots=True)
class OffsetsHold:
    """A ListOffsets answer to merge with the archive's."""

    version: int
    correlation_id: int
    response: ListOffsetsResponse
    questions: list[Question]


@dataclass(slots=True)
class DeletesHold:
    """A DeleteRecords answer whose deletions are still to be carried out in the archive."""

    version: int
    correlation_id: int
    response: DeleteRecordsResponse
    deletions: list[Deletion]


@dataclass(slots=True)
class EndpointsHold:
    """An answer that names brokers for which no port is open yet: `nodes` are their ids."""

    nodes: list[int]
    key: int
    version: int
    payload: bytes


Hold = FetchHold | OffsetsHold | DeletesHold | EndpointsHold
