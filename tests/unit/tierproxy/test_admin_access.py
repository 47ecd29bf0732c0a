from base64 import b64encode
from pathlib import Path

import pytest

from tierproxy.admin_access import is_own_name, login, may_look
from tierproxy.config import AdminConfig


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


def test_without_a_login_everybody_may_look() -> None:
    assert may_look(AdminConfig(), None)
    assert may_look(AdminConfig(), basic("somebody:else"))


BOTH = AdminConfig.model_validate({"username": "operator", "password": "häslich: ja", "token": "t0ken"})


@pytest.mark.parametrize(
    ("said", "may"),
    [
        (None, False),
        ("", False),
        ("Basic", False),
        ("Basic !!!", False),
        (basic("operator:häslich: ja"), True),
        (basic("operator:häslich: ja").replace("Basic", "BASIC"), True),
        (basic("operator:häslich: j"), False),
        (basic("operator:"), False),
        (basic("Operator:häslich: ja"), False),
        (basic("t0ken"), False),
        ("Bearer t0ken", True),
        ("bearer  t0ken", True),
        ("Bearer t0ke", False),
        ("Bearer operator:häslich: ja", False),
        ("Bearer \udcff", False),
        ("Digest t0ken", False),
    ],
)
def test_only_a_login_that_is_configured_lets_in(said: str | None, may: bool) -> None:
    assert may_look(BOTH, said) is may


def test_files_are_read_each_time_and_what_cant_be_read_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / "token"
    config = AdminConfig(token_file=file)
    assert not may_look(config, "Bearer ")
    file.write_text("one\n")
    assert may_look(config, "Bearer one")
    file.write_text("two\n")
    assert not may_look(config, "Bearer one")
    assert may_look(config, "Bearer two")
    file.write_text("")
    assert not may_look(config, "Bearer ")


def test_who_has_the_configuration_can_log_in(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file")
    password = AdminConfig.model_validate({"username": "operator", "password": "häslich: ja"})
    for config in (BOTH, password, AdminConfig(token_file=tmp_path / "token")):
        assert may_look(config, login(config)["Authorization"])
    assert login(AdminConfig()) == {}
    assert login(AdminConfig(token_file=tmp_path / "missing")) == {}


def test_secrets_are_in_no_repr() -> None:
    assert "t0ken" not in repr(BOTH)
    assert "slich" not in repr(BOTH)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost:9180", True),
        ("LOCALHOST", True),
        ("127.0.0.1:9180", True),
        ("[::1]:9180", True),
        ("10.1.2.3:80", True),
        ("evil.example.com:9180", False),
        ("127.0.0.1.evil.example.com", False),
        ("", False),
        (None, False),
        ("[", False),
    ],
)
def test_a_host_header_tells_who_was_meant(host: str | None, own: bool) -> None:
    assert is_own_name(host) is own
