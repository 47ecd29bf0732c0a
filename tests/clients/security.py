"""Which client is tried with which way of logging in; the tests in tests/integration/security take it from here."""

from tests.kit.clients import READERS
from tests.kit.login import Mechanism

MECHANISMS: tuple[Mechanism, ...] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

OWN_ACCOUNT: tuple[Mechanism, ...] = ("SCRAM-SHA-512", "OAUTHBEARER", "PLAIN")
"""tierproxy's own."""

BY_SERVER_NAME = ("kafka-python", "aiokafka", "java")
"""Who is tried with a server name for each broker: librdkafka can't be told of names that no resolver knows."""

_JAVA: tuple[Mechanism, ...] = ("SCRAM-SHA-512", "OAUTHBEARER")
"""It takes seconds to start: one of the two SCRAMs will do, and it is tried with PLAIN inside TLS."""


def readers(mechanism: Mechanism) -> list[str]:
    """The clients that log in by `mechanism` and read what is archived, without TLS."""
    return [name for name in READERS if name != "java" or mechanism in _JAVA]


def rows() -> list[list[str]]:
    """How one gets in, and who is tried with it: for docs/compatibility.md."""
    sasl = [[f"SASL {mechanism}", ", ".join(readers(mechanism))] for mechanism in MECHANISMS]
    return [
        *sasl,
        ["TLS on both sides, with SASL PLAIN", ", ".join(READERS)],
        ["TLS, a server name for each broker", ", ".join(BY_SERVER_NAME)],
        ["tierproxy's own account", ", ".join(sorted(OWN_ACCOUNT)) + ", a certificate"],
    ]
