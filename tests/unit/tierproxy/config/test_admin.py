"""What a person is told about `admin`: who may look, and what stands open."""

from pathlib import Path

import pytest

from tierproxy.config import AdminConfig, Config, load_config, parse_config, warnings
from tierproxy.errors import ConfigError

TEXT = """\
cluster: {{name: prod, bootstrap: [kafka-0:9092]}}
listen: {{advertised_host: localhost}}
archives: {{a: {{url: file:///x}}}}
topics: [{{match: "*", archive: a}}]
admin: {}
"""


def admin(text: str) -> AdminConfig:
    found = parse_config(TEXT.format(text)).admin
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{}", True),
        ("{host: localhost}", True),
        ("{host: 0.0.0.0}", False),
        ("{host: 0.0.0.0, token: x}", True),
        ("{host: 0.0.0.0, dashboard: true}", True),
        ("{dashboard: false}", False),
        ("{token: x, dashboard: false}", False),
    ],
)
def test_the_dashboard_is_where_few_can_look(text: str, shown: bool) -> None:
    assert admin(text).shows_dashboard is shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{username: u}", "admin (line 5): has username but no password and no password_file: give both or neither"),
        ("{password: p}", "admin (line 5): has a password but no username: give both or neither"),
        ("{username: 'a:b', password: p}", "admin.username (line 5): must not hold ':'"),
        ("{token: t, token_file: f}", "admin.token_file (line 5): say either token or token_file, not both"),
        ("{token: ''}", "admin.token (line 5): is empty"),
        ("{dashboard: maybe}", "admin.dashboard (line 5): must be true or false"),
        ("{token_file: missing}", "admin.token_file (line 5): 'missing' can't be read"),
    ],
)
def test_faults(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(TEXT.format(text))
    assert told in str(caught.value)


def warned(config: Config) -> list[str]:
    return [str(fault) for fault in warnings(config) if "admin" in fault.path]


def test_an_open_dashboard_is_warned_of() -> None:
    config = parse_config(TEXT.format("{host: 0.0.0.0, dashboard: true}"))
    assert warned(config) == [
        "admin.dashboard: is open to whoever reaches 0.0.0.0:9180: give a password or a token",
    ]
    for text in ("{host: 0.0.0.0}", "{dashboard: true}", "{host: 0.0.0.0, dashboard: true, token: x}"):
        assert warned(parse_config(TEXT.format(text))) == []


def test_files_are_taken_from_the_configurations_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s\n")
    file = tmp_path / "config.yaml"
    file.write_text(TEXT.format("{username: u, password_file: secret}"))
    found = load_config(file, environ={}).admin
    assert found is not None
    assert found.password_file == tmp_path / "secret"
