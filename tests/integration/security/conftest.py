"""A Kafka that lets nobody in unasked: SASL, TLS and rules (StandardAuthorizer), and a tierproxy in front of it.

Beside the kit's plaintext listener, whose anonymous user may do everything and which plays the operator, there are
SASL (SASL_PLAINTEXT), TLS (SASL_SSL) and CERT (SSL that wants client certificates). Who logs in with SCRAM-SHA-256 has
to do so again every `LIFETIME_MS`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.integration.conftest import POLICIES
from tests.kit import admin
from tests.kit.certificates import Authority
from tests.kit.kafka import Cluster
from tests.kit.login import Login, Mechanism
from tests.kit.producing import produce
from tests.kit.proxy import Proxy
from tests.kit.records import Log, drafts, ends

TOPIC = "cold.secret"
LATER = "cold.later"
RECORDS = 600
LIFETIME_MS = 6000
SERVICE, READER, LISTER, LEAVER, STRANGER = "service", "reader", "lister", "leaver", "stranger"
USERS = (SERVICE, READER, LISTER, LEAVER, STRANGER)
CERTIFIED = "CN=tierproxy"

_MECHANISMS: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_SECURITY = "org.apache.kafka.common.security"
_UNSECURED = f"{_SECURITY}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"


def password(user: str) -> str:
    return f"{user}-hunter2"


def login(user: str, mechanism: Mechanism = "PLAIN", ca_file: Path | None = None) -> Login:
    return Login(user, password(user), mechanism, ca_file)


def service(mechanism: Mechanism) -> dict[str, Any]:
    """The service account, as tierproxy is told of it."""
    return {"mechanism": mechanism, "username": SERVICE, "password": password(SERVICE)}


def _properties(authority: Authority) -> dict[str, str]:
    """Of the broker; each of its settings for one listener has the listener's name before it."""
    plain = " ".join(f'user_{user}="{password(user)}"' for user in USERS)
    sasl = {
        "sasl.enabled.mechanisms": ",".join(_MECHANISMS),
        "plain.sasl.jaas.config": f"{_SECURITY}.plain.PlainLoginModule required {plain};",
        "scram-sha-256.sasl.jaas.config": f"{_SECURITY}.scram.ScramLoginModule required;",
        "scram-sha-512.sasl.jaas.config": f"{_SECURITY}.scram.ScramLoginModule required;",
        "scram-sha-256.connections.max.reauth.ms": str(LIFETIME_MS),
        "oauthbearer.sasl.jaas.config": f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule required;",
        "oauthbearer.sasl.server.callback.handler.class": _UNSECURED,
    }
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.issue("kafka", ["127.0.0.1"]).store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca_file),
    }
    by_listener = {
        "sasl": sasl,
        "tls": {**sasl, **tls},
        "cert": {**tls, "ssl.client.auth": "required"},
    }
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        **{f"listener.name.{name}.{key}": value for name, of in by_listener.items() for key, value in of.items()},
    }


def _scram_users() -> Iterator[str]:
    for user in USERS:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            yield "--add-scram"
            yield f"{mechanism}=[name={user},password={password(user)}]"


def rule(user: str, operation: AclOperation, topic: str = TOPIC) -> AclBinding:
    return AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
    )


def allow(bootstrap: str, *rules: AclBinding) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})  # its futures end with it
    for future in client.create_acls(list(rules)).values():
        future.result(90)


def revoke(bootstrap: str, taken: AclBinding) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})
    wanted = AclBindingFilter(
        taken.restype,
        taken.name,
        taken.resource_pattern_type,
        taken.principal,
        taken.host,
        taken.operation,
        taken.permission_type,
    )
    for future in client.delete_acls([wanted]).values():
        assert len(future.result(90)) == 1


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the certificates of Kafka, of tierproxy, and of tierproxy's own account."""
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("server", ["localhost", "127.0.0.1", "kafka.test", "*.kafka.test"])
    made.issue("tierproxy")
    return made


@dataclass(frozen=True)
class Secured:
    """`log`: what was produced to `TOPIC`, which the broker has given up but for nothing."""

    kafka: Cluster
    authority: Authority
    log: Log
    proxy: Proxy


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Cluster]:
    cluster = Cluster(
        tmp_path_factory.mktemp("kafka"),
        listeners={"SASL": "SASL_PLAINTEXT", "TLS": "SASL_SSL", "CERT": "SSL"},
        properties=_properties(authority),
        format_options=list(_scram_users()),
    )
    with cluster:
        account = [AclOperation.READ, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.DELETE]
        groups = AclBinding(
            ResourceType.GROUP, "*", ResourcePatternType.LITERAL, "User:*", "*", AclOperation.READ,
            AclPermissionType.ALLOW,
        )  # fmt: skip
        allow(
            cluster.bootstrap,
            *(rule(SERVICE, operation, topic) for operation in account for topic in (TOPIC, LATER)),
            rule(CERTIFIED, AclOperation.DESCRIBE),
            *(rule(READER, AclOperation.READ, topic) for topic in (TOPIC, LATER)),
            rule(LEAVER, AclOperation.READ),
            rule(LISTER, AclOperation.DESCRIBE),
            groups,
        )
        yield cluster


def proxy(
    directory: Path,
    kafka: Cluster,
    listener: str,
    security: Mapping[str, Any],
    *,
    archive: Path | None = None,
    listen: Mapping[str, Any] | None = None,
    wait: bool = True,
) -> Proxy:
    """A tierproxy that reaches Kafka by `listener`. With `archive`, somebody else's, it only reads."""
    about = {"name": "kit", "bootstrap": kafka.bootstrap_of(listener).split(","), "security": dict(security)}
    settings: dict[str, Any] = {"cluster": about}
    if archive is not None:
        settings["archiver"] = {"enabled": False}
    made = Proxy(
        directory,
        kafka.bootstrap,
        POLICIES[1:2],
        archives={"local": {"url": archive.as_uri()}} if archive is not None else None,
        settings=settings,
        wait=wait,
    )
    if listen is not None:
        made.write_config({**made.config, "listen": {"host": "127.0.0.1", "port": made.port, **listen}})
    return made


@pytest.fixture(scope="session")
def secured(
    request: pytest.FixtureRequest,
    secured_kafka: Cluster,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secured]:
    if request.config.getoption("--direct"):
        pytest.skip("this one is about tierproxy, and --direct was asked for")
    kafka = secured_kafka
    admin.create_topic(kafka.bootstrap, TOPIC, 1, retention_ms=-1)
    log = produce(kafka.bootstrap, TOPIC, drafts(RECORDS, partition=0, seed=70))
    security = {"protocol": "SASL_PLAINTEXT", "sasl": service("SCRAM-SHA-256")}
    with proxy(tmp_path_factory.mktemp("proxy"), kafka, "SASL", security) as made:
        admin.wait_trimmed(kafka.bootstrap, TOPIC, {p: last + 1 for p, last in ends(log).items()})
        yield Secured(kafka, authority, log, made)
