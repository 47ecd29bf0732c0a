from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol import admin, metadata, producer

from protocol.apis import ApiKey, is_flexible
from protocol.endpoints import Endpoint, carries_endpoints, produce_acks, read_endpoints, rewrite_endpoints
from protocol.errors import MalformedError
from protocol.headers import read_request_header
from protocol.wire import Buffer, put_compact_string, put_string
from tests.unit.protocol.reading import (
    reads_alike_from_every_buffer,
    refuses_every_truncation,
    refuses_trailing_bytes,
    survives_damage,
)
from tests.vectors import NODES, vector, vectors, version_of

KEYS = {
    "metadata": ApiKey.METADATA,
    "find-coordinator": ApiKey.FIND_COORDINATOR,
    "describe-cluster": ApiKey.DESCRIBE_CLUSTER,
    "produce": ApiKey.PRODUCE,
    "share-fetch": ApiKey.SHARE_FETCH,
    "share-acknowledge": ApiKey.SHARE_ACKNOWLEDGE,
}
NAMES = [
    name for prefix, key in KEYS.items() for name in vectors(f"{prefix}-v") if carries_endpoints(key, version_of(name))
]
# What each vector holds; None stands for "all nodes, in order of their ids".
ONE = [Endpoint(2, *NODES[2])]
ALL = [Endpoint(node, *address) for node, address in NODES.items()]

ADDRESSES = [("127.0.0.1", 1), ("p", 65535), ("proxy." + "x" * 150 + ".example", 19092), ("", 0)]


def key_of(name: str) -> ApiKey:
    return KEYS[name.partition("-v")[0]]


def read(name: str, payload: Buffer) -> list[Endpoint]:
    return read_endpoints(key_of(name), version_of(name), payload)


def rewrite(name: str, payload: Buffer, address: tuple[str, int]) -> bytes:
    return b"".join(rewrite_endpoints(key_of(name), version_of(name), payload, lambda node: address))


def endpoints_in(name: str) -> list[Endpoint]:
    if (
        "error-15" in name
        or "error-114" in name
        or name in ("produce-v10", "produce-v11", "produce-v12", "produce-v13")
    ):
        return []
    if name.startswith("find-coordinator"):
        # Which node it is Kafka decides by the group's name: take any, but two groups were asked about from v4 on.
        found = read(name, vector(name))
        assert len(found) == (2 if version_of(name) >= 4 else 1)
        return [Endpoint(node.node_id, *NODES[node.node_id]) for node in found]
    if name.startswith("share-acknowledge"):
        return []
    return ONE if name.startswith(("produce", "share")) else ALL


@pytest.mark.parametrize("name", NAMES)
class TestABrokersBytes:
    def test_addresses(self, name: str) -> None:
        assert read(name, vector(name)) == endpoints_in(name)

    def test_the_same_addresses_give_the_same_bytes(self, name: str) -> None:
        payload = vector(name)
        pieces = rewrite_endpoints(key_of(name), version_of(name), payload, lambda node: (node.host, node.port))
        assert b"".join(pieces) == payload

    @pytest.mark.parametrize("address", ADDRESSES)
    def test_only_addresses_change(self, name: str, address: tuple[str, int]) -> None:
        payload = vector(name)
        put = put_compact_string if is_flexible(key_of(name), version_of(name)) else put_string
        wanted = payload
        for host, port in NODES.values():
            wanted = wanted.replace(
                put(host) + port.to_bytes(4, "big"), put(address[0]) + address[1].to_bytes(4, "big")
            )
        if name.startswith("produce") and wanted != payload:
            # Here the addresses are a tag, which says its own size.
            grown = len(wanted) - len(payload)
            size_at = payload.rindex(put(NODES[2][0])) - 4 - 1 - 1
            size = payload[size_at] + grown
            wanted = (
                wanted[:size_at]
                + (bytes((size,)) if size < 128 else bytes((size & 127 | 128, 1)))
                + wanted[size_at + 1 :]
            )
        assert rewrite(name, payload, address) == wanted
        assert read(name, wanted) == [Endpoint(node.node_id, *address) for node in endpoints_in(name)]

    def test_no_address_of_a_broker_is_left(self, name: str) -> None:
        out = rewrite(name, vector(name), ("proxy", 9))
        for host, port in NODES.values():
            assert host.encode() not in out
            assert port.to_bytes(4, "big") not in out

    def test_truncated(self, name: str) -> None:
        payload = vector(name)
        accepts_from = len(payload)
        if name.startswith("metadata"):
            # What follows the brokers is passed on unread.
            rest = {True: 2, False: 2 if version_of(name) >= 1 else 0}[version_of(name) >= 9]
            accepts_from = payload.rindex(NODES[2][1].to_bytes(4, "big")) + 4 + rest
        refuses_every_truncation(lambda data: read(name, data), payload, accepts_from=accepts_from)
        refuses_every_truncation(lambda data: rewrite(name, data, ("p", 1)), payload, accepts_from=accepts_from)

    def test_trailing(self, name: str) -> None:
        if name.startswith("metadata"):
            assert rewrite(name, vector(name) + b"more", ("p", 1)) == rewrite(name, vector(name), ("p", 1)) + b"more"
        else:
            refuses_trailing_bytes(lambda data: read(name, data), vector(name))

    def test_every_buffer(self, name: str) -> None:
        reads_alike_from_every_buffer(lambda data: read(name, data), vector(name))


@pytest.mark.parametrize(
    "name",
    [
        "metadata-v0",
        "metadata-v13",
        "find-coordinator-v2",
        "find-coordinator-v6",
        "describe-cluster-v2",
        "produce-v13-error-6",
        "share-fetch-v2-first",
        "share-acknowledge-v2",
    ],
)
def test_damage(name: str) -> None:
    survives_damage(lambda data: rewrite(name, data, ("proxy", 9)), vector(name))


# -- kafka-python as a second opinion ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("share")])
def test_kafka_python_finds_the_addresses_where_we_do(name: str) -> None:
    kinds: dict[ApiKey, Any] = {
        ApiKey.METADATA: metadata.MetadataResponse,
        ApiKey.FIND_COORDINATOR: metadata.FindCoordinatorResponse,
        ApiKey.DESCRIBE_CLUSTER: admin.DescribeClusterResponse,
        ApiKey.PRODUCE: producer.ProduceResponse,
    }
    key, version = key_of(name), version_of(name)
    message = kinds[key].decode(vector(name), version=version, header=True)
    assert bytes(message.encode(header=True)) == vector(name)
    nodes: list[Any]
    if key == ApiKey.FIND_COORDINATOR:
        nodes = message.coordinators if version >= 4 else [message]
    else:
        nodes = (message.node_endpoints if key == ApiKey.PRODUCE else message.brokers) or []
    for node in nodes:
        if node.port != -1:
            node.host, node.port = f"proxy-{node.port}.example", node.port + 1
    wanted = bytes(message.encode(header=True))
    pieces = rewrite_endpoints(key, version, vector(name), lambda node: (f"proxy-{node.port}.example", node.port + 1))
    assert b"".join(pieces) == wanted


@given(
    st.integers(0, 13),
    st.lists(
        st.tuples(st.integers(0, 9), st.text("abc.-", max_size=40), st.integers(0, 65535), st.none() | st.just("rack")),
        max_size=6,
    ),
)
def test_any_metadata(version: int, nodes: list[tuple[int, str, int, str | None]]) -> None:
    kind: Any = metadata.MetadataResponse

    def payload(address_of: Any) -> bytes:
        brokers = []
        for node, host, port, rack in nodes:
            host, port = address_of(Endpoint(node, host, port))
            brokers.append(kind.MetadataResponseBroker(version=version, node_id=node, host=host, port=port, rack=rack))
        message = kind(version=version, brokers=brokers, cluster_id="cluster", controller_id=1, topics=[])
        message.with_header(correlation_id=3)
        return bytes(message.encode(header=True))

    before = payload(lambda node: (node.host, node.port))
    assert read_endpoints(ApiKey.METADATA, version, before) == [Endpoint(*node[:3]) for node in nodes]
    pieces = rewrite_endpoints(ApiKey.METADATA, version, before, lambda node: (node.host + "!", node.port // 2))
    assert b"".join(pieces) == payload(lambda node: (node.host + "!", node.port // 2))


@given(st.sampled_from([(key_of(name), version_of(name)) for name in NAMES]), st.binary(max_size=120))
def test_no_bytes_can_lead_it_astray(kind: tuple[int, int], data: bytes) -> None:
    key, version = kind
    try:
        found = read_endpoints(key, version, data)
    except MalformedError:
        return
    assert len(found) * 10 <= len(data)


# -- what the vectors don't show -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_share_acknowledge_with_addresses(version: int) -> None:
    # The captured answer ends with an empty NodeEndpoints (01) and no tags (00).
    name = f"share-acknowledge-v{version}"
    payload = vector(name)
    assert payload.endswith(b"\x01\x00")
    nodes = "03 00000002 0661 626364 65 00002384 00 00 00000003 0266 00002385 0672 61636b 31 00"
    payload = payload[:-2] + bytes.fromhex(nodes) + b"\x00"
    assert read(name, payload) == [Endpoint(2, "abcde", 9092), Endpoint(3, "f", 9093)]
    out = rewrite(name, payload, ("proxy", 1))
    assert read(name, out) == [Endpoint(2, "proxy", 1), Endpoint(3, "proxy", 1)]
    assert rewrite(name, out, ("f", 9093)).endswith(bytes.fromhex("00000003 0266 00002385 0672 61636b 31 00 00"))
    refuses_every_truncation(lambda data: read(name, data), payload)


def test_unknown_tags_of_a_produce_answer_stay() -> None:
    nodes = bytes.fromhex("02 00000002 0261 00000001 00 00")
    body = vector("produce-v12")
    assert body.endswith(b"\x00")
    tagged = body[:-1] + b"\x02\x00" + bytes((len(nodes),)) + nodes + b"\x09\x02zz"
    out = rewrite("produce-v12", tagged, ("long-name.example", 2))
    assert out.startswith(body[:-1])
    assert out.endswith(b"\x00\x00\x09\x02zz")
    assert read("produce-v12", out) == [Endpoint(2, "long-name.example", 2)]


def test_produce_record_errors_are_passed_over() -> None:
    kind: Any = producer.ProduceResponse
    part = kind.TopicProduceResponse.PartitionProduceResponse
    error = part.BatchIndexAndErrorMessage(version=10, batch_index=1, batch_index_error_message="bad")
    partition = part(
        version=10, index=0, error_code=87, base_offset=-1, record_errors=[error, error], error_message="no"
    )
    topic = kind.TopicProduceResponse(version=10, name="t", partition_responses=[partition, partition])
    node = kind.NodeEndpoint(version=10, node_id=4, host="h", port=5, rack="r")
    message = kind(version=10, responses=[topic, topic], throttle_time_ms=0, node_endpoints=[node])
    message.with_header(correlation_id=1)
    payload = bytes(message.encode(header=True))
    assert read_endpoints(ApiKey.PRODUCE, 10, payload) == [Endpoint(4, "h", 5)]
    refuses_every_truncation(lambda data: read_endpoints(ApiKey.PRODUCE, 10, data), payload)


def test_addresses_can_differ_by_node() -> None:
    ports = {1: 9193, 2: 9194}
    pieces = rewrite_endpoints(ApiKey.METADATA, 12, vector("metadata-v12"), lambda node: ("proxy", ports[node.node_id]))
    assert read_endpoints(ApiKey.METADATA, 12, b"".join(pieces)) == [
        Endpoint(1, "proxy", 9193),
        Endpoint(2, "proxy", 9194),
    ]


def test_topics_are_passed_on_as_they_are() -> None:
    payload = vector("metadata-v12")
    pieces = rewrite_endpoints(ApiKey.METADATA, 12, payload, lambda node: ("proxy", 1))
    assert isinstance(pieces[-1], memoryview)
    assert pieces[-1].obj is payload


@pytest.mark.parametrize(
    ("key", "version"),
    [
        (ApiKey.FETCH, 17),
        (ApiKey.PRODUCE, 9),
        (ApiKey.PRODUCE, 14),
        (ApiKey.METADATA, 14),
        (ApiKey.METADATA, -1),
        (ApiKey.SHARE_FETCH, 0),
        (999, 0),
    ],
)
def test_other_responses_have_none(key: int, version: int) -> None:
    assert not carries_endpoints(key, version)
    with pytest.raises(LookupError):
        read_endpoints(key, version, bytes(100))
    with pytest.raises(LookupError):
        rewrite_endpoints(key, version, bytes(100), lambda node: ("p", 1))


def test_a_null_host_is_malformed() -> None:
    with pytest.raises(MalformedError, match="null host"):
        read_endpoints(ApiKey.METADATA, 0, bytes.fromhex("00000001 00000001 00000005 ffff 00002384 00000000"))


# -- acks ------------------------------------------------------------------------------------------------------


def produce_request(version: int, acks: int, transactional_id: str | None) -> bytes:
    kind: Any = producer.ProduceRequest
    message = kind(version=version, transactional_id=transactional_id, acks=acks, timeout_ms=1, topic_data=[])
    message.with_header(correlation_id=1, client_id="client")
    return bytes(message.encode(header=True))


@pytest.mark.parametrize("version", range(14))
@pytest.mark.parametrize("acks", [0, 1, -1])
@pytest.mark.parametrize("transactional_id", [None, "", "tx" * 100])
def test_acks_as_soon_as_they_are_there(version: int, acks: int, transactional_id: str | None) -> None:
    payload = produce_request(version, acks, transactional_id if version >= 3 else None)
    header = read_request_header(payload)
    there = payload.index(acks.to_bytes(2, "big", signed=True) + b"\x00\x00\x00\x01", header.body_at) + 2
    for size in range(header.body_at, len(payload) + 1):
        assert produce_acks(payload[:size], header) == (acks if size >= there else None), size


def test_acks_of_librdkafka() -> None:
    (name,) = vectors("produce-request-librdkafka")
    payload = vector(name)
    header = read_request_header(payload)
    assert (header.api_key, header.version) == (ApiKey.PRODUCE, version_of(name))
    assert produce_acks(payload, header) == 0


def test_acks_of_a_head_no_produce_request_begins_with() -> None:
    payload = bytes.fromhex("0000 0003 00000001 ffff fffe 0001")
    with pytest.raises(MalformedError):
        produce_acks(payload, read_request_header(payload))


# -- no honest answer is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "versions"),
    [
        (ApiKey.PRODUCE, range(10, 14)),
        (ApiKey.METADATA, range(14)),
        (ApiKey.FIND_COORDINATOR, range(7)),
        (ApiKey.DESCRIBE_CLUSTER, range(3)),
        (ApiKey.SHARE_FETCH, range(1, 3)),
        (ApiKey.SHARE_ACKNOWLEDGE, range(1, 3)),
        (ApiKey.FETCH, range(0)),
        (ApiKey.HEARTBEAT, range(0)),
    ],
)
def test_versions(key: int, versions: range) -> None:
    assert [version for version in range(-5, 30) if carries_endpoints(key, version)] == list(versions)
    # And each of them was captured.
    assert {version_of(name) for name in NAMES if key_of(name) == key} == set(versions)


# Elements as small as they can be, so many that a bound on their count would be noticed if it were too low.
_NODE = "00000009 01 00000002"  # id, host "", port
_SMALL: list[tuple[int, int, str, str, str]] = [
    (ApiKey.METADATA, 0, "00000005", "00000009 0000 00000002", "00000000"),
    (ApiKey.METADATA, 1, "00000005", "00000009 0000 00000002 ffff", "00000001 00000000"),
    (ApiKey.METADATA, 9, "00000005 00 00000000", _NODE + "00 00", "00 00000001 01 80000000 00"),
    (ApiKey.FIND_COORDINATOR, 4, "00000005 00 00000000", "01" + _NODE + "0000 00 00", "00"),
    (ApiKey.DESCRIBE_CLUSTER, 0, "00000005 00 00000000 0000 00 01 00000001", _NODE + "00 00", "80000000 00"),
    (ApiKey.PRODUCE, 10, "00000005 00", "01 01 00", "00000000 00"),
    (ApiKey.PRODUCE, 10, "00000005 00 02 01", "00" * 30 + "01 00 00", "00 00000000 00"),
    (ApiKey.PRODUCE, 10, "00000005 00 02 01 02" + "00" * 30, "00000000 00 00", "00 00 00 00000000 00"),
    (ApiKey.SHARE_FETCH, 1, "00000005 00 00000000 0000 00 00000000", "00" * 16 + "01 00", "01 00"),
    (
        ApiKey.SHARE_FETCH,
        1,
        "00000005 00 00000000 0000 00 00000000 02" + "00" * 16,
        "00000000 0000 00 0000 00" + "00" * 8 + "00 01 01 00",
        "00 01 00",
    ),
    (
        ApiKey.SHARE_FETCH,
        1,
        "00000005 00 00000000 0000 00 00000000 02" + "00" * 16 + "02 00000000 0000 00 0000 00" + "00" * 8 + "00 01",
        "00" * 18 + "00",
        "00 00 01 00",
    ),
    (ApiKey.SHARE_FETCH, 1, "00000005 00 00000000 0000 00 00000000 01", _NODE + "00 00", "00"),
    (ApiKey.SHARE_ACKNOWLEDGE, 1, "00000005 00 00000000 0000 00", "00" * 16 + "01 00", "01 00"),
    (
        ApiKey.SHARE_ACKNOWLEDGE,
        1,
        "00000005 00 00000000 0000 00 02" + "00" * 16,
        "00000000 0000 00" + "00" * 8 + "00 00",
        "00 01 00",
    ),
]


@pytest.mark.parametrize(("key", "version", "before", "element", "after"), _SMALL)
def test_many_elements_as_small_as_can_be(key: int, version: int, before: str, element: str, after: str) -> None:
    count = b"\xe9\x07" if is_flexible(key, version) else b"\x00\x00\x03\xe8"  # 1000
    payload = bytes.fromhex(before) + count + bytes.fromhex(element) * 1000 + bytes.fromhex(after)
    addresses = [Endpoint(9, "", 2)] * 1000 if "00000009" in element else []
    assert read_endpoints(key, version, payload) == addresses
    pieces = rewrite_endpoints(key, version, payload, lambda node: (node.host, node.port))
    assert b"".join(pieces) == payload
