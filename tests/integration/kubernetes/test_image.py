"""The Containerfile: what it installs and what it runs, tried without a container engine."""

import http.client
import json
import re
import subprocess
from pathlib import Path

import yaml

from tests.kit import PROJECT
from tests.kit.chart import VALUES
from tests.kit.image import Image, command, stages
from tests.kit.processes import Process, free_ports

CONFIG = """
cluster: {{name: nowhere, bootstrap: ["127.0.0.1:1"]}}
listen: {{host: 127.0.0.1, advertised_host: localhost, port: {kafka}}}
admin: {{host: 127.0.0.1, port: {admin}}}
"""


def test_the_base_is_pinned_and_both_stages_have_the_same() -> None:
    building, image = stages()
    assert building.base == image.base
    assert re.search(r":\d+\.\d+\.\d+-[\w-]+$|@sha256:[0-9a-f]{64}$", image.base), image.base
    minor = re.search(r"python:(\d+\.\d+)", image.base)
    assert minor is not None
    wanted = re.search(r'requires-python = ">=(.*)"', (PROJECT / "pyproject.toml").read_text())
    assert wanted is not None
    assert [int(each) for each in minor[1].split(".")] >= [int(each) for each in wanted[1].split(".")]


def test_who_runs_it_is_nobody_and_whom_the_chart_runs() -> None:
    _, image = stages()
    user, group = map(int, image.last("USER").split(":"))
    security = yaml.safe_load(VALUES.read_text())["podSecurityContext"]
    assert user > 0
    assert (security["runAsUser"], security["runAsGroup"]) == (user, group)
    (copied,) = image.all("COPY")
    assert "--chown" not in copied


def test_what_is_copied_is_let_in_and_nothing_else_is() -> None:
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [word for words in stages()[0].all("COPY") for word in words.split()[:-1]]
    assert "*" in lines
    assert let_in == set(copied)


def test_every_file_of_the_packages_is_in_it(whole_image: Image) -> None:
    """Also those that are no modules."""
    (packages,) = whole_image.root.glob("opt/tierproxy/lib/python*/site-packages")
    listed = subprocess.run(
        ["git", "ls-files", "protocol", "tierproxy"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    names = listed.stdout.split()
    assert names
    assert [name for name in names if (PROJECT / name).exists() and not (packages / name).exists()] == []
    assert not (packages / "tests").exists()


def test_the_versions_are_those_that_are_tested(whole_image: Image) -> None:
    python = whole_image.root / "opt/tierproxy/bin/python"
    shown = subprocess.run(
        [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    installed = {each["name"].lower().replace("_", "-"): each["version"] for each in json.loads(shown.stdout)}
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pinned = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    others = {"tierproxy", "pip", "setuptools"}
    assert {name: version for name, version in installed.items() if pinned.get(name) != version}.keys() <= others
    assert "pytest" not in installed


def test_the_entry_command_serves_until_it_is_told_to_stop(whole_image: Image, tmp_path: Path) -> None:
    program, *arguments = command()
    assert Path(whole_image.entrypoint[0]).name == program
    first = free_ports(3)
    (tmp_path / "tierproxy.yaml").write_text(CONFIG.format(admin=first, kafka=first + 1))
    arguments = [each.replace("/etc/tierproxy", str(tmp_path)) for each in arguments]
    process = Process(
        "image", [*whole_image.entrypoint, *arguments], log=tmp_path / "log", env=whole_image.environment, cwd=tmp_path
    )

    def status(path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", first, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    try:
        process.wait_until(lambda: status("/live") == 200, seconds=120, what="life")
        assert status("/ready") == 503, "there is no broker"
    finally:
        assert process.stop() == 0
    assert whole_image.run("--version").stdout.startswith("tierproxy")
