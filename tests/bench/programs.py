"""A client as a process of its own that begins when it is told to, so that its start is not measured with its work.

It writes "ready", begins at a line, writes its result and then "done", and ends with its input. `Measured.java` makes
such a program of a tool of Kafka's.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.clients.java import compiled
from tests.kit import PROJECT, jars
from tests.kit.kafka import java

JAVA_SOURCES = Path(__file__).parent / "java"
_LAST_WORDS = 2_000


class Program(AbstractContextManager["Program"]):
    """Started and ready when it is there; ends with the `with`."""

    def __init__(self, name: str, command: Sequence[str | Path]) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            start_new_session=True,
        )
        self._said = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self._until("ready")
        except BaseException:  # also an interrupt: the program must not be left behind
            self.__exit__(None, None, None)
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    def begin(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write("go\n")
        self._popen.stdin.flush()

    def result(self) -> str:
        """What it writes until it is done. RuntimeError, with its last words, if it ends before."""
        return self._until("done")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._popen.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._listener.join(10)

    def _until(self, word: str) -> str:
        assert self._popen.stdout is not None
        lines: list[str] = []
        for line in self._popen.stdout:
            if line.strip() == word:
                return "".join(lines)
            lines.append(line)
        self._popen.wait()
        self._listener.join(10)
        raise RuntimeError(f"{self.name} ended ({self._popen.returncode}) before {word}: {''.join(lines)}{self._said}")

    def _listen(self) -> None:
        with self._popen.stderr or open(os.devnull) as words:
            for line in words:
                self._said = (self._said + line)[-_LAST_WORDS:]


def python(module: str, *arguments: str) -> list[str | Path]:
    """The command line of a module that is such a program."""
    return [sys.executable, "-m", module, *arguments]


def java_tool(main: str, *arguments: str, heap: str = "1g") -> list[str | Path]:
    """The same of one of Kafka's tools, with both of Java's compilers, as a service would run."""
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    head = java(f"-Xmx{heap}", f"-Xms{heap}", quiet)
    head[-1] = os.pathsep.join([str(compiled(JAVA_SOURCES, "bench")), jars.class_path()])
    return [*head, "Measured", main, *arguments]


def work_when_told(work: Callable[[], Mapping[str, Any]]) -> None:
    """The other end, in the program itself: be ready, work when told to, say what came of it, and stay until it was
    measured."""
    _say("ready")
    if not sys.stdin.readline():
        return
    _say(json.dumps(work()))
    _say("done")
    sys.stdin.read()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
