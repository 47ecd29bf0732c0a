"""Have a real Apache Kafka write a small log, and archive it: the files `segment-v1.*`. See segment-v1.md.

Run from the project's folder: `python -m tests.vectors.capture_segment`. It refuses to replace what is there: a
segment of version 1 is kept to prove that it stays readable, not to follow the code.
"""

import json
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic

from protocol.batches import walk
from protocol.fetch import FetchPartition, build_fetch_request
from protocol.fetch_response import parse_fetch_response
from tests.kit import jars
from tests.kit.kafka import Cluster
from tierproxy.archive.segment import SegmentWriter
from tierproxy.archive.segment_index import SegmentInfo

HERE = Path(__file__).parent
TOPIC = "flights"
START_MS = 1_357_000_000_000
CHUNK_BYTES = 600


def main() -> None:
    plain, stored, facts = (HERE / f"segment-v1.{kind}" for kind in ("log", "log.zst", "json"))
    if stored.exists():
        sys.exit(f"{stored} is there already, and must not change")
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        # The timestamps below are long past, those of the markers are of today.
        keep = {"retention.ms": "-1", "segment.ms": str(1 << 60)}
        admin.create_topics([NewTopic(TOPIC, 1, 1, config=keep)])[TOPIC].result(30)
        topic_id = _topic_id(admin)
        _plain_records(cluster.bootstrap)
        _transactions(cluster.bootstrap)
        aborted = _aborted(cluster.nodes[0].port, topic_id)
        log = (cluster.nodes[0].data / f"{TOPIC}-0" / "00000000000000000000.log").read_bytes()
    # Without the last batch, the marker of the last transaction: so its entry is open beyond the segment.
    batches = list(walk(memoryview(log)))[:-1]
    plain.write_bytes(b"".join(batch for _, batch in batches))
    about = SegmentInfo("prod", TOPIC, topic_id, 0)
    with stored.open("wb") as sink:
        writer = SegmentWriter(about, 3, sink, CHUNK_BYTES, writer="tierproxy 0.1.0")
        for header, batch in batches:
            writer.append(batch, header)
        for producer_id, first_offset in aborted:
            writer.note_aborted(producer_id, first_offset)
        writer.finish()
    about_all = {"kafka": jars.KAFKA_VERSION, "topic_id": topic_id.hex(), "aborted": aborted}
    facts.write_text(json.dumps(about_all, indent=2) + "\n")


def _topic_id(admin: AdminClient) -> bytes:
    described = admin.describe_topics(confluent_kafka.TopicCollection([TOPIC]))[TOPIC].result(30)
    high: int = described.topic_id.get_most_significant_bits() & (1 << 64) - 1
    low: int = described.topic_id.get_least_significant_bits() & (1 << 64) - 1
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def _plain_records(servers: str) -> None:
    """One batch of librdkafka's for each codec, then one of kafka-python's, whose snappy has xerial's framing."""
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 200, "client.id": codec}
        )
        for i in range(5):
            _produce(producer, f"{codec} {i}", START_MS + 10 * number + i)
        producer.flush(30)
    other = kafka.KafkaProducer(bootstrap_servers=servers, compression_type="snappy", linger_ms=200)
    for i in range(5):
        other.send(TOPIC, b"x" * 50, b"N14228", [("source", b"kit")], 0, START_MS + 100 + i)
    other.close(30)


def _transactions(servers: str) -> None:
    """One aborted, one committed between its records and its marker, and at the end another aborted one."""
    one, other = (_transactional(servers, name) for name in ("one", "other"))
    one.begin_transaction()
    _produce(one, "to be aborted", START_MS + 200)
    one.flush(30)
    other.begin_transaction()
    _produce(other, "to be committed", START_MS + 201)
    other.commit_transaction(30)
    one.abort_transaction(30)
    one.begin_transaction()
    _produce(one, "to be aborted as well", START_MS + 202)
    one.flush(30)
    one.abort_transaction(30)


def _transactional(servers: str, name: str) -> confluent_kafka.Producer:
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, "transactional.id": name})
    producer.init_transactions(30)
    return producer


def _produce(producer: confluent_kafka.Producer, text: str, timestamp: int) -> None:
    headers: list[tuple[str, str | bytes | None]] = [("source", b"kit"), ("none", None), ("größe", b"")]
    producer.produce(TOPIC, f"{text} {'again ' * 20}".encode(), None, 0, timestamp=timestamp, headers=headers)


def _aborted(port: int, topic_id: bytes) -> list[tuple[int, int]]:
    """What the broker lists with a READ_COMMITTED fetch from offset 0, once both markers are written."""
    partition = FetchPartition(None, topic_id, 0, -1, 0, -1, 1 << 20)
    request = build_fetch_request(
        17, 1, "vectors", max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, isolation=1, partitions=[partition]
    )
    deadline = time.monotonic() + 10
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
        while time.monotonic() < deadline:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", answers.read(4))
            aborted = parse_fetch_response(answers.read(size), 17).partitions[0].aborted
            if aborted and len(aborted) == 2:
                return aborted
            time.sleep(0.1)
    raise RuntimeError("two aborted transactions were expected, the broker does not list them")


if __name__ == "__main__":
    main()
