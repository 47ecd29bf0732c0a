"""The second half of `capture`: what stock clients ask, noted by a relay in front of a broker."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import aiokafka
import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic

from tests.kit.kafka import Cluster, tool_command
from tests.kit.processes import Process, free_ports
from tests.vectors import TOPIC
from tests.vectors.saving import receive, save


class _Relay:
    """Stands in front of a broker and notes every request that goes through."""

    def __init__(self, port: int, broker_port: int) -> None:
        self.requests: list[bytes] = []
        self._broker_port = broker_port
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def first(self, key: int) -> bytes:
        """The first request with this API key, waiting for it."""
        for _ in range(600):
            for request in list(self.requests):
                if int.from_bytes(request[:2], "big") == key:
                    return request
            threading.Event().wait(0.1)
        raise TimeoutError(f"no request with key {key}")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                broker = socket.create_connection(("127.0.0.1", self._broker_port))
                threading.Thread(target=self._requests, args=(client, broker), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, broker), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError), broker:
            while True:
                size = receive(client, 4)
                payload = receive(client, struct.unpack(">i", size)[0])
                self.requests.append(payload)
                broker.sendall(size + payload)

    def _answers(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while data := broker.recv(1 << 16):
                client.sendall(data)


def capture_questions(folder: Path) -> None:
    """Save the requests; `folder` is for the broker's data."""
    relay_port = free_ports(1)
    advertised = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{relay_port}"}
    cluster = Cluster(folder, properties=advertised)
    relay = _Relay(relay_port, cluster.nodes[0].port)
    servers = f"127.0.0.1:{relay_port}"
    with cluster:
        admin = AdminClient({"bootstrap.servers": servers})
        for future in admin.create_topics([NewTopic(TOPIC, 2)]).values():
            future.result(30)
        relay.requests.clear()
        producer = confluent_kafka.Producer({"bootstrap.servers": servers, "acks": "0"})
        producer.produce(TOPIC, b"value", b"key", 0)
        producer.flush(30)
        _save_request(relay, "produce-request-librdkafka", 0)
        for name, consume in _CLIENTS.items():
            relay.requests.clear()
            with consume(servers, folder):
                _save_request(relay, f"fetch-request-{name}", 1)
    relay.close()


def _save_request(relay: _Relay, name: str, key: int) -> None:
    request = relay.first(key)
    save(f"{name}-v{int.from_bytes(request[2:4], 'big')}", request)


@contextlib.contextmanager
def _java(servers: str, folder: Path) -> Iterator[None]:
    command = tool_command(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", servers, "--topic", TOPIC, "--from-beginning"),
    )
    process = Process("console consumer", command, log=folder / "consumer.log")
    yield
    process.kill()


@contextlib.contextmanager
def _librdkafka(servers: str, folder: Path) -> Iterator[None]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": "none", "client.rack": "r1"})
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, partition, 0) for partition in (0, 1)])
    consumer.poll(10)
    yield
    consumer.close()


@contextlib.contextmanager
def _kafka_python(servers: str, folder: Path) -> Iterator[None]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=servers)
    consumer.assign([kafka.TopicPartition(TOPIC, partition) for partition in (0, 1)])
    consumer.seek_to_beginning()
    consumer.poll(10_000)
    yield
    consumer.close()


@contextlib.contextmanager
def _aiokafka(servers: str, folder: Path) -> Iterator[None]:
    async def consume() -> None:
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=servers)
        await consumer.start()
        partitions = [aiokafka.TopicPartition(TOPIC, partition) for partition in (0, 1)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        await consumer.getone(partitions[0])
        await consumer.stop()

    asyncio.run(consume())
    yield


_CLIENTS: dict[str, Callable[[str, Path], contextlib.AbstractContextManager[None]]] = {
    "java": _java,
    "librdkafka": _librdkafka,
    "kafka-python": _kafka_python,
    "aiokafka": _aiokafka,
}
