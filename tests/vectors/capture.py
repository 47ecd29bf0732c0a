"""Ask a real Apache Kafka in every version and keep its answers; keep what stock clients ask. See README.md.

Run from the project's folder: `python -m tests.vectors.capture`. It replaces its `.bin` files and `facts.json`.
Requests are encoded by kafka-python, or written out here where it has no schema, so nothing here depends on the
code that the vectors test.
"""

import json
import socket
import struct
import tempfile
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import aiokafka
import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.protocol import consumer as fetch_api
from kafka.protocol import metadata as metadata_api
from kafka.protocol import producer as produce_api

from tests.kit import jars
from tests.kit.kafka import Cluster, run_tool
from tests.vectors import HERE, TOPIC
from tests.vectors.capture_clients import capture_questions
from tests.vectors.saving import receive, save

OURS = ("api-", "describe-", "fetch-", "find-", "metadata-", "produce-", "share-")
LIVE, TRIMMED, ELSEWHERE, ABORTED, COMPRESSED = range(5)
"""Partitions of TOPIC. All but ELSEWHERE are led by node 1, which is the one that is asked."""


def main() -> None:
    for old in HERE.glob("*.bin"):
        if old.name.startswith(OURS):
            old.unlink()
    facts: dict[str, object] = {"kafka": jars.KAFKA_VERSION, "clients": _client_versions()}
    with tempfile.TemporaryDirectory() as folder:
        with Cluster(Path(folder) / "answers", nodes=2) as cluster:
            facts |= _answers(cluster)
        capture_questions(Path(folder) / "questions")
    (HERE / "facts.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _client_versions() -> dict[str, str]:
    return {
        "java": jars.KAFKA_VERSION,
        "librdkafka": confluent_kafka.libversion()[0],
        "aiokafka": aiokafka.__version__,
        "kafka-python": kafka.__version__,
    }


class _Connection:
    """Sends whole requests, returns whole payloads."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)

    def ask(self, message: Any, version: int, correlation_id: int) -> bytes:
        """A request of kafka-python's."""
        message.API_VERSION = version
        message.with_header(correlation_id=correlation_id, client_id="vectors")
        return self.ask_raw(bytes(message.encode(header=True)))

    def ask_raw(self, payload: bytes) -> bytes:
        self._socket.sendall(struct.pack(">i", len(payload)) + payload)
        (size,) = struct.unpack(">i", receive(self._socket, 4))
        return receive(self._socket, size)

    def close(self) -> None:
        self._socket.close()


def _answers(cluster: Cluster) -> dict[str, object]:
    first, second = cluster.nodes
    connection = _Connection(first.port)
    _save_api_versions(connection)
    _save_find_coordinator(connection)
    topic_id = _fill(cluster)
    _save_metadata(connection, topic_id)
    _save_describe_cluster(connection)
    _save_fetch(connection, topic_id)
    _save_produce(connection, topic_id)
    _save_share(cluster, connection, topic_id)
    connection.close()
    return {
        "cluster_id": cluster.cluster_id,
        "nodes": {str(node.id): node.port for node in (first, second)},
        "topic_id": topic_id.hex(),
    }


def _save_api_versions(connection: _Connection) -> None:
    def request(version: int, name: str = "vectors") -> Any:
        return metadata_api.ApiVersionsRequest(version=version, client_software_name=name, client_software_version="1")

    for version in range(5):
        save(f"api-versions-v{version}", connection.ask(request(version), version, version))
    # v99 as a client would send it: header v2, a body that the broker will not read.
    too_new = struct.pack(">hhih", 18, 99, 99, 7) + b"vectors\0"
    save("api-versions-v99-error-35", connection.ask_raw(too_new))
    save("api-versions-v3-error-42", connection.ask(request(3, "no good name!"), 3, 3))


def _save_find_coordinator(connection: _Connection) -> None:
    # The first questions come before the internal topics exist: error 15 and node -1.
    for version, kind, name in [(2, 0, "old"), (6, 1, "new")]:
        answer = connection.ask(_find_coordinator(version, kind, name), version, version)
        save(f"find-coordinator-v{version}-error-15", answer)
    for version in range(7):
        for _ in range(200):
            answer = connection.ask(_find_coordinator(version, 0, "group"), version, version)
            if b"127.0.0.1" in answer:
                break
            threading.Event().wait(0.1)
        save(f"find-coordinator-v{version}", answer)


def _find_coordinator(version: int, kind: int, name: str) -> Any:
    if version < 4:
        return metadata_api.FindCoordinatorRequest(version=version, key=name, key_type=kind)
    return metadata_api.FindCoordinatorRequest(version=version, key_type=kind, coordinator_keys=[name, f"{name}-2"])


def _fill(cluster: Cluster) -> bytes:
    """Create and fill TOPIC; its id."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    led_by = [[1], [1], [2], [1], [1]]
    config = {"retention.ms": "-1"}  # the timestamps below are long past
    topic = NewTopic(TOPIC, len(led_by), replica_assignment=led_by, config=config)
    (created,) = admin.create_topics([topic]).values()
    created.result(30)
    plain = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    for partition in (LIVE, TRIMMED, ELSEWHERE):
        for i in range(3):  # in one batch or two, as it happens
            plain.produce(TOPIC, f"value {i}".encode(), b"key", partition, timestamp=1_700_000_000_000 + i)
        plain.flush(30)
    small = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap, "compression.type": "zstd"})
    for i in range(50):
        small.produce(TOPIC, b"the same words again", None, COMPRESSED, timestamp=1_700_000_000_000 + i)
    small.flush(30)
    for commit in (False, False, True):
        txn = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap, "transactional.id": "vectors"})
        txn.init_transactions(30)
        txn.begin_transaction()
        txn.produce(TOPIC, b"in a transaction", None, ABORTED, timestamp=1_700_000_000_000)
        txn.flush(30)
        if commit:
            txn.commit_transaction(30)
        else:
            txn.abort_transaction(30)
    trimmed = confluent_kafka.TopicPartition(TOPIC, TRIMMED, 2)
    for future in admin.delete_records([trimmed]).values():
        future.result(30)
    (described,) = admin.describe_topics(confluent_kafka.TopicCollection([TOPIC])).values()
    found = described.result(30).topic_id
    high: int = found.get_most_significant_bits() & (2**64 - 1)
    low: int = found.get_least_significant_bits() & (2**64 - 1)
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def _save_metadata(connection: _Connection, topic_id: bytes) -> None:
    topic_class = metadata_api.MetadataRequest.MetadataRequestTopic
    for version in range(14):
        asked = topic_class(version=version, name=TOPIC)
        request = metadata_api.MetadataRequest(version=version, topics=[asked], allow_auto_topic_creation=False)
        save(f"metadata-v{version}", connection.ask(request, version, version))
    by_id = topic_class(version=12, topic_id=UUID(bytes=topic_id), name=None)
    unknown = topic_class(version=12, topic_id=UUID(int=7), name=None)
    request = metadata_api.MetadataRequest(version=12, topics=[by_id, unknown], allow_auto_topic_creation=False)
    save("metadata-v12-by-id", connection.ask(request, 12, 12))


def _save_describe_cluster(connection: _Connection) -> None:
    for version in range(3):
        body = b"\x00" + (b"\x01" if version >= 1 else b"") + (b"\x00" if version >= 2 else b"") + b"\x00"
        save(f"describe-cluster-v{version}", connection.ask_raw(_header(60, version) + body))
    # Endpoint type 2 asks for the controllers, which this listener does not tell.
    save("describe-cluster-v1-error-114", connection.ask_raw(_header(60, 1) + b"\x00\x02\x00"))


def _header(key: int, version: int) -> bytes:
    """Request header v2; the correlation id is the version."""
    return struct.pack(">hhih", key, version, version, 7) + b"vectors\0"


def _save_fetch(connection: _Connection, topic_id: bytes) -> None:
    for version in range(4, 19):
        save(f"fetch-v{version}", connection.ask(_fetch(version, topic_id, max_bytes=1 << 20), version, version))
    save("fetch-v17-full-limit", connection.ask(_fetch(17, topic_id, max_bytes=100), 17, 17))
    gone = fetch_api.FetchRequest.FetchTopic(version=13, topic_id=UUID(int=7), partitions=[_fetch_partition(13, 0, 0)])
    save("fetch-v13-error-100", connection.ask(_fetch(13, topic_id, topics=[gone]), 13, 13))
    request = _fetch(12, topic_id)
    request.session_id, request.session_epoch = 12345, 1
    save("fetch-v12-error-70", connection.ask(request, 12, 12))


def _fetch(version: int, topic_id: bytes, *, max_bytes: int = 1 << 20, topics: list[Any] | None = None) -> Any:
    """All of TOPIC from 0, read committed; TRIMMED is out of range then, and ELSEWHERE is led by node 2."""
    if topics is None:
        partitions = [_fetch_partition(version, index, 0) for index in range(5)]
        kind = fetch_api.FetchRequest.FetchTopic
        if version >= 13:
            topics = [kind(version=version, topic_id=UUID(bytes=topic_id), partitions=partitions)]
        else:
            topics = [kind(version=version, topic=TOPIC, partitions=partitions)]
    return fetch_api.FetchRequest(
        version=version,
        replica_id=-1,
        max_wait_ms=100,
        min_bytes=1,
        max_bytes=max_bytes,
        isolation_level=1,
        session_id=0,
        session_epoch=-1,
        topics=topics,
        forgotten_topics_data=[],
        rack_id="",
    )


def _fetch_partition(version: int, index: int, offset: int) -> Any:
    return fetch_api.FetchRequest.FetchTopic.FetchPartition(
        version=version,
        partition=index,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        partition_max_bytes=1 << 20,
    )


def _save_produce(connection: _Connection, topic_id: bytes) -> None:
    batch = _a_batch(connection, topic_id)
    for version in range(3, 14):
        for name, indexes in (("", [LIVE]), ("-error-6", [LIVE, ELSEWHERE])):
            if name and version < 10:
                continue  # node endpoints came with v10
            answer = connection.ask(_produce(version, topic_id, batch, indexes), version, version)
            save(f"produce-v{version}{name}", answer)


def _a_batch(connection: _Connection, topic_id: bytes) -> bytes:
    answer = fetch_api.FetchResponse.decode(connection.ask(_fetch(17, topic_id), 17, 17), version=17, header=True)
    records = bytes(answer.responses[0].partitions[LIVE].records)
    (size,) = struct.unpack_from(">i", records, 8)
    return records[: 12 + size]  # a producer may send one batch only


def _produce(version: int, topic_id: bytes, batch: bytes, indexes: list[int]) -> Any:
    kind = produce_api.ProduceRequest.TopicProduceData
    partitions = [kind.PartitionProduceData(version=version, index=i, records=batch) for i in indexes]
    if version >= 13:
        topic = kind(version=version, topic_id=UUID(bytes=topic_id), partition_data=partitions)
    else:
        topic = kind(version=version, name=TOPIC, partition_data=partitions)
    return produce_api.ProduceRequest(
        version=version, transactional_id=None, acks=-1, timeout_ms=10_000, topic_data=[topic]
    )


def _save_share(cluster: Cluster, connection: _Connection, topic_id: bytes) -> None:
    """Share fetches of a partition led here and one led elsewhere; the first one opens the session."""
    for version in (1, 2):
        group = f"share-{version}"
        run_tool(
            "kafka.admin.ConfigCommand",
            *("--bootstrap-server", cluster.bootstrap, "--alter", "--entity-type", "groups", "--entity-name", group),
            *("--add-config", "share.auto.offset.reset=earliest"),
        )
        who = _compact(group) + _compact(f"AAAAAAAAAAAAAAAAAAAAA{version}")
        # Join the group, or its partitions are never set up. One of the nodes is the coordinator.
        join = who + struct.pack(">iB", 0, 0) + b"\x02" + _compact(TOPIC) + b"\x00"
        for node in cluster.nodes:
            _Connection(node.port).ask_raw(_header(76, 1) + join)
        partitions = b"\x03" + b"".join(struct.pack(">iBB", index, 1, 0) for index in (LIVE, ELSEWHERE))
        topics = b"\x02" + topic_id + partitions + b"\x00"
        limits = struct.pack(">iiiii", 500, 1, 1 << 20, 500, 500) + (b"\x00\x00" if version >= 2 else b"")
        for epoch in range(100):
            body = who + struct.pack(">i", epoch) + limits + topics + b"\x01\x00"
            answer = connection.ask_raw(_header(78, version) + body)
            if epoch == 0:
                save(f"share-fetch-v{version}-first", answer)
            if b"value 0" in answer:
                save(f"share-fetch-v{version}-records", answer)
                break
            threading.Event().wait(0.1)
        batches = b"\x02" + struct.pack(">qqBBB", 0, 0, 2, 1, 0)
        partitions = b"\x03" + b"".join(struct.pack(">i", index) + batches + b"\x00" for index in (LIVE, ELSEWHERE))
        body = who + struct.pack(">i", epoch + 1) + (b"\x00" if version >= 2 else b"")
        body += b"\x02" + topic_id + partitions + b"\x00" + b"\x00"
        save(f"share-acknowledge-v{version}", connection.ask_raw(_header(79, version) + body))


def _compact(text: str) -> bytes:
    return bytes((len(text) + 1,)) + text.encode()


if __name__ == "__main__":
    main()
