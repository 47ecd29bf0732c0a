"""What must hold for any bytes. Each target takes bytes, and raises AssertionError, or anything undocumented, if not.

The first bytes choose: a version, an API, where to cut.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from protocol.api_versions import patch_api_versions, read_api_versions
from protocol.apis import ApiKey
from protocol.batches import read_batch_header, walk
from protocol.codec import (
    decode_delete_records_request,
    decode_delete_records_response,
    decode_list_offsets_request,
    decode_list_offsets_response,
    decode_metadata_response,
    encode_delete_records_response,
    encode_list_offsets_response,
)
from protocol.endpoints import carries_endpoints, produce_acks, read_endpoints, rewrite_endpoints
from protocol.errors import MalformedError
from protocol.fetch import make_sessionless, scan_fetch_request
from protocol.fetch_response import encode_fetch_response, parse_fetch_response
from protocol.fetch_stream import FetchStream
from protocol.frames import FrameSplitter
from protocol.headers import read_request_header
from protocol.records import decode_records, first_record_at
from tierproxy.addresses import Addresses
from tierproxy.archive.errors import FormatError
from tierproxy.archive.moved import read_manifest
from tierproxy.archive.segment_index import encode_tail, read_index
from tierproxy.catalog import ArchivedTopic, Catalog
from tierproxy.conversation import Conversation
from tierproxy.routing.holds import DeletesHold, EndpointsHold, FetchHold, OffsetsHold
from tierproxy.routing.table import KNOWN, OFFERED

TOPIC_ID = bytes(range(16))
MOST_PLAIN = 1 << 20
WITH_ENDPOINTS = (
    ApiKey.PRODUCE,
    ApiKey.METADATA,
    ApiKey.FIND_COORDINATOR,
    ApiKey.DESCRIBE_CLUSTER,
    ApiKey.SHARE_FETCH,
    ApiKey.SHARE_ACKNOWLEDGE,
)


def frames(data: bytes) -> None:
    """However a stream is cut, the same frames come out, or the same fault."""
    whole, cut = (_split([data[1:]]), _split(_cuts(data)))
    assert whole == cut


def fetch_request(data: bytes) -> None:
    """A request that can be read can be made sessionless, and is otherwise the same then."""
    with contextlib.suppress(MalformedError):
        payload = bytearray(data)
        header = read_request_header(payload)
        produce_acks(payload, header)
        request = scan_fetch_request(payload, header)
        make_sessionless(payload, request)
        again = scan_fetch_request(payload, header)
        assert len(payload) == len(data)
        assert again == replace(request, session_id=again.session_id, session_epoch=again.session_epoch)
        assert (again.session_id, again.session_epoch) == (0, -1)


def fetch_answer(data: bytes) -> None:
    """What was read and written again reads the same."""
    version = 4 + data[0] % 15 if data else 4
    with contextlib.suppress(MalformedError):
        answer = parse_fetch_response(data[1:], version)
        again = parse_fetch_response(b"".join(encode_fetch_response(answer)), version)
        assert again == answer


def fetch_stream(data: bytes) -> None:
    """However an answer is cut, the same bytes leave, as long as what came; and what can be read can be streamed."""
    version = 4 + data[0] % 15 if data else 4
    whole, cut = _stream(version, [data[2:]]), _stream(version, _cuts(data[1:]))
    assert whole == cut
    try:
        answer = parse_fetch_response(data[2:], version)
    except MalformedError:
        return
    assert whole is not None, "it can be read whole, but not streamed"
    assert len(whole) == len(data) - 2
    shown = parse_fetch_response(whole, version)
    for before, after in zip(answer.partitions, shown.partitions, strict=True):
        assert after.error == (0 if before.error == 1 else before.error)
        assert (after.records, after.index, after.aborted) == (before.records, before.index, before.aborted)


def endpoints(data: bytes) -> None:
    """Every address that can be read is replaced, and nothing else changes."""
    if len(data) < 2:
        return
    key, version = WITH_ENDPOINTS[data[0] % len(WITH_ENDPOINTS)], data[1] % 16
    if not carries_endpoints(key, version):
        return
    with contextlib.suppress(MalformedError):
        found = read_endpoints(key, version, data[2:])
        ours = b"".join(rewrite_endpoints(key, version, data[2:], lambda node: ("tierproxy", 9192)))
        assert [(each.node_id, each.host, each.port) for each in read_endpoints(key, version, ours)] == [
            (each.node_id, "tierproxy", 9192) for each in found
        ]


def api_versions(data: bytes) -> None:
    """Nothing is offered that the broker doesn't, or that we don't know."""
    version = data[0] % 5 if data else 0
    with contextlib.suppress(MalformedError):
        theirs = read_api_versions(data[1:], version)
        ours = read_api_versions(patch_api_versions(data[1:], version, OFFERED, KNOWN), version)
        for key, (lowest, highest) in ours.items():
            assert key in KNOWN
            assert lowest <= highest or key not in OFFERED
            assert key in theirs


def batches(data: bytes) -> None:
    """Walking ends, and gives batches that lie behind one another; their records can be read or are refused."""
    with contextlib.suppress(MalformedError):
        read_batch_header(data)
    with contextlib.suppress(MalformedError):
        at = 0
        for header, batch in walk(memoryview(data)):
            assert header.size == len(batch)
            assert bytes(batch) == data[at : at + len(batch)]
            at += len(batch)
            with contextlib.suppress(MalformedError):
                records = decode_records(batch, MOST_PLAIN)
                found = first_record_at(batch, -(2**63), -(2**63), MOST_PLAIN)
                assert (found is None) == (not records)


def messages(data: bytes) -> None:
    """The small messages: read, or refused as malformed; what is written again reads the same."""
    which, version = (data[0] % 5, data[1]) if len(data) > 1 else (0, 0)
    body = data[2:]
    with contextlib.suppress(MalformedError):
        if which == 0:
            decode_list_offsets_request(body, 1 + version % 11)
        elif which == 1:
            offsets = decode_list_offsets_response(body, 1 + version % 11)
            written = encode_list_offsets_response(offsets, 1 + version % 11, 7)
            assert decode_list_offsets_response(written, 1 + version % 11) == offsets
        elif which == 2:
            decode_delete_records_request(body, version % 3)
        elif which == 3:
            deleted = decode_delete_records_response(body, version % 3)
            written = encode_delete_records_response(deleted, version % 3, 7)
            assert decode_delete_records_response(written, version % 3) == deleted
        else:
            decode_metadata_response(body, version % 14)


def index(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        found = read_index(data)
        assert read_index(encode_tail(found)) == found


def manifest(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        found = read_manifest(data)
        assert read_manifest(found.to_json()) == found


def conversation(data: bytes) -> None:
    """Bytes of both sides in turns, whatever they are: it goes on or it closes, and keeps nothing beyond its bounds."""
    catalog = Catalog(lambda name: True, True)
    catalog.set_topics([ArchivedTopic("vec", TOPIC_ID, 2, "main", "skip")], [])
    talk = Conversation(catalog, Addresses("proxy", 9192, {1: ("kafka-1", 9092)}, listening={1}), 1 << 16, 10)
    at = 0
    while at < len(data) and talk.closing is None:
        size = 1 + data[at] // 2 * 8
        portion = data[at + 1 : at + 1 + size]
        (talk.from_client if data[at] % 2 else talk.from_broker)(portion)
        at += 1 + size
        while talk.held is not None and talk.closing is None:
            assert isinstance(talk.held, FetchHold | OffsetsHold | DeletesHold | EndpointsHold)
            talk.release([b"\0\0\0\0"])
        assert talk.gathered <= len(data)
        assert talk.unanswered <= 12
        talk.to_broker.clear()
        talk.to_client.clear()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        frames,
        fetch_request,
        fetch_answer,
        fetch_stream,
        endpoints,
        api_versions,
        batches,
        messages,
        index,
        manifest,
        conversation,
    )
}


def any_of_them(data: bytes) -> None:
    """The first byte chooses the target."""
    if data:
        list(TARGETS.values())[data[0] % len(TARGETS)](data[1:])


def _cuts(data: bytes) -> list[bytes]:
    """The rest of `data`, cut at steps that its first byte chooses."""
    step = 1 + data[0] % 37 if data else 1
    rest = data[1:]
    return [rest[a:b] for a, b in pairwise([*range(0, len(rest), step), len(rest)])]


def _split(portions: Sequence[bytes]) -> object:
    splitter, whole, open_frame = FrameSplitter(1 << 20), [], bytearray()
    try:
        for portion in portions:
            for piece in splitter.feed(portion):
                assert piece.at == len(open_frame)
                open_frame += piece.data
                if piece.last:
                    whole.append(bytes(open_frame))
                    open_frame.clear()
    except MalformedError:
        return "malformed"
    return whole, bytes(open_frame), splitter.between_frames


def _stream(version: int, portions: Sequence[bytes]) -> bytes | None:
    stream = FetchStream(version, lambda topic, partition, error, log_start: (0, log_start) if error == 1 else None)
    out = bytearray()
    try:
        for portion in portions:
            for piece in stream.feed(portion):
                out += piece
        stream.finish()
    except MalformedError:
        return None
    return bytes(out)
