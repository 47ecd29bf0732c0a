"""What a producer of our own says, by hand in versions that every broker from Kafka 2.4 on has: Produce v7-8,
InitProducerId v0-1, CreateTopics v4.

Of each, those before the flexible ones will do for everything that is needed; v7 is the first Produce with zstd, and
CreateTopics v4 the first that lets the broker choose the number of replicas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct

from protocol.apis import ApiKey
from protocol.errors import MalformedError
from protocol.headers import response_body_at
from protocol.wire import Buffer, Cursor, put_string

PRODUCE_VERSIONS = (7, 8)
INIT_PRODUCER_ID_VERSIONS = (0, 1)
CREATE_TOPICS_VERSIONS = (4, 4)

ACKS_ALL = -1

_ACKS = Struct(">hi")
_COUNT = Struct(">i")
_TOPIC = Struct(">ihii")
_PRODUCED = Struct(">ihqqq")


@dataclass(frozen=True, slots=True)
class Produced:
    """The broker's answer about one batch. `base_offset` is where it lies, -1 if it doesn't; `message` may say why."""

    error: int
    base_offset: int
    message: str = ""


def produce_request(topic: str, partition: int, batch: Buffer, timeout_ms: int) -> list[Buffer]:
    """The body, in pieces: one batch, acknowledged by all replicas in sync."""
    head = put_string(None) + _ACKS.pack(ACKS_ALL, timeout_ms) + _COUNT.pack(1) + put_string(topic)
    return [head + _COUNT.pack(1) + _COUNT.pack(partition) + _COUNT.pack(len(batch)), batch]


def read_produce_response(payload: Buffer, version: int) -> Produced:
    """The answer to `produce_request`, header included; MalformedError."""
    cur = Cursor(payload, response_body_at(ApiKey.PRODUCE, version, payload))
    if cur.array_len() != 1 or cur.string() is None or cur.array_len() != 1:
        raise MalformedError("a Produce response about more or less than the one partition that was asked for")
    _, error, base_offset, _, _ = cur.unpack(_PRODUCED)
    messages = []
    if version >= 8:
        for _ in range(cur.array_len(6)):
            cur.i32()  # the record's place in the batch
            messages.append(cur.string())
        messages.append(cur.string())
    cur.i32()  # throttle time
    cur.finish()
    return Produced(error, base_offset, "; ".join(message for message in messages if message))


def init_producer_id_request() -> bytes:
    """The body: a producer id for a producer without transactions."""
    return put_string(None) + _COUNT.pack(60_000)


def read_init_producer_id_response(payload: Buffer, version: int) -> tuple[int, int, int]:
    """(error, producer id, epoch); MalformedError."""
    cur = Cursor(payload, response_body_at(ApiKey.INIT_PRODUCER_ID, version, payload))
    cur.i32()  # throttle time
    error, producer_id, epoch = cur.i16(), cur.i64(), cur.i16()
    cur.finish()
    return error, producer_id, epoch


def create_topic_request(
    topic: str, partitions: int, replicas: int, configs: Mapping[str, str], timeout_ms: int
) -> bytes:
    """The body; `replicas` -1 leaves their number to the broker."""
    settings = b"".join(put_string(name) + put_string(value) for name, value in configs.items())
    about = put_string(topic) + _TOPIC.pack(partitions, replicas, 0, len(configs)) + settings
    return _COUNT.pack(1) + about + _COUNT.pack(timeout_ms) + b"\x00"


def read_create_topic_response(payload: Buffer, version: int) -> tuple[int, str]:
    """(error, the broker's words); MalformedError."""
    cur = Cursor(payload, response_body_at(ApiKey.CREATE_TOPICS, version, payload))
    cur.i32()  # throttle time
    if cur.array_len() != 1:
        raise MalformedError("a CreateTopics response about more or less than the one topic that was asked for")
    cur.string()
    error, message = cur.i16(), cur.string()
    cur.finish()
    return error, message or ""
