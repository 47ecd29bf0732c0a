"""The clients we test with: what each can do, and the versions of the requests it sends to Kafka 4.3.

The tests in `tests/integration/clients` compare all of this with what the clients do, and docs/compatibility.md is made
of it (`compatibility`), so a row can't say what isn't so.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import confluent_kafka

from protocol.apis import ApiKey
from tests.clients import golang, node
from tests.clients.client import CLASSIC, NEXT, Client
from tests.clients.golang import GoClient
from tests.clients.java import JavaClient
from tests.clients.libraries import AioKafka, KafkaPython, Librdkafka
from tests.clients.node import NodeClient
from tests.kit import PROJECT, jars
from tests.kit.producing import CODECS


@dataclass(frozen=True, slots=True)
class Row:
    """One client. `make` is given a directory for logs; it raises `Unavailable` where the client can't be had."""

    name: str
    language: str
    version: str
    make: Callable[[Path], Client]
    protocols: tuple[str, ...]
    """Group protocols, as in `client.At`."""
    wire: dict[ApiKey, int]
    """The versions it uses of what tierproxy looks into."""
    codecs: tuple[str, ...] = CODECS


def _constraint(package: str) -> str:
    """The version that constraints.txt pins."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None, f"{package} is not in constraints.txt"
    return found[1]


def _wire(fetch: int, list_offsets: int, metadata: int, coordinator: int) -> dict[ApiKey, int]:
    return {
        ApiKey.FETCH: fetch,
        ApiKey.LIST_OFFSETS: list_offsets,
        ApiKey.METADATA: metadata,
        ApiKey.FIND_COORDINATOR: coordinator,
    }


def _java(version: str, fetch: int, list_offsets: int, metadata: int, coordinator: int, *protocols: str) -> Row:
    wire = _wire(fetch, list_offsets, metadata, coordinator)
    return Row("kafka-clients", "Java", version, partial(JavaClient, version=version), protocols, wire)


CLIENTS: list[Row] = [
    _java(jars.KAFKA_VERSION, 18, 11, 13, 6, CLASSIC, NEXT),
    Row(
        "librdkafka",
        f"C; Python by confluent-kafka {_constraint('confluent-kafka')}",
        confluent_kafka.libversion()[0],
        lambda directory: Librdkafka(),
        (CLASSIC, NEXT),
        _wire(16, 7, 13, 2),
    ),
    Row(
        "kafka-python",
        "Python",
        _constraint("kafka-python"),
        lambda directory: KafkaPython(),
        (CLASSIC,),
        _wire(12, 11, 13, 6),
    ),
    Row(
        "aiokafka",
        "Python",
        _constraint("aiokafka"),
        lambda directory: AioKafka(),
        (CLASSIC,),
        _wire(11, 3, 5, 1),
    ),
    Row(
        "franz-go",
        "Go",
        golang.pinned("github.com/twmb/franz-go"),
        partial(GoClient, library="franz"),
        (CLASSIC, NEXT),
        _wire(18, 11, 13, 6),
    ),
    Row(
        "sarama",
        "Go",
        golang.pinned("github.com/IBM/sarama"),
        partial(GoClient, library="sarama"),
        (CLASSIC,),
        _wire(12, 6, 11, 3),
    ),
    Row(
        "KafkaJS",
        "JavaScript",
        node.pinned("kafkajs"),
        NodeClient,
        (CLASSIC,),
        _wire(11, 3, 6, 2),
        codecs=("none", "gzip"),  # the others need packages besides it
    ),
]

OLDER: list[Row] = [
    # KIP-848 is a preview there: its offsetsForTimes ends in a NullPointerException for a time after all records
    _java("3.9.1", 17, 9, 12, 6, CLASSIC),
    _java("2.8.2", 12, 6, 11, 3, CLASSIC),
    _java("2.1.1", 10, 4, 7, 2, CLASSIC),
]
"""Older clients, down to the oldest that Kafka 4 lets in: run by `make clients` only."""
