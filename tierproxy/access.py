"""How connections to brokers are made: TLS for all of them, an account for our own.

`Access` is the service account's. Clients' own connections get `client_tls` and nothing else: their accounts are in the
bytes that they send.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_urlsafe

from tierproxy.config import SaslConfig, SecurityConfig
from tierproxy.config.files import UnusableFile, read_secret
from tierproxy.errors import TierproxyError
from tierproxy.sasl import Mechanism, mechanism
from tierproxy.tls import BrokerTls, FollowedContext, broker_context


class NoCredentials(TierproxyError):
    """The account's password or token can't be read right now."""


@dataclass(frozen=True, slots=True)
class Access:
    """Of the service account: `tls` None is plaintext, `sasl` None no authentication by SASL."""

    tls: BrokerTls | None = None
    sasl: SaslConfig | None = None

    @property
    def account(self) -> str:
        """Who we are, for messages: never a secret."""
        if self.sasl is None:
            return "tierproxy's account"
        name = f" {self.sasl.username!r}" if self.sasl.username is not None else ""
        return f"tierproxy's account{name} ({self.sasl.mechanism})"

    def begin(self) -> Mechanism:
        """A new authentication, with the secret that is in its file now. Raises NoCredentials."""
        assert self.sasl is not None
        bearer = self.sasl.mechanism == "OAUTHBEARER"
        key = "token" if bearer else "password"
        given, file = (
            (self.sasl.token, self.sasl.token_file) if bearer else (self.sasl.password, self.sasl.password_file)
        )
        secret = given.get_secret_value() if given is not None else _from_file(key, file)
        return mechanism(self.sasl.mechanism, self.sasl.username or "", secret, token_urlsafe(24))


def service_access(security: SecurityConfig) -> Access:
    """Raises TlsFault where a file can't be used."""
    tls = None
    if security.encrypted:
        about = security.tls
        files = [file for file in (about.ca_file, about.cert_file, about.key_file) if file is not None]
        make = partial(
            broker_context, about.ca_file, about.cert_file, about.key_file, verify_hostname=about.verify_hostname
        )
        tls = BrokerTls(FollowedContext("cluster.security.tls", files, make), about.server_name)
    return Access(tls, security.sasl if security.authenticated else None)


def client_tls(security: SecurityConfig) -> BrokerTls | None:
    """For clients' own connections to brokers: without the service account's certificate, which would make every
    client the service account. Raises TlsFault."""
    if not security.encrypted:
        return None
    about = security.tls
    files = [about.ca_file] if about.ca_file is not None else []
    make = partial(broker_context, about.ca_file, verify_hostname=about.verify_hostname)
    return BrokerTls(FollowedContext("cluster.security.tls for clients", files, make), about.server_name)


def _from_file(key: str, file: Path | None) -> str:
    assert file is not None, "the configuration was checked"
    try:
        return read_secret(file)
    except UnusableFile as error:
        raise NoCredentials(f"cluster.security.sasl.{key}_file {str(file)!r} {error}") from None
