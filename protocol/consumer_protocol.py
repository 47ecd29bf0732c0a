"""What members of a consumer group tell one another through the coordinator: subscriptions, and who got what.

The bytes of Kafka's own consumers (ConsumerProtocolSubscription and ConsumerProtocolAssignment in its message
definitions, none of them flexible), so that Kafka's tools can show who works on what. Versions above ours only add
fields at the end: they are read as the highest known one, as Kafka's consumers do.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.errors import MalformedError
from protocol.wire import Buffer, Cursor, put_string

PROTOCOL_TYPE = "consumer"

NO_GENERATION = -1

Partitions = Mapping[str, tuple[int, ...]]
"""{topic: partitions}"""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a member asks for. `owned` is what it has since `generation` (-1: none, or below v2)."""

    topics: tuple[str, ...]
    owned: Partitions
    generation: int = NO_GENERATION


def encode_subscription(subscription: Subscription) -> bytes:
    """As v2: with owned partitions, and since when."""
    topics = b"".join(map(put_string, subscription.topics))
    return (
        struct.pack(">hi", 2, len(subscription.topics))
        + topics
        + struct.pack(">i", -1)  # no user data
        + _partitions(subscription.owned)
        + struct.pack(">i", subscription.generation)
    )


def decode_subscription(data: Buffer) -> Subscription:
    """Raises MalformedError."""
    cur = Cursor(data)
    version = cur.i16()
    topics = tuple(_read_string(cur) for _ in range(cur.array_len()))
    cur.skip_bytes()  # user data
    owned = _read_partitions(cur) if version >= 1 else {}
    return Subscription(topics, owned, cur.i32() if version >= 2 else NO_GENERATION)


def encode_assignment(partitions: Partitions) -> bytes:
    """As v1, without user data."""
    return struct.pack(">h", 1) + _partitions(partitions) + struct.pack(">i", -1)


def decode_assignment(data: Buffer) -> Partitions:
    """Raises MalformedError. No bytes at all are an empty assignment: what a member gets whom the leader forgot."""
    if not len(data):
        return {}
    cur = Cursor(data)
    cur.i16()
    return _read_partitions(cur)


def _partitions(partitions: Partitions) -> bytes:
    parts = [struct.pack(">i", len(partitions))]
    for topic, indexes in partitions.items():
        parts += [put_string(topic), _indexes(indexes)]
    return b"".join(parts)


def _indexes(indexes: Iterable[int]) -> bytes:
    listed = list(indexes)
    return struct.pack(f">i{len(listed)}i", len(listed), *listed)


def _read_partitions(cur: Cursor) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for _ in range(cur.array_len()):
        topic = _read_string(cur)
        found[topic] = found.get(topic, ()) + tuple(cur.i32() for _ in range(cur.array_len()))
    return found


def _read_string(cur: Cursor) -> str:
    text = cur.string()
    if text is None:
        raise MalformedError("a topic without a name")
    return text
