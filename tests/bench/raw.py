"""Kafka by hand, over one socket: next to no work of our own beside what is measured."""

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from protocol.apis import ApiKey
from protocol.batches import BatchHeader, walk
from protocol.codec import decode_metadata_response, encode_metadata_request
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import FetchResponse, parse_fetch_response
from protocol.headers import request_header
from protocol.producing import produce_request, read_produce_response
from protocol.wire import Buffer

FETCH_VERSION = 13  # by topic id, as clients have done since Kafka 3.1
METADATA_VERSION = 10  # the first one that tells ids
PRODUCE_VERSION = 8
CLIENT = "bench"
SECONDS = 120

Address = tuple[str, int]


class Connection:
    """A connection to a broker, or to the proxy's port for it. Answers share one buffer: each ends the one before."""

    def __init__(self, address: Address, *, buffer: int = 1 << 20) -> None:
        self._socket = socket.create_connection(address, timeout=SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(buffer))
        self._correlation = 0
        self._ids: dict[str, bytes] = {}

    def send(self, *pieces: Buffer) -> None:
        """One request, in pieces, without its size."""
        size = sum(map(len, pieces))
        self._socket.sendall(b"".join((size.to_bytes(4, "big"), *pieces)))

    def receive(self) -> memoryview:
        """One answer's payload; good until the next call."""
        size = int.from_bytes(self._exactly(4), "big")
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size + (size >> 2)))
        return self._exactly(size)

    def send_fetch(
        self, partitions: Sequence[FetchPartition], *, max_bytes: int = 50 << 20, max_wait_ms: int = 500
    ) -> None:
        partitions = [replace(each, topic=None, topic_id=self._id(str(each.topic))) for each in partitions]
        self._correlation += 1
        fetch = build_fetch_request(
            FETCH_VERSION,
            self._correlation,
            CLIENT,
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_bytes=max_bytes,
            isolation=0,
            partitions=partitions,
        )
        self.send(fetch)

    def receive_fetched(self) -> FetchResponse:
        """RuntimeError if the answer, or one of its partitions, has an error."""
        answer = parse_fetch_response(self.receive(), FETCH_VERSION)
        errors = {(part.topic, part.index): part.error for part in answer.partitions if part.error}
        if errors or answer.error:
            raise RuntimeError(f"the fetch was answered by error {answer.error}, partitions' errors are {errors}")
        return answer

    def _id(self, topic: str) -> bytes:
        """Asked for once."""
        if topic not in self._ids:
            self._correlation += 1
            header = request_header(ApiKey.METADATA, METADATA_VERSION, self._correlation, CLIENT)
            self.send(header, encode_metadata_request(METADATA_VERSION, [topic]))
            (about,) = decode_metadata_response(self.receive(), METADATA_VERSION).topics
            self._ids[topic] = about.topic_id
        return self._ids[topic]

    def send_produce(self, topic: str, partition: int, batch: Buffer) -> None:
        self._correlation += 1
        header = request_header(ApiKey.PRODUCE, PRODUCE_VERSION, self._correlation, CLIENT)
        self.send(header, *produce_request(topic, partition, batch, 30_000))

    def receive_produced(self) -> int:
        """The batch's offset; RuntimeError if it was refused."""
        produced = read_produce_response(self.receive(), PRODUCE_VERSION)
        if produced.error:
            raise RuntimeError(f"a batch was refused: error {produced.error} {produced.message}")
        return produced.base_offset

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exactly(self, size: int) -> memoryview:
        view = self._buffer[:size]
        at = 0
        while at < size:
            got = self._socket.recv_into(view[at:])
            if not got:
                raise ConnectionError("the connection was closed in the middle of an answer")
            at += got
        return view


def asked(topic: str, partition: int, offset: int, max_bytes: int) -> FetchPartition:
    """A partition of a fetch, without epochs."""
    return FetchPartition(topic, None, partition, -1, offset, -1, max_bytes)


@dataclass(frozen=True)
class Read:
    """What a reading came to. Bytes are of batches."""

    seconds: float
    first_seconds: float
    log_bytes: int
    records: int


def read_all(address: Address, topic: str, ends: Mapping[int, int], partition_bytes: int) -> Read:
    """Fetches all partitions over one connection, one request at a time, reading nothing but batch headers."""
    at = dict.fromkeys(ends, 0)
    log_bytes = records = 0
    first = 0.0
    started = time.perf_counter()
    with Connection(address) as connection:
        turn = 0
        while wanted := [p for p, end in ends.items() if at[p] < end]:
            turn = (turn + 1) % len(wanted)  # else the first ones fill the answer each time
            connection.send_fetch([asked(topic, p, at[p], partition_bytes) for p in wanted[turn:] + wanted[:turn]])
            for part in connection.receive_fetched().partitions:
                if part.records:
                    header, size, count = _last(part.records)
                    at[part.index] = header.next_offset
                    log_bytes += size
                    records += count
            if log_bytes and not first:
                first = time.perf_counter() - started
    return Read(time.perf_counter() - started, first, log_bytes, records)


def read_some(address: Address, topic: str, partition: int, offset: int, log_bytes: int) -> int:
    """From an offset on, about so many bytes, 1 MiB at a time as consumers do by default; how many it was."""
    got = 0
    with Connection(address) as connection:
        while got < log_bytes:
            connection.send_fetch([asked(topic, partition, offset, 1 << 20)])
            if records := connection.receive_fetched().partitions[0].records:
                header, size, _ = _last(records)
                offset = header.next_offset
                got += size
    return got


def _last(batches: memoryview) -> tuple[BatchHeader, int, int]:
    """The last whole batch's header; bytes and records of all whole ones."""
    size = count = 0
    last: BatchHeader | None = None
    for last, batch in walk(batches):
        size += len(batch)
        count += last.record_count
    if last is None:
        raise RuntimeError("an answer has records, but no whole batch")
    return last, size, count
