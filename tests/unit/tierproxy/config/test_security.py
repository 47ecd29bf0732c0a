"""What a person is told about cluster.security and listen.tls: every fault, where it stands, and what to write."""

from pathlib import Path

import pytest

from tests.kit.certificates import Authority, encrypt_key
from tierproxy.config import Config, load_config, parse_config, warnings
from tierproxy.errors import ConfigError

CLUSTER = """\
cluster:
  name: prod
  bootstrap: [kafka-0:9092]
  security: {}
listen:
  advertised_host: localhost
archives: {{a: {{url: file:///x}}}}
topics: [{{match: "*", archive: a}}]
"""
LISTEN = """\
cluster: {{name: prod, bootstrap: [kafka-0:9092]}}
listen: {}
archives: {{a: {{url: file:///x}}}}
topics: [{{match: "*", archive: a}}]
"""
SCRAM = "{mechanism: SCRAM-SHA-256, username: u, password: hunter2}"


def faults(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, environ=environ or {})
    return [str(fault) for fault in caught.value.faults]


def test_nothing_said_means_plaintext() -> None:
    security = parse_config(LISTEN.format("{advertised_host: h}")).cluster.security
    assert (security.protocol, security.sasl, security.encrypted, security.authenticated) == (
        "PLAINTEXT",
        None,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("security", "told"),
    [
        ("{protocol: SASL_SLL}", "cluster.security.protocol (line 4): must be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT'"),
        ("{protocol: SASL_SSL}", "cluster.security (line 4): has no sasl section: SASL_SSL needs the service account"),
        (f"{{protocol: SSL, sasl: {SCRAM}}}", "cluster.security.sasl (line 4): means nothing with SSL: use SASL_SSL"),
        (f"{{sasl: {SCRAM}}}", "cluster.security.sasl (line 4): means nothing with PLAINTEXT: use SASL_PLAINTEXT"),
        ("{tls: {verify_hostname: no}}", "cluster.security.tls (line 4): means nothing with PLAINTEXT: use SSL"),
        (
            f"{{protocol: SASL_PLAINTEXT, sasl: {SCRAM}, tls: {{server_name: x}}}}",
            "cluster.security.tls (line 4): means nothing with SASL_PLAINTEXT: use SASL_SSL",
        ),
        ("{protocol: SSL, tls: {cert_file: x}}", "cluster.security.tls (line 4): has cert_file but no key_file"),
        ("{protocol: SSL, tls: {key_file: x}}", "cluster.security.tls (line 4): has key_file but no cert_file"),
        ("{protocol: SSL, tls: {ca_flie: x}}", "cluster.security.tls.ca_flie (line 4): is not a known key; did you"),
        (
            "{protocol: SSL, tls: {verify_hostname: maybe}}",
            "cluster.security.tls.verify_hostname (line 4): must be true or false",
        ),
        (
            "{protocol: SSL, tls: {server_name: 'a b'}}",
            "cluster.security.tls.server_name (line 4): 'a b' is not a host",
        ),
        ("{protocol: SSL, tls: yes}", "cluster.security.tls (line 4): must be a mapping"),
    ],
)
def test_one_fault_of_the_protocol_is_told_with_its_path(security: str, told: str) -> None:
    found = faults(CLUSTER.format(security))
    assert len(found) == 1, found
    assert found[0].startswith(told)


@pytest.mark.parametrize(
    ("sasl", "told"),
    [
        ("{mechanism: GSSAPI}", ".mechanism (line 4): must be 'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512' or 'OAUTH"),
        ("{username: u, password: p}", ".mechanism (line 4): is required"),
        ("{mechanism: PLAIN, password: p}", ".username (line 4): is required with PLAIN"),
        ("{mechanism: PLAIN, username: u}", " (line 4): has no password and no password_file: PLAIN needs one"),
        ("{mechanism: PLAIN, username: u, password: ''}", ".password (line 4): is empty"),
        ("{mechanism: PLAIN, username: u, password: 12}", ".password (line 4): must be text: put it in quotes"),
        ("{mechanism: PLAIN, username: 5, password: p}", ".username (line 4): must be text (put it in quotes)"),
        (
            "{mechanism: PLAIN, username: u, password: p, password_file: f}",
            ".password_file (line 4): say either password or password_file, not both",
        ),
        (
            "{mechanism: PLAIN, username: u, password_file: /nowhere/to/be/found}",
            ".password_file (line 4): '/nowhere/to/be/found' can't be read: No such file or directory",
        ),
        ("{mechanism: PLAIN, username: u, password: p, token: t}", ".token (line 4): means nothing with PLAIN"),
        ("{mechanism: OAUTHBEARER}", " (line 4): has no token and no token_file: OAUTHBEARER needs one of them"),
        ("{mechanism: OAUTHBEARER, token: t, username: u}", ".username (line 4): means nothing with OAUTHBEARER"),
        ("{mechanism: OAUTHBEARER, token: t, password: u}", ".password (line 4): means nothing with OAUTHBEARER"),
        ("{mechanism: OAUTHBEARER, token: '${UNSET}'}", ".token (line 4): the environment variable UNSET is not set"),
    ],
)
def test_one_fault_of_the_account_is_told_with_its_path(sasl: str, told: str) -> None:
    found = faults(CLUSTER.format(f"{{protocol: SASL_PLAINTEXT, sasl: {sasl}}}"))
    assert len(found) == 1, found
    assert found[0].startswith("cluster.security.sasl" + told)


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("{}", "listen.advertised_host (line 2): is required"),
        ("{advertised_host: h, tls: {}}", "listen.tls.cert_file (line 2): is required"),
        ("{advertised_host: h, tls: {cert_file: c}}", "listen.tls.key_file (line 2): is required"),
        (
            "{advertised_host: h, tls: {cert_file: /no/c, key_file: /no/k}}",
            "listen.tls.cert_file (line 2): '/no/c' can't be read: No such file or directory",
        ),
        ("{sni: {bootstrap: b, broker: 'b{node}'}}", "listen.sni (line 2): needs listen.tls"),
    ],
)
def test_a_fault_of_the_listener_is_told_with_its_path(listen: str, told: str) -> None:
    found = faults(LISTEN.format(listen))
    assert found[0].startswith(told), found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("server", ["localhost"])
    made.issue("other", ["localhost"])
    encrypt_key(made.issue("locked").key_file)
    made.issue("broken").cert_file.write_text("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    return made


def load(folder: Path, text: str) -> Config:
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml", environ={})


def file_faults(authority: Authority, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(authority.directory, text)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        ("cert_file: server.pem, key_file: other.key", "key_file (line 2): 'other.key' is not the key of the certif"),
        ("cert_file: server.key, key_file: server.key", "cert_file (line 2): 'server.key' holds no certificate (PEM)"),
        ("cert_file: server.pem, key_file: server.pem", "key_file (line 2): 'server.pem' holds no private key (PEM)"),
        (
            "cert_file: locked.pem, key_file: locked.key",
            "key_file (line 2): 'locked.key' is encrypted: tierproxy needs",
        ),
        ("cert_file: broken.pem, key_file: broken.key", "cert_file (line 2): 'broken.pem' can't be used"),
        ("cert_file: server.pem, key_file: .", "key_file (line 2): '.' can't be read: Is a directory"),
        ("cert_file: server.pem, key_file: server.key, client_auth: required", "client_auth (line 2): can't be: a cl"),
        ("cert_file: server.pem, key_file: server.key, ca_file: ca.pem", "ca_file (line 2): can't be: a client's"),
    ],
)
def test_what_is_wrong_with_our_certificate(authority: Authority, tls: str, told: str) -> None:
    (fault,) = file_faults(authority, LISTEN.format(f"{{advertised_host: h, tls: {{{tls}}}}}"))
    assert fault.startswith(f"listen.tls.{told}")


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        ("ca_file: server.key", "ca_file (line 4): 'server.key' holds no certificate that can be read (PEM)"),
        ("ca_file: broken.pem", "ca_file (line 4): 'broken.pem' holds no certificate that can be read (PEM)"),
        ("ca_file: missing.pem", "ca_file (line 4): 'missing.pem' can't be read: No such file or directory"),
        ("ca_file: ca.pem, cert_file: server.pem, key_file: other.key", "key_file (line 4): 'other.key' is not the"),
    ],
)
def test_what_is_wrong_with_certificates_for_brokers(authority: Authority, tls: str, told: str) -> None:
    (fault,) = file_faults(authority, CLUSTER.format(f"{{protocol: SSL, tls: {{{tls}}}}}"))
    assert fault.startswith(f"cluster.security.tls.{told}")


def test_files_are_looked_for_beside_the_configuration(authority: Authority) -> None:
    folder = authority.directory
    (folder / "password").write_text("hunter2\n")
    tls = "{ca_file: ca.pem, cert_file: server.pem, key_file: server.key, server_name: kafka}"
    sasl = "{mechanism: SCRAM-SHA-512, username: u, password_file: password}"
    security = load(folder, CLUSTER.format(f"{{protocol: SASL_SSL, sasl: {sasl}, tls: {tls}}}")).cluster.security
    assert security.tls.ca_file == folder / "ca.pem"
    assert (security.tls.cert_file, security.tls.key_file) == (folder / "server.pem", folder / "server.key")
    assert (security.tls.verify_hostname, security.tls.server_name) == (True, "kafka")
    assert security.sasl is not None
    assert (security.sasl.password, security.sasl.password_file) == (None, folder / "password")  # read at each use
    assert (security.encrypted, security.authenticated) == (True, True)


SNI = "{{tls: {{cert_file: server.pem, key_file: server.key}}, sni: {}}}"


@pytest.mark.parametrize(
    ("sni", "told"),
    [
        ("{bootstrap: k}", "broker (line 2): is required"),
        ("{broker: 'b{node}'}", "bootstrap (line 2): is required"),
        ("{bootstrap: k, broker: b}", "broker (line 2): 'b' must hold {node} once"),
        ("{bootstrap: k, broker: '{node}-{node}'}", "broker (line 2): '{node}-{node}' must hold {node} once"),
        ("{bootstrap: k, broker: 'https://b{node}'}", "broker (line 2): 'https://b0' must be a host name"),
        ("{bootstrap: b7.k, broker: 'B{node}.k'}", "bootstrap (line 2): 'b7.k' is also the name of broker 7"),
    ],
)
def test_what_is_wrong_with_server_names(authority: Authority, sni: str, told: str) -> None:
    (fault,) = file_faults(authority, LISTEN.format(SNI.format(sni)))
    assert fault.startswith(f"listen.sni.{told}")


def test_server_names_take_the_place_of_the_advertised_host(authority: Authority) -> None:
    good = LISTEN.format(SNI.format("{bootstrap: k, broker: 'b{node}'}"))
    config = load(authority.directory, good)
    assert config.listen.sni is not None
    assert (config.listen.sni.bootstrap, config.listen.sni.broker) == ("k", "b{node}")
    assert config.listen.advertised_host is None
    assert file_faults(authority, good.replace("{tls:", "{advertised_host: h, tls:"))[0].startswith(
        "listen.advertised_host (line 2): has no effect with listen.sni"
    )
    assert load(authority.directory, good.replace("{tls:", "{port: 65535, tls:")).listen.port == 65535


@pytest.mark.parametrize(
    ("sasl", "told"),
    [
        ("{mechanism: PLAIN, username: u, password: '${KEY}', password_file: x}", "not both"),
        ("{mechanism: '${KEY}', username: u, password: p}", "not '${KEY}'"),
        ("{mechanism: PLAIN, username: u, password: '${KEY}', token: '${KEY}'}", "means nothing"),
        ("{mechanism: PLAIN, username: u, password: ['${KEY}']}", "must be text"),
        ("{mechanism: PLAIN, username: u, password_file: '${KEY}'}", "'${KEY}' can't be read"),
        ("{mechanism: PLAIN, usrname: u, password: hunter2hunter2}", "did you mean 'username'"),
    ],
)
def test_no_fault_shows_a_secret(sasl: str, told: str) -> None:
    text = CLUSTER.format(f"{{protocol: SASL_PLAINTEXT, sasl: {sasl}}}")
    found = "\n".join(faults(text, {"KEY": "hunter2hunter2"}))
    assert told in found
    assert "hunter2hunter2" not in found


def test_a_good_configuration_does_not_show_its_secrets() -> None:
    for sasl in ("{mechanism: PLAIN, username: u, password: hunter2}", "{mechanism: OAUTHBEARER, token: hunter2}"):
        config = parse_config(CLUSTER.format(f"{{protocol: SASL_PLAINTEXT, sasl: {sasl}}}"), environ={})
        for shown in (repr(config), str(config), config.model_dump_json()):
            assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("security", "told"),
    [
        (
            "{protocol: SASL_PLAINTEXT, sasl: {mechanism: PLAIN, username: u, password: p}}",
            ["cluster.security.sasl.mechanism: PLAIN sends the password readable: use SASL_SSL"],
        ),
        ("{protocol: SASL_PLAINTEXT, sasl: " + SCRAM + "}", []),
        (
            "{protocol: SSL}",
            ["cluster.security.protocol: clients' certificates can't pass", "listen: has no tls: what is encrypted on"],
        ),
        (
            "{protocol: SASL_SSL, sasl: " + SCRAM + ", tls: {verify_hostname: false}}",
            ["listen: has no tls", "cluster.security.tls.verify_hostname: is off: anybody with a certificate"],
        ),
    ],
)
def test_what_is_allowed_but_hardly_meant(security: str, told: list[str]) -> None:
    found = [str(fault) for fault in warnings(parse_config(CLUSTER.format(security)))]
    assert len(found) == len(told), found
    assert all(fault.startswith(words) for fault, words in zip(found, told, strict=True)), found
