"""What differs between two configurations, in words."""

import pytest

from tierproxy.config import Config, parse_config
from tierproxy.config.changes import FOLLOWED, changes

FILE = """\
cluster: {name: prod, bootstrap: [kafka-0:9092], security: {protocol: SASL_SSL, sasl: {mechanism: PLAIN, username: me,
  password: hunter2}}}
listen: {advertised_host: localhost}
archives: {main: {url: "s3://bucket", access_key: AKIA1, secret_key: topsecret}}
defaults: {archive: main, keep_on_broker: {time: 7d}}
topics: [{match: a, compression: zstd-5}, {match: "b.*", segment: {age: 1m}}]
limits: {cold_read_rate: 5MiB/s, cold_clients: [{client_id: x, cold_read_rate: 1MiB/s}]}
"""


def said(*replacements: tuple[str, str], more: str = "") -> list[str]:
    text = FILE
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return [str(change) for change in changes(parse_config(FILE), parse_config(text + more))]


def test_the_same_file_differs_in_nothing() -> None:
    assert said() == []
    assert said(("time: 7d", "time: 168h")) == []


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("zstd-5", "zstd-9", "topics[a].compression: zstd-5 → zstd-9"),
        ("age: 1m", "age: 90s", "topics[b.*].segment.age: 1m → 1m30s"),
        ("age: 1m", "age: 10m", "topics[b.*].segment.age: 1m → 10m"),
        ("age: 1m", "bytes: 1000001B, age: 1m", "topics[b.*].segment.bytes: 128MiB → 1000001B"),
        ("zstd-5", "zstd-5, keep_on_broker: forever", "topics[a].keep_on_broker: {time: 7d} → forever"),
        ("{time: 7d}", "{time: 1d, bytes: 1GiB}", "defaults.keep_on_broker: {time: 7d} → {time: 1d, bytes: 1GiB}"),
        ("{cold_read_rate: 5MiB/s", "{cold_read_rate: none", "limits.cold_read_rate: 5MiB/s → none"),
        (
            "x, cold_read_rate: 1MiB/s",
            "x, cold_read_rate: 2MiB/s",
            "limits.cold_clients[0].cold_read_rate: 1MiB/s → 2MiB/s",
        ),
        (
            "kafka-0:9092",
            "kafka-0:9092, kafka-1:9092",
            "cluster.bootstrap: [kafka-0:9092] → [kafka-0:9092, kafka-1:9092]",
        ),
    ],
)
def test_a_key_is_told_once_with_its_unit(old: str, new: str, change: str) -> None:
    assert said((old, new)) == [change]


def test_policies_are_told_apart_by_what_they_match() -> None:
    assert said(("topics: [", "topics: [{match: new, on_gap: halt}, ")) == [
        "topics[new]: (nothing) → {archive: main, keep_on_broker: {time: 7d}, on_gap: halt, match: new}"
    ]
    assert said(("{match: a, compression: zstd-5}, ", "")) == [
        "topics[a]: {archive: main, keep_on_broker: {time: 7d}, compression: zstd-5, match: a} → (nothing)"
    ]
    first, second = "{match: a, compression: zstd-5}", '{match: "b.*", segment: {age: 1m}}'
    assert said((f"{first}, {second}", f"{second}, {first}")) == ["topics: in the order a, b.* → in the order b.*, a"]


def test_no_secret_is_shown() -> None:
    found = said(
        ("hunter2", "hunter3"),
        ("topsecret", "topsecret2"),
        ("main: {", "two: {url: 's3://two', access_key: AKIA2, secret_key: s}, main: {"),
    )
    assert found == [
        "cluster.security.sasl.password: (secret) → (another one)",
        "archives.main.secret_key: (secret) → (another one)",
        "archives.two: none → {url: s3://two, access_key: (secret), secret_key: (secret)}",
    ]


@pytest.mark.parametrize(
    ("more", "restart"),
    [
        ("log: {level: debug}", False),
        ("log: {format: json}", True),
        (
            "archiver: {read_rate: 1MiB/s, write_rate: 1MiB/s, merge: false, merge_after: 1m, upkeep_interval: 1m}",
            False,
        ),
        ("archiver: {garbage: {grace: 1h, delete: false}}", False),
        ("archiver: {fetch_bytes: 1MiB}", True),
        ("admin: {port: 9180}", True),
        ("workers: 2", True),
        ("prices: {broker_disk: 0.5}", False),
        ("cache: {memory: 1GiB}", True),
    ],
)
def test_what_needs_a_restart(more: str, restart: bool) -> None:
    found = changes(parse_config(FILE), parse_config(FILE + more))
    assert found
    assert [change.needs_restart for change in found] == [restart] * len(found)


def test_an_archive_is_never_taken_for_its_prices() -> None:
    priced = ('main: {url: "s3://bucket"', 'main: {prices: {storage: 0.5}, url: "s3://bucket"')
    odd = ("archives: {", 'archives: {a.prices: {url: "file:///x"}, ')
    found = [changes(parse_config(FILE), parse_config(FILE.replace(*replacement)))[0] for replacement in (priced, odd)]
    assert [each.path for each in found] == ["archives.main.prices.storage", "archives[a.prices]"]
    assert [each.needs_restart for each in found] == [False, True]


@pytest.mark.parametrize("path", [path for path in FOLLOWED if "*" not in path])
def test_what_is_followed_exists(path: str) -> None:
    section: object = Config
    for key in path.split("."):
        fields = section.model_fields  # type: ignore[attr-defined]
        name = next(name for name, info in fields.items() if (info.alias or name) == key or name == f"{key}_ms")
        section = fields[name].annotation
