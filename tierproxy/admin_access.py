"""Who may look at the admin port: basic authentication, a bearer token, or everybody where neither is configured.

Secrets in files are read for every request, so that what they hold may be replaced. What can't be read lets nobody in.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from tierproxy.config import AdminConfig
from tierproxy.config.files import UnusableFile, read_secret

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def may_look(config: AdminConfig, authorization: str | None) -> bool:
    """Whether a request with this `Authorization` header shows a login that is configured, or none is.

    How long that takes does not tell how much of it is right.
    """
    if not config.asks_for_login:
        return True
    scheme, _, given = (authorization or "").partition(" ")
    shown = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            shown = base64.b64decode(shown, validate=True)
        except binascii.Error:
            return False
    return any(kind == scheme.lower() and hmac.compare_digest(shown, login) for kind, login in _logins(config))


def login(config: AdminConfig) -> dict[str, str]:
    """The headers of a request that may look; none where no login is needed, or its file can't be read."""
    for kind, secret in _logins(config):
        shown = base64.b64encode(secret).decode() if kind == "basic" else secret.decode()
        return {"Authorization": f"{kind.capitalize()} {shown}"}
    return {}


def _logins(config: AdminConfig) -> Iterator[tuple[str, bytes]]:
    password = _secret(config.password, config.password_file)
    if config.username is not None and password is not None:
        yield "basic", f"{config.username}:{password}".encode()
    token = _secret(config.token, config.token_file)
    if token is not None:
        yield "bearer", token.encode()


def _secret(written: SecretStr | None, file: Path | None) -> str | None:
    if written is not None:
        return written.get_secret_value()
    try:
        return read_secret(file) if file is not None else None
    except UnusableFile:
        return None


def is_own_name(host: str | None) -> bool:
    """Whether a `Host` header names this machine, or an address: which a stranger's page can't make a browser say.

    Else that page's own name could be led to 127.0.0.1 (DNS rebinding), and it would read what we answer.
    """
    try:
        name = urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:
        return False
    return name in LOCAL_NAMES or name.replace(".", "").isdigit() or ":" in name
