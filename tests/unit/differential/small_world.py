"""A world of one partition, "a"-0, and one that is only proxied, "b"-0; and answers about them, as bytes."""

from dataclasses import replace
from typing import Any

from protocol.batches import read_batch_header
from protocol.fetch_response import FetchedPartition, FetchResponse
from tests.differential.asks import FetchAsk, FetchPlace
from tests.differential.golden import Batch, Golden
from tests.differential.wire import Reply
from tests.differential.world import ARC, REF, Side, World
from tests.unit.batch_maker import make_batch, plain_records
from tests.unit.protocol.oracle import encode_response

ABORTED, COMMITTED = 7, 8
SEAM = 16
END = 31


def as_batch(data: bytes) -> Batch:
    header = read_batch_header(data)
    assert header is not None
    return Batch(header, data)


BATCHES = [
    as_batch(data)
    for data in (
        make_batch(0, plain_records(5), codec=1),
        make_batch(5, plain_records(5, time=2_000), producer_id=ABORTED, transactional=True),
        make_batch(10, plain_records(5, time=3_000), codec=4),
        make_batch(15, plain_records(1, time=4_000), producer_id=ABORTED, control=0),
        make_batch(16, plain_records(5, time=5_000), producer_id=COMMITTED, transactional=True),
        make_batch(21, plain_records(1, time=6_000), producer_id=COMMITTED, control=1),
        make_batch(22, plain_records(9, time=7_000)),
    )
]


def golden() -> Golden:
    return Golden(list(BATCHES), 0, END, END)


def world() -> World:
    places = [("a", 0), ("b", 0)]
    ref, arc = (
        Side(prefix, {"a": bytes([number]) * 16, "b": bytes([number + 2]) * 16}, {place: golden() for place in places})
        for number, prefix in ((1, REF), (2, ARC))
    )
    return World(ref, arc, {("a", 0): SEAM, ("b", 0): 0}, leader_epoch=2, archived={"a"}, compacted=set())


def blob(first: int, stop: int) -> bytes:
    """Batches number `first` to `stop` - 1."""
    return b"".join(batch.data for batch in BATCHES[first:stop])


def ask(offset: int = 0, **changes: Any) -> FetchAsk:
    """A fetch of "a"-0, read_committed, with ample limits."""
    asked = FetchAsk(11, 0, 1, 1 << 20, 1, (FetchPlace("a", 0, offset, 1 << 20),))
    return replace(asked, **changes)


def part(records: bytes, topic: str = "a", **changes: Any) -> FetchedPartition:
    """What a broker says of a partition, in read_committed; the aborted transaction is listed."""
    said = FetchedPartition(
        topic=topic,
        topic_id=None,
        index=0,
        error=0,
        high_watermark=END,
        last_stable_offset=END,
        log_start=0,
        aborted=[(ABORTED, 5)],
        preferred_replica=-1,
        records=memoryview(records),
        tags=b"",
    )
    return replace(said, **changes)


def reply(side: str, *parts: FetchedPartition, seconds: float = 0.0, error: int = 0, session: int = 0) -> Reply:
    """An answer of version 11 from one side, whose topics are named as that side names them."""
    named = [replace(each, topic=f"{side}-{each.topic}") for each in parts]
    return Reply(encode_response(FetchResponse(11, 7, 0, error, session, named, b"")), seconds)
