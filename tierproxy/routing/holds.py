"""What an answer can be held for: plans that the shell carries out before the answer can be sent."""

from dataclasses import dataclass
from typing import NamedTuple

from protocol.fetch import FetchRequest
from protocol.fetch_response import FetchResponse
from protocol.messages import DeleteRecordsResponse, ListOffsetsResponse
from tierproxy.routing.deletes import Deletion
from tierproxy.routing.fetch import Refused
from tierproxy.routing.offsets import Question


class Client(NamedTuple):
    """Who asks, as far as it matters for fair shares and limits: all connections of one client are one.

    `user` is the SASL user that the broker has accepted, None if there is none. Many programs leave the client id as
    their library has it, so `host` keeps those of different machines apart.
    """

    client_id: str = ""
    user: str | None = None
    host: str = ""


NOBODY = Client()


@dataclass(slots=True)
class FetchHold:
    """A fetch answer with partitions that the broker refused; `refused` are those that may be archived.

    `asked_at` is when the request came, in the seconds that the shell counts in: max_wait counts from then, for the
    broker may have used up some of it. `reads_hot`: this connection has lately fetched what is on the broker, too.
    `number` counts a connection's holds: where there is not room for all partitions, each has its turn by it.
    """

    request: FetchRequest
    response: FetchResponse
    refused: list[Refused]
    asked_at: float
    client: Client = NOBODY
    reads_hot: bool = False
    number: int = 0

    @property
    def all_cold(self) -> bool:
        """Whether nothing but archived partitions was asked for."""
        return len(self.refused) == len(self.response.partitions)


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
