"""What a person is told about a configuration file: every fault, where it stands, and what to write."""

import os
from pathlib import Path

import pytest

from tierproxy.archive.stores import s3_place
from tierproxy.config import Config, Keep, TopicPolicy, load_config, parse_config, warnings
from tierproxy.errors import ConfigError

GOOD = """\
cluster:
  name: prod
  bootstrap: [kafka-0:9092, "[::1]:9093"]
listen:
  port: 9192
  advertised_host: localhost
archives:
  main: {url: "s3://my-bucket/kafka", region: eu-central-1}
topics:
  - match: "payments.*"
    archive: main
    keep_on_broker: {time: 7d, bytes: 200GiB}
    segment: {bytes: 128MiB, age: 10m}
    compression: zstd-5
  - match: "*"
    archive: none
"""


def faults(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, environ=environ or {})
    return [str(fault) for fault in caught.value.faults]


def test_a_good_file_becomes_plain_units() -> None:
    config = parse_config(GOOD)
    assert config.cluster.bootstrap == (("kafka-0", 9092), ("::1", 9093))
    assert [str(broker) for broker in config.cluster.bootstrap] == ["kafka-0:9092", "[::1]:9093"]
    payments, rest = config.topics
    assert payments.keep_on_broker == Keep(time_ms=604_800_000, bytes=200 * 2**30)
    assert (payments.segment.bytes, payments.segment.age_ms) == (134_217_728, 600_000)
    assert (payments.compression, payments.trim, payments.on_gap) == (5, "delete-records", "skip")
    assert rest.archive is None
    assert config.admin is None
    assert warnings(config) == []


def test_what_stays_in_the_archive() -> None:
    def kept(text: str) -> Keep:
        return parse_config(GOOD.replace("compression: zstd-5", text)).topics[0].keep_in_archive

    assert kept("compression: zstd-5") == kept("keep_in_archive: forever") == Keep()
    assert kept("keep_in_archive: {time: 365d}") == Keep(time_ms=365 * 86_400_000)
    assert kept("keep_in_archive: {time: 7d, bytes: 1TiB}") == Keep(time_ms=604_800_000, bytes=2**40)


def test_who_serves_no_clients_needs_no_name_for_them() -> None:
    config = parse_config(GOOD.replace("advertised_host: localhost", "enabled: false"))
    assert not config.listen.enabled


def test_how_many_workers() -> None:
    assert parse_config(GOOD).workers == 1
    assert [parse_config(f"{GOOD}workers: {text}").workers for text in ("auto", "4", '"4"')] == ["auto", 4, 4]
    for text, shown in (("0", "0"), ("257", "257"), ("many", "'many'"), ("yes", "true or false"), ("1.5", "a number")):
        assert faults(f"{GOOD}workers: {text}") == [
            f"workers (line 17): must be a number of processes from 1 to 256, or auto, not {shown}"
        ]


def test_bootstrap_may_be_written_as_kafka_tools_do() -> None:
    text = GOOD.replace('[kafka-0:9092, "[::1]:9093"]', "kafka-0:9092, kafka-1:9092")
    assert parse_config(text).cluster.bootstrap == (("kafka-0", 9092), ("kafka-1", 9092))


def test_programs_may_hand_in_plain_numbers() -> None:
    policy = TopicPolicy(match="a", archive="main", keep_on_broker=Keep(time_ms=5), compression=7)
    assert (policy.keep_on_broker.time_ms, policy.compression) == (5, 7)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: prod", 'name: "pr/od"', "cluster.name (line 2): 'pr/od' can't name a folder of the archive"),
        (
            "name: prod",
            "name: 2024-01-01",
            "cluster.name (line 2): must be text (put it in quotes), not a date",
        ),
        ("  name: prod\n", "", "cluster.name (line 1): is required"),
        ("  name: prod", "  name:", "cluster.name (line 2): is required"),
        ("kafka-0:9092", "kafka-0", "cluster.bootstrap[0] (line 3): 'kafka-0' has no port; write host:port"),
        ("kafka-0:9092", "kafka-0:x", "cluster.bootstrap[0] (line 3): 'kafka-0:x': 'x' is not a port number"),
        ("kafka-0:9092", "kafka-0:99999", "cluster.bootstrap[0] (line 3): 99999 is not a port"),
        ("kafka-0:9092", "9092", "cluster.bootstrap[0] (line 3): must be host:port, not a number"),
        ("kafka-0:9092", '"tcp://k:1"', "cluster.bootstrap[0] (line 3): 'tcp://k:1' has no port"),
        ("kafka-0:9092", '"[::1:1"', "cluster.bootstrap[0] (line 3): '[::1' is not a host name"),
        ('[kafka-0:9092, "[::1]:9093"]', "[]", "cluster.bootstrap (line 3): must name at least one broker"),
        ("port: 9192", "port: 0", "listen.port (line 5): 0 is not a port: ports go from 1 to 65535"),
        ("port: 9192", "port: 65536", "listen.port (line 5): 65536 is not a port"),
        ("port: 9192", "port: 65535", "listen.port (line 5): leaves no port for the brokers"),
        ("port: 9192", "port: yes", "listen.port (line 5): must be a port number, not true or false"),
        ("port: 9192", "prot: 9192", "listen.prot (line 5): is not a known key; did you mean 'port'?"),
        ("advertised_host: localhost", "host: a", "listen.advertised_host (line 4): is required"),
        (
            "host: localhost",
            "host: 0.0.0.0",
            "listen.advertised_host (line 6): is where this machine listens",
        ),
        ("host: localhost", "host: http://me", "listen.advertised_host (line 6): 'http://me' must be a host"),
        ("s3://my-bucket/kafka", "s3:///kafka", "archives.main.url (line 8): 's3:///kafka' names no bucket"),
        (
            "s3://my-bucket/kafka",
            "gs://b",
            "archives.main.url (line 8): 'gs://b' is not an archive's address",
        ),
        ("s3://my-bucket/kafka", "s3://a:b@c", "archives.main.url (line 8): must not hold credentials"),
        (
            '"s3://my-bucket/kafka", region: eu-central-1',
            '"file://var/x"',
            "archives.main.url (line 8): 'file://var/x' needs an absolute path",
        ),
        ("s3://my-bucket/kafka", "file:///x", "archives.main.region (line 8): means nothing for a file://"),
        (
            "region: eu",
            "regoin: eu",
            "archives.main.regoin (line 8): is not a known key; did you mean 'region'?",
        ),
        (
            "region: eu-central-1",
            "storage_class: GLACIER",
            "archives.main.storage_class (line 8): GLACIER: its",
        ),
        (
            "archive: main",
            "archive: main\n    storage_class: deep_archive",
            "topics[0].storage_class (line 12): deep_archive: its objects can't be read at once",
        ),
        (
            "archive: main",
            "archive: none\n    storage_class: STANDARD_IA",
            "topics[0].storage_class (line 12): has no effect",
        ),
        (
            '"s3://my-bucket/kafka", region: eu-central-1}\ntopics:\n',
            '"file:///x"}\ntopics:\n  - {match: a, archive: main, storage_class: X}\n',
            "topics[0].storage_class (line 10): means nothing for 'main', which is a file:// archive",
        ),
        ("region: eu-central-1", "access_key: a", "archives.main (line 8): has access_key but no secret_key"),
        ("region: eu-central-1", "session_token: a", "archives.main (line 8): has session_token but neither"),
        (
            "region: eu-central-1",
            "endpoint_url: minio:9",
            "archives.main.endpoint_url (line 8): must look like",
        ),
        ("  main: {", "  none: {url: file:///x}\n  main: {", "archives.none (line 8): this name is taken"),
        (
            "archive: main",
            "archive: mian",
            "topics[0].archive (line 11): 'mian' is not defined under archives; did",
        ),
        (
            "archive: main",
            "archive: off",
            "topics[0].archive (line 11): YAML reads this word as true or false",
        ),
        (
            "  advertised_host: localhost\n",
            "  enabled: false\narchiver: {enabled: false}\n",
            "listen.enabled (line 6): is false, and so is archiver.enabled",
        ),
        ("    archive: main\n", "", "topics[0].archive (line 10): is required"),
        ("time: 7d", "time: 7", "topics[0].keep_on_broker.time (line 12): '7' needs a unit"),
        ("time: 7d", "time: 7 days", "topics[0].keep_on_broker.time (line 12): '7 days' has an unknown unit"),
        ("time: 7d", "time: [7d]", "topics[0].keep_on_broker.time (line 12): must be a number with a unit"),
        ("time: 7d", "tiem: 7d", "topics[0].keep_on_broker.tiem (line 12): is not a known key; did you mean"),
        ("time: 7d", "time_ms: 7", "topics[0].keep_on_broker.time_ms (line 12): is not a known key; did you"),
        (
            "bytes: 200GiB",
            "bytes: 200G",
            "topics[0].keep_on_broker.bytes (line 12): '200G' can mean two things",
        ),
        (
            "bytes: 128MiB",
            "bytes: 1B",
            "topics[0].segment.bytes (line 13): must be between 1 KiB and 5 GiB, not",
        ),
        ("age: 10m", "age: 1ms", "topics[0].segment.age (line 13): must be between 10ms and 7d, not 1ms"),
        ("{time: 7d, bytes: 200GiB}", "7d", "topics[0].keep_on_broker (line 12): must be forever, or limits"),
        ("zstd-5", "zstd-20", "topics[0].compression (line 14): 'zstd-20' is not one of zstd-1 … zstd-19"),
        ("zstd-5", "gzip", "topics[0].compression (line 14): 'gzip' is not one of"),
        (
            "compression: zstd-5",
            "keep_in_archive: 5y",
            "topics[0].keep_in_archive (line 14): must be forever, or limits",
        ),
        (
            "compression: zstd-5",
            "keep_in_archive: {}",
            "topics[0].keep_in_archive (line 14): must be forever, or limits",
        ),
        (
            "compression: zstd-5",
            "keep_in_archive: {tiem: 1d}",
            "topics[0].keep_in_archive.tiem (line 14): is not a known key; did you mean 'time'?",
        ),
        (
            "topics:",
            "archiver: {garbage: {grace: 1m}}\ntopics:",
            "archiver.garbage.grace (line 9): must be between 10m",
        ),
        (
            "compression: zstd-5",
            "trim: later",
            "topics[0].trim (line 14): must be 'delete-records' or 'never', not",
        ),
        ('"payments.*"', '"^payments.*$"', "topics[0].match (line 10): '^payments.*$' can match no topic"),
        (
            '"payments.*"',
            '"*"',
            "topics[1].match (line 15): '*' can never match: topics[0] '*' takes its topics",
        ),
        ("archive: none", "archive: none\n    trim: never", "topics[1].trim (line 17): has no effect"),
        ("topics:", "topcis: 1\ntopics:", "topcis (line 9): is not a known key; did you mean 'topics'?"),
        ("topics:", "cache: {disk: {path: /x}}\ntopics:", "cache.disk.size (line 9): is required"),
        (
            "topics:",
            "cache: {disk: {path: x, size: 1GiB}}\ntopics:",
            "cache.disk.path (line 9): 'x' must be an absolute path, for example",
        ),
        (
            "topics:",
            "cache: {disk: {path: /, size: 1GiB}}\ntopics:",
            "cache.disk.path (line 9): must be a directory of its own",
        ),
        (
            "topics:",
            "cache: {disk: {path: /x, size: 1MiB}}\ntopics:",
            "cache.disk.size (line 9): must be between 256 MiB",
        ),
        (
            "topics:",
            "cache: {disk: {path: /x/y, size: 1GiB}}\narchiver: {spool: /x}\ntopics:",
            "cache.disk.path (line 9): '/x/y' and archiver.spool must not lie in each other",
        ),
        ("topics:", "admin: {port: 9192}\ntopics:", "admin.port (line 9): is the same port as listen.port"),
        (
            "topics:",
            "log: {level: loud}\ntopics:",
            "log.level (line 9): must be 'debug', 'info', 'warning' or",
        ),
        (
            "topics:",
            "archiver: {enabled: 3}\ntopics:",
            "archiver.enabled (line 9): must be true or false, not 3",
        ),
        (
            "topics:",
            "archiver: {uploads: 0}\ntopics:",
            "archiver.uploads (line 9): must be between 1 and 64, not",
        ),
        (
            "topics:",
            "archiver: {uploads: x}\ntopics:",
            "archiver.uploads (line 9): must be a whole number, not",
        ),
        ("topics:", "archives: {}\ntopics:", "archives (line 9): is written twice, first in line 7"),
        (
            "  port: 9192",
            "  port: 9192\n  port: 9193",
            "listen.port (line 6): is written twice, first in line 5",
        ),
        ("topics:", "on: 1\ntopics:", "line 9: 'on' is not a name here; put it in quotes"),
        (
            "name: prod",
            "name: ${CLUSTER}",
            "cluster.name (line 2): the environment variable CLUSTER is not set",
        ),
        ("name: prod", "name: ${A-B}", "cluster.name (line 2): '${A-B}' is not a variable"),
    ],
)
def test_one_fault_is_told_with_its_path(old: str, new: str, told: str) -> None:
    assert old in GOOD
    found = faults(GOOD.replace(old, new, 1))
    assert any(fault.startswith(told) for fault in found), found


def test_all_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    text = (
        GOOD.replace("kafka-0:9092", "kafka-0")
        .replace("port: 9192", "port: 0")
        .replace("archive: main", "archive: mine")
        .replace("time: 7d", "time: 7")
    )
    assert [fault.split(":")[0] for fault in faults(text)] == [
        "cluster.bootstrap[0] (line 3)",
        "listen.port (line 5)",
        "topics[0].archive (line 11)",
        "topics[0].keep_on_broker.time (line 12)",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty; start from config.example.yaml"),
        ("# only a comment\n", "is empty; start from config.example.yaml"),
        ("- a\n", "line 1: must be a mapping at the top"),
        ("a: b: c\n", "line 1: is not valid YAML: mapping values are not allowed here"),
        (
            "a:\n\t- b\n",
            "line 2: is not valid YAML: found character '\\t' that cannot start any token; indent",
        ),
        ("a:\n  b: [1\n", "line 3: is not valid YAML: expected ',' or ']'"),
        ("a: \x01\n", "line 1: is not valid YAML: character #x01 is not allowed"),
        ("a: 1\n---\nb: 1\n", "line 2: is not valid YAML: but found another document"),
        ("a: *nobody\n", "line 1: is not valid YAML: found undefined alias"),
    ],
)
def test_text_that_is_not_yaml_is_told_with_its_line(text: str, told: str) -> None:
    (fault,) = faults(text)
    assert fault.startswith(told)


def test_a_value_that_contains_itself_is_refused() -> None:
    assert "cluster[0] (line 1): refers to itself" in faults("cluster: &x [*x]\n")


def test_merge_keys_and_anchors_work_and_are_no_duplicates() -> None:
    text = GOOD.replace(
        '  - match: "*"\n    archive: none\n',
        "  - &base {match: a, archive: main, segment: &s {bytes: 1MiB, age: 1m}}\n"
        "  - &own {<<: *base, match: b, segment: {<<: *s, age: 2m}}\n"
        "  - {<<: *own, match: c}\n",
    )
    policies = parse_config(text).topics[1:]
    assert [policy.match for policy in policies] == ["a", "b", "c"]
    assert [policy.segment.age_ms for policy in policies] == [60_000, 120_000, 120_000]
    assert {policy.segment.bytes for policy in policies} == {2**20}


def test_environment_is_put_in_after_parsing() -> None:
    text = (
        GOOD.replace("name: prod", "name: ${NAME}")
        .replace("port: 9192", "port: ${PORT}")
        .replace("region: eu-central-1", 'region: "${REGION:-eu}-1", endpoint_url: "${ENDPOINT:-}"')
        .replace("host: localhost", "host: $$host")
    )
    config = parse_config(text.replace("$$host", "${HOST}"), environ={"NAME": "a", "PORT": "1", "HOST": "h-1"})
    assert (config.cluster.name, config.listen.port, config.listen.advertised_host) == ("a", 1, "h-1")
    assert (config.archives["main"].region, config.archives["main"].endpoint_url) == ("eu-1", None)
    injected = faults(text, {"NAME": "{x: [1]}", "PORT": "1"})
    assert any(fault.startswith("cluster.name (line 2): '${NAME}' can't name") for fault in injected)


def test_doubled_dollar_is_a_plain_one() -> None:
    found = faults(GOOD.replace("name: prod", 'name: "$${NAME}"'), {"NAME": "secret"})
    assert found[0].startswith("cluster.name (line 2): '$${NAME}' can't name")


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("zstd-5", "${KEY}"),
        ("port: 9192", "port: ${KEY}"),
        ("time: 7d", "time: ${KEY}"),
        ("name: prod", 'name: "${KEY}/"'),
        ("archive: main", "archive: ${KEY}"),
        ("s3://my-bucket/kafka", "${KEY}"),
        ("kafka-0:9092", "${KEY}"),
        ("region: eu-central-1", "endpoint_url: ${KEY}"),
        ("region: eu-central-1", "access_key: ${KEY}"),
        ("compression: zstd-5", "trim: ${KEY}"),
        ("topics:", "log: {level: '${KEY}'}\ntopics:"),
        ("topics:", "archiver: {uploads: '${KEY}'}\ntopics:"),
    ],
)
def test_what_the_environment_holds_is_never_shown(old: str, new: str) -> None:
    told = "\n".join(faults(GOOD.replace(old, new, 1), {"KEY": SECRET}))
    assert told
    assert SECRET not in told


def test_secrets_come_from_files_again_and_again_and_never_show(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("AKIA123\n")
    (tmp_path / "secret").write_text(SECRET + "\r\n")
    file = tmp_path / "config.yaml"
    file.write_text(
        GOOD.replace("region: eu-central-1", f"access_key_file: key, secret_key_file: {tmp_path / 'secret'}")
    )
    config = load_config(file)
    archive = config.archives["main"]
    keys = s3_place(archive).read_keys()
    assert keys == ("AKIA123", SECRET, None, None)
    (tmp_path / "key").write_text("AKIA124\n")
    assert s3_place(archive).read_keys() == ("AKIA124", SECRET, None, None)
    for shown in (repr(config), str(config), config.model_dump_json(), repr(keys)):
        assert SECRET not in shown


def test_secret_files_that_are_of_no_use_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    file = tmp_path / "config.yaml"
    file.write_text(
        GOOD.replace(
            "region: eu-central-1",
            "access_key_file: empty, secret_key_file: missing, session_token_file: binary",
        )
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert [str(fault) for fault in caught.value.faults] == [
        "archives.main.access_key_file (line 8): 'empty' is empty",
        "archives.main.secret_key_file (line 8): 'missing' can't be read: No such file or directory",
        "archives.main.session_token_file (line 8): 'binary' can't be read: it is not text",
    ]


def test_a_secret_is_given_once() -> None:
    text = GOOD.replace("region: eu-central-1", "access_key: a, access_key_file: b, secret_key: 5")
    assert faults(text) == [
        "archives.main.access_key_file (line 8): say either access_key or access_key_file, not both",
        "archives.main.secret_key (line 8): must be text: put it in quotes",
    ]


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file or directory"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4\n")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 3\)"):
        load_config(os.fspath(tmp_path / "latin.yaml"))


@pytest.mark.parametrize(
    ("topic", "internal", "archive"),
    [
        ("payments.eu", False, "main"),
        ("payments", False, None),
        ("Payments.eu", False, None),
        ("__consumer_offsets", True, "absent"),
        ("payments.__x", True, "absent"),
    ],
)
def test_first_match_wins(topic: str, internal: bool, archive: str | None) -> None:
    policy = parse_config(GOOD).policy_for(topic, internal)
    assert ("absent" if policy is None else policy.archive) == archive


def test_internal_topics_are_matched_by_exact_name_even_after_a_catch_all() -> None:
    config = parse_config(GOOD + '  - match: "__consumer_offsets"\n    archive: main\n')
    policy = config.policy_for("__consumer_offsets", internal=True)
    assert policy is config.topics[2]


def test_a_frozen_tree() -> None:
    config: Config = parse_config(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        config.listen.port = 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  main: {", "  spare: {url: file:///x}\n  main: {", "archives.spare: is defined, but no policy"),
        ("archive: main", "archive: main\n    trim: never", "topics[0].keep_on_broker: has no effect with"),
        (
            "compression: zstd-5",
            "keep_in_archive: {time: 6d}",
            "topics[0].keep_in_archive.time: is less than keep_on_broker (6d, 7d): nothing expires",
        ),
        (
            "compression: zstd-5",
            "keep_in_archive: {bytes: 1GiB, time: 365d}",
            "topics[0].keep_in_archive.bytes: is less than keep_on_broker (1 GiB, 200 GiB)",
        ),
        ("topics:", "admin: {port: 9195}\ntopics:", "admin.port: is the port where broker 2 would be served"),
    ],
)
def test_what_is_hardly_meant_is_a_warning(old: str, new: str, told: str) -> None:
    (warning,) = warnings(parse_config(GOOD.replace(old, new, 1)))
    assert str(warning).startswith(told)


def test_archiving_nothing_is_a_warning() -> None:
    text = GOOD.split("archives:")[0]
    assert [str(warning) for warning in warnings(parse_config(text))] == [
        "topics: no policy names an archive: nothing will be archived, only proxied"
    ]
