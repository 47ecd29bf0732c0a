"""protocol.consumer_protocol: bytes as Kafka's own consumers write and read them; kafka-python is the oracle."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment, ConsumerProtocolSubscription

from protocol.consumer_protocol import (
    Partitions,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from protocol.errors import MalformedError

SUBSCRIPTION_V2 = bytes.fromhex(
    "0002 00000002 0001 61 0002 6262"  # version, topics "a" and "bb"
    "ffffffff"  # no user data
    "00000001 0001 61 00000002 00000000 00000003"  # owned: partitions 0 and 3 of "a"
    "00000007"  # generation
)
ASSIGNMENT = bytes.fromhex("0001 00000001 0001 61 00000001 00000002 ffffffff")

names = st.text("abc.-_", min_size=1, max_size=8)
partitions: st.SearchStrategy[Partitions] = st.dictionaries(
    names, st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple), max_size=4
)


def test_the_layout() -> None:
    subscription = Subscription(("a", "bb"), {"a": (0, 3)}, 7)
    assert encode_subscription(subscription) == SUBSCRIPTION_V2
    assert decode_subscription(SUBSCRIPTION_V2) == subscription
    assert encode_assignment({"a": (2,)}) == ASSIGNMENT
    assert decode_assignment(ASSIGNMENT) == {"a": (2,)}
    assert decode_assignment(b"") == {}


def test_older_and_newer_versions_are_read() -> None:
    v0 = bytes.fromhex("0000 00000001 0001 61 00000002 abcd")  # with user data
    assert decode_subscription(v0) == Subscription(("a",), {}, -1)
    v1 = bytes.fromhex("0001 00000000 ffffffff 00000001 0001 61 00000001 00000005")
    assert decode_subscription(v1) == Subscription((), {"a": (5,)}, -1)
    v3 = b"\x00\x03" + SUBSCRIPTION_V2[2:] + bytes.fromhex("0001 72")  # the rack
    assert decode_subscription(v3) == decode_subscription(SUBSCRIPTION_V2)


def theirs(owned: Partitions, kind: Any, version: int) -> list[Any]:
    return [kind(version=version, topic=topic, partitions=list(each)) for topic, each in owned.items()]


@given(st.lists(names, max_size=4).map(tuple), partitions, st.integers(-1, 2**31 - 1))
def test_kafka_python_reads_and_writes_the_same(topics: tuple[str, ...], owned: Partitions, generation: int) -> None:
    ours = encode_subscription(Subscription(topics, owned, generation))
    message = ConsumerProtocolSubscription(
        version=2,
        topics=list(topics),
        user_data=None,
        owned_partitions=theirs(owned, ConsumerProtocolSubscription.TopicPartition, 2),
        generation_id=generation,
    )
    assert ours == bytes(message.encode())
    assert decode_subscription(ours) == Subscription(topics, owned, generation)
    assigned = encode_assignment(owned)
    found = ConsumerProtocolAssignment.decode(assigned)
    assert {each.topic: tuple(each.partitions) for each in found.assigned_partitions} == dict(owned)
    assert decode_assignment(assigned) == owned


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_subscription, decode_assignment):
        with contextlib.suppress(MalformedError):
            decode(data)


def test_bytes_that_end_early_are_refused() -> None:
    for end in range(len(SUBSCRIPTION_V2)):
        with pytest.raises(MalformedError):
            decode_subscription(SUBSCRIPTION_V2[:end])
    with pytest.raises(MalformedError):
        decode_subscription(bytes.fromhex("0000 00000001 ffff ffffffff"))  # a topic without a name
