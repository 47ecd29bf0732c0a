"""Contexts that follow their files. What they do in a handshake is shown where there is one (test_listener_tls.py)."""

import os
import ssl
from pathlib import Path

import pytest

from tests.kit.certificates import Authority, Certificate
from tierproxy.access import client_tls, service_access
from tierproxy.config import SecurityConfig
from tierproxy.tls import FollowedContext, TlsFault, broker_context, server_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def followed(certificate: Certificate) -> FollowedContext:
    files = [certificate.cert_file, certificate.key_file]
    return FollowedContext("listen.tls", files, lambda: server_context(*files))


def test_our_context_speaks_new_tls_only_and_asks_for_no_certificate(authority: Authority) -> None:
    server = authority.issue("server")
    context = server_context(server.cert_file, server.key_file)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE


def test_brokers_are_verified_by_default(authority: Authority) -> None:
    context = broker_context(authority.ca_file)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1
    unchecked = broker_context(authority.ca_file, verify_hostname=False)
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_a_new_certificate_is_taken_once_it_is_all_there(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    context = followed(authority.issue("server"))
    first = context.context
    for _ in range(3):
        context.check()
    assert context.context is first
    authority.issue("server")
    context.check()  # it may still be being written
    assert context.context is first
    context.check()
    second = context.context
    assert second is not first
    for _ in range(3):
        context.check()
    assert context.context is second
    assert [record.getMessage() for record in caplog.records] == [
        "listen.tls: the files have changed; new connections use them"
    ]


def test_a_broken_new_file_leaves_the_old_one_running_and_is_said_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tierproxy")
    server = authority.issue("server")
    context = followed(server)
    first = context.context
    key = server.key_file.read_bytes()
    server.key_file.write_bytes(authority.issue("other").key_file.read_bytes())
    for _ in range(5):
        context.check()
    server.key_file.unlink()
    for _ in range(5):
        context.check()
    assert context.context is first
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("listen.tls: the new files can't be used, the old ones stay: key_file")
    assert "is not the key of the certificate" in said
    server.key_file.write_bytes(key)
    for _ in range(3):
        context.check()
    assert context.context is not first
    assert [record.getMessage() for record in caplog.records[1:]] == [
        "listen.tls: the files can be used again",
        "listen.tls: the files have changed; new connections use them",
    ]


def test_a_link_that_is_turned_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes replaces secrets: files are links through a directory that is a link."""
    for version in ("a", "b"):
        (tmp_path / version).mkdir()
        issued = authority.issue("server")
        issued.cert_file.rename(tmp_path / version / "tls.crt")
        issued.key_file.rename(tmp_path / version / "tls.key")
    (tmp_path / "data").symlink_to("a")
    context = followed(Certificate(tmp_path / "data" / "tls.crt", tmp_path / "data" / "tls.key"))
    first = context.context
    (tmp_path / "new").symlink_to("b")
    os.replace(tmp_path / "new", tmp_path / "data")
    context.check()
    context.check()
    assert context.context is not first


def test_the_first_files_must_be_right(authority: Authority) -> None:
    server = authority.issue("server")
    server.cert_file.write_text("nothing")
    with pytest.raises(TlsFault, match=r"cert_file '.*server.pem' holds no certificate"):
        followed(server)


def test_without_encryption_there_is_no_tls() -> None:
    security = SecurityConfig(protocol="SASL_PLAINTEXT")
    assert (service_access(security).tls, client_tls(security)) == (None, None)
