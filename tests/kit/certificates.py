"""Certificates made on the fly: an authority of its own for each test that wants one.

Keys are on a curve, so making them costs nothing. All is PEM, as tierproxy, Kafka (`ssl.keystore.type=PEM`) and the
clients read it.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """Where a certificate and its key lie."""

    cert_file: Path
    key_file: Path

    @property
    def store(self) -> Path:
        """Both in one file, as Kafka wants its key store (made on demand)."""
        file = self.cert_file.with_suffix(".store.pem")
        file.write_text(self.key_file.read_text() + self.cert_file.read_text())
        return file


class Authority:
    """Issues certificates into `directory`, which it shares with nobody."""

    def __init__(self, directory: Path, name: str = "Test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        own = (
            _builder(self._name, self._key.public_key())
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, hosts: Sequence[str] = (), *, days: int = 30) -> Certificate:
        """A certificate for `hosts` (names, wildcards or addresses) in `<name>.pem`, its key in `<name>.key`.

        Issued again, the files are replaced. `days` below 0: it has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), key.public_key(), days).issuer_name(self._name)
        if hosts:
            alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        issued = Certificate(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        issued.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        issued.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return issued


def encrypt_key(key_file: Path, passphrase: bytes = b"secret") -> None:
    """Replaces a key file by an encrypted one."""
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(passphrase)
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int = 30) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
