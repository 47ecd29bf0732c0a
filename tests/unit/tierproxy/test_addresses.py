import pytest

from protocol.endpoints import Endpoint
from tierproxy.addresses import Addresses, ServerNames


def test_a_brokers_port_follows_from_its_node_id_alone() -> None:
    addresses = Addresses("proxy.example", 9192)
    assert addresses.advertised(Endpoint(0, "kafka-0", 9092)) == ("proxy.example", 9193)
    assert addresses.advertised(Endpoint(1001, "kafka-b", 19092)) == ("proxy.example", 10194)


def test_a_node_id_without_a_port_gets_one_nobody_can_reach() -> None:
    addresses = Addresses("proxy.example", 9192)
    for node in (65_000, -5):
        assert addresses.port_of(node) is None
        assert addresses.advertised(Endpoint(node, "kafka-0", 9092)) == ("proxy.example", 0)


def test_brokers_that_need_a_port_are_named_until_they_have_one() -> None:
    addresses = Addresses("proxy.example", 9192, listening={1})
    brokers = [Endpoint(1, "a", 1), Endpoint(2, "b", 2)]
    assert addresses.note(brokers) == [2]
    addresses.listening.add(2)
    assert addresses.note([Endpoint(2, "moved", 3)]) == []
    assert addresses.real == {1: ("a", 1), 2: ("moved", 3)}


NAMES = ServerNames("kafka.example.com", "broker-{node}.kafka.example.com")


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("broker-0.kafka.example.com", 0),
        ("BROKER-1001.Kafka.Example.COM", 1001),
        ("broker-.kafka.example.com", None),
        ("broker-01.kafka.example.com", None),
        ("broker--1.kafka.example.com", None),
        ("broker-1x.kafka.example.com", None),
        ("broker-1.kafka.example.com.", None),
        ("broker-1.kafka.example.org", None),
        ("broker-٣.kafka.example.com", None),
        ("broker-99999999999999999999.kafka.example.com", None),
        ("broker-1.evil.broker-1.kafka.example.com", None),
        ("kafka.example.com", None),
        ("", None),
    ],
)
def test_a_brokers_name_says_its_node_id(name: str, node: int | None) -> None:
    assert NAMES.node_of(name) == node
    assert not NAMES.is_bootstrap(name) or name == "kafka.example.com"


def test_the_parts_around_the_node_id_may_not_overlap() -> None:
    assert ServerNames("x", "aba{node}aba").node_of("aba") is None


def test_with_server_names_all_brokers_are_at_one_port_and_none_has_to_be_opened() -> None:
    addresses = Addresses("kafka.example.com", 9192, names=NAMES)
    brokers = [Endpoint(1, "kafka-1", 9092), Endpoint(70_000, "kafka-b", 19092)]
    assert addresses.note(brokers) == []
    assert addresses.real == {1: ("kafka-1", 9092), 70_000: ("kafka-b", 19092)}
    assert [addresses.advertised(each) for each in brokers] == [
        ("broker-1.kafka.example.com", 9192),
        ("broker-70000.kafka.example.com", 9192),
    ]
    assert addresses.advertised(Endpoint(-5, "kafka-0", 9092)) == ("kafka.example.com", 0)
