"""`tierproxy plan` as it is typed."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tierproxy.cli import main

CONFIG = """\
cluster: {name: prod, bootstrap: ['127.0.0.1:1']}
listen: {advertised_host: proxy}
archives: {a: {url: file:///a}}
topics: [{match: '*', archive: a}]
"""


def typed(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    result = CliRunner().invoke(main, ["plan", "--config", str(tmp_path / "config.yaml"), *arguments])
    return result.exit_code, result.output


def test_nobody_there(tmp_path: Path) -> None:
    status, output = typed(tmp_path)
    assert status == 1
    assert output.startswith("tierproxy: no broker can be reached")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sample", "1"), "'1' needs a unit"),
        (("--sample", "1GiB"), "is more than 16MiB, which would be no sample any more"),
        (("--timeout", "soon"), "'soon' is not a duration"),
        (("--months", "0"), "0 is not in the range 1<=x<=120"),
    ],
)
def test_what_is_asked_wrongly(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    status, output = typed(tmp_path, *arguments)
    assert status == 2
    assert told in output
