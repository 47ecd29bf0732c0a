"""What an answer can be held for: plans that the shell carries out before the answer can be sent.

Most held answers hold back whatever is behind them. A run of ListOffsets doesn't: some clients send one for each of
their partitions, all at once, and each may need a manifest. So those behind the first are looked at, too, and begun;
they wait in `HeldAnswers` for their turn.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.fetch import FetchRequest
from protocol.fetch_response import FetchResponse
from protocol.messages import DeleteRecordsResponse, ListOffsetsResponse
from protocol.wire import Buffer
from tierproxy.routing.deletes import Deletion
from tierproxy.routing.fetch import Refused
from tierproxy.routing.offsets import Question

MOST_IN_LINE = 256
"""Answers in a line before no more are looked at."""

LINE_BYTES = 64 << 10
"""The same by their bytes: read, an answer of many partitions takes a lot more memory than its bytes."""


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


@dataclass(slots=True)
class _InLine:
    """`hold` is None once `payload` is finished; `size` are the bytes that the broker has sent."""

    hold: Hold | None
    payload: list[Buffer]
    size: int


@dataclass(slots=True)
class HeldAnswers:
    """One connection's held answers and the finished ones behind them. They may be finished in any order, and leave
    in the order in which they were put in."""

    size: int = 0
    """Bytes of them all, as the broker has sent them."""
    _line: deque[_InLine] = field(default_factory=deque)

    @property
    def first(self) -> Hold | None:
        return self._line[0].hold if self._line else None

    @property
    def full(self) -> bool:
        return len(self._line) >= MOST_IN_LINE or self.size >= LINE_BYTES

    def put(self, hold: Hold | None, payload: list[Buffer], size: int) -> None:
        """At the end: one that is held, or with None one whose finished `payload` is sent in its turn."""
        self._line.append(_InLine(hold, payload, size))
        self.size += size

    def finish(self, hold: Hold, payload: list[Buffer]) -> list[list[Buffer]]:
        """`hold` has been carried out; the payloads whose turn it is now."""
        for each in self._line:
            if each.hold is hold:
                each.hold, each.payload = None, payload
                break
        finished: list[list[Buffer]] = []
        while self._line and self._line[0].hold is None:
            done = self._line.popleft()
            self.size -= done.size
            finished.append(done.payload)
        return finished
