"""What a recording says in Kafka's terms: which requests were sent, and what each was answered."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from protocol.apis import ApiKey
from protocol.endpoints import produce_acks
from protocol.headers import RequestHeader, read_request_header
from tests.clients.tap import Recording


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, as payloads; the answer is None when none came (yet)."""

    header: RequestHeader
    request: bytes
    answer: bytes | None

    @property
    def key(self) -> ApiKey:
        return ApiKey(self.header.api_key)


def exchanges(recording: Recording) -> Iterator[Exchange]:
    """In the order of the requests; a server answers in that order, and a Produce with acks=0 not at all."""
    answers = deque(_frames(recording.down))
    for request in _frames(recording.up):
        header = read_request_header(request)
        silent = header.api_key == ApiKey.PRODUCE and produce_acks(request, header) == 0
        answer = answers.popleft() if answers and not silent else None
        if answer is not None:
            correlation_id = int.from_bytes(answer[:4], "big", signed=True)
            assert correlation_id == header.correlation_id, f"{header} was answered as {correlation_id}"
        yield Exchange(header, request, answer)


def versions(recordings: Iterable[Recording]) -> dict[ApiKey, set[int]]:
    """Per API the versions that were asked for and answered."""
    found: dict[ApiKey, set[int]] = {}
    for recording in recordings:
        for exchange in exchanges(recording):
            if exchange.answer is not None:
                found.setdefault(exchange.key, set()).add(exchange.header.version)
    return found


def _frames(stream: bytearray) -> Iterator[bytes]:
    """The whole frames of a stream, without their sizes."""
    at = 0
    while at + 4 <= len(stream):
        size = int.from_bytes(stream[at : at + 4], "big")
        if at + 4 + size > len(stream):
            return
        yield bytes(stream[at + 4 : at + 4 + size])
        at += 4 + size
