"""Two readers for measuring: one that does next to nothing but receive, and librdkafka as applications use it."""

import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from protocol.batches import walk
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import parse_fetch_response

_VERSION = 11  # the last one that names topics without tag sections: cheap to build and to read
_MAX_BYTES = 50 << 20


@dataclass(frozen=True)
class Run:
    """One reading of a topic. `size` is in bytes: of batches for the raw reader, of values for librdkafka."""

    seconds: float
    size: int
    records: int
    first_byte: float  # seconds until the first batch had arrived


def read_raw(address: tuple[str, int], topic: str, ends: Mapping[int, int], partition_bytes: int) -> Run:
    """Fetches all partitions over one connection, one request at a time, reading nothing but batch headers."""
    at = dict.fromkeys(ends, 0)
    log_bytes = records = correlation = 0
    first_byte = 0.0
    started = time.perf_counter()
    with socket.create_connection(address, timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while wanted := [p for p, end in ends.items() if at[p] < end]:
            correlation += 1
            request = build_fetch_request(
                _VERSION,
                correlation,
                "bench",
                max_wait_ms=500,
                min_bytes=1,
                max_bytes=_MAX_BYTES,
                isolation=0,
                partitions=[FetchPartition(topic, None, p, -1, at[p], -1, partition_bytes) for p in wanted],
            )
            sock.sendall(struct.pack(">i", len(request)) + request)
            size = struct.unpack(">i", _receive(sock, 4))[0]
            answer = parse_fetch_response(_receive(sock, size), _VERSION)
            for part in answer.partitions:
                if part.error:
                    raise RuntimeError(f"{topic}-{part.index} at {at[part.index]}: error {part.error}")
                for header, batch in walk(part.records or memoryview(b"")):
                    at[part.index] = header.next_offset
                    log_bytes += len(batch)
                    records += header.record_count
            if log_bytes and not first_byte:
                first_byte = time.perf_counter() - started
    return Run(time.perf_counter() - started, log_bytes, records, first_byte)


def _receive(sock: socket.socket, size: int) -> memoryview:
    data = bytearray(size)
    view = memoryview(data)
    while size:
        got = sock.recv_into(view[-size:], size)
        if not got:
            raise ConnectionError("the connection was closed in the middle of an answer")
        size -= got
    return view


def read_librdkafka(bootstrap: str, topic: str, ends: Mapping[int, int]) -> Run:
    """confluent-kafka, in batches of 10,000 messages; sums up the sizes of the values."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 10,  # by default it rests a second whenever its queue is full
            "log_level": 2,
        }
    )
    wanted = sum(ends.values())
    records = value_bytes = 0
    first_byte = 0.0
    started = time.perf_counter()
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in ends])
        while records < wanted:
            messages: list[Any] = consumer.consume(10_000, 0.5)
            for message in messages:
                if message.error() is not None:
                    raise RuntimeError(str(message.error()))
                value_bytes += len(message.value())
            records += len(messages)
            if records and not first_byte:
                first_byte = time.perf_counter() - started
        return Run(time.perf_counter() - started, value_bytes, records, first_byte)
    finally:
        consumer.close()
