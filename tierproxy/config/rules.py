"""Rules that look at more than one key.

They read the raw values, not the finished tree, so that they are told in the same run as everything else:
a misspelt port must not hide an archive that is not defined. So each of them takes whatever is there and
stays silent about values that have the wrong shape; those have their own fault already.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

from tierproxy.addresses import ServerNames
from tierproxy.config.fields import TOPIC_PATTERN
from tierproxy.config.model import S3_KEYS, SECRET_KEYS, Config
from tierproxy.config.source import PathKeys, path_text
from tierproxy.config.units import format_duration, format_size
from tierproxy.errors import Fault
from tierproxy.sasl import MechanismName

Problem = tuple[PathKeys, str]

_WILDCARD_HOSTS = ("0.0.0.0", "::", "[::]", "*")
_ARCHIVE_ONLY_KEYS = (
    "keep_on_broker",
    "keep_in_archive",
    "storage_class",
    "segment",
    "compression",
    "trim",
    "on_gap",
    "cold_read_rate",
)


def cross_check(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule of `data`, the file's top mapping."""
    yield from _security(_mapping(_mapping(data, "cluster"), "security"))
    yield from _listen(data)
    yield from _listen_tls(_mapping(data, "listen"))
    yield from _archives(_mapping(data, "archives"))
    yield from _disk_cache(data)
    yield from _policies(data)
    yield from _cold_clients(_mapping(data, "limits").get("cold_clients"))


def _security(security: Mapping[str, Any]) -> Iterator[Problem]:
    """The service account and TLS to brokers. What the protocol makes no use of is a fault: it was meant to be used."""
    at: PathKeys = ("cluster", "security")
    protocol = security.get("protocol", "PLAINTEXT")
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        return  # its own fault
    with_sasl, with_tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    if "tls" in security and not with_tls:
        yield (*at, "tls"), f"means nothing with {protocol}: use {'SASL_SSL' if with_sasl else 'SSL'}"
    tls = _mapping(security, "tls")
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
        if key in _mapping(listen, "tls"):
            problem = "can't be: a client's certificate is no use to the broker behind a proxy; clients use SASL"
            yield ("listen", "tls", key), problem
    sni = _mapping(listen, "sni")
    if sni and "tls" not in listen:
        yield ("listen", "sni"), "needs listen.tls: clients name a server in TLS only"
    bootstrap, broker = sni.get("bootstrap"), sni.get("broker")
    if isinstance(bootstrap, str) and isinstance(broker, str) and broker.count("{node}") == 1:
        node = ServerNames(bootstrap, broker).node_of(bootstrap)
        if node is not None:
            yield ("listen", "sni", "bootstrap"), f"{bootstrap!r} is also the name of broker {node}"


def _listen(data: Mapping[str, Any]) -> Iterator[Problem]:
    listen, admin = _mapping(data, "listen"), _mapping(data, "admin")
    if "sni" in listen and "advertised_host" in listen:
        yield ("listen", "advertised_host"), "has no effect with listen.sni: clients are told the names given there"
    serves = listen.get("enabled") is not False
    if isinstance(data.get("listen"), Mapping) and serves and "sni" not in listen and "advertised_host" not in listen:
        yield ("listen", "advertised_host"), "is required"
    archiver = data.get("archiver")
    if not serves and isinstance(archiver, Mapping) and archiver.get("enabled") is False:
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


def _archives(archives: Mapping[str, Any]) -> Iterator[Problem]:
    for name, archive in archives.items():
        if name == "none":
            yield ("archives", name), "this name is taken: 'archive: none' means that a topic is not archived"
        if not isinstance(archive, Mapping):
            continue
        if _is_directory(archive):
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
    path, spool = _mapping(_mapping(data, "cache"), "disk").get("path"), _mapping(data, "archiver").get("spool")
    if not isinstance(path, str):
        return
    others = {"archiver.spool": spool} if isinstance(spool, str) else {}
    for name, archive in _mapping(data, "archives").items():
        if _is_directory(archive):
            others[f"archives.{name}"] = unquote(urlsplit(archive["url"]).path)
    for name, other in others.items():
        one, two = PurePath(path), PurePath(other)
        if one == two or one in two.parents or two in one.parents:
            yield ("cache", "disk", "path"), f"{path!r} and {name} must not lie in each other"


def _is_directory(archive: Any) -> bool:
    url = archive.get("url") if isinstance(archive, Mapping) else None
    return isinstance(url, str) and urlsplit(url).scheme == "file"


def _policies(data: Mapping[str, Any]) -> Iterator[Problem]:
    archives, topics = _mapping(data, "archives"), data.get("topics")
    if not isinstance(topics, list):
        return
    before: list[tuple[int, str]] = []
    for index, policy in enumerate(topics):
        if not isinstance(policy, Mapping):
            continue
        path = ("topics", index)
        archive = policy.get("archive")
        if archive == "none":
            for key in _ARCHIVE_ONLY_KEYS:
                if key in policy:
                    yield (*path, key), "has no effect: 'archive: none' topics are just proxied"
        elif isinstance(archive, str) and archive not in archives:
            yield (*path, "archive"), _not_defined(archive, archives)
        elif isinstance(archive, str) and "storage_class" in policy and _is_directory(archives[archive]):
            yield (*path, "storage_class"), f"means nothing for {archive!r}, which is a file:// archive"
        match = policy.get("match")
        if not isinstance(match, str) or not TOPIC_PATTERN.fullmatch(match):
            continue
        for earlier_index, earlier in before:
            if covers(earlier, match) and not _internal(match, earlier):
                yield (
                    (*path, "match"),
                    f"{match!r} can never match: topics[{earlier_index}] {earlier!r} takes its topics first",
                )
                break
        before.append((index, match))


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


def covers(earlier: str, later: str) -> bool:
    """Whether every topic that `later` matches is matched by `earlier` as well.

    Decided by matching `earlier` against the text of `later`, whose wildcards only a wildcard of at least
    the same reach may stand for. What it calls covered is covered; some rare overlaps it leaves alone.
    """
    reach = {0}
    for letter in earlier:
        if letter == "*":
            reach = set(range(min(reach), len(later) + 1)) if reach else reach
        else:
            reach = {
                at + 1
                for at in reach
                if at < len(later) and (later[at] == letter or (letter == "?" and later[at] != "*"))
            }
    return len(later) in reach


def warnings(config: Config) -> list[Fault]:
    """What is allowed but hardly meant, for the log and for `tierproxy check`."""
    found: list[Problem] = []
    used = {policy.archive for policy in config.topics}
    for name in config.archives:
        if name not in used:
            found.append((("archives", name), "is defined, but no policy under topics uses it"))
    if not used - {None}:
        found.append((("topics",), "no policy names an archive: nothing will be archived, only proxied"))
    for index, policy in enumerate(config.topics):
        keep = policy.keep_on_broker
        if policy.trim == "never" and (keep.time_ms is not None or keep.bytes is not None):
            found.append((("topics", index, "keep_on_broker"), "has no effect with 'trim: never'"))
        archived = policy.keep_in_archive
        for key, least, most, words in (
            ("time", archived.time_ms, keep.time_ms, format_duration),
            ("bytes", archived.bytes, keep.bytes, format_size),
        ):
            if least is not None and most is not None and least < most:
                found.append(
                    (
                        ("topics", index, "keep_in_archive", key),
                        f"is less than keep_on_broker ({words(least)}, {words(most)}): nothing expires in the archive "
                        "before the brokers have let it go",
                    )
                )
    found += _rate_warnings(config)
    found += _security_warnings(config)
    by_port = config.listen.sni is None
    if by_port and config.admin is not None and 0 < config.admin.port - config.listen.port <= 100:
        broker = config.admin.port - config.listen.port - 1
        found.append((("admin", "port"), f"is the port where broker {broker} would be served"))
    return [Fault(path_text(path), problem) for path, problem in found]


def _rate_warnings(config: Config) -> Iterator[Problem]:
    total = config.limits.cold_read_rate
    rates: list[tuple[PathKeys, int | None]] = [
        (("topics", index), policy.cold_read_rate) for index, policy in enumerate(config.topics)
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


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean 'match'?`, or the known words when none is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _not_defined(name: str, archives: Mapping[str, Any]) -> str:
    if not archives:
        return f"{name!r} is not defined: no archives are"
    return f"{name!r} is not defined under archives{did_you_mean(name, list(archives))}"


def _internal(match: str, earlier: str) -> bool:
    """`*` does not take Kafka's internal topics, which only an exact name matches."""
    return match.startswith("__") and "*" not in match and "?" not in match and match != earlier


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}
