"""Rules that look at more than one key.

They read the raw values, not the finished tree, so that they are told in the same run as everything else:
a misspelt port must not hide an archive that is not defined. So each of them takes whatever is there and
stays silent about values that have the wrong shape; those have their own fault already.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

from tierproxy.addresses import ServerNames
from tierproxy.config.model import S3_KEYS, SASL_SECRET_KEYS, SECRET_KEYS, Config
from tierproxy.config.patterns import covers
from tierproxy.config.policy_rules import policy_problems, policy_warnings
from tierproxy.config.raw import Problem, is_directory, mapping
from tierproxy.config.source import PathKeys, path_text
from tierproxy.errors import Fault
from tierproxy.sasl import MechanismName

_WILDCARD_HOSTS = ("0.0.0.0", "::", "[::]", "*")


def cross_check(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule of `data`, the file's top mapping."""
    yield from _security(mapping(mapping(data, "cluster"), "security"))
    yield from _listen(data)
    yield from _listen_tls(mapping(data, "listen"))
    yield from _admin(mapping(data, "admin"))
    yield from _archives(mapping(data, "archives"))
    yield from _disk_cache(data)
    yield from policy_problems(data)
    yield from _cold_clients(mapping(data, "limits").get("cold_clients"))


def _security(security: Mapping[str, Any]) -> Iterator[Problem]:
    """The service account and TLS to brokers. What the protocol makes no use of is a fault: it was meant to be used."""
    at: PathKeys = ("cluster", "security")
    protocol = security.get("protocol", "PLAINTEXT")
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        return  # its own fault
    with_sasl, with_tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    if "tls" in security and not with_tls:
        yield (*at, "tls"), f"means nothing with {protocol}: use {'SASL_SSL' if with_sasl else 'SSL'}"
    tls = mapping(security, "tls")
    if ("cert_file" in tls) != ("key_file" in tls):
        given, missing = ("cert_file", "key_file") if "cert_file" in tls else ("key_file", "cert_file")
        yield (*at, "tls"), f"has {given} but no {missing}: give both or neither"
    if "sasl" in security and not with_sasl:
        yield (*at, "sasl"), f"means nothing with {protocol}: use SASL_{'SSL' if with_tls else 'PLAINTEXT'}"
    if "sasl" not in security and with_sasl:
        yield at, f"has no sasl section: {protocol} needs the service account's mechanism, user name and password"
    sasl = security.get("sasl")
    if isinstance(sasl, Mapping) and sasl.get("mechanism") in get_args(MechanismName):
        yield from _sasl((*at, "sasl"), sasl)


def _sasl(at: PathKeys, sasl: Mapping[str, Any]) -> Iterator[Problem]:
    mechanism = sasl["mechanism"]
    secret, other = ("token", "password") if mechanism == "OAUTHBEARER" else ("password", "token")
    for key in (other, f"{other}_file", *(("username",) if secret == "token" else ())):
        if key in sasl:
            yield (*at, key), f"means nothing with {mechanism}"
    if secret in sasl and f"{secret}_file" in sasl:
        yield (*at, f"{secret}_file"), f"say either {secret} or {secret}_file, not both"
    elif secret not in sasl and f"{secret}_file" not in sasl:
        yield at, f"has no {secret} and no {secret}_file: {mechanism} needs one of them"
    if secret == "password" and not sasl.get("username"):
        yield (*at, "username"), f"is required with {mechanism}"


def _listen_tls(listen: Mapping[str, Any]) -> Iterator[Problem]:
    for key in ("ca_file", "client_ca_file", "client_auth"):
        if key in mapping(listen, "tls"):
            problem = "can't be: a client's certificate is no use to the broker behind a proxy; clients use SASL"
            yield ("listen", "tls", key), problem
    sni = mapping(listen, "sni")
    if sni and "tls" not in listen:
        yield ("listen", "sni"), "needs listen.tls: clients name a server in TLS only"
    bootstrap, broker = sni.get("bootstrap"), sni.get("broker")
    if isinstance(bootstrap, str) and isinstance(broker, str) and broker.count("{node}") == 1:
        node = ServerNames(bootstrap, broker).node_of(bootstrap)
        if node is not None:
            yield ("listen", "sni", "bootstrap"), f"{bootstrap!r} is also the name of broker {node}"


def _listen(data: Mapping[str, Any]) -> Iterator[Problem]:
    listen, admin = mapping(data, "listen"), mapping(data, "admin")
    if "sni" in listen and "advertised_host" in listen:
        yield ("listen", "advertised_host"), "has no effect with listen.sni: clients are told the names given there"
    serves = listen.get("enabled") is not False
    if isinstance(data.get("listen"), Mapping) and serves and "sni" not in listen and "advertised_host" not in listen:
        yield ("listen", "advertised_host"), "is required"
    if not serves and mapping(data, "archiver").get("enabled") is False:
        yield ("listen", "enabled"), "is false, and so is archiver.enabled: such a process does nothing"
    if listen.get("advertised_host") in _WILDCARD_HOSTS:
        yield (
            ("listen", "advertised_host"),
            "is where this machine listens, not a name that clients can come back to",
        )
    if listen.get("port") == 65535 and "sni" not in listen:
        yield ("listen", "port"), "leaves no port for the brokers: broker n is at listen.port + 1 + n"
    if admin and admin.get("port", 9180) == listen.get("port", 9192):
        yield ("admin", "port"), "is the same port as listen.port"


def _admin(admin: Mapping[str, Any]) -> Iterator[Problem]:
    for key in SASL_SECRET_KEYS:
        if key in admin and f"{key}_file" in admin:
            yield ("admin", f"{key}_file"), f"say either {key} or {key}_file, not both"
    has_password = "password" in admin or "password_file" in admin
    if ("username" in admin) != has_password:
        given, missing = ("a password", "username") if has_password else ("username", "password and no password_file")
        yield ("admin",), f"has {given} but no {missing}: give both or neither"
    if ":" in str(admin.get("username", "")):
        yield ("admin", "username"), "must not hold ':', which ends a name in HTTP's basic authentication"


def _archives(archives: Mapping[str, Any]) -> Iterator[Problem]:
    for name, archive in archives.items():
        if name == "none":
            yield ("archives", name), "this name is taken: 'archive: none' means that a topic is not archived"
        if not isinstance(archive, Mapping):
            continue
        if is_directory(archive):
            for key in S3_KEYS:
                if key in archive:
                    yield ("archives", name, key), "means nothing for a file:// archive"
        for key in SECRET_KEYS:
            if key in archive and f"{key}_file" in archive:
                yield ("archives", name, f"{key}_file"), f"say either {key} or {key}_file, not both"
        has = {key: key in archive or f"{key}_file" in archive for key in SECRET_KEYS}
        if has["access_key"] != has["secret_key"]:
            given, missing = ("access_key", "secret_key") if has["access_key"] else ("secret_key", "access_key")
            yield ("archives", name), f"has {given} but no {missing}: give both or neither"
        elif has["session_token"] and not has["access_key"]:
            yield ("archives", name), "has session_token but neither access_key nor secret_key"


def _disk_cache(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What makes room for itself in a directory must not meet what others keep there."""
    path, spool = mapping(mapping(data, "cache"), "disk").get("path"), mapping(data, "archiver").get("spool")
    if not isinstance(path, str):
        return
    others = {"archiver.spool": spool} if isinstance(spool, str) else {}
    for name, archive in mapping(data, "archives").items():
        if is_directory(archive):
            others[f"archives.{name}"] = unquote(urlsplit(archive["url"]).path)
    for name, other in others.items():
        one, two = PurePath(path), PurePath(other)
        if one == two or one in two.parents or two in one.parents:
            yield ("cache", "disk", "path"), f"{path!r} and {name} must not lie in each other"


def _cold_clients(entries: Any) -> Iterator[Problem]:
    before: list[tuple[int, str | None, str | None]] = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, Mapping):
            continue
        path: PathKeys = ("limits", "cold_clients", index)
        client_id, user = entry.get("client_id"), entry.get("user")
        if client_id is None and user is None:
            yield path, "names no client: give client_id, user or both; limits.cold_read_rate is for all together"
        if not isinstance(client_id, str | None) or not isinstance(user, str | None):
            continue  # its own fault
        for earlier, id_before, user_before in before:
            if _takes(id_before, client_id) and _takes(user_before, user):
                yield path, f"can never match: limits.cold_clients[{earlier}] takes its clients first"
                break
        before.append((index, client_id, user))


def _takes(earlier: str | None, later: str | None) -> bool:
    """Whether the pattern `earlier` takes all that `later` does; without one, also those who have no such name."""
    return earlier is None or (later is not None and covers(earlier, later))


def warnings(config: Config) -> list[Fault]:
    """What is allowed but hardly meant, for the log and for `tierproxy check`."""
    found: list[Problem] = []
    found += policy_warnings(config)
    found += _rate_warnings(config)
    found += _security_warnings(config)
    admin = config.admin
    if admin is not None and admin.dashboard and not (admin.is_local or admin.asks_for_login):
        problem = f"is open to whoever reaches {admin.host}:{admin.port}: give a password or a token"
        found.append((("admin", "dashboard"), problem))
    by_port = config.listen.sni is None
    if by_port and config.admin is not None and 0 < config.admin.port - config.listen.port <= 100:
        broker = config.admin.port - config.listen.port - 1
        found.append((("admin", "port"), f"is the port where broker {broker} would be served"))
    return [Fault(path_text(path), problem) for path, problem in found]


def _rate_warnings(config: Config) -> Iterator[Problem]:
    total = config.limits.cold_read_rate
    rates: list[tuple[PathKeys, int | None]] = [(("defaults",), config.defaults.cold_read_rate)]
    rates += [
        (("topics", index), policy.cold_read_rate)
        for index, policy in enumerate(config.topics)
        if policy.origin("cold_read_rate") == "policy"
    ]
    rates += [
        (("limits", "cold_clients", index), each.cold_read_rate)
        for index, each in enumerate(config.limits.cold_clients)
    ]
    for path, rate in rates:
        if total is not None and rate is not None and rate >= total:
            yield (*path, "cold_read_rate"), "has no effect: limits.cold_read_rate is no more for all together"
    if not config.cluster.security.authenticated:
        for index, each in enumerate(config.limits.cold_clients):
            if each.user is not None:
                problem = f"matches nobody: with {config.cluster.security.protocol} clients have no SASL user"
                yield ("limits", "cold_clients", index, "user"), problem


def _security_warnings(config: Config) -> Iterator[Problem]:
    security, listen = config.cluster.security, config.listen
    sasl, at = security.sasl, ("cluster", "security")
    if sasl is not None and sasl.mechanism in ("PLAIN", "OAUTHBEARER") and not security.encrypted:
        secret = "password" if sasl.mechanism == "PLAIN" else "token"
        yield (*at, "sasl", "mechanism"), f"{sasl.mechanism} sends the {secret} readable: use SASL_SSL"
    if security.protocol == "SSL":
        yield (
            (*at, "protocol"),
            "clients' certificates can't pass through a proxy: to the brokers, clients will be User:ANONYMOUS",
        )
    if security.encrypted and listen.tls is None and listen.host not in ("127.0.0.1", "localhost", "::1"):
        yield ("listen",), "has no tls: what is encrypted on the way to the brokers is readable on the way to clients"
    if security.encrypted and not security.tls.verify_hostname:
        yield (*at, "tls", "verify_hostname"), "is off: anybody with a certificate of these authorities can be a broker"
