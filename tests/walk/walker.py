"""Does the steps of the walk in an empty directory, as a person with a terminal for what stays and one for the rest."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit import PROJECT
from tests.kit.kafka import tool_command
from tests.kit.processes import Process, wait_for
from tests.walk import snippets
from tests.walk.places import KEYS
from tests.walk.steps import Begin, Consume, Repeat, Run, Step, Write

PATIENCE = 300.0
"""Seconds for anything that is repeated, or that stays."""
SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-get-offsets.sh": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}
"""Kafka's scripts, which its jars come without, and what each of them starts."""


_NOT_A_NEWCOMERS = ("AWS_", "MAKE", "MFLAGS", "PYTHON", "TIERPROXY_", "VIRTUAL_ENV")
"""Variables of ours that would change what the commands do begin so."""


class WrongTurn(AssertionError):
    """A step did not do what README says."""


class Walker:
    """Walks in `directory/empty`; `substitutions` as in `places`; `number` records are read each time.

    `say` hears each command and what it printed.
    """

    def __init__(
        self,
        directory: Path,
        substitutions: Mapping[str, str],
        number: int,
        *,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._substitutions = substitutions
        self._number = number
        self._say = say
        self._used: set[str] = set()
        self._stays: list[Process] = []
        self._beside = directory / "beside"  # what the newcomer has already, and notes of ours
        self.where = directory / "empty"
        self.where.mkdir(parents=True)
        scripts = self._beside / "scripts"
        scripts.mkdir(parents=True)
        for name, main in SCRIPTS.items():
            (scripts / name).write_text(f'#!/bin/sh\nexec {shlex.join(tool_command(main))} "$@"\n')
            (scripts / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_A_NEWCOMERS)}
        self._environment = {**kept, **KEYS, **environment, "PATH": f"{scripts}{os.pathsep}{kept['PATH']}"}

    @property
    def unused(self) -> set[str]:
        """Substitutions that nothing in the walk has needed."""
        return set(self._substitutions) - self._used

    def do(self, step: Step) -> list[str]:
        """Raises WrongTurn, or NoGo for what only Go can do. The values that were read, of a `Consume`."""
        text = self._here(step.block.text)
        match step:
            case Write(file=file):
                (self.where / file).write_text(text)
            case Run():
                self._type(text, step)
            case Begin():
                self._say(f"$ {text.strip()} &")
                command = ["sh", "-c", f"exec {text.strip()}"]
                log = self._beside / f"stays-{len(self._stays)}.log"
                self._stays.append(Process(str(step.block), command, log=log, cwd=self.where, env=self._environment))
            case Repeat(shows=shows):
                self._repeat(text, shows, step)
            case Consume():
                return self._consume(text, step)
        return []

    def _here(self, text: str) -> str:
        for name, value in self._substitutions.items():
            if name in text:
                self._used.add(name)
                text = text.replace(name, value)
        return text

    def _type(self, text: str, step: Step, *, may_fail: bool = False) -> str | None:
        """What it printed; None if it failed and may. Where it ends is where the next one begins."""
        self._say("\n".join(f"$ {line}" for line in text.splitlines()))
        place = self._beside / "place"
        place.unlink(missing_ok=True)
        script = f"set -e\n{text}\npwd > {shlex.quote(str(place))}\n"
        done = subprocess.run(
            ["sh", "-c", script], cwd=self.where, env=self._environment, capture_output=True, text=True, timeout=900,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._say(done.stdout + done.stderr)
        if done.returncode == 0:
            self.where = Path(place.read_text().strip())
            return done.stdout
        if may_fail:
            return None
        stays = "".join(f"\n{each.name}:\n{each.tail(40)}" for each in self._stays)
        raise WrongTurn(f"{step.block}: status {done.returncode}\n{text}\n{done.stdout}{done.stderr}{stays}")

    def _repeat(self, text: str, shows: str, step: Step) -> None:
        def shown() -> bool:
            for each in self._stays:
                if not each.alive:
                    raise WrongTurn(f"{each.name} has ended:\n{each.tail()}")
            said = self._type(text, step, may_fail=True)
            return said is not None and re.search(shows, said) is not None

        wait_for(shown, seconds=PATIENCE, what=f"{shows or 'success'} of {step.block}", pause=1)

    def _consume(self, text: str, step: Step) -> list[str]:
        language = step.block.language
        command: list[str | Path]
        if language == "python":
            command = [self.where / ".venv/bin/python", "-c", snippets.python(text, self._number)]
        elif language == "go":
            command = [snippets.go(text, self._number, self._beside)]
        elif language == "properties":
            file = self._beside / "consumer.properties"
            file.write_text(text)
            bootstrap = snippets.properties(text)["bootstrap.servers"]  # which this tool wants to hear in any case
            command = [
                *("kafka-console-consumer.sh", "--bootstrap-server", bootstrap, "--command-config", file),
                *("--topic", "tierproxy-trial", "--from-beginning", "--max-messages", str(self._number)),
            ]
        else:
            raise WrongTurn(f"{step.block}: nobody can read by {language}")
        self._say(f"reading by {step.block}")
        done = subprocess.run(
            command, cwd=self._beside, env=self._environment, capture_output=True, text=True, timeout=PATIENCE,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise WrongTurn(f"{step.block}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout.splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._stays:
            process.stop()


def origin(directory: Path) -> Path:
    """A repository with what is in the work tree now, committed or not, to be cloned."""
    copy = directory / "tierproxy.git"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, copy / name)
    who = ("-c", "user.name=walk", "-c", "user.email=walk@example.com", "-c", "commit.gpgsign=false")
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message=as it is now"]):
        subprocess.run(["git", *command], cwd=copy, check=True, capture_output=True)
    return copy
