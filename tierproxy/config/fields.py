"""The kinds of values a configuration holds, each with its words for what is wrong.

A field in the file is text with a unit, an address, a pattern; in the program it is a plain int, tuple or
str. Programs (and tests) that build a `Config` themselves may hand in the plain values: only a value that
comes from a file must carry its unit, which validation knows by its context (`FROM_FILE`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo, WithJsonSchema

from tierproxy.config.patterns import topic_pattern
from tierproxy.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration_ms,
    parse_size,
)

FROM_FILE: Final = "from a file"
"""The validation context in which numbers without units are refused."""
MOST_WORKERS: Final = 256
RATE_PATTERN: Final = f"^none$|{SIZE_PATTERN[:-1]}(/s)?$"


class HostPort(NamedTuple):
    """An address to connect to; IPv6 hosts are kept without their brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _size(value: object, info: ValidationInfo) -> object:
    return _with_unit(value, info, parse_size, "128MiB")


def _duration(value: object, info: ValidationInfo) -> object:
    return _with_unit(value, info, parse_duration_ms, "10m")


def _with_unit(value: object, info: ValidationInfo, parse: Callable[[str], int], example: str) -> object:
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a number with a unit, for example {example}, not {kind_of(value)}")
    if info.context == FROM_FILE and value != 0:
        return parse(str(value))
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _port(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a port number, not {kind_of(value)}")
    if not 1 <= value <= 65535:
        raise ValueError(f"{value} is not a port: ports go from 1 to 65535")
    return value


def _host(value: str) -> str:
    host = value.strip()
    if "://" in host:
        raise ValueError(f"{value!r} must be a host name or an address, without {host.split('://')[0]}://")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", host):
        raise ValueError(f"{value!r} is not a host name or an address")
    return host


def _node_template(value: str) -> str:
    if value.count("{node}") != 1:
        raise ValueError(
            f"{value!r} must hold {{node}} once, where the broker's id stands: broker-{{node}}.example.com"
        )
    _host(value.replace("{node}", "0"))
    return value.strip()


def _host_port(value: object) -> object:
    if isinstance(value, HostPort):
        return value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return HostPort(_host(str(value[0])), int(str(_port(value[1]))))
    if not isinstance(value, str):
        raise ValueError(f"must be host:port, not {kind_of(value)}")
    host, colon, port = value.strip().rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError(f"{value!r} has no port; write host:port, for example kafka-0:9092")
    if not re.fullmatch(r"[0-9]{1,10}", port):
        raise ValueError(f"{value!r}: {port!r} is not a port number")
    return HostPort(_host(host), int(str(_port(port))))


def _bootstrap(value: object) -> object:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError("must name at least one broker as host:port")
    return value


def _client_pattern(value: object) -> object:
    if not isinstance(value, str) or not 1 <= len(value) <= 1024:
        raise ValueError(
            f"must be a name, or a pattern with '*' and '?', in quotes if need be, not {kind_of(value)}"
            if not isinstance(value, str) or value
            else "is empty"
        )
    return value


def _compression(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"must be zstd-1 … zstd-19, not {kind_of(value)}")
    text = value if isinstance(value, str) else f"zstd-{value}"
    match = re.fullmatch(r"zstd(?:-([0-9]{1,2}))?", text)
    level = int(match.group(1) or 3) if match else 0
    if not 1 <= level <= 19:
        raise ValueError(
            f"{text!r} is not one of zstd-1 … zstd-19: what is archived is zstd, whatever producers use inside it"
        )
    return level


def _storage_class(value: str) -> str:
    if value.upper() in ("GLACIER", "DEEP_ARCHIVE"):
        raise ValueError(f"{value}: its objects can't be read at once, so consumers would wait for hours")
    return value


def _archive_name(value: object) -> object:
    if value is None or value == "none":
        return None
    if isinstance(value, bool):
        raise ValueError("YAML reads this word as true or false: write none, or put the name in quotes")
    return value


def _group_name(value: object) -> object:
    if value is None or value == "none":
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= 249:
        raise ValueError(f"must be a group's name of at most 249 characters, or none, not {kind_of(value)}")
    if re.search(r"[\x00-\x1f\x7f]", value) or re.sub(r"\{cluster\}", "", value).count("{"):
        raise ValueError(f"{value!r} can't be a group's name; {{cluster}} stands for cluster.name")
    return value


def _rate(value: object, info: ValidationInfo) -> object:
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        value = value.strip().removesuffix("/s")
    rate = _with_unit(value, info, parse_size, "50MiB/s")
    if isinstance(rate, int) and rate < 1024:
        raise ValueError("must be at least 1KiB/s; without a limit, write none")
    return rate


def _cluster_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            f"{value!r} can't name a folder of the archive: use letters, digits, '.', '_' and '-' "
            "(at most 100, starting with a letter or digit)"
        )
    return value


def _secret(value: object) -> object:
    if isinstance(value, (str, SecretStr)):
        if not (value if isinstance(value, str) else value.get_secret_value()):
            raise ValueError("is empty")
        return value
    raise ValueError("must be text: put it in quotes")


def _workers(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}", value):
        value = int(value)
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_WORKERS):
        shown = repr(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else kind_of(value)
        raise ValueError(f"must be a number of processes from 1 to {MOST_WORKERS}, or auto, not {shown}")
    return value


def size_within(low: int, high: int) -> AfterValidator:
    """Bounds in bytes, both allowed, told with their unit."""
    return AfterValidator(Within(low, high, format_size))


def duration_within(low: int, high: int) -> AfterValidator:
    """Bounds in milliseconds, both allowed, told with their unit."""
    return AfterValidator(Within(low, high, format_duration))


def count_within(low: int, high: int) -> AfterValidator:
    return AfterValidator(Within(low, high, str))


@dataclass(frozen=True, slots=True)
class Within:
    """The check of a number's bounds, both allowed; `words` says them with their unit."""

    low: int
    high: int
    words: Callable[[int], str]

    def __call__(self, value: int) -> int:
        if not self.low <= value <= self.high:
            raise ValueError(f"must be between {self}, not {self.words(value)}")
        return value

    def __str__(self) -> str:
        return f"{self.words(self.low)} and {self.words(self.high)}"


def kind_of(value: object) -> str:
    """What YAML made of a value, in a person's words. Never the value itself."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"a {type(value).__name__}"


SizeBytes = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["128MiB", "20GB"]}),
]
DurationMs = Annotated[
    int,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["500ms", "10m", "7d"]}),
]
Port = Annotated[int, BeforeValidator(_port), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})]
Host = Annotated[str, AfterValidator(_host)]
NodeTemplate = Annotated[
    str, AfterValidator(_node_template), WithJsonSchema({"type": "string", "examples": ["broker-{node}.example.com"]})
]
Broker = Annotated[
    HostPort, BeforeValidator(_host_port), WithJsonSchema({"type": "string", "examples": ["kafka-0:9092"]})
]
Brokers = Annotated[tuple[Broker, ...], BeforeValidator(_bootstrap)]
TopicPattern = Annotated[str, AfterValidator(topic_pattern)]
ClientPattern = Annotated[str, BeforeValidator(_client_pattern)]
ZstdLevel = Annotated[
    int,
    BeforeValidator(_compression),
    WithJsonSchema({"type": "string", "pattern": "^zstd(-[0-9]{1,2})?$", "examples": ["zstd-3"]}),
]
GroupName = Annotated[str | None, BeforeValidator(_group_name)]
ByteRate = Annotated[
    int | None,
    BeforeValidator(_rate),
    WithJsonSchema({"type": "string", "pattern": RATE_PATTERN, "examples": ["50MiB/s", "none"]}),
]
ArchiveName = Annotated[str | None, BeforeValidator(_archive_name)]
Workers = Annotated[
    int | Literal["auto"],
    BeforeValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}, {"const": "auto"}]}),
]
StorageClass = Annotated[str, AfterValidator(_storage_class)]
ClusterName = Annotated[str, AfterValidator(_cluster_name)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
