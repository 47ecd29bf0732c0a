"""The cluster that is restored into: a `cluster:` section like ours, with the same checks."""

from pathlib import Path

import pytest

from tierproxy.config import load_target
from tierproxy.errors import ConfigError


def test_a_file_with_a_cluster_section(tmp_path: Path) -> None:
    file = tmp_path / "target.yaml"
    (tmp_path / "secret").write_text("hidden\n")
    file.write_text(
        "cluster:\n"
        "  bootstrap: [new-0:9092, new-1:9093]\n"
        "  security:\n"
        "    protocol: SASL_SSL\n"
        "    sasl: {mechanism: PLAIN, username: restore, password_file: secret}\n"
        "topics: []\n"
    )
    cluster = load_target(file)
    assert [tuple(each) for each in cluster.bootstrap] == [("new-0", 9092), ("new-1", 9093)]
    assert cluster.security.sasl is not None
    assert cluster.security.sasl.password_file == tmp_path / "secret"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("topics: []\n", "cluster"),
        ("cluster: {security: {protocol: SASL_SSL}}\n", "bootstrap"),
        ("cluster: {bootstrap: ['x:1'], security: {protocol: SASL_SSL}}\n", "has no sasl section"),
        ("cluster: {bootstrap: ['x:1'], secureity: {}}\n", "did you mean 'security'"),
    ],
)
def test_its_faults_are_told(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "target.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_target(file)
