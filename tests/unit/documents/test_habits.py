"""The table of tasks, the hooks before a commit, and the changelog: complete, and in shape."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pre_commit.clientlib import load_config

from tests.documents.shell import targets
from tests.kit import PROJECT
from tierproxy import __version__

MAKEFILE = (PROJECT / "Makefile").read_text()
CHANGELOG = (PROJECT / "CHANGELOG.md").read_text()


def test_make_help_names_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*?)$", MAKEFILE.replace("\\\n", ""), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets()
    make = ["make", "--no-print-directory", "help"]
    lines = subprocess.run(make, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {line.split()[1] for line in lines} == targets()
    for line in lines:
        assert len(line.split()) > 2, f"{line}: what is it for?"
        assert len(line) <= 120, line


def test_hooks_run_our_own_targets_and_fetch_nothing() -> None:
    config: dict[str, Any] = load_config(str(PROJECT / ".pre-commit-config.yaml"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"lint", "types", "imports", "pages"}
    for hook in hooks:
        make, *options, target = hook["entry"].split()
        assert (make, target in targets(), hook["pass_filenames"]) == ("make", True, False), options
        assert yaml.safe_load(hook["language"]) in ("system", "unsupported")


def test_the_changelog_is_in_shape() -> None:
    """Keep a Changelog: newest first, Unreleased on top, and headings of kinds that everybody knows."""
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", version), version
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_is_the_same_everywhere() -> None:
    assert f'\nversion = "{__version__}"\n' in (PROJECT / "pyproject.toml").read_text()
    assert yaml.safe_load((PROJECT / "helm/tierproxy/Chart.yaml").read_text())["appVersion"] == __version__


@pytest.mark.parametrize("file", sorted((PROJECT / "docs" / "decisions").glob("[0-9]*.md")), ids=lambda file: file.name)
def test_a_decision_says_what_was_rejected(file: Path) -> None:
    text = file.read_text()
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", file.name)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Rejected", "Consequences"]
    assert file.name in (PROJECT / "docs" / "decisions" / "README.md").read_text()


def test_the_map_of_invariants_leads_somewhere() -> None:
    rows = re.findall(r"^\| (?!what must hold|---).*\|$", (PROJECT / "docs/invariants.md").read_text(), re.MULTILINE)
    assert len(rows) > 25
    for row in rows:
        code, (file, name) = row.split("`")[-4], row.split("`")[-2].split("::")
        assert (PROJECT / code).is_file(), row
        assert re.search(rf"^(async )?def {name}\(", (PROJECT / file).read_text(), re.MULTILINE), row
