"""TLS on both sides, with stock clients: Kafka's SASL_SSL behind, tierproxy's own certificate in front."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.clients.security import BY_SERVER_NAME
from tests.integration.security.conftest import READER, TOPIC, Secured, login, proxy, service
from tests.kit.clients import READERS
from tests.kit.console import read_with_java
from tests.kit.login import Login
from tests.kit.processes import wait_for
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same

NAMES = {"bootstrap": "kafka.test", "broker": "broker-{node}.kafka.test"}


def certificate(secured: Secured, name: str) -> dict[str, str]:
    folder = secured.authority.directory
    return {"cert_file": str(folder / f"{name}.pem"), "key_file": str(folder / f"{name}.key")}


def to_brokers(secured: Secured) -> dict[str, Any]:
    tls = {"ca_file": str(secured.authority.ca_file), **certificate(secured, "tierproxy")}
    return {"protocol": "SASL_SSL", "sasl": service("PLAIN"), "tls": tls}


@pytest.fixture(scope="module")
def encrypted(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    listen = {"advertised_host": "localhost", "tls": certificate(secured, "server")}
    made = proxy(
        tmp_path_factory.mktemp("proxy"),
        secured.kafka,
        "TLS",
        to_brokers(secured),
        archive=secured.proxy.archive,
        listen=listen,
    )
    with made:
        yield made


@pytest.mark.parametrize("name", READERS)
def test_a_client_reads_what_is_archived(secured: Secured, encrypted: Proxy, name: str) -> None:
    who = login(READER, "PLAIN", secured.authority.ca_file)
    assert_same(secured.log, READERS[name](f"localhost:{encrypted.port}", TOPIC, secured.log, login=who))


def test_the_check_finds_nothing_wrong(encrypted: Proxy) -> None:
    checked = encrypted.cli("check", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_certificate_is_replaced_under_running_clients(secured: Secured, encrypted: Proxy) -> None:
    trust = ssl.create_default_context(cafile=secured.authority.ca_file)

    def serial() -> object:
        plain = socket.create_connection(("127.0.0.1", encrypted.port))
        with trust.wrap_socket(plain, server_hostname="localhost") as secure:
            shown = secure.getpeercert()
            assert shown is not None
            return shown["serialNumber"]

    before = serial()
    server = secured.authority.issue("server", ["localhost", "127.0.0.1", "kafka.test", "*.kafka.test"])
    wait_for(lambda: serial() != before, seconds=90, what="the new certificate")
    key = server.key_file.read_bytes()
    server.key_file.write_text("nonsense")
    now = serial()
    wait_for(lambda: "the old ones stay" in encrypted.log(), seconds=90, what="a line in the log")
    assert serial() == now
    server.key_file.write_bytes(key)
    wait_for(lambda: "listen.tls: the files can be used again" in encrypted.log(), seconds=90, what="a line in the log")


# -- client certificates ----------------------------------------------------------------------------------------------


def test_the_accounts_certificate_lets_in_the_account_and_no_client(secured: Secured, tmp_path: Path) -> None:
    """Kafka's listener wants certificates: tierproxy gets in by its own, and does not lend it to clients."""
    security = {**to_brokers(secured), "protocol": "SSL"}
    del security["sasl"]
    with proxy(tmp_path, secured.kafka, "CERT", security, archive=secured.proxy.archive) as made:
        troubles: list[KafkaError] = []
        consumer = Consumer(
            {
                "bootstrap.servers": made.bootstrap,
                "group.id": "uncertified",
                "log_level": 0,
                "error_cb": troubles.append,
                **Login(READER, mechanism=None).librdkafka(),
            }
        )
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        reason = "it wants a client certificate"
        wait_for(lambda: consumer.poll(0.1) is None and reason in made.log(), seconds=90, what="a line in the log")
        assert consumer.consume(1, 1) == []
        consumer.close()
        assert made.get("/ready")[0] == 200  # the account itself is in
        assert made.log().count(reason) == 1
        assert "will be User:ANONYMOUS" in made.log()


# -- server names -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = proxy(
        tmp_path_factory.mktemp("proxy"),
        secured.kafka,
        "TLS",
        to_brokers(secured),
        archive=secured.proxy.archive,
        listen={"sni": NAMES, "tls": certificate(secured, "server")},
    )
    with made:
        yield made


def read_with_names(name: str, tmp_path: Path) -> Callable[..., Any]:
    """The reader, told of a name service in which *.kafka.test is this machine."""
    if name != "java":
        return READERS[name]
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 kafka.test broker-1.kafka.test\n")
    return lambda *args, **kwargs: read_with_java(*args, **kwargs, jvm=[f"-Djdk.net.hosts.file={hosts}"])


@pytest.mark.parametrize("name", BY_SERVER_NAME)
def test_a_client_finds_its_broker_by_name(
    secured: Secured, named: Proxy, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    look_up = socket.getaddrinfo

    def looked_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up("127.0.0.1" if str(host).endswith("kafka.test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    who = login(READER, "SCRAM-SHA-512", secured.authority.ca_file)
    read = read_with_names(name, tmp_path)(f"kafka.test:{named.port}", TOPIC, secured.log, login=who)
    assert_same(secured.log, read)


async def test_an_unknown_name_is_told_so(secured: Secured, named: Proxy) -> None:
    trust = ssl.create_default_context(cafile=secured.authority.ca_file)
    for name in ("broker-2.kafka.test", "localhost"):
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await asyncio.open_connection("127.0.0.1", named.port, ssl=trust, server_hostname=name)
    _, writer = await asyncio.open_connection("127.0.0.1", named.port, ssl=trust, server_hostname="broker-1.kafka.test")
    writer.close()
    await writer.wait_closed()
