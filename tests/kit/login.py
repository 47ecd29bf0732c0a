"""How a client gets in, in the words of each stock client."""

import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, Literal

from aiokafka.abc import AbstractTokenProvider as AioTokenProvider
from kafka.net.sasl.oauth import AbstractTokenProvider as PyTokenProvider

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "OAUTHBEARER": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule",
}


@dataclass(frozen=True)
class Login:
    """A user's; `password` is of no use to OAUTHBEARER, whose tokens are unsecured and made here.

    With `ca_file` in TLS, trusting that authority. Without `mechanism` it is TLS alone.
    """

    username: str
    password: str = ""
    mechanism: Mechanism | None = "PLAIN"
    ca_file: Path | None = None

    @property
    def protocol(self) -> str:
        tls = "SSL" if self.ca_file is not None else "PLAINTEXT"
        return f"SASL_{tls}" if self.mechanism is not None else tls

    def librdkafka(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"security.protocol": self.protocol}
        if self.ca_file is not None:
            settings["ssl.ca.location"] = str(self.ca_file)
        if self.mechanism is None:
            return settings
        settings["sasl.mechanism"] = self.mechanism
        if self.mechanism == "OAUTHBEARER":
            return settings | {
                "enable.sasl.oauthbearer.unsecure.jwt": True,
                "sasl.oauthbearer.config": f"principal={self.username} lifeSeconds=3600",
            }
        return settings | {"sasl.username": self.username, "sasl.password": self.password}

    def kafka_python(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"security_protocol": self.protocol}
        if self.ca_file is not None:
            settings["ssl_cafile"] = str(self.ca_file)
        return settings | self._python(_PyToken(self.username))

    def aiokafka(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"security_protocol": self.protocol}
        if self.ca_file is not None:
            settings["ssl_context"] = ssl.create_default_context(cafile=self.ca_file)
        return settings | self._python(_AioToken(self.username))

    def _python(self, provider: object) -> dict[str, Any]:
        if self.mechanism is None:
            return {}
        if self.mechanism == "OAUTHBEARER":
            return {"sasl_mechanism": self.mechanism, "sasl_oauth_token_provider": provider}
        return {
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }

    def java(self) -> Mapping[str, str]:
        settings = {"security.protocol": self.protocol}
        if self.ca_file is not None:
            settings |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(self.ca_file)}
        if self.mechanism is None:
            return settings
        words = f'username="{self.username}" password="{self.password}"'
        if self.mechanism == "OAUTHBEARER":
            words = f'unsecuredLoginStringClaim_sub="{self.username}"'
        jaas = f"{_MODULES[self.mechanism]} required {words};"
        return settings | {"sasl.mechanism": self.mechanism, "sasl.jaas.config": jaas}


def unsecured_token(user: str, seconds: int = 3600) -> str:
    """A JWS without a signature, as Kafka's own test handlers take it."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + seconds})
    return ".".join(urlsafe_b64encode(dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class _PyToken(PyTokenProvider):  # type: ignore[misc]  # the library ships no types
    def __init__(self, user: str) -> None:
        self._user = user

    def token(self) -> str:
        return unsecured_token(self._user)


class _AioToken(AioTokenProvider):  # type: ignore[misc]  # the library ships no types
    def __init__(self, user: str) -> None:
        self._user = user

    async def token(self) -> str:
        return unsecured_token(self._user)
