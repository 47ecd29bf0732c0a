"""The Containerfile without a container engine: read, and carried out below a directory.

Only what ours uses is understood. RUN is carried out for the build stage, with our Python in place of the image's and
with its paths below the directory; of the last stage there is what it copies, its environment and its entry command.
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit import PROJECT

CONTAINERFILE = PROJECT / "Containerfile"


class CantBuild(RuntimeError):
    """A RUN failed; the message is what it said."""


@dataclass
class Stage:
    """From one FROM to the next: the instructions, in order, with their words as they stand."""

    base: str
    name: str = ""
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [words for each, words in self.instructions if each == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]


def stages(text: str | None = None) -> list[Stage]:
    """Those of the Containerfile, ARGs before the first FROM filled in."""
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    lines = (CONTAINERFILE.read_text() if text is None else text).replace("\\\n", " ").splitlines()
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        instruction, _, words = line.partition(" ")
        if instruction == "ARG" and not found:
            name, _, default = words.partition("=")
            arguments[name] = default
        elif instruction == "FROM":
            base, _, name = words.partition(" AS ")
            found.append(Stage(re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base), name))
        else:
            found[-1].instructions.append((instruction, words))
    return found


@dataclass(frozen=True)
class Image:
    """What was made below `root`."""

    root: Path
    entrypoint: list[str]
    environment: dict[str, str]

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A container of it, to its end."""
        return subprocess.run(
            [*self.entrypoint, *arguments],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def checkout(folder: Path) -> Path:
    """A clean copy of the files that git tracks, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)
    return folder


def build(context: Path, root: Path) -> Image:
    """Raises CantBuild."""
    building, image = stages()
    work = _below(root, building.last("WORKDIR"))
    work.mkdir(parents=True)
    for instruction, words in building.instructions:
        if instruction == "COPY":
            *sources, target = words.split()
            for source in sources:
                _copy(context / source, work / target)
        elif instruction == "RUN":
            command = re.sub(r"(?<![\w/])/(?=src|opt)", f"{shlex.quote(str(root))}/", words)
            command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
            done = subprocess.run(["sh", "-c", command], cwd=work, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise CantBuild(f"{words}\n{done.stdout}{done.stderr}")
    environment = {"HOME": str(root)}
    for words in image.all("ENV"):
        for pair in shlex.split(words):
            name, _, value = pair.partition("=")
            environment[name] = value.replace("/opt/", f"{root}/opt/")
    (program,) = _list(image.last("ENTRYPOINT"))
    found = shutil.which(program, path=environment["PATH"])
    assert found is not None, f"{program} is not on the image's path"
    return Image(root, [found], environment)


def command() -> list[str]:
    """ENTRYPOINT and CMD."""
    image = stages()[-1]
    return _list(image.last("ENTRYPOINT")) + _list(image.last("CMD"))


def _list(words: str) -> list[str]:
    return re.findall(r'"([^"]*)"', words)


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
