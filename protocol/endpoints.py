"""Where responses carry brokers' addresses, and how to replace just those.

The list is complete for Kafka 4.3.1's message definitions, Fetch apart (there they follow all records: see
fetch_response and fetch_stream): Metadata, FindCoordinator, DescribeCluster, and NodeEndpoints in Produce
(KIP-951), ShareFetch and ShareAcknowledge (KIP-932). Host and port are neighbours everywhere, so a rewrite is
one splice for each address; every other byte stays as it was, tags of a newer broker included.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from protocol.apis import ApiKey, is_flexible
from protocol.errors import MalformedError, TruncatedError
from protocol.headers import RequestHeader, response_body_at
from protocol.wire import Buffer, Cursor, put_compact_string, put_string, put_uvarint

NO_NODE = -1
"""Node id of a coordinator that was not found; host and port mean nothing then."""

NODE_ENDPOINTS_TAG = 0
"""NodeEndpoints is tag 0 of the body in Produce v10+ and Fetch v16+."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker's address as one response gave it."""

    node_id: int
    host: str
    port: int


AddressOf: TypeAlias = Callable[[Endpoint], tuple[str, int]]
"""The (host, port) that clients shall see instead."""


class _Found(NamedTuple):
    """An endpoint, and the bytes from its host's length to the end of its port."""

    endpoint: Endpoint
    start: int
    end: int


def carries_endpoints(key: int, version: int) -> bool:
    """Whether read_endpoints() and rewrite_endpoints() know addresses in responses of this version."""
    first, last = _VERSIONS.get(key, (0, -1))
    return first <= version <= last


def read_endpoints(key: int, version: int, payload: Buffer) -> list[Endpoint]:
    """The addresses in a response, in its order; coordinators that were not found are left out.

    Raises MalformedError for bytes that are no such response, and LookupError if carries_endpoints() says no.
    """
    cur = _body(key, version, payload)
    if key == ApiKey.PRODUCE:
        _skip_produce(cur, version)
        return node_endpoints(memoryview(payload)[cur.pos :])
    return [found.endpoint for found in _SCAN[key](cur, version)]


def rewrite_endpoints(key: int, version: int, payload: Buffer, address_of: AddressOf) -> list[Buffer]:
    """The payload with every address replaced, as pieces; the rest is passed through uncopied.

    Raises as read_endpoints().
    """
    cur = _body(key, version, payload)
    view = memoryview(payload)
    if key == ApiKey.PRODUCE:
        _skip_produce(cur, version)
        return [view[: cur.pos], replace_node_endpoints(view[cur.pos :], address_of)]
    return _splice(view, list(_SCAN[key](cur, version)), is_flexible(key, version), address_of)


def node_endpoints(tags: Buffer) -> list[Endpoint]:
    """NodeEndpoints in the tag section that ends a Produce (v10+) or Fetch (v16+) response.

    [] without that tag, and for b"", which stands for a version that has no tag section.
    """
    if not tags:
        return []
    return [
        found.endpoint
        for tag, data in _tags(tags)
        if tag == NODE_ENDPOINTS_TAG
        for found in _whole_node_endpoints(data)
    ]


def replace_node_endpoints(tags: Buffer, address_of: AddressOf) -> bytes:
    """That tag section with the addresses in NodeEndpoints replaced and all other tags as they were.

    b"" stays b"".
    """
    if not tags:
        return b""
    entries = _tags(tags)
    out = bytearray(put_uvarint(len(entries)))
    for tag, data in entries:
        new: Buffer = data
        if tag == NODE_ENDPOINTS_TAG:
            new = b"".join(_splice(data, _whole_node_endpoints(data), True, address_of))
        out += put_uvarint(tag) + put_uvarint(len(new)) + new
    return bytes(out)


def _tags(section: Buffer) -> list[tuple[int, memoryview]]:
    view = memoryview(section)
    cur = Cursor(view)
    entries = [(tag, view[start:end]) for tag, start, end in cur.tags()]
    cur.finish()
    return entries


def _whole_node_endpoints(data: Buffer) -> list[_Found]:
    cur = Cursor(data)
    found = list(_node_endpoints(cur))
    cur.finish()
    return found


def produce_acks(head: Buffer, header: RequestHeader) -> int | None:
    """`acks` of the Produce request that begins with `head`; None if the head is too short to tell.

    0 means that no response will come. Raises MalformedError for a head no Produce request can begin with.
    """
    cur = Cursor(head, header.body_at)
    try:
        if header.version >= 3:
            if is_flexible(ApiKey.PRODUCE, header.version):
                cur.skip_compact_string()
            else:
                cur.skip_string()
        return cur.i16()
    except TruncatedError:
        return None


def _body(key: int, version: int, payload: Buffer) -> Cursor:
    if not carries_endpoints(key, version):
        raise LookupError(f"no addresses are known in responses of API {key} version {version}")
    return Cursor(payload, response_body_at(key, version, payload))


def _address(cur: Cursor, flexible: bool, node_id: int) -> _Found:
    start = cur.pos
    host = cur.compact_string() if flexible else cur.string()
    port = cur.i32()
    if host is None:
        raise MalformedError(f"node {node_id} has a null host")
    return _Found(Endpoint(node_id, host, port), start, cur.pos)


def _metadata(cur: Cursor, version: int) -> Iterator[_Found]:
    # In every version the brokers stand before the topics, which are never looked at.
    flexible = version >= 9
    if version >= 3:
        cur.skip(4)
    for _ in range(cur.compact_array_len(11) if flexible else cur.array_len(10)):
        yield _address(cur, flexible, cur.i32())
        if flexible:
            cur.skip_compact_string()
            cur.skip_tags()
        elif version >= 1:
            cur.skip_string()


def _find_coordinator(cur: Cursor, version: int) -> Iterator[_Found]:
    if version >= 1:
        cur.skip(4)
    if version <= 3:
        cur.skip(2)
        if version == 3:
            cur.skip_compact_string()
        elif version >= 1:
            cur.skip_string()
        found = _address(cur, version == 3, cur.i32())
        if found.endpoint.node_id != NO_NODE:
            yield found
        if version == 3:
            cur.skip_tags()
        cur.finish()
        return
    for _ in range(cur.compact_array_len(14)):
        cur.skip_compact_string()
        found = _address(cur, True, cur.i32())
        if found.endpoint.node_id != NO_NODE:
            yield found
        cur.skip(2)
        cur.skip_compact_string()
        cur.skip_tags()
    cur.skip_tags()
    cur.finish()


def _describe_cluster(cur: Cursor, version: int) -> Iterator[_Found]:
    cur.skip(6)
    cur.skip_compact_string()
    if version >= 1:
        cur.skip(1)
    cur.skip_compact_string()
    cur.skip(4)
    for _ in range(cur.compact_array_len(11)):
        yield _address(cur, True, cur.i32())
        cur.skip_compact_string()
        if version >= 2:
            cur.skip(1)
        cur.skip_tags()
    cur.skip(4)
    cur.skip_tags()
    cur.finish()


def _skip_produce(cur: Cursor, version: int) -> None:
    """Move over the body of a Produce response v10+, up to its tag section."""
    for _ in range(cur.compact_array_len(3)):
        if version >= 13:
            cur.skip(16)
        else:
            cur.skip_compact_string()
        for _ in range(cur.compact_array_len(33)):
            cur.skip(30)  # index, error, base offset, append time, log start
            for _ in range(cur.compact_array_len(6)):
                cur.skip(4)
                cur.skip_compact_string()
                cur.skip_tags()
            cur.skip_compact_string()
            cur.skip_tags()
        cur.skip_tags()
    cur.skip(4)  # throttle time
    if cur.pos == cur.end:
        raise TruncatedError("a Produce response without a tag section")


def _node_endpoints(cur: Cursor) -> Iterator[_Found]:
    for _ in range(cur.compact_array_len(11)):
        yield _address(cur, True, cur.i32())
        cur.skip_compact_string()
        cur.skip_tags()


def _share_fetch(cur: Cursor, version: int) -> Iterator[_Found]:
    cur.skip(6)
    cur.skip_compact_string()
    cur.skip(4)
    for _ in range(cur.compact_array_len(18)):
        cur.skip(16)
        for _ in range(cur.compact_array_len(22)):
            _share_partition(cur, acknowledge=False)
        cur.skip_tags()
    yield from _node_endpoints(cur)
    cur.skip_tags()
    cur.finish()


def _share_acknowledge(cur: Cursor, version: int) -> Iterator[_Found]:
    cur.skip(6)
    cur.skip_compact_string()
    if version >= 2:
        cur.skip(4)
    for _ in range(cur.compact_array_len(18)):
        cur.skip(16)
        for _ in range(cur.compact_array_len(17)):
            _share_partition(cur, acknowledge=True)
        cur.skip_tags()
    yield from _node_endpoints(cur)
    cur.skip_tags()
    cur.finish()


def _share_partition(cur: Cursor, *, acknowledge: bool) -> None:
    cur.skip(6)
    cur.skip_compact_string()
    if not acknowledge:
        cur.skip(2)
        cur.skip_compact_string()
    cur.skip(8)  # current leader
    cur.skip_tags()
    if not acknowledge:
        cur.skip_compact_string()  # records
        for _ in range(cur.compact_array_len(19)):
            cur.skip(18)
            cur.skip_tags()
    cur.skip_tags()


def _splice(view: memoryview, found: list[_Found], flexible: bool, address_of: AddressOf) -> list[Buffer]:
    out: list[Buffer] = []
    done = 0
    for endpoint, start, end in found:
        host, port = address_of(endpoint)
        text = put_compact_string(host) if flexible else put_string(host)
        out.append(view[done:start])
        out.append(text + port.to_bytes(4, "big", signed=True))
        done = end
    out.append(view[done:])
    return out


_VERSIONS: dict[int, tuple[int, int]] = {
    ApiKey.PRODUCE: (10, 13),
    ApiKey.METADATA: (0, 13),
    ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.DESCRIBE_CLUSTER: (0, 2),
    ApiKey.SHARE_FETCH: (1, 2),
    ApiKey.SHARE_ACKNOWLEDGE: (1, 2),
}

_SCAN: dict[int, Callable[[Cursor, int], Iterator[_Found]]] = {
    ApiKey.METADATA: _metadata,
    ApiKey.FIND_COORDINATOR: _find_coordinator,
    ApiKey.DESCRIBE_CLUSTER: _describe_cluster,
    ApiKey.SHARE_FETCH: _share_fetch,
    ApiKey.SHARE_ACKNOWLEDGE: _share_acknowledge,
}
