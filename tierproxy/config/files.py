"""The files that a configuration names: secrets and certificates.

Whatever can't be read, or does not hold what it should, is a fault beside the others, so that a wrong path shows when
the program starts and not when a connection is opened. Relative paths are taken from the configuration's folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tierproxy.config.model import SASL_SECRET_KEYS, SECRET_KEYS
from tierproxy.config.source import PathKeys, Source
from tierproxy.errors import TierproxyError
from tierproxy.tls import TlsFault, broker_context, server_context

_SASL: PathKeys = ("cluster", "security", "sasl")
_ADMIN: PathKeys = ("admin",)
_BROKER_TLS: PathKeys = ("cluster", "security", "tls")
_LISTEN_TLS: PathKeys = ("listen", "tls")


def take_in_files(source: Source, folder: Path) -> None:
    """Try them and make their paths absolute: all are read again later, so what they hold may be replaced."""
    archives = source.data.get("archives")
    for name, archive in archives.items() if isinstance(archives, dict) else ():
        if isinstance(archive, dict):
            _try_secrets(source, folder, ("archives", name), archive, SECRET_KEYS)
    _try_secrets(source, folder, _SASL, _section(source, _SASL), SASL_SECRET_KEYS)
    _try_secrets(source, folder, _ADMIN, _section(source, _ADMIN), SASL_SECRET_KEYS)
    for path in (_BROKER_TLS, _LISTEN_TLS):
        section = _section(source, path)
        written = dict(section)
        _make_absolute(folder, section, ["ca_file", "cert_file", "key_file"])
        try:
            _try_certificates(path, section)
        except TlsFault as fault:
            source.faults.append(source.fault((*path, fault.key), f"{written[fault.key]!r} {fault.problem}"))


class UnusableFile(TierproxyError):
    """`str(error)` goes behind the file's name: "is empty"."""


def read_secret(file: Path) -> str:
    """What a file holds, without editors' last line break. Raises UnusableFile."""
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise UnusableFile(f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UnusableFile("can't be read: it is not text") from None
    if not secret:
        raise UnusableFile("is empty")
    return secret


def _try_secrets(source: Source, folder: Path, at: PathKeys, section: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        written = section.get(f"{key}_file")
        if isinstance(written, str) and key not in section:
            try:
                read_secret(folder / written)
            except UnusableFile as error:
                source.faults.append(source.fault((*at, f"{key}_file"), f"{written!r} {error}"))
    _make_absolute(folder, section, [f"{key}_file" for key in keys])


def _make_absolute(folder: Path, section: dict[str, Any], keys: list[str]) -> None:
    for key in keys:
        if isinstance(section.get(key), str):
            section[key] = str((folder / section[key]).absolute())


def _try_certificates(at: PathKeys, section: Mapping[str, Any]) -> None:
    """Make what the program will make of them. Raises TlsFault."""
    ca, cert, key = (
        Path(value) if isinstance(value := section.get(name), str) else None
        for name in ("ca_file", "cert_file", "key_file")
    )
    if at == _BROKER_TLS and section:
        broker_context(ca, cert, key)
    elif cert is not None and key is not None:
        server_context(cert, key)


def _section(source: Source, path: PathKeys) -> dict[str, Any]:
    found: Any = source.data
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
