"""Whom a limit of a SASL user's holds up: the name is read from what stock clients say when they log in."""

import re
from collections.abc import Iterator

import pytest

from tests.clients.security import MECHANISMS
from tests.integration.security.conftest import LEAVER, READER, TOPIC, Secured, login, proxy, service
from tests.kit.clients import READERS
from tests.kit.login import Mechanism
from tests.kit.proxy import Proxy
from tests.kit.records import assert_same


@pytest.fixture(scope="module")
def limited(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """`READER` is limited to half of the topic in a second, nobody else is."""
    security = {"protocol": "SASL_PLAINTEXT", "sasl": service("SCRAM-SHA-512")}
    directory = tmp_path_factory.mktemp("limited")
    made = proxy(directory, secured.kafka, "SASL", security, archive=secured.proxy.archive)
    made.write_config({**made.config, "limits": {"cold_clients": [{"user": READER, "cold_read_rate": "128KiB/s"}]}})
    with made:
        yield made


@pytest.mark.parametrize(
    ("user", "mechanism", "name"),
    [
        *((READER, mechanism, "librdkafka") for mechanism in MECHANISMS),
        (READER, "SCRAM-SHA-512", "java"),
        (READER, "OAUTHBEARER", "java"),
        (LEAVER, "PLAIN", "librdkafka"),
    ],
)
def test_a_users_limit_is_for_that_user(
    secured: Secured, limited: Proxy, user: str, mechanism: Mechanism, name: str
) -> None:
    before = _throttled(limited)
    assert_same(secured.log, READERS[name](limited.bootstrap, TOPIC, secured.log, login=login(user, mechanism)))
    assert (_throttled(limited) > before) is (user == READER)


def _throttled(proxy: Proxy) -> float:
    found = re.search(r'^tierproxy_cold_throttled_total{limit="user"} (\S+)$', proxy.get("/metrics")[1], re.M)
    return float(found[1]) if found else 0.0
