"""The command line as a whole: what goes where, and the exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tierproxy import __version__
from tierproxy.cli import main
from tierproxy.config import json_schema

CONFIG = """\
cluster: {{name: prod, bootstrap: ["127.0.0.1:1"]}}
listen: {{advertised_host: localhost}}
archives: {{local: {{url: "file://{archive}"}}}}
topics: [{{match: "*", archive: local}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(archive=tmp_path / "archive"))
    return file


@pytest.mark.parametrize(
    "command", [["serve"], ["check"], ["archive", "ls"], ["archive", "verify"], ["archive", "cat", "t"]]
)
def test_every_command_tells_all_faults_of_the_configuration(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("cluster: {name: a}\nlisten: {port: 0}\n")
    result = CliRunner().invoke(main, [*command, "--config", str(file)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}: 3 faults",
        "  cluster.bootstrap (line 1): is required",
        "  listen.advertised_host (line 2): is required",
        "  listen.port (line 2): 0 is not a port: ports go from 1 to 65535",
    ]


def test_faults_for_scripts(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", "--json", "--config", str(tmp_path / "missing.yaml")])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    problem = "can't be read: No such file or directory; start from config.example.yaml"
    assert answer == {"ok": False, "faults": [{"path": "", "problem": problem, "line": None}]}


def test_the_configuration_may_be_named_by_the_environment(config: Path) -> None:
    result = CliRunner().invoke(main, ["archive", "ls"], env={"TIERPROXY_CONFIG": str(config)})
    assert result.exit_code == 0
    assert "nothing is archived yet" in result.stderr


def test_check_shows_what_is_wrong_and_goes_on(config: Path) -> None:
    result = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert result.exit_code == 1
    first, second, *_, last = result.stdout.splitlines()
    assert first.startswith("FAULT")
    assert "127.0.0.1:1" in first
    assert second.split()[:3] == ["ok", "archive", "local"]
    assert last == "cluster prod: 1 fault, 0 warnings"
    assert result.stderr == ""


def test_check_as_json(config: Path) -> None:
    result = CliRunner().invoke(main, ["check", "--json", "--config", str(config)])
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["ok"]) == (1, False)
    assert [(each["level"], each["area"]) for each in answer["findings"]] == [
        ("fault", "bootstrap"),
        ("ok", "archive"),
    ]


def test_schema_is_printed() -> None:
    result = CliRunner().invoke(main, ["schema"])
    assert json.loads(result.stdout) == json_schema()


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tierproxy", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"tierproxy, version {__version__}\n")


def test_a_reader_that_goes_away_is_no_crash(config: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" -m tierproxy schema | head -c 10; exit 0', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert len(done.stdout) == 10
    assert "Traceback" not in done.stderr


def test_an_archive_is_served_alone_only_where_there_is_one(config: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--from-archive", "--config", str(config)])
    assert result.exit_code == 1
    assert "no archive in the configuration was ever written to" in result.stderr


def test_where_to_listen_is_the_configurations_business_otherwise(config: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--host", "0.0.0.0", "--config", str(config)])
    assert result.exit_code == 2
    assert "--host goes with --from-archive" in result.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "give either --into HOST:PORT or --target FILE"),
        (["--into", "new:9092", "--target", "x"], "give either"),
        (["--into", "new"], "bootstrap"),
        (["--into", "new:9092", "--rename", "t"], "must look like name=value"),
        (["--into", "new:9092", "--rate", "0B"], "more than nothing"),
        (["--into", "new:9092", "--rate", "fast"], "is not a size"),
    ],
)
def test_a_restore_that_is_asked_for_wrongly(config: Path, more: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["restore", "t", *more, "--config", str(config)])
    assert result.exit_code == 2
    assert said in result.stderr
