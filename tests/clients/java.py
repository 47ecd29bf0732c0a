"""Java's kafka-clients, and Kafka's own tools, in one Java that is told what to do (`java/Worker.java`).

The program is compiled here, by Eclipse's compiler: the Java that the tests bring has none.
"""

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.clients.client import At
from tests.clients.worker import Worker, WorkerClient
from tests.kit import CACHE, jars

SOURCES = Path(__file__).parent / "java"
TOOL_SECONDS = 240.0
"""A tool has a minute's patience of its own, and waits until the ones before it have ended."""
COMPILER = "org.eclipse.jdt:ecj:3.42.0"


class JavaClient(WorkerClient):
    """A `Client`; `version` chooses kafka-clients. Beyond what the matrix asks it produces, shares and runs tools."""

    def __init__(self, directory: Path, version: str = jars.KAFKA_VERSION) -> None:
        command: list[str | Path] = [
            jars.JAVA,
            *("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *("-cp", os.pathsep.join([str(compiled()), *_libraries(version)]), "Worker"),
        ]
        super().__init__(Worker(command, log=directory / f"java-{version}.log"))

    def words(self, at: At, group: str | None = None) -> dict[str, Any]:
        config = {
            "bootstrap.servers": at.bootstrap,
            "isolation.level": "read_committed" if at.committed else "read_uncommitted",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": "false",
            "group.protocol": at.protocol,
        }
        return {"topic": at.topic, "config": config | ({"group.id": group} if group is not None else {})}

    def tool(self, main: str, *arguments: str, status: int = 0, seconds: float = TOOL_SECONDS) -> str:
        """Runs a tool by its main class; what it printed. Another exit status than `status` is a failure."""
        answer = self.worker.call("tool", seconds=seconds, main=main, arguments=list(arguments))
        if answer["status"] != status:
            raise AssertionError(f"{main} {' '.join(arguments)}: status {answer['status']}\n{answer['printed']}")
        return str(answer["printed"])


def compiled(directory: Path = SOURCES, name: str = "java") -> Path:
    """A directory with the classes of the program in `directory`, compiled if need be; `name` is that of its cache."""
    sources = sorted(directory.glob("*.java"))
    about = hashlib.sha256(f"{COMPILER} {jars.KAFKA_VERSION}".encode())
    for source in sources:
        about.update(source.read_bytes())
    home = CACHE / "clients" / name
    classes = home / about.hexdigest()[:16]
    if not classes.exists():
        compiler = jars.artifacts(CACHE / "clients" / "java" / "compiler", COMPILER)
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=home) as scratch:
            unfinished = Path(scratch, "classes")
            subprocess.run(
                [
                    *(jars.JAVA, "-cp", os.pathsep.join(compiler), "org.eclipse.jdt.internal.compiler.batch.Main"),
                    *("-source", "11", "-target", "11", "-warn:none", "-d", unfinished, "-cp", jars.class_path()),
                    *sources,
                ],
                check=True,
            )
            with contextlib.suppress(FileExistsError):  # another run was quicker
                unfinished.rename(classes)
    return classes


def _libraries(version: str) -> list[str]:
    """The class path: all of Kafka's jars, or an older kafka-clients with the JSON library that the worker needs."""
    newest = jars.class_path().split(os.pathsep)
    if version == jars.KAFKA_VERSION:
        return newest
    needed = [jar for jar in newest if Path(jar).name.startswith(("jackson-core", "jackson-databind", "jackson-anno"))]
    return [*_older(version), *needed]


def _older(version: str) -> list[str]:
    home = CACHE / "kafka" / f"clients-{version}"
    return jars.artifacts(home, f"org.apache.kafka:kafka-clients:{version}", "org.slf4j:slf4j-simple:1.7.36")


def settings(**values: str | int | bool) -> Mapping[str, str]:
    """Kafka's settings with `_` for `.`."""
    return {key.replace("_", "."): str(value).lower() for key, value in values.items()}
