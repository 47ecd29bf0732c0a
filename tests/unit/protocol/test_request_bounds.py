"""Requests that are large, or say so: what reading them may cost."""

import struct

import pytest

from protocol import codec
from protocol.apis import ApiKey
from protocol.errors import MalformedError
from protocol.fetch import MAX_TOPICS, FetchPartition, build_fetch_request, scan_fetch_request
from protocol.headers import read_request_header, request_header
from protocol.wire import put_uvarint

EMPTY_TOPIC = b"\x01\x01\x00"  # v12: a name without letters, no partitions, no tags
LIMITS = struct.pack(">iiiibii", -1, 500, 1, 1 << 20, 0, 0, -1)


def topics(count: int) -> bytes:
    return put_uvarint(count + 1) + EMPTY_TOPIC * count


def fetch(asked: bytes, forgotten: bytes = b"\x01") -> bytes:
    """A fetch v12."""
    return request_header(ApiKey.FETCH, 12, 1, "x") + LIMITS + asked + forgotten + b"\x01\x00"


@pytest.mark.parametrize("places", [("asked",), ("asked", "forgotten")])
def test_a_fetch_of_too_many_topics_is_refused(places: tuple[str, ...]) -> None:
    def of(count: int) -> bytes:
        return fetch(**{"asked": b"\x01", **dict.fromkeys(places, topics(count))})

    for payload in (of(10), of(MAX_TOPICS)):
        assert scan_fetch_request(payload, read_request_header(payload)).partitions == []
    with pytest.raises(MalformedError, match=f"{MAX_TOPICS + 1} topics"):
        scan_fetch_request(payload := of(MAX_TOPICS + 1), read_request_header(payload))


@pytest.mark.parametrize("version", [12, 13, 17])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
@pytest.mark.parametrize("tagged", [None, 0, -1])
def test_partitions_with_and_without_tags_are_read_alike(version: int, count: int, tagged: int | None) -> None:
    """Those without are read at one go; one with a tag among them changes nothing."""
    topic, topic_id = ("t", None) if version < 13 else (None, bytes(range(16)))
    asked = [FetchPartition(topic, topic_id, n, n % 3, 1000 + n, n % 2, 4000 + n) for n in range(count)]
    limits = {"max_wait_ms": 1, "min_bytes": 1, "max_bytes": 1, "isolation": 0}
    payload = build_fetch_request(version, 1, "x", partitions=asked, **limits)
    if tagged is not None:
        one = asked[tagged]
        entry = struct.pack(
            ">iiqiqi", one.index, one.current_leader_epoch, one.fetch_offset, one.last_fetched_epoch, -1, one.max_bytes
        )
        assert payload.count(entry + b"\x00") == 1
        payload = payload.replace(entry + b"\x00", entry + b"\x01\x05\x02ab")
    assert scan_fetch_request(payload, read_request_header(payload)).partitions == asked


def test_offsets_of_and_deleting_from_too_many_topics_is_refused() -> None:
    start = struct.pack(">ib", -1, 0)
    assert codec.decode_list_offsets_request(start + topics(10) + b"\x00", 7).partitions == []
    with pytest.raises(MalformedError, match="topics"):
        codec.decode_list_offsets_request(start + topics(codec.MAX_TOPICS + 1) + b"\x00", 7)
    end = struct.pack(">i", 1) + b"\x00"
    assert codec.decode_delete_records_request(topics(10) + end, 2).partitions == []
    with pytest.raises(MalformedError, match="topics"):
        codec.decode_delete_records_request(topics(codec.MAX_TOPICS + 1) + end, 2)
    old = struct.pack(">i", codec.MAX_TOPICS + 1) + b"\x00\x00\x00\x00\x00\x00" * (codec.MAX_TOPICS + 1)
    for version, before in ((1, b"\xff\xff\xff\xff"), (5, start)):
        with pytest.raises(MalformedError, match="topics"):
            codec.decode_list_offsets_request(before + old, version)
