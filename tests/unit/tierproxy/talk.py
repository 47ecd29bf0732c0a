"""A playbook for conversations: what came in, what must go out.

talk.client(heartbeat)       >> the client sends
talk.to_broker()             << what goes to the broker
talk.broker(answer)          >> the broker sends
talk.to_client()             << what goes to the client
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.apis import ApiKey
from protocol.errors import ErrorCode
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import FetchedPartition, FetchResponse, encode_fetch_response, parse_fetch_response
from protocol.frames import FrameSplitter
from protocol.headers import request_header, response_header
from tierproxy.addresses import Addresses
from tierproxy.archive.manifest import Manifest, SegmentEntry
from tierproxy.catalog import ArchivedTopic, Catalog
from tierproxy.conversation import Conversation

TOPIC_ID = bytes(range(16))
OTHER_ID = bytes(range(16, 32))


def archived(start: int, end: int, topic_id: bytes = TOPIC_ID) -> Manifest:
    """A manifest of one partition whose archive holds [start, end), in one segment."""
    entry = SegmentEntry(
        f"{start:020d}-{end - 1:020d}-0011aabb.log.zst", start, end - 1, 1000, 4000, 200, end - start, 0, 9, "0" * 64, 5
    )
    return Manifest("prod", "cluster", "flights", topic_id, 0, start, end, (entry,), ((0, start),), generation=2)


def catalog(*, manifest: Manifest | None = None, broker_start: int = -1, on_gap: str = "skip") -> Catalog:
    """A cluster with the archived topic `flights` (3 partitions) and the topic `plain`, which just passes.

    With a manifest, or a log start of the broker's, partition 0 of `flights` is known.
    """
    made = Catalog(lambda name: name == "flights", True)
    made.set_topics([ArchivedTopic("flights", TOPIC_ID, 3, "main", on_gap)], [("plain", OTHER_ID)])
    tier = made.find("flights", 0)
    assert tier is not None
    tier.broker_start = broker_start
    if manifest is not None or broker_start >= 0:
        tier.manifest, tier.manifest_known = manifest, True
        made.wanted.clear()
    return made


@dataclass
class Talk:
    """One conversation, fed and read in whole frames (payloads); `piecewise` feeds it byte by byte."""

    catalog: Catalog = field(default_factory=catalog)
    addresses: Addresses = field(
        default_factory=lambda: Addresses("proxy", 9192, {1: ("kafka-1", 9092)}, listening={1})
    )
    piecewise: bool = False
    unanswered: int = 1000

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.catalog, self.addresses, 1 << 20, self.unanswered)
        self._at_broker = FrameSplitter(1 << 30)
        self._at_client = FrameSplitter(1 << 30)

    def client(self, *payloads: bytes) -> None:
        for portion in self._portions(payloads):
            self.conversation.from_client(portion)

    def broker(self, *payloads: bytes) -> None:
        for portion in self._portions(payloads):
            if self.conversation.passes(len(portion)):
                self.conversation.to_client.append(portion)
            else:
                self.conversation.from_broker(portion)

    def to_broker(self) -> list[bytes]:
        """The frames that went to the broker since it was last asked."""
        sent, self.conversation.to_broker = self.conversation.to_broker, []
        return self._frames(self._at_broker, sent)

    def to_client(self) -> list[bytes]:
        sent, self.conversation.to_client = self.conversation.to_client, []
        return self._frames(self._at_client, sent)

    def _portions(self, payloads: Sequence[bytes]) -> list[bytes]:
        stream = b"".join(struct.pack(">i", len(p)) + p for p in payloads)
        return [stream[i : i + 1] for i in range(len(stream))] if self.piecewise else [stream]

    @staticmethod
    def _frames(splitter: FrameSplitter, sent: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        frames: list[bytes] = []
        whole = bytearray()
        for piece in splitter.feed(b"".join(sent)):
            whole += piece.data
            if piece.last:
                frames.append(bytes(whole))
                whole.clear()
        assert splitter.between_frames, "a frame was sent in part"
        return frames


def request(key: ApiKey, version: int, correlation_id: int, body: bytes = b"") -> bytes:
    return request_header(key, version, correlation_id, "test") + body


def answer(key: ApiKey, version: int, correlation_id: int, body: bytes = b"") -> bytes:
    return response_header(key, version, correlation_id) + body


def fetch(
    correlation_id: int, *asked: tuple[int, int], version: int = 17, max_bytes: int = 1 << 20, topic: str = "flights"
) -> bytes:
    """A fetch of (partition, offset)s; sessionless, as build_fetch_request makes it."""
    by_id = {"flights": TOPIC_ID, "plain": OTHER_ID}[topic] if version >= 13 else None
    name = topic if version < 13 else None
    partitions = [FetchPartition(name, by_id, index, -1, offset, -1, 1 << 20) for index, offset in asked]
    built = build_fetch_request(
        min(version, 17),
        correlation_id,
        "test",
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=max_bytes,
        isolation=0,
        partitions=partitions,
    )
    return built[:2] + struct.pack(">h", version) + built[4:]  # v18 differs from v17 by a tag nobody must send


def fetched(
    index: int, error: int = 0, *, log_start: int = 0, records: bytes = b"", version: int = 17, topic: str = "flights"
) -> FetchedPartition:
    by_id = {"flights": TOPIC_ID, "plain": OTHER_ID}[topic] if version >= 13 else None
    name = topic if version < 13 else None
    if error == ErrorCode.OFFSET_OUT_OF_RANGE:
        return FetchedPartition(name, by_id, index, error, -1, -1, -1, None, -1, memoryview(b""), b"")
    return FetchedPartition(name, by_id, index, error, 900, 800, log_start, None, -1, memoryview(records), b"")


def fetch_answer(correlation_id: int, *partitions: FetchedPartition, version: int = 17) -> bytes:
    return b"".join(encode_fetch_response(FetchResponse(version, correlation_id, 0, 0, 0, list(partitions), b"")))


def partitions_of(payload: bytes, version: int = 17) -> list[FetchedPartition]:
    return parse_fetch_response(payload, version).partitions
