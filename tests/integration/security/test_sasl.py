"""Clients log in through tierproxy as themselves, by every mechanism that can pass, and stay logged in; so does
tierproxy's own account."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from protocol.errors import ErrorCode
from tests.clients.security import MECHANISMS, OWN_ACCOUNT, readers
from tests.integration.security.conftest import (
    LATER,
    LIFETIME_MS,
    READER,
    RECORDS,
    SERVICE,
    TOPIC,
    Secured,
    login,
    password,
    proxy,
    service,
)
from tests.integration.security.raw import client
from tests.kit import admin
from tests.kit.clients import READERS
from tests.kit.console import RECORD, console_command, parse
from tests.kit.kafka import Cluster
from tests.kit.login import Mechanism, unsecured_token
from tests.kit.processes import Process, wait_for
from tests.kit.producing import merged, produce
from tests.kit.records import assert_same, drafts
from tierproxy.broker_connection import AccessRefused, Unreachable

LIFETIME = LIFETIME_MS / 1000


@pytest.mark.parametrize(
    ("mechanism", "name"), [(mechanism, name) for mechanism in MECHANISMS for name in readers(mechanism)]
)
def test_a_client_logs_in_and_reads_what_is_archived(secured: Secured, name: str, mechanism: Mechanism) -> None:
    read = READERS[name](secured.proxy.bootstrap, TOPIC, secured.log, login=login(READER, mechanism))
    assert_same(secured.log, read)


async def test_who_is_nobody_gets_nothing(secured: Secured) -> None:
    async with client(secured.proxy.port, None) as nobody:
        with pytest.raises(Unreachable, match="closed by the broker"):
            await nobody.fetch(0)


async def test_a_wrong_password_is_the_brokers_no(secured: Secured) -> None:
    mechanisms: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-512")
    for mechanism in mechanisms:
        with pytest.raises(AccessRefused, match=r"refuses tierproxy's account 'reader'.*Authentication failed"):
            async with client(secured.proxy.port, READER, mechanism, secret="wrong"):
                pass


async def test_kerberos_is_refused_with_what_the_broker_takes(secured: Secured) -> None:
    async with client(secured.proxy.port, None) as nobody:
        answer = await nobody.shake_hands("GSSAPI")
        assert answer.error == ErrorCode.UNSUPPORTED_SASL_MECHANISM
        assert sorted(answer.mechanisms) == ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
        with pytest.raises(Unreachable):
            await nobody.shake_hands("PLAIN")
    wait_for(lambda: "GSSAPI can't work through a proxy" in secured.proxy.log(), seconds=90, what="a line in the log")


# -- re-authentication ------------------------------------------------------------------------------------------------


async def test_who_logs_in_again_reads_on_and_who_does_not_is_cut_off(secured: Secured) -> None:
    mechanism: Mechanism = "SCRAM-SHA-256"
    async with (
        client(secured.proxy.port, READER, mechanism) as again,
        client(secured.proxy.port, READER, mechanism) as once,
    ):
        begun = time.monotonic()
        for reader in (again, once):
            assert (await reader.cold()).records
        await asyncio.sleep(1.2)
        while time.monotonic() - begun < 2 * LIFETIME + 0.5:
            await again.log_in_again()
            for offset in (0, RECORDS // 2):
                assert (await again.cold(offset)).records
            await asyncio.sleep(1.2)  # a broker takes no more than one login a second
        with pytest.raises(Unreachable, match="closed by the broker"):
            await once.fetch(0)
        assert (await again.cold()).records


def test_librdkafka_logs_in_again_while_it_reads_what_is_archived(secured: Secured) -> None:
    troubles: list[KafkaError] = []
    settings: dict[str, Any] = {
        "bootstrap.servers": secured.proxy.bootstrap,
        "group.id": "again",
        "enable.auto.commit": False,
        "log_level": 2,
        "error_cb": troubles.append,
        **login(READER, "SCRAM-SHA-256").librdkafka(),
    }
    consumer = Consumer(settings)
    try:
        until = time.monotonic() + 2 * LIFETIME + 0.5
        whole = 0
        while time.monotonic() < until:
            consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
            seen: list[int | None] = []
            while len(seen) < RECORDS:
                seen += [message.offset() for message in consumer.consume(RECORDS - len(seen), 10)]
            assert seen == [record.offset for record in secured.log[0]]
            whole += 1
            time.sleep(0.2)
    finally:
        consumer.close()
    assert troubles == []
    assert whole > 3


def test_java_logs_in_again_and_reads_on(secured: Secured, tmp_path: Path) -> None:
    """It reads the archive, waits longer than its login lasts, and reads what is produced then."""
    broker = secured.kafka.bootstrap
    admin.create_topic(broker, LATER, 1, retention_ms=-1)
    first = produce(broker, LATER, drafts(50, partition=0, seed=71))
    admin.wait_trimmed(broker, LATER, {0: 50})
    properties = login(READER, "SCRAM-SHA-256").java()
    command = console_command(
        *(secured.proxy.bootstrap, LATER, 100, "--from-beginning"),
        *(f"--command-property={key}={value}" for key, value in properties.items()),
    )
    printed = tmp_path / "out"
    process = Process("console consumer", ["sh", "-c", 'exec "$@" >"$0"', printed, *command], log=tmp_path / "err")
    wait_for(lambda: time.monotonic() - process.started > 2 + 1.5 * LIFETIME or None, seconds=90, what="a new login")
    second = produce(broker, LATER, drafts(50, partition=0, seed=72))
    process.wait_until(lambda: not process.alive, seconds=60, what="end")
    assert process.returncode == 0, process.tail()
    records = [parse(line) for line in printed.read_bytes().split(RECORD)[:-1]]
    assert_same(merged(first, second), {0: records})
    assert "disconnected" not in process.output()


# -- the service account ----------------------------------------------------------------------------------------------


def test_its_own_account_logs_in_again_in_good_time(secured: Secured) -> None:
    """The stage's tierproxy has been up for longer than a login lasts, and nobody has had to notice."""
    process = secured.proxy.process
    assert process is not None
    wait_for(lambda: time.monotonic() - process.started > 2 * LIFETIME or None, seconds=90, what="age")
    assert secured.proxy.get("/ready")[0] == 200
    troubled = [line for line in secured.proxy.log().splitlines() if " WARNING " in line or " ERROR " in line]
    assert troubled == []


@pytest.mark.parametrize("mechanism", OWN_ACCOUNT)
def test_its_own_account_logs_in_by_any_mechanism(
    secured: Secured, secured_kafka: Cluster, tmp_path: Path, mechanism: Mechanism
) -> None:
    sasl: dict[str, Any] = {"mechanism": mechanism, "username": SERVICE, "password_file": "secret"}
    (tmp_path / "secret").write_text(password(SERVICE) + "\n")
    if mechanism == "OAUTHBEARER":
        sasl = {"mechanism": mechanism, "token_file": "secret"}
        (tmp_path / "secret").write_text(unsecured_token(SERVICE))
    security = {"protocol": "SASL_PLAINTEXT", "sasl": sasl}
    made = proxy(tmp_path, secured_kafka, "SASL", security, archive=secured.proxy.archive)
    checked = made.cli("check", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_wrong_password_of_its_own_is_said_once_and_never_shown(secured_kafka: Cluster, tmp_path: Path) -> None:
    sasl = {**service("SCRAM-SHA-512"), "password": "swordfish"}
    security = {"protocol": "SASL_PLAINTEXT", "sasl": sasl}
    with proxy(tmp_path, secured_kafka, "SASL", security, wait=False) as made:
        wait_for(lambda: "refuses tierproxy's account" in made.get("/ready")[1], seconds=90, what="a reason")
        status, reason = made.get("/ready")
        assert status != 200
        assert "(SCRAM-SHA-512): Authentication failed" in reason
        time.sleep(3)  # some more attempts
        lines = [line for line in made.log().splitlines() if "refuses tierproxy's account" in line]
        assert 1 <= len(lines) <= 2, lines  # the connection says it, and who waits for the cluster
        assert "swordfish" not in made.log() + reason
