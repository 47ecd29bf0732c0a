"""TLS: contexts made from files, made anew when the files change, and what went wrong in a person's words.

Three contexts exist, and which is used where matters:

- for clients (`listen.tls`): our certificate. Clients are not asked for theirs: it could not be handed on to the
  broker, and whoever they are would be lost (kafka-protocol.md 10);
- for clients' own connections to brokers: trusts `ca_file`, shows *no* certificate. The service account's there would
  make every client the service account;
- for the service account: the same with its client certificate, if it has one.
"""

import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tierproxy.errors import TierproxyError
from tierproxy.telemetry import OncePerChange

log = logging.getLogger("tierproxy.tls")

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that a peer has to say goodbye in TLS before its connection is cut."""


class TlsFault(TierproxyError):
    """A file that can't be used. `key` is its name in the configuration: ca_file, cert_file or key_file."""

    def __init__(self, key: str, path: Path, problem: str) -> None:
        super().__init__(f"{key} {str(path)!r} {problem}")
        self.key = key
        self.problem = problem


# ---- contexts ------------------------------------------------------------------------------------------------


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """For connections that clients open. Raises TlsFault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs us much more than whoever asks for it
    _load_certificate(context, cert_file, key_file)
    return context


def broker_context(
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    *,
    verify_hostname: bool = True,
) -> ssl.SSLContext:
    """For connections to brokers; without `ca_file` the machine's own authorities are trusted. Raises TlsFault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = verify_hostname
    # As Java does it: whatever is in the file is trusted, also a broker's own certificate or an authority's below the
    # root. Newer Pythons switch this on themselves, and X509_STRICT, which many private authorities do not pass.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _read("ca_file", ca_file)
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise TlsFault("ca_file", ca_file, "holds no certificate that can be read (PEM)") from None
    if cert_file is not None and key_file is not None:
        _load_certificate(context, cert_file, key_file)
    return context


def _load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    certificate, key = _read("cert_file", cert_file), _read("key_file", key_file)
    if "-----BEGIN CERTIFICATE-----" not in certificate:
        raise TlsFault("cert_file", cert_file, "holds no certificate (PEM)")
    if "PRIVATE KEY-----" not in key:
        raise TlsFault("key_file", key_file, "holds no private key (PEM)")
    if "ENCRYPTED" in key:
        raise TlsFault("key_file", key_file, "is encrypted: tierproxy needs it without a passphrase")
    try:
        context.load_cert_chain(cert_file, key_file, password="")  # never asks on a terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault("key_file", key_file, "is not the key of the certificate in cert_file") from None
        raise TlsFault("cert_file", cert_file, f"can't be used: {error.reason or error}") from None
    except OSError as error:
        raise TlsFault("cert_file", cert_file, f"can't be read: {error.strerror}") from None


def _read(key: str, path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1")  # PEM is ASCII; around it anything may stand
    except OSError as error:
        raise TlsFault(key, path, f"can't be read: {error.strerror}") from None


# ---- contexts that follow their files --------------------------------------------------------------------------

_Seen = tuple[tuple[int, int, int] | None, ...]


class FollowedContext:
    """A context that is made anew when its files change: all or nothing, for connections opened from then on.

    `what` is the section it comes from, for log lines. The first one is made at once, and raises TlsFault.
    """

    def __init__(self, what: str, files: Sequence[Path], make: Callable[[], ssl.SSLContext]) -> None:
        self._what = what
        self._files = tuple(files)
        self._make = make
        self._tried = self._seen = self._look()
        self._trouble = OncePerChange(log)
        self.context = make()

    def check(self) -> None:
        """To be called now and then. Files that were still changing since the last time are left for the next."""
        before, self._seen = self._seen, self._look()
        if self._seen == self._tried or self._seen != before:
            return
        self._tried = self._seen
        try:
            self.context = self._make()
        except TlsFault as fault:
            self._trouble.began(self._what, f"{self._what}: the new files can't be used, the old ones stay: {fault}")
            return
        self._trouble.ended(self._what, f"{self._what}: the files can be used again")
        log.info("%s: the files have changed; new connections use them", self._what)

    def _look(self) -> _Seen:
        """Size, time and inode of each file; None where there is none. Links are followed: secrets are mounted so."""
        found: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                about = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((about.st_size, about.st_mtime_ns, about.st_ino))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """How connections to brokers are secured. `server_name` is asked for, and verified, in place of each host."""

    followed: FollowedContext
    server_name: str | None = None

    @property
    def context(self) -> ssl.SSLContext:
        return self.followed.context

    def name_for(self, host: str) -> str:
        return self.server_name or host


# ---- what went wrong -------------------------------------------------------------------------------------------

_HOSTNAME_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH

_AT_BROKERS = {
    "CERTIFICATE_REQUIRED": "it wants a client certificate",
    "HANDSHAKE_FAILURE": "it refused the handshake: it may want a client certificate, or other ciphers",
    "BAD_CERTIFICATE": "it refused our client certificate",
    "UNKNOWN_CA": "it does not trust our client certificate",
    "CERTIFICATE_EXPIRED": "it says that our client certificate has expired",
    "CERTIFICATE_UNKNOWN": "it refused our client certificate",
    "WRONG_VERSION_NUMBER": "it does not speak TLS there (cluster.security.protocol)",
    "RECORD_LAYER_FAILURE": "it does not speak TLS there (cluster.security.protocol)",
    "UNRECOGNIZED_NAME": "it knows no such server name (cluster.security.tls.server_name)",
    "PROTOCOL_VERSION": "it speaks no TLS version from 1.2 on",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS version from 1.2 on",
}

_AT_CLIENTS = {
    "UNKNOWN_CA": "the client does not trust our certificate",
    "CERTIFICATE_UNKNOWN": "the client does not accept our certificate (untrusted, or for another host name)",
    "BAD_CERTIFICATE": "the client does not accept our certificate (untrusted, or for another host name)",
    "CERTIFICATE_EXPIRED": "the client says that our certificate has expired",
    "HTTP_REQUEST": "the client speaks plain HTTP",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
    "RECORD_LAYER_FAILURE": "the client does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "the client speaks no TLS version from 1.2 on",
    "VERSION_TOO_LOW": "the client speaks no TLS version from 1.2 on",
    "NO_SHARED_CIPHER": "the client offers no cipher that we have",
}


def broker_trouble(error: BaseException) -> str:
    """Why TLS to a broker failed, in words that name the key to change where there is one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _HOSTNAME_MISMATCH:
            hint = "cluster.security.tls.server_name, or verify_hostname"
            return f"its certificate is for another host: {error.verify_message} ({hint})"
        return f"its certificate is not trusted: {error.verify_message} (cluster.security.tls.ca_file)"
    if isinstance(error, ConnectionResetError):
        return "it broke off the TLS handshake: does it speak TLS at this port (cluster.security.protocol)?"
    return _in_words(error, _AT_BROKERS)


def client_trouble(error: BaseException) -> str:
    """Why a client's TLS handshake failed."""
    return _in_words(error, _AT_CLIENTS)


def _in_words(error: BaseException, words: dict[str, str]) -> str:
    reason = _reason(error)
    for ending, text in words.items():
        if reason.endswith(ending):
            return text
    return reason.replace("_", " ").lower() or getattr(error, "strerror", None) or str(error) or type(error).__name__


def _reason(error: BaseException) -> str:
    """OpenSSL's own name of the fault: TLSV1_ALERT_UNKNOWN_CA and such; "" where it is no fault of TLS."""
    return (error.reason or "") if isinstance(error, ssl.SSLError) else ""
