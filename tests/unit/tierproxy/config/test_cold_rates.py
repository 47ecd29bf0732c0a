"""Rates of cold reads: of a policy's topics, of clients, of the process."""

import pytest

from tierproxy.config import ColdClientLimit, Config, parse_config, warnings
from tierproxy.errors import ConfigError

SASL = "{protocol: SASL_SSL, sasl: {mechanism: SCRAM-SHA-512, username: a, password: b}}"


def config(limits: str, policy: str = "archive: local", security: str = SASL) -> Config:
    return parse_config(
        f"cluster: {{name: prod, bootstrap: [kafka-0:9092], security: {security}}}\n"
        "listen: {advertised_host: localhost, host: localhost}\narchives: {local: {url: 'file:///tmp/a'}}\n"
        f'topics: [{{match: "a", {policy}}}]\nlimits: {{{limits}}}\n'
    )


def test_without_a_word_there_is_no_limit() -> None:
    plain = config("")
    assert (plain.limits.cold_read_rate, plain.limits.cold_clients, plain.topics[0].cold_read_rate) == (None, (), None)


def test_what_is_written() -> None:
    made = config(
        "cold_read_rate: 200MiB/s, cold_clients: [{client_id: 'spark-*', cold_read_rate: 20MiB/s}, "
        "{user: alice, client_id: 'b?', cold_read_rate: none, shared: true}]",
        "archive: local, cold_read_rate: 50MiB/s",
    )
    assert made.topics[0].cold_read_rate == 50 << 20
    assert made.limits.cold_read_rate == 200 << 20
    assert made.limits.cold_clients == (
        ColdClientLimit(client_id="spark-*", cold_read_rate=20 << 20),
        ColdClientLimit(client_id="b?", user="alice", cold_read_rate=None, shared=True),
    )
    assert warnings(made) == []


@pytest.mark.parametrize(
    ("limit", "client_id", "user", "matches"),
    [
        ({"client_id": "spark-*"}, "spark-7", None, True),
        ({"client_id": "spark-*"}, "flink-7", None, False),
        ({"client_id": "*"}, "two\nlines", None, True),
        ({"user": "*"}, "x", "alice", True),
        ({"user": "*"}, "x", None, False),
        ({"user": "al*", "client_id": "x"}, "x", "alice", True),
        ({"user": "al*", "client_id": "x"}, "y", "alice", False),
        ({"user": "al*", "client_id": "x"}, "x", "bob", False),
    ],
)
def test_whom_an_entry_matches(limit: dict[str, str], client_id: str, user: str | None, matches: bool) -> None:
    assert ColdClientLimit.model_validate({**limit, "cold_read_rate": 1024}).matches(client_id, user) is matches


@pytest.mark.parametrize(
    ("limits", "policy", "words"),
    [
        ("cold_clients: [{cold_read_rate: 1MiB/s}]", "archive: local", "names no client: give client_id, user or both"),
        ("cold_clients: [{client_id: a}]", "archive: local", r"cold_clients\[0\]\.cold_read_rate"),
        ("cold_clients: [{client_id: 5, cold_read_rate: none}]", "archive: local", "a name, or a pattern .* a number"),
        ("cold_clients: [{user: '', cold_read_rate: none}]", "archive: local", "is empty"),
        ("cold_read_rate: 5", "archive: local", "unit"),
        ("", "archive: none, cold_read_rate: 1MiB/s", "has no effect"),
        (
            "cold_clients: [{client_id: 'a*', cold_read_rate: none}, {client_id: ab, user: x, cold_read_rate: none}]",
            "archive: local",
            r"cold_clients\[1\].*can never match: limits.cold_clients\[0\] takes its clients first",
        ),
    ],
)
def test_what_can_not_be(limits: str, policy: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(limits, policy)


def test_an_entry_for_users_leaves_those_without_one() -> None:
    config("cold_clients: [{user: '*', cold_read_rate: none}, {client_id: '*', cold_read_rate: none}]")


def test_what_is_hardly_meant() -> None:
    made = config(
        "cold_read_rate: 1MiB/s, cold_clients: [{user: x, cold_read_rate: 1MiB/s}]",
        "archive: local, cold_read_rate: 2MiB/s",
        "{protocol: PLAINTEXT}",
    )
    assert [str(fault) for fault in warnings(made)] == [
        "topics[0].cold_read_rate: has no effect: limits.cold_read_rate is no more for all together",
        "limits.cold_clients[0].cold_read_rate: has no effect: limits.cold_read_rate is no more for all together",
        "limits.cold_clients[0].user: matches nobody: with PLAINTEXT clients have no SASL user",
    ]


def test_processes_keep_to_the_rates_together() -> None:
    whole = config(
        "cold_read_rate: 4MiB/s, cold_clients: [{user: a, cold_read_rate: 2MiB/s}, {user: b, cold_read_rate: none}]",
        "archive: local, cold_read_rate: 1MiB/s",
    )
    part = whole.cold_rates_shared(4)
    assert part.limits.cold_read_rate == 1 << 20
    assert [each.cold_read_rate for each in part.limits.cold_clients] == [512 << 10, None]
    assert part.topics[0].cold_read_rate == 256 << 10
    assert part.cold_rates_shared(1) == part
